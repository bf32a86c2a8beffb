//! From instructions to token ids.

use crate::NnError;
use hlrp_config::foreign::{MAX_TEXT_BYTES, inspect, read_text};
use hlrp_schema::policy::{Padding, Side};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tch::Tensor;
use tokenizers::{PaddingDirection, PaddingParams, PaddingStrategy, Tokenizer, TruncationDirection, TruncationParams};

/// Files of a tokenizer folder.
pub const TOKENIZER_FILES: [&str; 2] = ["tokenizer.json", "tokenizer_config.json"];

/// How sequences of different lengths become one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextLayout {
    /// Length of the batch.
    pub padding: Padding,
    /// Where padding goes.
    pub padding_side: Side,
    /// Where tokens beyond the maximum length are cut off.
    pub truncation_side: Side,
    /// Most tokens of a text.
    pub max_length: usize,
}

/// Token ids of a batch of texts, on the CPU.
#[derive(Debug)]
pub struct TokenBatch {
    /// `int64 [B,L]`.
    pub ids_BL: Tensor,
    /// `bool [B,L]`, true where a token is real.
    pub mask_BL: Tensor,
}

/// A Hugging Face tokenizer with a fixed layout.
pub struct TextTokenizer {
    path: PathBuf,
    tokenizer: Tokenizer,
}

impl TextTokenizer {
    /// Reads `tokenizer.json` of a model folder, and the padding token from its `tokenizer_config.json`.
    ///
    /// # Errors
    /// A missing or damaged file, no padding token, a maximum length of 0.
    pub fn from_folder(folder: &Path, layout: TextLayout) -> Result<Self, NnError> {
        let path = folder.join(TOKENIZER_FILES[0]);
        let error = |problem: String| {
            NnError::file(&path, problem, "keep tokenizer.json and tokenizer_config.json of the model in one folder")
        };
        if layout.max_length == 0 {
            return Err(error("the maximum text length is 0".to_owned()));
        }
        inspect(&path, MAX_TEXT_BYTES).map_err(|cause| error(cause.to_string()))?;
        let mut tokenizer = Tokenizer::from_file(&path).map_err(|cause| error(cause.to_string()))?;
        let pad_token = pad_token(&folder.join(TOKENIZER_FILES[1])).map_err(&error)?;
        let pad_id = tokenizer
            .token_to_id(&pad_token)
            .ok_or_else(|| error(format!("the padding token `{pad_token}` has no id")))?;

        tokenizer.with_padding(Some(PaddingParams {
            strategy: match layout.padding {
                Padding::Longest => PaddingStrategy::BatchLongest,
                Padding::MaxLength => PaddingStrategy::Fixed(layout.max_length),
            },
            direction: match layout.padding_side {
                Side::Left => PaddingDirection::Left,
                Side::Right => PaddingDirection::Right,
            },
            pad_id,
            pad_token,
            ..PaddingParams::default()
        }));
        let truncation = TruncationParams {
            direction: match layout.truncation_side {
                Side::Left => TruncationDirection::Left,
                Side::Right => TruncationDirection::Right,
            },
            max_length: layout.max_length,
            ..TruncationParams::default()
        };
        tokenizer.with_truncation(Some(truncation)).map_err(|cause| error(cause.to_string()))?;
        Ok(Self { path, tokenizer })
    }

    /// Ids and masks of a batch of texts.
    ///
    /// # Errors
    /// A text that the tokenizer cannot encode.
    pub fn encode<T: AsRef<str>>(&self, texts: &[T]) -> Result<TokenBatch, NnError> {
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        let num_texts = texts.len();
        let encodings = self.tokenizer.encode_batch_fast(texts, true).map_err(|cause| self.error(cause.to_string()))?;
        let ids: Vec<i64> = encodings.iter().flat_map(|encoding| encoding.get_ids()).map(|&id| i64::from(id)).collect();
        let mask: Vec<bool> =
            encodings.iter().flat_map(|encoding| encoding.get_attention_mask()).map(|&real| real == 1).collect();
        let shape = [num_texts as i64, encodings.first().map_or(0, |encoding| encoding.len() as i64)];
        Ok(TokenBatch { ids_BL: Tensor::from_slice(&ids).view(shape), mask_BL: Tensor::from_slice(&mask).view(shape) })
    }

    /// The text of token ids, with or without special tokens.
    ///
    /// # Errors
    /// An unknown id.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, NnError> {
        self.tokenizer.decode(ids, skip_special).map_err(|cause| self.error(cause.to_string()))
    }

    /// The id of one token, such as `<image>`.
    ///
    /// # Errors
    /// The vocabulary has no such token.
    pub fn token_id(&self, token: &str) -> Result<i64, NnError> {
        let id = self.tokenizer.token_to_id(token).map(i64::from);
        id.ok_or_else(|| self.error(format!("there is no token `{token}`")))
    }

    /// Number of ids, special tokens included.
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    fn error(&self, problem: String) -> NnError {
        NnError::file(&self.path, problem, "use the tokenizer that the backbone was trained with")
    }
}

/// `pad_token` of a tokenizer configuration: a text, or an object with the text as `content`.
fn pad_token(path: &Path) -> Result<String, String> {
    let name = path.display();
    let text = read_text(path).map_err(|cause| format!("{name}: {cause}"))?;
    let config: Value = serde_json::from_str(&text).map_err(|cause| format!("{name}: {cause}"))?;
    let token = &config["pad_token"];
    let token = token.as_str().or_else(|| token["content"].as_str());
    token.map(str::to_owned).ok_or_else(|| format!("{name}: `pad_token` is missing"))
}

/// The text, ended by a newline as LeRobot's SmolVLA was trained with.
pub fn with_newline(text: &str) -> String {
    if text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

/// System prompt, newline, text; just the text when the system prompt is empty.
pub fn with_system_prompt(system_prompt: &str, text: &str) -> String {
    if system_prompt.is_empty() { text.to_owned() } else { format!("{system_prompt}\n{text}") }
}
