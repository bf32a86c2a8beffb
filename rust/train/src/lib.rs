//! The training engine: one loop for every model.
//!
//! | question | where |
//! |---|---|
//! | What must a model offer? | [`Task`] |
//! | What must data offer? | [`TrainingData`], [`BatchStream`] |
//! | What happens in a step? | [`Trainer::run`] |
//! | How are weights changed? | [`Optimizer`], [`norm_and_clip`], [`Schedule`], [`Ema`] |
//! | How do images change at random? | [`Augmentation`] |
//! | What survives a kill? | [`checkpoint`] |
//! | How does a run use its disk? | [`disk_rules`] |
//! | How does a run stop early? | [`StopRequest`] |
//! | How does a stage become a program? | [`program`] |
//!
//! Shape suffixes: B samples, T time steps, C channels, H rows, W columns, N vector entries.
#![allow(non_snake_case)] // shape suffixes

mod agreement;
mod augmentation;
mod boundary;
pub mod checkpoint;
mod data;
mod device;
mod error;
mod gradient;
mod prefetch;
pub mod program;
mod ranks;
mod realised_shares;
mod resize;
mod resume;
mod signals;
mod step_graph;
mod task;
mod throughput;
mod timers;
mod train_loop;
mod trainer;
mod update;
pub mod validation;
mod watch;

pub use augmentation::Augmentation;
pub use checkpoint::{BestScore, Checkpoint, RunState};
pub use data::{BatchStream, LoaderData, SourceRecord, TrainingData, ValidationBatches};
pub use device::{autocast, select_device};
pub use error::{EXIT_CODES, HINTS, Result, TrainError};
pub use hlrp_data::disk_rules;
pub use prefetch::{DeviceBatch, DeviceImages, DeviceVectors};
pub use ranks::is_of_exchange;
pub use resize::resize_frames;
pub use resume::Resumed;
pub use signals::{StopRequest, Stopped};
pub use task::{ExportContext, LossOutput, MaskedMean, RowReset, Task, Validation, ValidationContext};
pub use trainer::{Outcome, Settings, Summary, Trainer};
pub use update::{DecayGroup, Ema, Optimizer, Schedule, norm_and_clip};
