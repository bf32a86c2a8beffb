//! Stage 2: policies that see an image and an instruction and predict latent actions, real actions, or both.
//!
//! | question | where |
//! |---|---|
//! | What is a policy? | `hlrp_schema::policy::PolicySpec` |
//! | What does its network compute? | [`archs`]: a trait, one architecture per module |
//! | How does a chunk go on where the one before ends? | [`Guidance`] |
//! | How is a GPU asked for a chunk by one call? | [`ChunkGraphs`] |
//! | How are its inputs prepared? | [`Processor`] |
//! | Who labels its latent actions? | [`Teacher`] |
//! | What does a training leave? | [`Artifact`] |
//! | How does a policy of the predecessor become one of ours? | [`import`] |
#![allow(non_snake_case)] // shape suffixes

use hlrp_config::{HintOf, hint_of};
use std::error::Error;

pub mod archs;
mod artifact;
mod backbone;
mod chunk_graphs;
mod chunking;
mod error;
pub mod flow;
mod freeze;
mod interop;
mod labels;
mod loss;
mod masks;
mod normalize;
mod observation;
mod policy;
mod processor;
mod setup;
mod task;
mod teacher;
mod validation;

pub use archs::{Architecture, BACKBONE, ExpertModel, HeadKind, Initialised, PooledModel, PrefixMemory, VlaModel};
pub use artifact::{Artifact, ArtifactRecord, Provenance, SaveOptions};
pub use backbone::facts as backbone_facts;
pub use chunk_graphs::{ChunkGraphs, Replayed};
pub use chunking::{Chunking, Guidance, PrefixSchedule};
pub use error::VlaError;
pub use flow::{FlowNoise, FlowPoint, TorchNoise, WorldNoise};
pub use freeze::{freeze, is_named};
pub use interop::import;
pub use labels::DatasetLabels;
pub use loss::{SupervisedLoss, VlaLoss};
pub use masks::{block_mask, positions};
pub use normalize::{normalize, unnormalize};
pub use observation::{ActionTarget, CameraImages, Language, LatentTarget, Observation, Prediction, Targets};
pub use processor::{Processor, TimeIndices};
pub use setup::{preflight, prepare};
pub use task::VlaTask;
pub use teacher::{Teacher, TeacherInit};

/// The error types of this crate and below whose hints a program prints.
pub const HINTS: &[HintOf] = &[hint_of::<VlaError>, below];

fn below(error: &(dyn Error + 'static)) -> Option<String> {
    hlrp_laq::HINTS.iter().find_map(|hint| hint(error))
}
