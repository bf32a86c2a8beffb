//! Stage 1: latent actions from frame pairs.
//!
//! | question | where |
//! |---|---|
//! | What is the network? | [`LaqModel`] |
//! | What can vary? | `encoders/`, `quantizers/`, `decoders/`: a trait in `mod.rs`, one variant per file |
//! | Do the latents carry actions? | [`Probes`], and the one rule for it in `health` |
//! | Do labelled actions train them? | [`LabelHead`] |
//! | What is one forward pass? | [`train_step`], [`eval_step`] |
//! | What does the training engine see? | [`LaqTask`] |
//! | What do others use of a trained model? | [`LaqInference`] |
#![allow(non_snake_case)] // shape suffixes

mod analyses;
mod data;
mod decoders;
mod dims;
mod draws;
mod encoders;
mod error;
mod flow_teachers;
mod forward;
mod health;
mod inference;
mod interop;
mod label;
mod label_head;
mod model;
mod moments;
mod patches;
mod pretrained;
mod probes;
mod quantizers;
mod step;
mod stored;
mod task;
mod triplets;
mod validation;
mod views;

pub use analyses::analyze;
pub use data::open_pairs;
pub use decoders::{
    ByDecoder, Decoder, DecoderInput, DecoderLosses, Decoders, PixelWeights, Predictions, Target, weight_at,
};
pub use dims::Dims;
pub use draws::{Draws, TorchDraws, WorldDraws};
pub use encoders::{Encoder, FrameTokens};
pub use error::{HINTS, LaqError};
pub use flow_teachers::{FlowCache, FlowTeacher, LucasKanade, RaftTeacher, raft_size};
pub use inference::LaqInference;
pub use interop::{export, from_lightning_names, import};
pub use label::{LabelOptions, label};
pub use label_head::LabelHead;
pub use model::{Encoded, LaqModel, Parts};
pub use patches::{patchify, unit_frames, unpatchify};
pub use pretrained::{Backbone, load_teachers};
pub use probes::Probes;
pub use quantizers::{
    Bottleneck, CODEBOOK, CodeUsage, Codes, EmaVq, Fsq, Latent, Nsvq, Quantizer, QuantizerStage, Refresh,
    RefreshSchedule, Scale, TrainContext, TrainPass, perplexity,
};
pub use step::{EvalStep, Samples, TrainStep, eval_step, other_samples, train_step};
pub use task::LaqTask;
