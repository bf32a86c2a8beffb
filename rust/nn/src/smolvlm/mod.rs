//! The SmolVLM backbone: a SigLIP vision tower, a pixel-shuffle connector, and a Llama text decoder.
//!
//! ```text
//! pixels [B,3,H,W] ─▶ VisionTower ─▶ [B,h·w,D_v] ─▶ Connector ─▶ image tokens [B,h·w/r²,D] ─┐
//! token ids [B,L] ──────────────────────────────▶ embedding ──▶ text tokens  [B,L,D] ───────┴▶ LlamaStack ─▶ norm ─▶ head
//! ```
//!
//! Names, shapes and mathematics are those of transformers' `SmolVLMForConditionalGeneration`, so its safetensors load as they are.
//! Weights are float32; whoever calls decides about autocast. Two users share the text decoder: the pooled policy runs it as a
//! [`LlamaStack`]; the expert policy takes its [`LlamaLayer`]s apart and interleaves them with layers of its own, which are
//! `LlamaLayer`s too. That is why projections, rotation, attention and feed-forward are separate public steps.
//!
//! Shape suffixes: B samples, C colours, H and W pixel rows and columns, N vision or image tokens, L text or query positions, M key
//! positions, D token width, A query heads, G key/value heads (each serves A/G query heads), E width of a head, R half of E,
//! V vocabulary.

mod config;
mod connector;
mod error;
mod folder;
mod hf_config;
mod image;
mod llama;
mod locate;
mod model;
mod prompt;
mod tokenizer;
mod vision;

pub use config::{SmolVlmConfig, TextConfig, VisionConfig};
pub use connector::Connector;
pub use error::SmolVlmError;
pub use folder::SmolVlmFolder;
pub use image::{IMAGE_PREPARATION, pad_resize, pad_resized_size, squash_resize};
pub use llama::{
    HIDDEN_LOGIT, KvCache, LlamaLayer, LlamaLayerConfig, LlamaStack, RmsNorm, Rope, additive_mask, attend, causal_mask,
};
pub use locate::locate;
pub use model::{LmHead, SmolVlm};
pub use prompt::{with_newline, with_system_prompt};
pub use tokenizer::{Padding, Side, TOKENIZER_FILES, TextLayout, TextTokenizer, TokenBatch};
pub use vision::{VisionTower, position_ids};
