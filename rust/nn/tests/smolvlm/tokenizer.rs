//! Texts to token ids: layouts of a batch, and folders that hold no usable tokenizer.

use hlrp_config::with_hint;
use hlrp_nn::smolvlm::{TOKENIZER_FILES, TextLayout, TextTokenizer, with_newline, with_system_prompt};
use hlrp_schema::policy::{Padding, Side};
use std::path::{Path, PathBuf};
use tch::Tensor;

const LAYOUT: TextLayout =
    TextLayout { padding: Padding::Longest, padding_side: Side::Right, truncation_side: Side::Right, max_length: 6 };

/// A small tokenizer with SmolVLM's special tokens.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tokenizer")
}

fn encode(layout: TextLayout, texts: &[&str]) -> (Vec<Vec<i64>>, Vec<Vec<bool>>) {
    let batch = TextTokenizer::from_folder(&folder(), layout).unwrap().encode(texts).unwrap();
    let rows = |x: Tensor| Vec::<Vec<i64>>::try_from(x.to_kind(tch::Kind::Int64)).unwrap();
    let mask = rows(batch.mask_BL).into_iter().map(|row| row.into_iter().map(|real| real == 1).collect()).collect();
    (rows(batch.ids_BL), mask)
}

#[test]
fn padding_and_truncation_have_explicit_sides() {
    let texts = ["reach", "push 12 blocks"];
    let (short, long) = ([264, 273, 74], [285, 287, 223, 19, 20, 301, 85]);

    let (ids, mask) = encode(LAYOUT, &texts);
    assert_eq!(ids, [[&short[..], &[2; 3]].concat(), long[..6].to_vec()]);
    assert_eq!(mask, [[true, true, true, false, false, false], [true; 6]]);

    let left = TextLayout { padding_side: Side::Left, truncation_side: Side::Left, ..LAYOUT };
    let (ids, mask) = encode(left, &texts);
    assert_eq!(ids, [[&[2; 3], &short[..]].concat(), long[1..].to_vec()]);
    assert_eq!(mask[0], [false, false, false, true, true, true]);

    let fixed = TextLayout { padding: Padding::MaxLength, max_length: 9, ..LAYOUT };
    assert!(encode(fixed, &["reach"]).0.iter().all(|row| row.len() == 9));
    assert_eq!(encode(LAYOUT, &["reach"]).0, [short.to_vec()]);
    assert_eq!(encode(LAYOUT, &["", "reach"]).1, [[false; 3], [true; 3]]);
}

#[test]
fn prompts_are_formatted_once() {
    assert_eq!(with_newline("reach"), "reach\n");
    assert_eq!(with_newline("reach\n"), "reach\n");
    assert_eq!(with_system_prompt("You are a robot.", "reach"), "You are a robot.\nreach");
    assert_eq!(with_system_prompt("", "reach"), "reach");
}

#[test]
fn a_folder_without_a_usable_tokenizer_is_refused() {
    let copy = tempfile::tempdir().unwrap();
    let refusal = |layout: TextLayout| {
        let error = with_hint(&TextTokenizer::from_folder(copy.path(), layout).err().unwrap());
        assert!(error.contains("hint: "), "{error}");
        error
    };
    assert!(refusal(LAYOUT).contains("tokenizer.json"));

    std::fs::copy(folder().join(TOKENIZER_FILES[0]), copy.path().join(TOKENIZER_FILES[0])).unwrap();
    assert!(refusal(LAYOUT).contains("tokenizer_config.json"));

    let config = copy.path().join(TOKENIZER_FILES[1]);
    std::fs::write(&config, "{}").unwrap();
    assert!(refusal(LAYOUT).contains("`pad_token` is missing"));

    std::fs::write(&config, r#"{"pad_token": "<absent>"}"#).unwrap();
    assert!(refusal(LAYOUT).contains("`<absent>` has no id"));

    std::fs::write(&config, r#"{"pad_token": {"content": "<|im_end|>"}}"#).unwrap();
    assert!(refusal(TextLayout { max_length: 0, ..LAYOUT }).contains("maximum text length is 0"));
    let tokenizer = TextTokenizer::from_folder(copy.path(), LAYOUT).unwrap();
    assert_eq!(tokenizer.token_id("<image>").unwrap(), 336);
    assert!(tokenizer.token_id("<camera>").unwrap_err().to_string().contains("`<camera>`"));

    std::fs::write(copy.path().join(TOKENIZER_FILES[0]), "{").unwrap();
    assert!(refusal(LAYOUT).contains("tokenizer.json"));
}
