//! Which typed configuration an experiment belongs to.

use crate::cluster::{ClusterConfig, ContainerRuntime};
use crate::laq::{LaqAnalysisConfig, LaqConfig};
use crate::lerobot::{LerobotTrainConfig, RolloutConfig};
use crate::migrate::{migrate_tree, renamed};
use crate::pipeline::PipelineConfig;
use crate::processes::NumProcesses;
use crate::run::{CommonConfig, ExperimentConfig, LoggingConfig, PathsConfig};
use crate::submit::SubmitConfig;
use crate::vla::VlaConfig;
use hlrp_config::{Check, Composed, Problem, Project, Result, num_runs};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::path::PathBuf;

/// The key that names the stage of an experiment.
pub(crate) const STAGE_KEY: &str = "experiment.stage";

/// This project's tree, for the engine.
pub const PROJECT: Project = Project {
    experiments: "experiment",
    crossed_with: "cluster",
    sweep_params: "sweep.params",
    run_name: "experiment.name",
    run_dir: "logging.run_dir",
    config_dir_variable: "HLRP_CONFIG_DIR",
    renamed,
    check,
    migrate: migrate_tree,
};

/// Types and checks the configuration of any stage; accepts a tree of another project, which names no stage.
///
/// # Errors
/// As [`Composed::extract`].
pub fn check(composed: &Composed) -> Result<()> {
    match composed.tree().get(STAGE_KEY) {
        Some(_) => Stage::of(composed)?.check(composed),
        None => Ok(()),
    }
}

/// What an experiment does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Stage 1, `hlrp train-laq`: [`LaqConfig`].
    Laq,
    /// What a model of stage 1 has learned, `hlrp analyze-laq`: [`LaqAnalysisConfig`].
    LaqAnalysis,
    /// Stage 2, `hlrp train-vla`: [`VlaConfig`].
    Vla,
    /// Stage 3, `hlrp train-lerobot`: [`LerobotTrainConfig`].
    LerobotTrain,
    /// Stage 3, `hlrp rollout-lerobot`: [`RolloutConfig`].
    LerobotRollout,
    /// All stages in turn, `hlrp pipeline`: [`PipelineConfig`].
    Pipeline,
}

/// An expression with the type of a stage's configuration.
macro_rules! with_config {
    ($stage:expr, $Config:ident => $expression:expr) => {
        match $stage {
            Stage::Laq => {
                type $Config = LaqConfig;
                $expression
            }
            Stage::LaqAnalysis => {
                type $Config = LaqAnalysisConfig;
                $expression
            }
            Stage::Vla => {
                type $Config = VlaConfig;
                $expression
            }
            Stage::LerobotTrain => {
                type $Config = LerobotTrainConfig;
                $expression
            }
            Stage::LerobotRollout => {
                type $Config = RolloutConfig;
                $expression
            }
            Stage::Pipeline => {
                type $Config = PipelineConfig;
                $expression
            }
        }
    };
}

impl Stage {
    pub(crate) const ALL: [Self; 6] =
        [Stage::Laq, Stage::LaqAnalysis, Stage::Vla, Stage::LerobotTrain, Stage::LerobotRollout, Stage::Pipeline];

    /// As written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Laq => "laq",
            Stage::LaqAnalysis => "laq_analysis",
            Stage::Vla => "vla",
            Stage::LerobotTrain => "lerobot_train",
            Stage::LerobotRollout => "lerobot_rollout",
            Stage::Pipeline => "pipeline",
        }
    }

    /// The subcommand of `hlrp` that runs such an experiment.
    pub fn command(self) -> &'static str {
        match self {
            Stage::Laq => "train-laq",
            Stage::LaqAnalysis => "analyze-laq",
            Stage::Vla => "train-vla",
            Stage::LerobotTrain => "train-lerobot",
            Stage::LerobotRollout => "rollout-lerobot",
            Stage::Pipeline => "pipeline",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }

    /// The stage that a composition names.
    ///
    /// # Errors
    /// It names none, or an unknown one.
    pub fn of(composed: &Composed) -> Result<Self> {
        let name = composed.tree().get(STAGE_KEY).and_then(|node| node.as_str()).unwrap_or_default();
        Self::from_name(name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            composed.locate(Problem::new(
                STAGE_KEY,
                format!("unknown stage '{name}'"),
                format!("set it to one of {names}"),
            ))
        })
    }

    /// Types and checks a composition of this stage.
    ///
    /// # Errors
    /// As [`Composed::extract`].
    pub fn check(self, composed: &Composed) -> Result<()> {
        with_config!(self, C => typed::<C>(composed).map(drop))
    }

    /// The absolute paths that a composition of this stage names, each with its key: those that are typed as paths, and the folders of a policy,
    /// which may also be names of the Hub.
    pub fn absolute_paths(self, composed: &Composed) -> Vec<(String, PathBuf)> {
        let mut paths = with_config!(self, C => composed.absolute_paths::<C>());
        composed.tree().for_each_leaf(&mut |key, node| {
            let is_of_policy = key.starts_with("policy.") || key.starts_with("lerobot.policy.");
            let folder = node.as_str().map(PathBuf::from).filter(|path| path.is_absolute() && path.is_dir());
            if let Some(folder) = folder.filter(|_| is_of_policy && paths.iter().all(|(known, _)| known != key)) {
                paths.push((key.to_owned(), folder));
            }
        });
        paths
    }
}

/// What every run has, of whatever stage: the part of its configuration that decides where it runs and writes.
#[derive(Debug, Clone)]
pub struct RunBasics {
    /// The stage.
    pub stage: Stage,
    /// Name of the run.
    pub experiment: ExperimentConfig,
    /// Where things are stored.
    pub paths: PathsConfig,
    /// What is written.
    pub logging: LoggingConfig,
    /// Where it computes.
    pub cluster: ClusterConfig,
    /// How it is queued.
    pub submit: SubmitConfig,
    /// Processes that train together.
    pub num_processes: NumProcesses,
}

impl RunBasics {
    /// Those of a composition of any stage, checked as a whole.
    ///
    /// # Errors
    /// As [`Composed::extract`].
    pub fn of(composed: &Composed) -> Result<Self> {
        let stage = Stage::of(composed)?;
        with_config!(stage, C => typed::<C>(composed).map(|config| Self::new(stage, &config.common())))
    }

    /// Those of a composition whose values are typed but not checked: one that still needs a value, such as a teacher, has a place too.
    ///
    /// # Errors
    /// A missing or unknown key, or a value of another type.
    pub fn unchecked(composed: &Composed) -> Result<Self> {
        let stage = Stage::of(composed)?;
        with_config!(stage, C => composed.extract_unchecked::<C>().map(|config| Self::new(stage, &config.common())))
    }

    fn new(stage: Stage, common: &CommonConfig<'_>) -> Self {
        Self {
            stage,
            experiment: common.experiment.clone(),
            paths: common.paths.clone(),
            logging: common.logging.clone(),
            cluster: common.cluster.clone(),
            submit: common.submit.clone(),
            num_processes: common.num_processes,
        }
    }
}

/// The typed configuration of a stage, checked. Where its cluster has a container, every path can be mounted.
fn typed<C: StageConfig>(composed: &Composed) -> Result<C> {
    let typed: C = composed.extract()?;
    let cluster = typed.common().cluster;
    if cluster.container.runtime != ContainerRuntime::None {
        let paths =
            C::STAGE.absolute_paths(composed).into_iter().filter(|(key, _)| !key.starts_with("cluster.images."));
        for (key, path) in paths {
            cluster.refuse_unmountable(&key, &path).map_err(|problem| composed.locate(problem))?;
        }
    }
    Ok(typed)
}

/// The whole configuration of a stage.
pub trait StageConfig: Check + DeserializeOwned {
    /// The stage.
    const STAGE: Stage;

    /// What it has in common with every other stage.
    fn common(&self) -> CommonConfig<'_>;

    /// The typed configuration of one run, checked.
    ///
    /// # Errors
    /// As [`Composed::extract`]; an experiment of another stage, whose keys would all be unknown; a sweep, which is several runs.
    fn of_run(composed: &Composed) -> Result<Self> {
        let stage = Stage::of(composed)?;
        if stage != Self::STAGE {
            let (command, wanted) = (Self::STAGE.command(), Self::STAGE.name());
            let message = format!("'{}', but `hlrp {command}` is for experiments of '{wanted}'", stage.name());
            let hint = "choose an experiment of this stage; `hlrp config list experiment` shows them";
            return Err(composed.locate(Problem::new(STAGE_KEY, message, hint)));
        }
        let typed = typed(composed)?;
        match num_runs(&PROJECT, composed)? {
            0 | 1 => Ok(typed),
            num_runs => {
                let message = format!("{num_runs} runs, but this program does one");
                let hint = "`hlrp config sweep` with the same overrides prints the overrides of each run; \
                            sweep.params=null does a single one";
                Err(composed.locate(Problem::new(PROJECT.sweep_params, message, hint)))
            }
        }
    }
}
