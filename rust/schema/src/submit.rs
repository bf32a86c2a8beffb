//! Section `submit`: how `hlrp submit` queues a run.

use crate::cluster::{ClusterConfig, seconds_of_time};
use crate::rules::{Checked, at_least, positive, require};
use hlrp_config::Check;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How `hlrp submit` queues a run. Programs that train read nothing of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitConfig {
    /// Print scripts and plan, write nothing.
    pub dry_run: bool,
    /// Form of what a dry run prints.
    pub print: PlanForm,
    /// Options of `cluster` on which the run is queued at once: the first start wins.
    pub race: Option<Vec<String>>,
    /// Whether a sweep becomes one job array.
    pub array: bool,
    /// Members of an array that may run at once; all when null.
    pub array_limit: Option<u32>,
    /// Whether a short job checks the node first.
    pub preflight: bool,
    /// `HH:MM:SS` before the time limit at which the job is told to save its work.
    pub save_before_limit: String,
    /// How often a job that meets its time limit is queued again.
    pub max_restarts: u32,
    /// Seconds of an optimizer step on the cluster, where known.
    pub seconds_per_step: Option<f64>,
    /// Shell lines that run on the node before the program.
    pub pre_commands: Vec<String>,
    /// Folders that the container sees besides those that the configuration names.
    pub extra_mounts: Vec<PathBuf>,
}

/// Form of a printed plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanForm {
    /// Scripts, and the plan as a table.
    Text,
    /// One JSON document.
    Json,
}

impl SubmitConfig {
    /// Seconds before the time limit at which the job is told to save its work.
    pub fn save_before_limit_s(&self) -> u64 {
        seconds_of_time(&self.save_before_limit).unwrap_or_default()
    }

    /// The rules that need the cluster too.
    pub(crate) fn check_on(&self, cluster: &ClusterConfig) -> Checked {
        let Some(limit) = cluster.compute.time_limit.as_deref().filter(|_| cluster.slurm.enabled) else {
            return Ok(());
        };
        let margin = &self.save_before_limit;
        require(
            seconds_of_time(limit).is_none_or(|limit| self.save_before_limit_s() < limit),
            "submit.save_before_limit",
            format!("{margin} is not below the time limit {limit} of cluster.compute.time_limit"),
            "raise the time limit, or save later",
        )
    }
}

impl Check for SubmitConfig {
    fn check(&self) -> Checked {
        for (index, name) in self.race.iter().flatten().enumerate() {
            let is_repeated = self.race.iter().flatten().take(index).any(|earlier| earlier == name);
            let message = format!("'{name}' is there twice");
            require(!is_repeated, "race", message, "name each option of `cluster` once")?;
        }
        let num_racing = self.race.as_ref().map_or(2, Vec::len);
        let hint = "name two or more options of `cluster`, or set it to null for one job on cluster=NAME";
        require(num_racing >= 2, "race", format!("{num_racing} option is not a race"), hint)?;
        let hint = "submit the sweep as single jobs (submit.array=false), or without a race";
        require(!(self.array && self.race.is_some()), "array", "members of an array cannot race", hint)?;
        let hint = "submit the sweep as single jobs (submit.array=false), or check a node with one run first";
        require(!(self.array && self.preflight), "array", "an array is queued without a check of its nodes", hint)?;
        self.array_limit.map_or(Ok(()), |limit| at_least("array_limit", limit, 1))?;
        let margin = &self.save_before_limit;
        let message = format!("'{margin}' is not a time");
        require(
            seconds_of_time(margin).is_some(),
            "save_before_limit",
            message,
            "write \"HH:MM:SS\", in quotes in a file",
        )?;
        self.seconds_per_step.map_or(Ok(()), |seconds| positive("seconds_per_step", seconds))?;
        let bad = self.pre_commands.iter().find(|line| line.contains('\0') || line.trim().is_empty());
        require(bad.is_none(), "pre_commands", "an empty command", "leave it out")
    }
}
