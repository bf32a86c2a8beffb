//! The training engine: one loop for every model.
//!
//! | question | where |
//! |---|---|
//! | What must a model offer? | [`Task`] |
//! | What must data offer? | [`TrainingData`], [`BatchStream`] |
//! | What happens in a step? | [`Trainer::run`] |
//! | How are weights changed? | [`Optimizer`], [`norm_and_clip`], [`Schedule`], [`Ema`] |
//! | What survives a kill? | [`checkpoint`] |
//! | How does a run stop early? | [`StopRequest`], [`EXIT_INTERRUPTED`] |
//! | How does a stage become a program? | [`program`] |
//!
//! Shape suffixes: B samples, T time steps, C channels, H rows, W columns, N vector entries.
#![allow(non_snake_case)] // shape suffixes

/// The error types of this crate and below whose hints a program prints.
pub const HINTS: &[hlrp_config::HintOf] = &[
    hlrp_config::hint_of::<hlrp_config::Problem>,
    hlrp_config::hint_of::<hlrp_data::DataError>,
    hlrp_config::hint_of::<hlrp_data::LoadError>,
    hlrp_config::hint_of::<hlrp_track::TrackError>,
    hlrp_config::hint_of::<hlrp_torch::TorchError>,
    hlrp_config::hint_of::<hlrp_nn::NnError>,
];

mod batch_stream;
pub mod checkpoint;
mod device;
mod device_batch;
mod ema;
mod error;
mod feeder;
mod gradient;
mod loader_data;
mod loss_watch;
mod micro_batches;
mod optimizer;
mod precision;
pub mod program;
mod recorder;
mod resume;
mod run;
mod saving;
mod schedule;
mod settings;
mod signals;
mod summary;
mod task;
mod timers;
mod trainer;
pub mod validation;

pub use batch_stream::{BatchStream, TrainingData, ValidationBatches};
pub use checkpoint::{BestScore, Checkpoint, RunState};
pub use device::select_device;
pub use device_batch::{DeviceBatch, DeviceImages, DeviceVectors};
pub use ema::Ema;
pub use error::{Result, TrainError};
pub use gradient::norm_and_clip;
pub use loader_data::LoaderData;
pub use optimizer::{DecayGroup, Optimizer};
pub use schedule::Schedule;
pub use settings::Settings;
pub use signals::{EXIT_INTERRUPTED, StopRequest};
pub use summary::{Outcome, Summary};
pub use task::{ExportContext, LossOutput, RowReset, Task, Validation, ValidationContext};
pub use trainer::Trainer;
