//! Layers and backbones by family, with PyTorch's initialisation, and strict weight files.
//!
//! | question | where |
//! |---|---|
//! | Which tensors does a model have, under which names? | [`store`] |
//! | What do several families share? | [`layers`], [`Pass`] |
//! | Where is a published model on this machine, and how are its weights read? | [`hub`] |
//! | How are weights in another program's layout read? | [`foreign`] |
//! | Blocks over video tokens (latent action model) | [`spacetime`] |
//! | Features of images, optical flow | [`dinov3`], [`raft`] |
//! | Vision-language backbones | [`siglip`], [`llama`], [`smolvlm`] |
//!
//! A layer registers its tensors in a [`Store`] under the names that PyTorch checkpoints of the field use, and keeps handles to them.
//! Everything else (saving, loading, decay groups, frozen parts) works on the store's ordered list of names.
//!
//! Shape suffixes: B samples, T frames, H rows and W columns of the token grid, N = H·W tokens, D token width, A attention heads,
//! E width of a head, G groups of tokens that attend to each other, M context tokens. The language models have a legend of their own.
#![allow(non_snake_case)] // shape suffixes

pub mod dinov3;
mod error;
pub mod foreign;
pub mod hub;
pub mod layers;
pub mod llama;
pub mod raft;
pub mod siglip;
pub mod smolvlm;
pub mod spacetime;
pub mod store;
mod trace;

pub use error::NnError;
pub use hlrp_torch::load_strict;
pub use hub::read_tensors;
pub use layers::{Conv2d, GammaNorm, LayerNorm, Linear};
pub use store::{Init, Scope, Store};
pub use trace::{Pass, Trace};
