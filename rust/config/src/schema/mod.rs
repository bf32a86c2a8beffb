//! The typed form of the configuration tree. No field has a default here: every value comes from `config/`.

mod check;
mod data;
mod laq;
mod shared;
mod stage;
mod training;

pub use data::{CacheConfig, DataConfig, DeltaUnit, LoaderConfig, RequestConfig, SourceConfig};
pub use laq::{DecoderConfig, LaqConfig, LaqModelConfig, LatentAblation};
pub use shared::{ExperimentConfig, LogLevel, LoggingConfig, PathsConfig, Precision};
pub(crate) use stage::STAGE_KEY;
pub use stage::Stage;
pub use training::{
    CheckpointConfig, EmaConfig, GradientConfig, MonitorMode, OptimizerConfig, SchedulerConfig, SchedulerType,
    TrainingConfig, ValidationConfig,
};
