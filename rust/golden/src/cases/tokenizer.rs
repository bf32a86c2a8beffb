//! Texts to token ids and back, under every layout of a batch.

use crate::case::Case;
use crate::compare::{Comparison, Tolerance};
use anyhow::Context;
use hlrp_nn::smolvlm::{TextLayout, TextTokenizer, with_newline, with_system_prompt};
use hlrp_schema::policy::{Padding, Side};
use serde_json::Value;
use tch::Kind;

pub(crate) fn run(case: &Case, comparison: &mut Comparison) -> anyhow::Result<()> {
    let texts: Vec<String> = serde_json::from_value(case.config["texts"].clone())?;
    single_texts(case, comparison)?;
    vocabulary(case, comparison)?;
    for (name, settings) in case.config["batches"].as_object().context("config.json has no `batches`")? {
        let texts = prompts(case, name, settings, &texts, comparison)?;
        let batch = TextTokenizer::from_folder(case.dir(), layout(settings)?)?.encode(&texts)?;
        comparison.check(&format!("{name}.input_ids"), &batch.ids_BL, Tolerance::Forward);
        comparison.check(&format!("{name}.attention_mask"), &batch.mask_BL.to_kind(Kind::Int64), Tolerance::Forward);
    }
    Ok(())
}

/// What the reference's settings mean; where they say nothing, tokenizer_config.json decides.
fn layout(settings: &Value) -> anyhow::Result<TextLayout> {
    let side = |key: &str, otherwise: Side| match settings[key].as_str() {
        Some("left") => Side::Left,
        Some("right") => Side::Right,
        _ => otherwise,
    };
    Ok(TextLayout {
        padding: if settings["padding"] == "max_length" { Padding::MaxLength } else { Padding::Longest },
        padding_side: side("padding_side", Side::Right),
        truncation_side: side("truncation_side", Side::Left),
        max_length: match settings["max_length"].as_u64() {
            Some(length) => usize::try_from(length)?,
            None => 8192,
        },
    })
}

/// The texts as that setting words them.
fn prompts(
    case: &Case,
    name: &str,
    settings: &Value,
    texts: &[String],
    comparison: &mut Comparison,
) -> anyhow::Result<Vec<String>> {
    if settings["newline_appended_if_missing"] == true {
        return Ok(texts.iter().map(|text| with_newline(text)).collect());
    }
    let Some(system_prompt) = settings.get("system_prompt") else { return Ok(texts.to_vec()) };
    let system_prompt = system_prompt.as_str().unwrap_or("");
    let worded: Vec<String> = texts.iter().map(|text| with_system_prompt(system_prompt, text)).collect();
    let recorded: Vec<String> = serde_json::from_value(case.scalars[format!("{name}_strings")].clone())?;
    comparison.require(&format!("{name}_strings"), worded == recorded, "the prompts differ");
    Ok(worded)
}

/// Each text alone: ids, and the text that ids decode to.
fn single_texts(case: &Case, comparison: &mut Comparison) -> anyhow::Result<()> {
    let tokenizer = TextTokenizer::from_folder(case.dir(), layout(&Value::Null)?)?;
    for recorded in case.scalars["plain"].as_array().context("outputs.json has no `plain`")? {
        let text = recorded["text"].as_str().context("a recorded text")?;
        let ids: Vec<u32> = serde_json::from_value(recorded["ids"].clone())?;
        let ours = Vec::<i64>::try_from(tokenizer.encode(&[text])?.ids_BL.reshape([-1]))?;
        let same = ours.iter().copied().eq(ids.iter().map(|&id| i64::from(id)));
        comparison.require(&format!("ids of {text:?}"), same, "differ");
        for (key, skip_special) in [("decoded", false), ("decoded_without_special", true)] {
            let decoded = tokenizer.decode(&ids, skip_special)?;
            comparison.require(&format!("{key} {text:?}"), recorded[key] == decoded.as_str(), "differs");
        }
    }
    Ok(())
}

fn vocabulary(case: &Case, comparison: &mut Comparison) -> anyhow::Result<()> {
    const TOKENS: [(&str, &str); 7] = [
        ("pad", "<|im_end|>"),
        ("bos", "<|im_start|>"),
        ("eos", "<end_of_utterance>"),
        ("unk", "<|endoftext|>"),
        ("image", "<image>"),
        ("fake_token_around_image", "<fake_token_around_image>"),
        ("global_image", "<global-img>"),
    ];
    let tokenizer = TextTokenizer::from_folder(case.dir(), layout(&Value::Null)?)?;
    let recorded_size = case.config["vocab"].as_u64().context("config.json has no `vocab`")?;
    comparison.require("vocab", tokenizer.vocab_size() as u64 == recorded_size, "another number of tokens");
    for (role, token) in TOKENS {
        let recorded = case.config["ids"][role].as_i64().with_context(|| format!("config.json has no `ids.{role}`"))?;
        comparison.require(&format!("ids.{role}"), tokenizer.token_id(token)? == recorded, "another id");
    }
    Ok(())
}
