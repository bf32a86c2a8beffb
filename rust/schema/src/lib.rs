//! The typed form of the configuration tree, one file per section: each struct with the rules for its values beneath it.
//!
//! No field has a default here: every value comes from `config/`. What is built from a checked section cannot fail on it.

#[cfg(feature = "clap")]
mod args;
mod cluster;
mod conditions;
mod data;
mod description;
mod device;
mod filter;
pub mod hub;
mod laq;
mod lerobot;
mod migrate;
mod pipeline;
mod place;
pub mod plugin;
pub mod policy;
mod processes;
mod rules;
mod run;
mod scenes;
mod stage;
mod study;
mod submit;
mod training;
mod vla;

#[cfg(feature = "clap")]
pub use args::{ConfigArgs, PRIMARY, parse_command_line, refuse_named_output};
pub use cluster::{
    ClusterConfig, ComputeConfig, ContainerConfig, ContainerRuntime, ImagesConfig, RemoteConfig, SlurmConfig,
    seconds_of_time,
};
pub use conditions::Conditions;
pub use data::{
    CacheConfig, DataConfig, DeltaUnit, LoaderConfig, RequestConfig, Resize, RldsConfig, SourceConfig, SourceWeight,
    SpanConfig, UniformOver,
};
pub use description::{LaqDescription, PairSpacing, TaskDescription, laq_encoder};
pub use device::Device;
pub use filter::{ActionFilterConfig, FilterBy, FilterConfig, MotionCameras, MotionFilterConfig, OverSteps};
pub use hub::is_hub_name;
pub use laq::*;
pub use lerobot::{LerobotConfig, LerobotEvalConfig, LerobotTrainConfig, PassedOn, RolloutConfig};
pub use migrate::migrate;
pub use pipeline::{ArtifactChoice, PipelineConfig, StepConfig, StepsConfig};
pub use policy::PolicySpec;
pub use processes::NumProcesses;
pub use run::{
    CommonConfig, ExperimentConfig, LogLevel, LoggingConfig, PathsConfig, Precision, RunConfig, SinksConfig,
    SweepConfig, TrainingRun,
};
pub use scenes::{SceneSplitConfig, SceneSplitMode, ScenesConfig};
pub use stage::{PROJECT, RunBasics, Stage, StageConfig, check};
pub use study::{StudyArm, StudyConfig, StudyLabels, StudyRun};
pub use submit::{PlanForm, SubmitConfig};
pub use training::{
    AugmentationConfig, AugmentedFrames, CheckpointConfig, DistributedConfig, EmaConfig, GradientConfig, LrScale,
    MonitorMode, OptimizerConfig, SchedulerConfig, SchedulerType, TrainingConfig, ValidationConfig,
};
pub use vla::{VlaConfig, VlaValidationConfig};
