//! The SmolVLM backbone: a SigLIP vision tower, a pixel-shuffle connector, and a Llama text decoder.
//!
//! ```text
//! pixels [B,3,H,W] ─▶ VisionTower ─▶ [B,h·w,D_v] ─▶ Connector ─▶ image tokens [B,h·w/r²,D] ─┐
//! token ids [B,L] ──────────────────────────────▶ embedding ──▶ text tokens  [B,L,D] ───────┴▶ LlamaStack ─▶ norm
//! ```
//!
//! Names, shapes and mathematics are those of transformers' `SmolVLMForConditionalGeneration`, so its safetensors load as they are.
//! Weights are float32; the caller decides about autocast.
//!
//! Shape suffixes: B samples, C channels, H and W pixel rows and columns, N vision or image tokens, L text positions, D token width,
//! V vocabulary.

mod hf_config;
mod image;
mod model;
mod tokenizer;

pub use hf_config::read_sizes;
pub use image::{IMAGE_PREPARATION, pad_resize, pad_resized_size, squash_resize};
pub use model::{Connector, SmolVlm, SmolVlmFolder};
pub use tokenizer::{TOKENIZER_FILES, TextLayout, TextTokenizer, TokenBatch, with_newline, with_system_prompt};
