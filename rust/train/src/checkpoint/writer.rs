//! Writes a checkpoint.

use super::{
    CONFIG, EMA, MODEL, Manifest, OPTIMIZER, RunState, STATE, ScheduleState, Score,
    location::checkpoint_name,
    manifest::{FILE_NAME, digests},
};
use crate::{
    error::{Result, TrainError},
    update::DecayGroup,
};
use hlrp_data::Position;
use hlrp_schema::{Precision, TaskDescription};
use hlrp_track::fs::{DiskRules, OnExisting, ensure_free, publish_dir};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tch::Tensor;

/// Everything that a checkpoint contains.
pub(crate) struct Contents {
    /// Parameters and buffers.
    pub(crate) model: Vec<(String, Tensor)>,
    pub(crate) optimizer: Vec<(String, Tensor)>,
    pub(crate) ema: Option<Vec<(String, Tensor)>>,
    pub(crate) state: RunState,
    pub(crate) config_yaml: String,
    pub(crate) score: Option<Score>,
    pub(crate) device: String,
    pub(crate) num_threads: usize,
    pub(crate) precision: Precision,
    pub(crate) optimizer_groups: [DecayGroup; 2],
    pub(crate) task: TaskDescription,
}

impl Contents {
    /// Bytes on the disk, with room for the small files.
    pub(crate) fn num_bytes(&self) -> u64 {
        const SMALL_FILES: u64 = 1 << 20;
        let tensors = self.model.iter().chain(&self.optimizer).chain(self.ema.iter().flatten());
        SMALL_FILES
            + tensors.map(|(_, tensor)| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64).sum::<u64>()
    }

    /// The same with copies of the tensors in the host's memory, which no later step changes.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn snapshot(mut self) -> Result<Self> {
        let tensors = self.model.iter_mut().chain(&mut self.optimizer).chain(self.ema.iter_mut().flatten());
        let tensors: Vec<&mut Tensor> = tensors.map(|(_, tensor)| tensor).collect();
        let copies = hlrp_torch::snapshot(&tensors)?;
        for (tensor, copy) in tensors.into_iter().zip(copies) {
            *tensor = copy;
        }
        Ok(self)
    }
}

/// Publishes weights from elsewhere as the new folder `dir`: a checkpoint of step 0 that others load, but that no run resumes from.
///
/// # Errors
/// The folder exists, too little free space, or the system's refusal.
pub fn publish_weights(
    dir: &Path,
    model: Vec<(String, Tensor)>,
    task: TaskDescription,
    config_yaml: String,
    precision: Precision,
    disk: &DiskRules,
) -> Result<()> {
    let group = || DecayGroup { weight_decay: 0.0, names: Vec::new() };
    let contents = Contents {
        model,
        optimizer: Vec::new(),
        ema: None,
        state: RunState {
            step: 0,
            position: Position { epoch: 0, sample: 0, num_bad_samples: 0 },
            rng: Vec::new(),
            schedule: ScheduleState { num_done: 0, next_lr: 0.0 },
            best: None,
            num_ema_updates: 0,
            is_unfinished: false,
            sources: None,
        },
        config_yaml,
        score: None,
        device: "cpu".to_owned(),
        num_threads: 1,
        precision,
        optimizer_groups: [group(), group()],
        task,
    };
    ensure_free(dir, contents.num_bytes(), disk)?;
    publish_dir(dir, OnExisting::Refuse, &disk.superseded, |partial| fill(partial, &contents))
}

/// Publishes `contents` as `<checkpoints>/step-…` and returns the folder. One of the same step that exists already moves
/// aside.
///
/// # Errors
/// Too little free space (nothing is written then), or the system's refusal; former checkpoints stay as they are.
pub(super) fn write(checkpoints: &Path, contents: &Contents, disk: &DiskRules) -> Result<PathBuf> {
    let dir = checkpoints.join(checkpoint_name(contents.state.step));
    fs::create_dir_all(checkpoints).map_err(TrainError::io("create", checkpoints))?;
    ensure_free(&dir, contents.num_bytes(), disk)?;
    publish_dir(&dir, OnExisting::MoveAside, &disk.superseded, |partial| fill(partial, contents))?;
    Ok(dir)
}

fn fill(dir: &Path, contents: &Contents) -> Result<()> {
    write_tensors(&dir.join(MODEL), &contents.model)?;
    write_tensors(&dir.join(OPTIMIZER), &contents.optimizer)?;
    let mut names = vec![MODEL, OPTIMIZER, STATE, CONFIG];
    if let Some(ema) = &contents.ema {
        write_tensors(&dir.join(EMA), ema)?;
        names.push(EMA);
    }
    write_json(&dir.join(STATE), &contents.state)?;
    let config = dir.join(CONFIG);
    fs::write(&config, &contents.config_yaml).map_err(TrainError::io("write", &config))?;
    let manifest = Manifest {
        format: Manifest::FORMAT.to_owned(),
        format_version: Manifest::FORMAT_VERSION,
        hlrp: env!("CARGO_PKG_VERSION").to_owned(),
        libtorch: hlrp_torch::LIBTORCH_VERSION.to_owned(),
        step: contents.state.step,
        score: contents.score.clone(),
        device: contents.device.clone(),
        num_threads: contents.num_threads,
        precision: contents.precision,
        optimizer_groups: contents.optimizer_groups.clone(),
        task: contents.task.clone(),
        files: digests(dir, &names)?,
        written_in: Manifest::FORMAT_VERSION,
    };
    write_json(&dir.join(FILE_NAME), &manifest)
}

fn write_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let contiguous: Vec<(&str, Tensor)> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.detach().contiguous())).collect();
    Ok(Tensor::write_safetensors(&contiguous, path)?)
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| TrainError::Malformed { path: path.to_path_buf(), reason: error.to_string() })?;
    text.push('\n');
    fs::write(path, text).map_err(TrainError::io("write", path))
}
