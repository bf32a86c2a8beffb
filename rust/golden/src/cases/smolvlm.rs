//! The SmolVLM backbone: vision tower at several sizes, connector, text decoder, complete model, position bins.

use crate::case::Case;
use crate::compare::{Comparison, Tolerance};
use anyhow::Context;
use hlrp_config::Check;
use hlrp_golden::smolvlm::{embed_prompt, logits};
use hlrp_nn::llama::causal_mask;
use hlrp_nn::siglip::position_ids;
use hlrp_nn::smolvlm::SmolVlm;
use hlrp_nn::{Pass, Store, Trace, load_strict};
use hlrp_schema::policy::BackboneSizes;
use serde_json::{Value, json};
use tch::{Kind, Tensor, no_grad};

/// Ending of the names of images among the inputs.
const PIXELS: &str = ".pixel_values";

pub(crate) fn run(case: &Case, comparison: &mut Comparison) -> anyhow::Result<()> {
    let sizes = backbone_sizes(&case.config)?;
    sizes.check()?;
    let store = Store::new(case.device());
    let model = SmolVlm::new(&store.root(), &sizes);
    let weights: Vec<_> = case.file("weights.safetensors")?.into_iter().collect();
    load_strict(&store.state(), &weights)?;

    no_grad(|| {
        for image in image_names(case) {
            images(case, &model, &sizes, image, comparison)?;
        }
        text(case, &store, &model, comparison)?;
        images_and_text(case, &store, &model, &sizes, comparison)
    })?;
    position_bins(case, comparison)
}

/// The images of a case.
fn image_names(case: &Case) -> Vec<&str> {
    case.inputs.keys().filter_map(|name| name.strip_suffix(PIXELS)).collect()
}

/// The image that prompts contain: the one that config.json names as `prompt_image`, else the one of the tower's own size.
fn prompt_image<'a>(case: &'a Case, sizes: &BackboneSizes) -> anyhow::Result<&'a Tensor> {
    let side = sizes.vision.image_size;
    let has_own_size = |name: &&str| case.inputs[&format!("{name}{PIXELS}")].size()[2..] == [side, side];
    let name = case.config["prompt_image"].as_str().or_else(|| image_names(case).into_iter().find(has_own_size));
    case.input(&format!("{}{PIXELS}", name.context("no image has the size of the vision tower")?))
}

/// The sizes in a case's `config.json`, from the reference's field names; the same for every case over a SmolVLM.
pub(crate) fn backbone_sizes(config: &Value) -> anyhow::Result<BackboneSizes> {
    const VISION: [&str; 7] = [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "image_size",
        "patch_size",
        "layer_norm_eps",
    ];
    const TEXT: [&str; 9] = [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "rms_norm_eps",
        "rope_theta",
        "vocab_size",
    ];
    let pick = |section: &str, keys: &[&str]| -> Value {
        keys.iter().map(|key| ((*key).to_owned(), config[section][*key].clone())).collect()
    };
    let ours = json!({
        "vision": pick("vision_config", &VISION),
        "text": pick("text_config", &TEXT),
        "scale_factor": config["scale_factor"],
        "image_token_id": config["image_token_id"],
        "tie_word_embeddings": config["text_config"]["tie_word_embeddings"],
    });
    serde_json::from_value(ours).context("config.json does not describe a SmolVLM")
}

fn images(
    case: &Case,
    model: &SmolVlm,
    sizes: &BackboneSizes,
    image: &str,
    comparison: &mut Comparison,
) -> anyhow::Result<()> {
    let pixels_BCHW = case.input(&format!("{image}{PIXELS}"))?;
    let trace = Trace::default();
    let watched = Pass { train: false, trace: Some(&trace) };
    let _ = case.forward_pass(|| model.embed_images(pixels_BCHW, &watched))?;
    check_trace(trace, image, comparison);

    let vision = &sizes.vision;
    let [rows, columns] = [2, 3].map(|side| pixels_BCHW.size()[side] / vision.patch_size);
    let ids = position_ids(vision.image_size / vision.patch_size, rows, columns, case.device());
    let ids_BN = ids.unsqueeze(0).expand([pixels_BCHW.size()[0], -1], false);
    comparison.check(&format!("{image}.vision.position_ids"), &ids_BN, Tolerance::Forward);
    Ok(())
}

fn text(case: &Case, store: &Store, model: &SmolVlm, comparison: &mut Comparison) -> anyhow::Result<()> {
    let embeddings_BLD = model.embed_tokens(case.input("text.input_ids")?);
    comparison.check("text.embeddings", &embeddings_BLD, Tolerance::Forward);
    decode(case, store, model, "text", &embeddings_BLD, case.input("text.attention_mask")?, comparison)
}

/// The text decoder over image tokens followed by a text, and over a prompt whose placeholders are image tokens.
fn images_and_text(
    case: &Case,
    store: &Store,
    model: &SmolVlm,
    sizes: &BackboneSizes,
    comparison: &mut Comparison,
) -> anyhow::Result<()> {
    let image_BCHW = prompt_image(case, sizes)?;
    let images_BND = case.forward_pass(|| model.embed_images(image_BCHW, &Pass::plain(false)))?;
    let texts_BLD = model.embed_tokens(case.input("text.input_ids")?);
    let text_mask_BL = case.input("text.attention_mask")?;
    let mask_BL =
        Tensor::cat(&[images_BND.select(2, 0).ones_like().to_kind(Kind::Int64), text_mask_BL.shallow_clone()], 1);
    comparison.check("image_text.attention_mask", &mask_BL, Tolerance::Forward);
    decode(case, store, model, "image_text", &Tensor::cat(&[&images_BND, &texts_BLD], 1), &mask_BL, comparison)?;

    let prompt_BLD = embed_prompt(model, sizes, case.input("full.input_ids")?, &images_BND)?;
    decode(case, store, model, "full", &prompt_BLD, case.input("full.attention_mask")?, comparison)
}

/// Text decoder, final norm and head at positions 0, 1, 2, … in every row.
fn decode(
    case: &Case,
    store: &Store,
    model: &SmolVlm,
    pass_name: &str,
    x_BLD: &Tensor,
    mask_BL: &Tensor,
    comparison: &mut Comparison,
) -> anyhow::Result<()> {
    let trace = Trace::default();
    let positions_BL = Tensor::arange(x_BLD.size()[1], (Kind::Int64, x_BLD.device())).unsqueeze(0);
    let mask_B1LL = causal_mask(&mask_BL.to_kind(Kind::Bool));
    let pass = Pass { train: false, trace: Some(&trace) };
    let (normed_BLD, logits_BLV) = case.forward_pass(|| {
        let hidden_BLD = model.text().forward(x_BLD, &positions_BL, &mask_B1LL, &pass);
        let normed_BLD = model.text().norm().forward(&hidden_BLD);
        let logits_BLV = logits(store, &normed_BLD);
        (normed_BLD, logits_BLV)
    })?;
    check_trace(trace, pass_name, comparison);
    comparison.check(&format!("{pass_name}.norm"), &normed_BLD, Tolerance::Forward);
    comparison.check(&format!("{pass_name}.logits"), &logits_BLV, Tolerance::Forward);
    Ok(())
}

fn check_trace(trace: Trace, pass_name: &str, comparison: &mut Comparison) {
    for (name, tensor) in trace.into_records() {
        // The reference writes each rotation angle twice, once per half of a head.
        let tensor = if name.starts_with("rope_") { Tensor::cat(&[&tensor, &tensor], -1) } else { tensor };
        comparison.check(&format!("{pass_name}.{name}"), &tensor, Tolerance::Forward);
    }
}

/// `position_bins.side{s}.n{n}`: rows of n patches along one axis of a table of s rows.
fn position_bins(case: &Case, comparison: &mut Comparison) -> anyhow::Result<()> {
    for name in case.outputs.keys().filter(|name| name.starts_with("position_bins.")) {
        let number = |prefix: &str| -> anyhow::Result<i64> {
            let part = name.split('.').find_map(|part| part.strip_prefix(prefix)).context("a name of position bins")?;
            Ok(part.parse()?)
        };
        let bins = position_ids(number("side")?, 1, number("n")?, case.device());
        comparison.check(name, &bins, Tolerance::Forward);
    }
    Ok(())
}
