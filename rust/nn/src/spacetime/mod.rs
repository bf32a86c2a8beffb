//! Blocks over video tokens `[B,T,H,W,D]` that attend in space or in time, in the style of C-ViViT
//! ([Phenaki](https://arxiv.org/abs/2210.02399)): cosine-similarity attention, a position convolution and a continuous position bias.
//! The latent action model is built from them.

mod attention;
mod position;
mod transformer;

pub use attention::{CosineAttention, CosineAttentionConfig};
pub use position::{ContinuousPositionBias, Peg};
pub use transformer::{AttendOver, SpaceTimeConfig, SpaceTimeTransformer};
