//! The trees of stage 3: what `lerobot-train` and `lerobot-eval` are started with.

use crate::cluster::ClusterConfig;
use crate::rules::{Checked, not_negative, require, section};
use crate::run::{
    ExperimentConfig, LoggingConfig, PathsConfig, Precision, SweepConfig, check_policy_device, check_run,
};
use hlrp_config::{Check, Problem};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// Values that go to LeRobot under their own names, or into the environment; null, text, numbers, lists and maps.
pub type PassedOn = BTreeMap<String, serde_json::Value>;

/// Everything that `hlrp train-lerobot` reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LerobotTrainConfig {
    /// Seed of everything random.
    pub seed: u64,
    /// Number format of stages 1 and 2; a LeRobot policy has its own key for it.
    pub precision: Precision,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// CPU threads of tensor work; all cores when null.
    pub num_threads: Option<usize>,
    /// Name of the run.
    pub experiment: ExperimentConfig,
    /// Where things are stored.
    pub paths: PathsConfig,
    /// What is written.
    pub logging: LoggingConfig,
    /// Where the run computes, and where it may write.
    pub cluster: ClusterConfig,
    /// Several runs of the experiment.
    pub sweep: SweepConfig,
    /// The fine-tuning.
    pub lerobot: LerobotConfig,
}

/// Section `lerobot`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // each key is explained beside its default in config/lerobot/train.yaml
pub struct LerobotConfig {
    pub command: String,
    pub python: Option<String>,
    pub install_policy_editable: Option<PathBuf>,
    pub num_processes: Option<u64>,
    pub accelerate_args: Vec<String>,
    pub policy_type: Option<String>,
    pub policy_path: Option<PathBuf>,
    pub policy_repo_id: Option<String>,
    pub policy_device: String,
    pub push_to_hub: bool,
    pub policy: PassedOn,
    pub dataset_repo_id: String,
    pub dataset_root: Option<PathBuf>,
    pub dataset_episodes: serde_json::Value,
    pub dataset: PassedOn,
    pub env_type: Option<String>,
    pub env_task: Option<String>,
    pub env_settings: PassedOn,
    pub eval: PassedOn,
    pub output_dir: PathBuf,
    pub job_name: String,
    pub seed: u64,
    pub steps: u64,
    pub batch_size: u64,
    pub num_workers: u64,
    pub env_eval_freq: u64,
    pub log_freq: u64,
    pub save_freq: u64,
    pub optimizer: PassedOn,
    pub scheduler: PassedOn,
    pub wandb_enable: bool,
    pub wandb: PassedOn,
    pub env: PassedOn,
    pub extra_args: Vec<String>,
}

/// Everything that `hlrp rollout-lerobot` reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutConfig {
    /// Seed of everything random.
    pub seed: u64,
    /// Number format of stages 1 and 2; the checkpoint knows its own.
    pub precision: Precision,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// CPU threads of tensor work; all cores when null.
    pub num_threads: Option<usize>,
    /// Name of the run.
    pub experiment: ExperimentConfig,
    /// Where things are stored.
    pub paths: PathsConfig,
    /// What is written.
    pub logging: LoggingConfig,
    /// Where the run computes, and where it may write.
    pub cluster: ClusterConfig,
    /// Several runs of the experiment.
    pub sweep: SweepConfig,
    /// The evaluation.
    pub lerobot_eval: LerobotEvalConfig,
}

/// Section `lerobot_eval`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // each key is explained beside its default in config/lerobot/eval.yaml
pub struct LerobotEvalConfig {
    pub command: String,
    pub python: Option<String>,
    pub install_policy_editable: Option<PathBuf>,
    pub policy_path: Option<PathBuf>,
    pub policy_device: String,
    pub policy_use_amp: bool,
    pub policy: PassedOn,
    pub env_type: Option<String>,
    pub env_task: Option<String>,
    pub env_settings: PassedOn,
    pub inherit_env_settings: bool,
    pub eval_n_episodes: u64,
    pub eval_batch_size: u64,
    pub eval_use_async_envs: bool,
    pub output_dir: PathBuf,
    pub job_name: String,
    pub seed: u64,
    pub trust_remote_code: bool,
    pub env: PassedOn,
    pub extra_args: Vec<String>,
}

/// The fields that both commands of stage 3 give a meaning of their own: below `policy` and `dataset` they would be said twice.
const POLICY_KEYS: [(&str, &str); 6] = [
    ("type", "policy_type"),
    ("path", "policy_path"),
    ("repo_id", "policy_repo_id"),
    ("device", "policy_device"),
    ("push_to_hub", "push_to_hub"),
    ("use_amp", "policy_use_amp"),
];
const DATASET_KEYS: [(&str, &str); 3] =
    [("repo_id", "dataset_repo_id"), ("root", "dataset_root"), ("episodes", "dataset_episodes")];
const ENV_KEYS: [(&str, &str); 2] = [("type", "env_type"), ("task", "env_task")];

impl Check for LerobotTrainConfig {
    fn check(&self) -> Result<(), Problem> {
        check_run(&self.experiment, &self.paths, &self.logging, &self.cluster)?;
        if self.cluster.compute.num_nodes.is_some_and(|num_nodes| num_nodes > 1) {
            let message = "LeRobot is started on one machine";
            return Err(Problem::new(
                "cluster.compute.num_nodes",
                message,
                "choose a cluster of one node, or set it to 1",
            )
            .misfit());
        }
        self.cluster.refuse_outside("lerobot.output_dir", &self.lerobot.output_dir)?;
        self.lerobot.check().map_err(|problem| problem.inside("lerobot"))
    }
}

impl Check for LerobotConfig {
    fn check(&self) -> Result<(), Problem> {
        let own_amp = POLICY_KEYS.iter().filter(|(field, _)| *field != "use_amp").copied();
        said_once("policy", &self.policy, own_amp)?;
        check_policy_device(&self.policy_device)?;
        section("policy", self.check_shared_policy())?;
        self.check_start()?;
        self.check_teacher()?;
        said_once("dataset", &self.dataset, DATASET_KEYS)?;
        said_once("env_settings", &self.env_settings, ENV_KEYS)?;
        variables(&self.env)?;
        let counts = [
            ("num_processes", self.num_processes.unwrap_or(1)),
            ("steps", self.steps),
            ("batch_size", self.batch_size),
            ("log_freq", self.log_freq),
        ];
        counts.into_iter().try_for_each(|(key, value)| at_least_one(key, value))?;
        match (&self.policy_type, &self.policy_path) {
            (None, None) => {
                Err(Problem::new("policy_type", "no policy", "set lerobot.policy_type or lerobot.policy_path"))
            }
            (Some(_), Some(_)) => {
                let message = "the checkpoint at policy_path has a type of its own";
                Err(Problem::new(
                    "policy_type",
                    message,
                    "set one of lerobot.policy_type and lerobot.policy_path to null",
                ))
            }
            _ => Ok(()),
        }?;
        if !are_episodes(&self.dataset_episodes) {
            let message = format!("{} is no list of episodes", self.dataset_episodes);
            return Err(Problem::new("dataset_episodes", message, "give indices as in [0,1,2], or null for all"));
        }
        if !self.optimizer.is_empty() && !self.optimizer.contains_key("lr") {
            let message = "an optimizer of its own without a learning rate would train with LeRobot's 1e-3";
            return Err(Problem::new("optimizer", message, "add lerobot.optimizer.lr=..."));
        }
        if self.optimizer.is_empty() != self.scheduler.is_empty() {
            let (key, other) =
                if self.optimizer.is_empty() { ("optimizer", "scheduler") } else { ("scheduler", "optimizer") };
            let message = format!("LeRobot takes both from the policy or none; only {other} is set");
            return Err(Problem::new(key, message, format!("set lerobot.{key}, or leave lerobot.{other} empty")));
        }
        Ok(())
    }
}

/// The type of the plugin's policy that shares its network with stage 2.
const SHARED_POLICY: &str = "hlrp_smolvla_shared";
/// Its fields that choose among words.
const SHARED_CHOICES: [(&str, &[&str]); 3] = [
    ("init_mode", &["artifact", "scratch", "smolvla"]),
    ("stage3_training_mode", &["action", "latent", "multitask"]),
    ("laq_weights", &["trained", "random"]),
];

impl LerobotConfig {
    /// Fields of the plugin's policy that are given; the rest is for LeRobot to check.
    fn check_shared_policy(&self) -> Checked {
        if self.policy_type.as_deref() != Some(SHARED_POLICY) {
            return Ok(());
        }
        let given = |name: &str| self.policy.get(name).filter(|value| !value.is_null());
        for (name, known) in SHARED_CHOICES {
            let Some(value) = given(name) else { continue };
            let good = value.as_str().is_some_and(|word| known.contains(&word));
            let known = known.join(", ");
            require(good, name, format!("{value} is none of {known}"), format!("set it to one of {known}"))?;
        }
        for name in ["action_loss_weight", "latent_loss_weight"] {
            let Some(value) = given(name) else { continue };
            not_negative(name, value.as_f64().unwrap_or(f64::NAN))?;
        }
        Ok(())
    }

    /// A policy of the plugin is given what it starts from, and nothing that another start would read.
    fn check_start(&self) -> Checked {
        let field = |name: &str| self.policy.get(name).and_then(serde_json::Value::as_str);
        let Some(mode) = start_of_policy(self.policy_type.as_deref(), field("init_mode")) else { return Ok(()) };
        let starts = [
            ("artifact", "stage2_artifact", "lerobot.policy.stage2_artifact=runs/<run of train-vla>/artifacts/best"),
            (
                "smolvla",
                "smolvla_checkpoint",
                "++lerobot.policy.smolvla_checkpoint=<folder of a LeRobot smolvla policy>",
            ),
        ];
        for (of, name, hint) in starts {
            let key = format!("policy.{name}");
            match field(name) {
                None if mode == of => {
                    let message = format!("which one does the policy start from? lerobot.policy.init_mode is {mode}");
                    return Err(Problem::new(key, message, hint).unset());
                }
                Some(_) if mode != of => {
                    let message = format!("the policy starts in another way: lerobot.policy.init_mode is {mode}");
                    let hint = format!("set lerobot.policy.init_mode={of}, or lerobot.{key} to null");
                    return Err(Problem::new(key, message, hint));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A new policy of the plugin that learns latent actions has a teacher.
    fn check_teacher(&self) -> Checked {
        let field = |name: &str| self.policy.get(name).and_then(serde_json::Value::as_str);
        let is_ours = self.policy_type.as_deref() == Some(SHARED_POLICY);
        match (field("stage3_training_mode"), field("laq_checkpoint_path")) {
            (Some(mode @ ("latent" | "multitask")), None) if is_ours => {
                let message = format!("who labels the frames? lerobot.policy.stage3_training_mode is {mode}");
                let hint = "++lerobot.policy.laq_checkpoint_path=runs/<run of train-laq>";
                Err(Problem::new("policy.laq_checkpoint_path", message, hint).unset())
            }
            _ => Ok(()),
        }
    }
}

/// How a new policy starts: as its `init_mode` says, which the plugin's policy has also where it is not given.
pub fn start_of_policy<'a>(policy_type: Option<&str>, init_mode: Option<&'a str>) -> Option<&'a str> {
    init_mode.or_else(|| (policy_type == Some(SHARED_POLICY)).then_some("artifact"))
}

/// Whether a value says which episodes: null, a list of indices, or such a list as text.
fn are_episodes(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null => true,
        serde_json::Value::String(text) => serde_json::from_str::<Vec<u64>>(text).is_ok(),
        other => other.as_array().is_some_and(|list| list.iter().all(serde_json::Value::is_u64)),
    }
}

impl Check for RolloutConfig {
    fn check(&self) -> Result<(), Problem> {
        check_run(&self.experiment, &self.paths, &self.logging, &self.cluster)?;
        self.cluster.refuse_outside("lerobot_eval.output_dir", &self.lerobot_eval.output_dir)?;
        self.lerobot_eval.check().map_err(|problem| problem.inside("lerobot_eval"))
    }
}

impl Check for LerobotEvalConfig {
    fn check(&self) -> Result<(), Problem> {
        if self.policy_path.is_none() {
            let hint = "lerobot_eval.policy_path=runs/<run of train-lerobot>, or a checkpoint of LeRobot";
            return Err(Problem::new("policy_path", "which policy is to act?", hint).unset());
        }
        check_policy_device(&self.policy_device)?;
        said_once("policy", &self.policy, POLICY_KEYS)?;
        said_once("env_settings", &self.env_settings, ENV_KEYS)?;
        variables(&self.env)?;
        at_least_one("eval_n_episodes", self.eval_n_episodes)?;
        at_least_one("eval_batch_size", self.eval_batch_size)
    }
}

/// # Errors
/// A field below `section` that has a key of its own.
fn said_once<'a>(
    section: &str,
    values: &PassedOn,
    own: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<(), Problem> {
    match own.into_iter().find(|(field, _)| values.contains_key(*field)) {
        None => Ok(()),
        Some((field, key)) => Err(Problem::new(
            format!("{section}.{field}"),
            format!("this has a key of its own, {key}"),
            format!("set {key} instead"),
        )),
    }
}

/// # Errors
/// A variable that is no single value.
fn variables(values: &PassedOn) -> Result<(), Problem> {
    match values.iter().find(|(_, value)| value.is_array() || value.is_object()) {
        None => Ok(()),
        Some((name, value)) => Err(Problem::new(
            format!("env.{name}"),
            format!("{value} is no value of an environment variable"),
            "give text or a number, or null to leave the variable as it is",
        )),
    }
}

fn at_least_one(key: &str, value: u64) -> Result<(), Problem> {
    if value >= 1 { Ok(()) } else { Err(Problem::new(key, "0 is below 1", "set it to 1 or more")) }
}
