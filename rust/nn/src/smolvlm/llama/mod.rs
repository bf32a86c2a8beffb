//! The Llama decoder, as a stack and as its single steps.

mod attention;
mod kv_cache;
mod layer;
mod mask;
mod rms_norm;
mod rope;
mod stack;

pub use attention::attend;
pub use kv_cache::KvCache;
pub use layer::{LlamaLayer, LlamaLayerConfig};
pub use mask::{HIDDEN_LOGIT, additive_mask, causal_mask};
pub use rms_norm::RmsNorm;
pub use rope::Rope;
pub use stack::LlamaStack;
