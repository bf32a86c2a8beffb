//! Stage 1: latent actions from frame pairs.
//!
//! [`LaqModel`] is the network, [`train_step`] and [`eval_step`] are one forward pass of it, [`LaqTask`] is what the training engine sees,
//! [`LaqInference`] is what others use of a trained model.
#![allow(non_snake_case)] // shape suffixes

mod data;
mod decoders;
mod dims;
mod draws;
mod error;
mod inference;
mod loss;
mod model;
mod patches;
mod quantizer;
mod step;
mod task;
mod validation;

pub use data::{ROLE, open_pairs};
pub use dims::Dims;
pub use draws::{Draws, TorchDraws};
pub use error::LaqError;
pub use inference::LaqInference;
pub use loss::{DecoderLosses, weight_at};
pub use model::{Encoded, LaqModel, Parts, Predictions};
pub use patches::{patchify, unit_frames, unpatchify};
pub use quantizer::{CodeUsage, Quantizer, Refresh, RefreshSchedule, perplexity};
pub use step::{EvalStep, RefreshPlan, TrainStep, eval_step, other_samples, train_step};
pub use task::LaqTask;
