//! Section `pipeline.study`: runs that differ in what is studied, and a table that compares them.

use crate::policy::LabelSource;
use crate::rules::{Checked, directory_name, require};
use hlrp_config::{Check, Problem, override_key};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Section `pipeline.study`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyConfig {
    /// Seeds of the runs that are made once for each.
    pub seeds: Vec<u64>,
    /// Metric of the last run of each arm; its last value counts.
    pub metric: String,
    /// Arm that the others are compared with, seed by seed.
    pub control: String,
    /// Arm whose gain over the control is 100 %.
    pub ceiling: Option<String>,
    /// Labelled datasets by name, made once.
    pub labels: BTreeMap<String, StudyLabels>,
    /// Runs by name.
    pub runs: BTreeMap<String, StudyRun>,
    /// What is compared, in the order of the table.
    pub arms: Vec<StudyArm>,
}

/// What `hlrp label` makes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyLabels {
    /// The run of stage 1 that labels.
    pub checkpoint: String,
    /// Folder of the dataset.
    pub dataset: PathBuf,
    /// As `hlrp label --source`.
    pub source: LabelSource,
}

/// One run, or one for each seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyRun {
    /// An option of the group `experiment`.
    pub experiment: String,
    /// Overrides, as on a command line.
    pub overrides: Vec<String>,
    /// Keys of its configuration that name the output of another run or of labels, each with that name.
    pub inputs: BTreeMap<String, String>,
    /// Whether there is one for each seed.
    pub per_seed: bool,
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyArm {
    /// Its name in the table.
    pub name: String,
    /// The run whose metric counts.
    pub run: String,
}

impl StudyConfig {
    /// Names of labels and runs, each after everything that it needs.
    ///
    /// # Errors
    /// A name that does not exist, or a cycle; the key is relative to the study.
    pub fn order(&self) -> Result<Vec<&str>, Problem> {
        let mut order: Vec<&str> = Vec::new();
        let mut waiting: BTreeSet<&str> = self.labels.keys().chain(self.runs.keys()).map(String::as_str).collect();
        while !waiting.is_empty() {
            let is_ready = |name: &&&str| self.needs(name).iter().all(|(_, needed)| order.contains(needed));
            let ready: Vec<&str> = waiting.iter().filter(is_ready).copied().collect();
            if ready.is_empty() {
                let names = waiting.into_iter().collect::<Vec<_>>().join(", ");
                return Err(Problem::new("runs", format!("{names} need each other"), "remove one of their inputs"));
            }
            waiting.retain(|name| !ready.contains(name));
            order.extend(ready);
        }
        Ok(order)
    }

    /// What labels or a run need, each with the key that says so.
    fn needs(&self, name: &str) -> Vec<(String, &str)> {
        if let Some(labels) = self.labels.get(name) {
            return vec![(format!("labels.{name}.checkpoint"), &labels.checkpoint)];
        }
        let inputs = self.runs.get(name).map(|run| &run.inputs);
        let inputs = inputs.into_iter().flatten();
        inputs.map(|(key, needed)| (format!("runs.{name}.inputs.{key}"), needed.as_str())).collect()
    }

    /// The directory of a run or of labels: a run of each seed has one of its own.
    pub fn directory(&self, name: &str, seed: Option<u64>) -> String {
        match seed.filter(|_| self.is_per_seed(name)) {
            Some(seed) => format!("{name}_seed{seed}"),
            None => name.to_owned(),
        }
    }

    /// Whether there is one of this name for each seed.
    pub fn is_per_seed(&self, name: &str) -> bool {
        self.runs.get(name).is_some_and(|run| run.per_seed)
    }

    fn check_names(&self) -> Checked {
        for name in self.labels.keys().chain(self.runs.keys()) {
            directory_name("runs", name)?;
            for (key, needed) in self.needs(name) {
                let is_known = self.runs.contains_key(needed) || self.labels.contains_key(needed);
                require(is_known, &key, format!("there is no '{needed}'"), "name a run or labels of the study")?;
                let hint = "set per_seed of both to the same";
                let message = format!("'{needed}' is made for each seed, {name} once");
                require(self.is_per_seed(name) || !self.is_per_seed(needed), &key, message, hint)?;
            }
        }
        self.labels.keys().try_for_each(|name| {
            let is_single = !self.runs.contains_key(name);
            require(is_single, "labels", format!("'{name}' is the name of a run too"), "give it another name")
        })
    }
}

impl Check for StudyConfig {
    fn check(&self) -> Checked {
        require(!self.seeds.is_empty(), "seeds", "no seed", "give at least one, such as [1,2,3]")?;
        let different: BTreeSet<u64> = self.seeds.iter().copied().collect();
        require(different.len() == self.seeds.len(), "seeds", "a seed is there twice", "give each once")?;
        self.check_names()?;
        self.order()?;
        for (index, arm) in self.arms.iter().enumerate() {
            let key = format!("arms[{index}].run");
            require(self.runs.contains_key(&arm.run), &key, format!("there is no run '{}'", arm.run), "name a run")?;
        }
        let named = [("control", Some(&self.control)), ("ceiling", self.ceiling.as_ref())];
        for (key, name) in named.into_iter().filter_map(|(key, name)| Some((key, name?))) {
            let is_arm = self.arms.iter().any(|arm| arm.name == *name);
            require(is_arm, key, format!("there is no arm '{name}'"), "name one of the arms")?;
        }
        for (name, run) in &self.runs {
            for change in &run.overrides {
                let is_free = !["logging.run_dir", "seed"].contains(&override_key(change));
                let key = format!("runs.{name}.overrides");
                require(is_free, &key, format!("{change}: the study decides it"), "remove it here")?;
            }
        }
        Ok(())
    }
}
