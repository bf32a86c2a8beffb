//! What a training starts from and where it writes.

use super::{
    checkpoints::{self, last_checkpoint},
    flags,
    launch::{self, needs},
    options::TrainOptions,
    resume::{refuse_done_steps, refuse_other_changes},
    training_log::metrics,
};
use crate::{child::Invocation, error::CommandError, programs::data_source};
use anyhow::Result;
use hlrp_config::Composed;
use hlrp_schema::{
    LerobotTrainConfig,
    plugin::{ARTIFACT_FIELD, TEACHER_FIELD},
};
use hlrp_track::{
    RunDir,
    run::{Artifact, DataSource, RunInfo},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// How users start it.
pub(super) const NAME: &str = "hlrp train-lerobot";

/// Where the training starts and where it writes.
pub(super) struct Start {
    pub(super) run_dir: PathBuf,
    pub(super) output_dir: PathBuf,
    /// LeRobot's checkpoint that is continued.
    pub(super) checkpoint: Option<PathBuf>,
    /// The policy that a new training starts from.
    policy: Option<PathBuf>,
    pub(super) start_step: u64,
}

impl Start {
    pub(super) fn new(options: &TrainOptions, composed: &Composed, config: &LerobotTrainConfig) -> Result<Self> {
        let Some(run_dir) = &options.resume else {
            let is_offline = needs(config).is_offline();
            let policy = config.lerobot.policy_path.as_deref();
            let policy = policy.map(|path| checkpoints::policy_folder("lerobot.policy_path", path, is_offline));
            return Ok(Self {
                run_dir: config.logging.run_dir.clone(),
                output_dir: config.lerobot.output_dir.clone(),
                checkpoint: None,
                policy: policy.transpose()?,
                start_step: 0,
            });
        };
        config.cluster.refuse_output("--resume", run_dir)?;
        refuse_other_changes(run_dir, composed)?;
        let output_dir = checkpoints::output_dir(run_dir, &config.lerobot.output_dir);
        let checkpoint = last_checkpoint(&output_dir).ok_or_else(|| {
            let message = format!("{} contains no checkpoint to continue from", output_dir.display());
            CommandError::new(message, "start a new run")
        })?;
        let start_step = checkpoints::step(&checkpoint)?;
        refuse_done_steps(run_dir, config.lerobot.steps, start_step)?;
        Ok(Self { run_dir: run_dir.clone(), output_dir, checkpoint: Some(checkpoint), policy: None, start_step })
    }

    pub(super) fn invocation(&self, config: &LerobotTrainConfig) -> Invocation {
        launch::invocation(
            config,
            match &self.checkpoint {
                Some(checkpoint) => {
                    flags::resume(&config.lerobot, &checkpoints::pretrained_model(checkpoint), &self.output_dir)
                }
                None => flags::train(&config.lerobot, self.policy.as_deref()),
            },
        )
    }

    pub(super) fn open(
        &self,
        config: &LerobotTrainConfig,
        composed: &Composed,
        versions: BTreeMap<String, String>,
    ) -> Result<RunDir> {
        let yaml = composed.to_yaml();
        let inputs = inputs(config, self.checkpoint.as_deref());
        let info = RunInfo {
            description: &config.experiment.description,
            overrides: composed.overrides(),
            versions,
            inputs,
            data: data(config),
            num_threads: config.num_threads.unwrap_or_else(hlrp_track::host::num_cores),
            metrics: metrics(),
            ..RunInfo::new(NAME, &config.experiment.name, &yaml)
        };
        Ok(match self.checkpoint {
            Some(_) => RunDir::resume(&self.run_dir, self.start_step, &info)?,
            None => RunDir::create(&self.run_dir, &info)?,
        })
    }
}

/// What the run starts from.
fn inputs(config: &LerobotTrainConfig, checkpoint: Option<&Path>) -> Vec<Artifact> {
    let field = |field: &str| Some(PathBuf::from(config.lerobot.policy.get(field)?.as_str()?));
    let given = [
        ("resume", checkpoint.map(Path::to_path_buf)),
        ("policy_path", config.lerobot.policy_path.clone()),
        (ARTIFACT_FIELD, field(ARTIFACT_FIELD)),
        (TEACHER_FIELD, field(TEACHER_FIELD)),
    ];
    given.into_iter().filter_map(|(role, path)| Some(Artifact::of(role, path?))).collect()
}

/// The dataset of the training, where its folder is on this disk.
fn data(config: &LerobotTrainConfig) -> BTreeMap<String, DataSource> {
    let root = config.lerobot.dataset_root.clone();
    let name = config.lerobot.dataset_repo_id.clone();
    root.and_then(|root| Some((name, data_source(&root)?))).into_iter().collect()
}
