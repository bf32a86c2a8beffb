//! Section `pipeline.study`: runs that differ in what is studied, and a table that compares them.

use crate::rules::{Checked, require};
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
    pub source: LabelKind,
}

/// Where labels come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabelKind {
    /// The run's vectors and codes.
    Teacher,
    /// The summed actions of each pair.
    ActionAsLatent,
    /// Random vectors and codes.
    Synthetic,
}

impl LabelKind {
    /// As `hlrp label --source` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Teacher => "teacher",
            Self::ActionAsLatent => "action-as-latent",
            Self::Synthetic => "synthetic",
        }
    }
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
    /// A name that does not exist, or a circle; the key is relative to the study.
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

    fn check_names(&self) -> Checked {
        let good = |name: &str| {
            !name.is_empty() && name.chars().all(|char| char.is_ascii_alphanumeric() || "_-".contains(char))
        };
        for name in self.labels.keys().chain(self.runs.keys()) {
            let hint = "use letters, digits, '_' and '-'";
            require(good(name), "runs", format!("'{name}' is not a directory name"), hint)?;
            for (key, needed) in self.needs(name) {
                let is_known = self.runs.contains_key(needed) || self.labels.contains_key(needed);
                require(is_known, &key, format!("there is no '{needed}'"), "name a run or labels of the study")?;
                let is_once = |name: &str| self.runs.get(name).is_none_or(|run| !run.per_seed);
                let hint = "set per_seed of both to the same";
                let message = format!("'{needed}' is made for each seed, {name} once");
                require(!is_once(name) || is_once(needed), &key, message, hint)?;
            }
        }
        let both = self.labels.keys().find(|name| self.runs.contains_key(*name));
        require(both.is_none(), "labels", format!("{both:?} is the name of a run too"), "give it another name")
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
        for (key, name) in [("control", Some(&self.control)), ("ceiling", self.ceiling.as_ref())] {
            let is_arm = name.is_none_or(|name| self.arms.iter().any(|arm| arm.name == *name));
            require(is_arm, key, format!("there is no arm {name:?}"), "name one of the arms")?;
        }
        for (name, run) in &self.runs {
            let given = run.overrides.iter().find(|change| ["logging.run_dir", "seed"].contains(&override_key(change)));
            let key = format!("runs.{name}.overrides");
            let message = format!("{given:?} is decided by the study");
            require(given.is_none(), &key, message, "remove it here")?;
        }
        Ok(())
    }
}
