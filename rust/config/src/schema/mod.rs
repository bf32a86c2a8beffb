//! The typed form of the configuration tree. No field has a default here: every value comes from `config/`.

mod check;
mod cluster;
mod data;
mod laq;
mod lerobot;
mod pipeline;
mod run;
mod shared;
mod stage;
mod training;
mod vla;
mod vla_check;

pub use cluster::{ClusterConfig, ComputeConfig, ContainerConfig, ImagesConfig, SlurmConfig};
pub use data::{CacheConfig, DataConfig, DeltaUnit, LoaderConfig, RequestConfig, SourceConfig};
pub use laq::{DecoderConfig, LaqConfig, LaqModelConfig, LatentAblation};
pub use lerobot::{LerobotConfig, LerobotEvalConfig, LerobotTrainConfig, PassedOn, RolloutConfig, start_of_policy};
pub use pipeline::{ArtifactChoice, PipelineConfig, StepConfig, StepsConfig};
pub use run::{RunConfig, TrainingRun};
pub use shared::{ExperimentConfig, LogLevel, LoggingConfig, PathsConfig, Precision, SweepConfig};
pub(crate) use stage::STAGE_KEY;
pub use stage::Stage;
pub use training::{
    CheckpointConfig, EmaConfig, GradientConfig, MonitorMode, OptimizerConfig, SchedulerConfig, SchedulerType,
    TrainingConfig, ValidationConfig,
};
pub use vla::{
    ActionOptions, BackboneConfig, BackboneSizes, ExpertOptions, FeatureScaling, FlowOptions, FreezeOptions,
    NormalizationOptions, PromptOptions, StateOptions, TeacherOptions, TeacherWeights, TextSizes, VisionSizes, VlaArch,
    VlaConfig, VlaMode, VlaModelConfig, VlaValidationConfig,
};
