//! Stage 2: policies that see an image and an instruction and predict latent actions, real actions, or both.
//!
//! [`VlaModel`] is the network in either architecture, [`Processor`] prepares batches for it, [`Artifact`] is what a training leaves behind.
#![allow(non_snake_case)] // shape suffixes

mod artifact;
mod error;
mod expert;
mod flow;
mod freeze;
mod loss;
mod masks;
mod model;
mod normalize;
mod observation;
mod pooled;
mod processor;
mod setup;
mod task;
mod teacher;
mod validation;

pub use artifact::{Artifact, Description, Manifest, PairSpacing, Provenance, TeacherIdentity};
pub use error::VlaError;
pub use expert::{
    ActionConfig, BACKBONE, ExpertConfig, ExpertModel, HeadKind, ImageSpecialTokens, Initialised, LatentConfig,
    PrefixMemory,
};
pub use flow::{FlowConfig, FlowDraws, FlowPoint, TorchFlowDraws};
pub use freeze::{FreezeConfig, freeze, is_named};
pub use loss::{Mode, Objective, SupervisedLoss, VlaLoss};
pub use masks::{block_mask, positions};
pub use model::{ModelConfig, VlaModel};
pub use normalize::{Normalization, NormalizationMode};
pub use observation::{ActionTarget, CameraImages, Language, LatentTarget, Observation, Prediction, Targets};
pub use pooled::{BACKBONE as POOLED_BACKBONE, PooledConfig, PooledModel};
pub use processor::{Present, Processor, ProcessorConfig, PromptConfig};
pub use setup::{preflight, prepare};
pub use task::VlaTask;
pub use teacher::{Teacher, TeacherWeights, resize_frames};
