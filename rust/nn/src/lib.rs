//! Layers with PyTorch's initialisation, and strict weight files.
//!
//! A layer registers its tensors in a [`Store`] under the names that PyTorch checkpoints of the field use, and keeps handles to them.
//! Everything else (saving, loading, decay groups, frozen parts) works on the store's ordered list of names.
//!
//! Shape suffixes of all files: B samples, T frames, H rows and W columns of the token grid, N = H·W tokens, D token width,
//! A attention heads, E width of a head, G groups of tokens that attend to each other, M context tokens.
#![allow(non_snake_case)] // shape suffixes

mod attention;
mod error;
mod feed_forward;
mod given;
mod linear;
mod norm;
mod peg;
mod position_bias;
pub mod smolvlm;
mod store;
mod trace;
mod transformer;
mod weights;

pub use attention::{Attention, AttentionConfig};
pub use error::NnError;
pub use feed_forward::FeedForward;
pub use linear::Linear;
pub use norm::{GammaNorm, LayerNorm};
pub use peg::Peg;
pub use position_bias::ContinuousPositionBias;
pub use store::{Init, Scope, Store};
pub use trace::{Pass, Trace};
pub use transformer::{AttendOver, Transformer, TransformerConfig};
pub use weights::{load_strict, read_tensors};
