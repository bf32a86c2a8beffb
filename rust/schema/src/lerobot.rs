//! The trees of stage 3: the settings of `lerobot-train` and `lerobot-eval`.

use crate::cluster::ClusterConfig;
use crate::device::Device;
use crate::plugin::PluginPolicy;
use crate::rules::{Checked, MAX_LONG, at_least, long_count, require, within};
use crate::run::{check_common, stage_config};
use crate::stage::StageConfig;
use hlrp_config::{
    Check, Problem,
    secret::{has_secret, is_secret_name},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Values that go to LeRobot under their own names, or into the environment; null, text, numbers, lists and maps.
pub type PassedOn = BTreeMap<String, serde_json::Value>;

stage_config! {
    /// Everything that `hlrp train-lerobot` reads.
    LerobotTrainConfig of LerobotTrain {
        /// The fine-tuning.
        lerobot: LerobotConfig,
    }
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

stage_config! {
    /// Everything that `hlrp rollout-lerobot` reads.
    RolloutConfig of LerobotRollout {
        /// The evaluation.
        lerobot_eval: LerobotEvalConfig,
    }
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

/// Fields of LeRobot that have keys of their own in these sections, so that `policy`, `dataset` and `env_settings` must not set them again.
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
/// The same for a run that is recorded as one with LeRobot's own client.
const WANDB_KEYS: [(&str, &str); 5] = [
    ("project", "logging.wandb.project"),
    ("entity", "logging.wandb.entity"),
    ("notes", "logging.wandb.notes"),
    ("mode", "logging.wandb.mode"),
    ("run_id", "WANDB_RUN_ID"),
];

impl Check for LerobotTrainConfig {
    fn check(&self) -> Result<(), Problem> {
        check_common(&self.common())?;
        if self.cluster.compute.num_nodes.is_some_and(|num_nodes| num_nodes > 1) {
            let message = "LeRobot runs on one machine";
            return Err(Problem::new(
                "cluster.compute.num_nodes",
                message,
                "choose a cluster of one node, or set it to 1",
            )
            .misfit());
        }
        self.cluster.refuse_output("lerobot.output_dir", &self.lerobot.output_dir)?;
        refuse_other_outputs(&self.cluster, "lerobot", &self.lerobot.env, &self.lerobot.extra_args)?;
        if self.logging.use_wandb && self.lerobot.wandb_enable {
            said_once("lerobot.wandb", &self.lerobot.wandb, WANDB_KEYS)?;
        }
        self.lerobot.check().map_err(|problem| problem.inside("lerobot"))
    }
}

impl Check for LerobotConfig {
    fn check(&self) -> Result<(), Problem> {
        let own_amp = POLICY_KEYS.iter().filter(|(field, _)| *field != "use_amp").copied();
        said_once("policy", &self.policy, own_amp)?;
        check_policy_device(&self.policy_device)?;
        PluginPolicy::new(self.policy_type.as_deref(), &self.policy).check(&self.policy)?;
        said_once("dataset", &self.dataset, DATASET_KEYS)?;
        said_once("env_settings", &self.env_settings, ENV_KEYS)?;
        variables(&self.env)?;
        let sections = [
            ("policy", &self.policy),
            ("dataset", &self.dataset),
            ("env_settings", &self.env_settings),
            ("eval", &self.eval),
            ("optimizer", &self.optimizer),
            ("scheduler", &self.scheduler),
            ("wandb", &self.wandb),
        ];
        sections.into_iter().try_for_each(|(name, section)| no_secrets(name, section))?;
        no_secret_arguments("extra_args", &self.extra_args)?;
        no_secret_arguments("accelerate_args", &self.accelerate_args)?;
        at_least("num_processes", self.num_processes.unwrap_or(1), 1)?;
        at_least("batch_size", self.batch_size, 1)?;
        at_least("num_workers", self.num_workers, 0)?;
        long_count("steps", self.steps)?;
        long_count("log_freq", self.log_freq)?;
        within("env_eval_freq", self.env_eval_freq, 0, MAX_LONG)?;
        within("save_freq", self.save_freq, 0, MAX_LONG)?;
        match (&self.policy_type, &self.policy_path) {
            (None, None) => {
                Err(Problem::new("policy_type", "no policy", "set lerobot.policy_type or lerobot.policy_path"))
            }
            (Some(_), Some(_)) => {
                let message = "the checkpoint at policy_path already has a type";
                Err(Problem::new(
                    "policy_type",
                    message,
                    "set one of lerobot.policy_type and lerobot.policy_path to null",
                ))
            }
            _ => Ok(()),
        }?;
        if !are_episodes(&self.dataset_episodes) {
            let message = format!("{} is not a list of episodes", self.dataset_episodes);
            return Err(Problem::new("dataset_episodes", message, "give indices as in [0,1,2], or null for all"));
        }
        if !self.optimizer.is_empty() && !self.optimizer.contains_key("lr") {
            let message = "an optimizer without a learning rate would train with LeRobot's 1e-3";
            return Err(Problem::new("optimizer", message, "add lerobot.optimizer.lr=..."));
        }
        if self.optimizer.is_empty() != self.scheduler.is_empty() {
            let (key, other) =
                if self.optimizer.is_empty() { ("optimizer", "scheduler") } else { ("scheduler", "optimizer") };
            let message = format!("LeRobot takes both or neither from the policy; only {other} is set");
            return Err(Problem::new(key, message, format!("set lerobot.{key}, or leave lerobot.{other} empty")));
        }
        Ok(())
    }
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
        check_common(&self.common())?;
        self.cluster.refuse_output("lerobot_eval.output_dir", &self.lerobot_eval.output_dir)?;
        let eval = &self.lerobot_eval;
        refuse_other_outputs(&self.cluster, "lerobot_eval", &eval.env, &eval.extra_args)?;
        self.lerobot_eval.check().map_err(|problem| problem.inside("lerobot_eval"))
    }
}

impl Check for LerobotEvalConfig {
    fn check(&self) -> Result<(), Problem> {
        if self.policy_path.is_none() {
            let hint = "lerobot_eval.policy_path=runs/<run of train-lerobot>, or a checkpoint of LeRobot";
            return Err(Problem::new("policy_path", "must be set", hint).unset());
        }
        check_policy_device(&self.policy_device)?;
        said_once("policy", &self.policy, POLICY_KEYS)?;
        said_once("env_settings", &self.env_settings, ENV_KEYS)?;
        variables(&self.env)?;
        no_secrets("policy", &self.policy)?;
        no_secrets("env_settings", &self.env_settings)?;
        no_secret_arguments("extra_args", &self.extra_args)?;
        at_least("eval_n_episodes", self.eval_n_episodes, 1)?;
        at_least("eval_batch_size", self.eval_batch_size, 1)
    }
}

/// A policy of LeRobot may also compute on Apple's GPUs.
fn check_policy_device(name: &str) -> Checked {
    let good = name == "mps" || name.parse::<Device>().is_ok();
    require(good, "policy_device", format!("unknown device '{name}'"), "use auto, cpu, cuda, cuda:N or mps")
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
            format!("has a key of its own, {key}"),
            format!("set {key} instead"),
        )),
    }
}

/// # Errors
/// A secret among the fields that become flags of LeRobot.
fn no_secrets(section: &str, values: &PassedOn) -> Checked {
    let is_secret = |name: &str, value: &serde_json::Value| match value {
        serde_json::Value::Null | serde_json::Value::Bool(_) => false,
        value => is_secret_name(name) || has_secret(&value.to_string()),
    };
    match values.iter().find(|(name, value)| is_secret(name, value)) {
        None => Ok(()),
        Some((name, _)) => refuse_secret(&format!("{section}.{name}")),
    }
}

/// # Errors
/// A secret among arguments of LeRobot.
fn no_secret_arguments(key: &str, arguments: &[String]) -> Checked {
    if arguments.iter().any(|argument| has_secret(argument)) { refuse_secret(key) } else { Ok(()) }
}

fn refuse_secret(key: &str) -> Checked {
    let message = "it looks like a secret, and LeRobot writes its flags into every checkpoint";
    Err(Problem::new(
        key,
        message,
        "give it to LeRobot as an environment variable: export it, or set it in section env",
    ))
}

/// Variables that name folders into which LeRobot and its libraries write.
const FOLDER_VARIABLES: [&str; 16] = [
    "HOME",
    "XDG_CACHE_HOME",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_DATASETS_CACHE",
    "HF_ASSETS_CACHE",
    "HF_XET_CACHE",
    "HF_LEROBOT_HOME",
    "TRANSFORMERS_CACHE",
    "TORCH_HOME",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "WANDB_DIR",
    "WANDB_CACHE_DIR",
    "WANDB_DATA_DIR",
];

/// # Errors
/// A folder that LeRobot is told to write into is outside of the cluster's roots, or is named past its own key.
fn refuse_other_outputs(cluster: &ClusterConfig, section: &str, env: &PassedOn, extra_args: &[String]) -> Checked {
    for name in FOLDER_VARIABLES {
        if let Some(folder) = env.get(name).and_then(serde_json::Value::as_str).filter(|folder| !folder.is_empty()) {
            cluster.refuse_output(&format!("{section}.env.{name}"), Path::new(folder))?;
        }
    }
    let flag = |argument: &&String| argument.split('=').next() == Some("--output_dir");
    require(
        !extra_args.iter().any(|argument| flag(&argument)),
        &format!("{section}.extra_args"),
        "--output_dir has a key of its own",
        format!("set {section}.output_dir instead"),
    )
}

/// # Errors
/// A variable that is not a single value.
fn variables(values: &PassedOn) -> Result<(), Problem> {
    match values.iter().find(|(_, value)| value.is_array() || value.is_object()) {
        None => Ok(()),
        Some((name, _)) => Err(Problem::new(
            format!("env.{name}"),
            "a list or section is not a value of an environment variable",
            "give text or a number, or null to leave the variable as it is",
        )),
    }
}
