//! Flags of `lerobot-train` and `lerobot-eval`, as LeRobot 0.6 calls them.

use super::{inherit::Simulator, passed_on::text};
use hlrp_schema::{LerobotConfig, LerobotEvalConfig, PassedOn};
use serde_json::Value;
use std::path::Path;

/// The `policy_device` with which LeRobot chooses.
const AUTO: &str = "auto";

/// Flags of a new training. `policy_path` is the folder of the checkpoint that it starts from, if it does.
pub(super) fn train(config: &LerobotConfig, policy_path: Option<&Path>) -> Vec<String> {
    let mut flags = Flags::default();
    flags.optional("policy.type", config.policy_type.as_deref());
    flags.optional("policy.path", policy_path.map(|path| path.display().to_string()).as_deref());
    flags.optional("policy.repo_id", config.policy_repo_id.as_deref());
    flags.optional("policy.device", Some(config.policy_device.as_str()).filter(|device| *device != AUTO));
    flags.set("policy.push_to_hub", config.push_to_hub);
    flags.section("policy", &config.policy);
    flags.set("dataset.repo_id", &config.dataset_repo_id);
    flags.optional("dataset.root", config.dataset_root.as_ref().map(|root| root.display().to_string()).as_deref());
    if !config.dataset_episodes.is_null() {
        flags.set("dataset.episodes", text(&config.dataset_episodes));
    }
    flags.section("dataset", &config.dataset);
    flags.optional("env.type", config.env_type.as_deref());
    flags.optional("env.task", config.env_task.as_deref());
    flags.section("env", &config.env_settings);
    flags.section("eval", &config.eval);
    flags.set("output_dir", config.output_dir.display());
    flags.set("job_name", &config.job_name);
    flags.set("seed", config.seed);
    flags.set("batch_size", config.batch_size);
    flags.loop_settings(config);
    if !config.optimizer.is_empty() {
        flags.set("use_policy_training_preset", false);
        flags.section("optimizer", &config.optimizer);
        flags.section("scheduler", &config.scheduler);
    }
    flags.section("wandb", &config.wandb);
    flags.extra(&config.extra_args)
}

/// Flags of a training that continues from the checkpoint in `pretrained_model` and writes to `output_dir`.
///
/// What the checkpoint contains is not given again: its policy, data and optimizer.
pub(super) fn resume(config: &LerobotConfig, pretrained_model: &Path, output_dir: &Path) -> Vec<String> {
    let mut flags = Flags::default();
    flags.set("config_path", pretrained_model.join("train_config.json").display());
    flags.set("resume", true);
    flags.set("output_dir", output_dir.display());
    flags.loop_settings(config);
    flags.extra(&config.extra_args)
}

/// Flags of rollouts. `env_settings` are those of the configuration and the inherited ones.
pub(super) fn eval(config: &LerobotEvalConfig, policy_path: &Path, env: &Simulator) -> Vec<String> {
    let mut flags = Flags::default();
    flags.set("policy.path", policy_path.display());
    flags.optional("policy.device", Some(config.policy_device.as_str()).filter(|device| *device != AUTO));
    flags.set("policy.use_amp", config.policy_use_amp);
    flags.section("policy", &config.policy);
    flags.set("env.type", &env.kind);
    flags.optional("env.task", env.task.as_deref());
    flags.section("env", &env.settings);
    flags.set("eval.n_episodes", config.eval_n_episodes);
    flags.set("eval.batch_size", config.eval_batch_size);
    flags.set("eval.use_async_envs", config.eval_use_async_envs);
    flags.set("output_dir", config.output_dir.display());
    flags.set("job_name", &config.job_name);
    flags.set("seed", config.seed);
    flags.set("trust_remote_code", config.trust_remote_code);
    flags.extra(&config.extra_args)
}

#[derive(Default)]
struct Flags(Vec<String>);

impl Flags {
    fn set(&mut self, name: &str, value: impl ToString) {
        self.0.push(format!("--{name}={}", value.to_string()));
    }

    fn optional(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// Every field of a section; maps are sections in turn.
    fn section(&mut self, name: &str, values: &PassedOn) {
        for (field, value) in values {
            self.field(&format!("{name}.{field}"), value);
        }
    }

    fn field(&mut self, name: &str, value: &Value) {
        match value {
            Value::Object(fields) => {
                fields.iter().for_each(|(field, value)| self.field(&format!("{name}.{field}"), value))
            }
            value => self.set(name, text(value)),
        }
    }

    fn loop_settings(&mut self, config: &LerobotConfig) {
        self.set("steps", config.steps);
        self.set("num_workers", config.num_workers);
        self.set("env_eval_freq", config.env_eval_freq);
        self.set("log_freq", config.log_freq);
        self.set("save_freq", config.save_freq);
        self.set("wandb.enable", config.wandb_enable);
    }

    fn extra(mut self, arguments: &[String]) -> Vec<String> {
        self.0.extend(arguments.iter().filter(|argument| !argument.trim().is_empty()).cloned());
        self.0
    }
}
