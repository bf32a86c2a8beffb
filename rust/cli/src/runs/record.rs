//! A run as its directory records it. Everything but `run.json` is read when it is asked for.

use anyhow::{Context, Result};
use hlrp_config::{Composed, foreign::read_text, from_resolved};
use hlrp_schema::PROJECT;
use hlrp_track::{
    TrackError,
    console::format_value,
    metrics::{Better, FILE_NAME as METRICS, MetricSpec, MetricsRow, read_last_metrics, read_metrics},
    run::{Manifest, RunStatus, Session, is_in_use},
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A run.
#[derive(Debug)]
pub(crate) struct Run {
    /// Its directory.
    pub(crate) path: PathBuf,
    /// How tables name it.
    pub(super) name: String,
    pub(crate) manifest: Manifest,
}

/// One value that ranks a run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Score {
    pub(super) metric: String,
    pub(super) value: f64,
    /// Whether it is that of the best checkpoint; else it is the newest value.
    pub(super) is_best: bool,
}

impl Run {
    /// # Errors
    /// The folder is not a run, or its `run.json` is damaged.
    pub(super) fn open(path: &Path, name: String) -> Result<Self> {
        if Manifest::path(path).is_none() {
            let missing = hlrp_track::run::FILE_NAME.to_owned();
            return Err(TrackError::NotARun { path: path.to_path_buf(), missing }.into());
        }
        Ok(Self { path: path.to_path_buf(), name, manifest: Manifest::read(path)? })
    }

    /// The newest session.
    pub(crate) fn last_session(&self) -> Option<&Session> {
        self.manifest.sessions.last()
    }

    /// The status of the newest session; one that says it is running while no process has the run was killed.
    pub(crate) fn status(&self) -> RunStatus {
        match self.last_session().map(|session| session.status.clone()) {
            Some(RunStatus::Running) if !is_in_use(&self.path) => RunStatus::Killed,
            Some(status) => status,
            None => RunStatus::Killed,
        }
    }

    /// What the run does, as `experiment.stage` names it.
    pub(super) fn stage(&self) -> &str {
        match self.manifest.program.as_str() {
            "hlrp-train-laq" => "laq",
            "hlrp-train-vla" => "vla",
            "hlrp train-lerobot" => "lerobot_train",
            "hlrp rollout-lerobot" => "lerobot_rollout",
            "hlrp pipeline" => "pipeline",
            other => other,
        }
    }

    /// When it began, in seconds of Unix time.
    pub(super) fn started(&self) -> Option<i64> {
        hlrp_track::run::unix_seconds(&self.manifest.sessions.first()?.started_at)
    }

    /// Its configuration as resolved.
    ///
    /// # Errors
    /// `config.yaml` is missing or damaged.
    pub(crate) fn config(&self) -> Result<Composed> {
        Ok(from_resolved(&PROJECT, &self.path.join("config.yaml"), &[])?)
    }

    /// All its metrics; empty where it recorded none.
    ///
    /// # Errors
    /// `metrics.jsonl` cannot be read or has a damaged line.
    pub(crate) fn metrics(&self) -> Result<Vec<MetricsRow>> {
        let path = self.path.join(METRICS);
        if !path.exists() {
            return Ok(Vec::new());
        }
        Ok(read_metrics(&path)?)
    }

    /// The newest rows of its metrics, without reading all of a long file.
    ///
    /// # Errors
    /// As [`Run::metrics`].
    pub(super) fn last_metrics(&self) -> Result<Vec<MetricsRow>> {
        let path = self.path.join(METRICS);
        if !path.exists() {
            return Ok(Vec::new());
        }
        Ok(read_last_metrics(&path)?)
    }

    /// What the run declares about a metric.
    pub(super) fn spec(&self, metric: &str) -> Option<&MetricSpec> {
        self.manifest.metrics.iter().find(|spec| spec.name == metric)
    }

    /// The score of the best checkpoint; without one the newest value, in `rows`, of the first metric that has a better direction.
    ///
    /// # Errors
    /// A damaged file of the checkpoint.
    pub(super) fn score(&self, rows: &[MetricsRow]) -> Result<Option<Score>> {
        if let Some(score) = self.best_checkpoint()? {
            return Ok(Some(score));
        }
        let ranked = self.manifest.metrics.iter().filter(|spec| spec.better.is_some());
        let newest = |spec: &MetricSpec| rows.iter().rev().find_map(|row| row.get(&spec.name));
        Ok(ranked
            .filter_map(|spec| Some(Score { metric: spec.name.clone(), value: newest(spec)?, is_best: false }))
            .next())
    }

    fn best_checkpoint(&self) -> Result<Option<Score>> {
        let checkpoints = self.path.join("checkpoints");
        let pointer = checkpoints.join("best");
        if !pointer.is_file() {
            return Ok(None);
        }
        let name = read_text(&pointer).with_context(|| format!("cannot read {}", pointer.display()))?;
        let path = checkpoints.join(name.trim()).join("checkpoint.json");
        let Ok(text) = read_text(&path) else { return Ok(None) };
        let value: Value = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
        let score = &value["score"];
        Ok(score["metric"].as_str().zip(score["value"].as_f64()).map(|(metric, value)| Score {
            metric: metric.to_owned(),
            value,
            is_best: true,
        }))
    }
}

impl Score {
    /// `val/loss 0.0150`
    pub(super) fn text(&self) -> String {
        format!("{} {}", self.metric, format_value(&self.metric, self.value))
    }
}

/// The images of the last validation of the run in `run_dir`, by name.
pub(crate) fn last_images(run_dir: &Path) -> Vec<PathBuf> {
    let last = listed(&run_dir.join("validation"), |path| path.is_dir()).pop();
    last.map(|folder| images_in(&folder)).unwrap_or_default()
}

/// The images in a folder, by name; none where there is no folder.
pub(crate) fn images_in(folder: &Path) -> Vec<PathBuf> {
    listed(folder, |path| path.extension().is_some_and(|extension| extension == "png"))
}

fn listed(folder: &Path, keep: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<_> = entries.filter(|path| keep(path)).collect();
    paths.sort();
    paths
}

/// `running`, `failed`, …
pub(super) fn status_name(status: &RunStatus) -> &'static str {
    match status {
        RunStatus::Running => "running",
        RunStatus::Finished => "finished",
        RunStatus::Interrupted => "interrupted",
        RunStatus::Failed { .. } => "failed",
        RunStatus::Killed => "killed",
    }
}

/// Whether `left` is better than `right` in this direction.
pub(super) fn is_better(better: Better, left: f64, right: f64) -> bool {
    match better {
        Better::Lower => left < right,
        Better::Higher => left > right,
    }
}
