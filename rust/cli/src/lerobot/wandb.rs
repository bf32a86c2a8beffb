//! Who records a run of stage 3 on W&B: this program, or LeRobot's own client as the same run.

use crate::child::Invocation;
use anyhow::Result;
use hlrp_schema::LerobotTrainConfig;
use hlrp_track::{
    RunDir,
    sinks::wandb::{Official, Settings},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Service of LeRobot's page in the links of a run.
const PAGE: &str = "wandb (LeRobot)";
/// Its id there.
const ID: &str = "wandb (LeRobot), id";
/// Folder of LeRobot's records.
const RECORDS: &str = "wandb (LeRobot), folder";

/// How a training is recorded.
pub(super) struct Recording {
    /// `logging.use_wandb`, unless the mode is `disabled`.
    settings: Option<Settings>,
    /// Whether it is on and LeRobot's client too: then that client records the run, under these settings.
    is_shared: bool,
}

impl Recording {
    /// # Errors
    /// No usable credentials, or a setting that W&B refuses.
    pub(super) fn of(config: &LerobotTrainConfig, resume: Option<&Path>) -> Result<Self> {
        let is_on = config.logging.use_wandb;
        let settings = if is_on { Settings::of_run(&config.logging.wandb, resume)? } else { None };
        Ok(Self { settings, is_shared: is_on && config.lerobot.wandb_enable })
    }

    /// What this program's own sink records.
    pub(super) fn of_sink(&self) -> Option<&Settings> {
        self.settings.as_ref().filter(|_| !self.is_shared)
    }

    /// Makes the run of LeRobot's client that of `run_dir`.
    ///
    /// # Errors
    /// The id cannot be kept, or the service lacks the run that is resumed.
    pub(super) fn instruct(&self, invocation: &mut Invocation, run_dir: &mut RunDir, is_resumed: bool) -> Result<()> {
        if !self.is_shared {
            return Ok(());
        }
        let Some(settings) = &self.settings else {
            replace(&mut invocation.arguments, "wandb.enable", "false");
            return Ok(());
        };
        let run = settings.for_official_client(run_dir.path(), is_resumed)?;
        run_dir.add_link(ID, &run.id);
        flags(&run, is_resumed).iter().for_each(|(name, value)| replace(&mut invocation.arguments, name, value));
        for (name, value) in run.variables {
            invocation.env.entry(name).or_insert(value); // what section `env` sets wins
        }
        Ok(())
    }
}

/// LeRobot's flags for what its variables do not decide: it gives these values to its client itself.
fn flags(run: &Official, is_resumed: bool) -> Vec<(&'static str, String)> {
    let given = [
        ("wandb.run_id", Some(run.id.clone())),
        ("wandb.mode", Some(run.mode.to_owned())),
        ("wandb.project", Some(run.project.clone())),
        ("wandb.entity", run.entity.clone()),
        ("wandb.notes", run.notes.clone()),
        // Its own tags, made from the policy and the data, would replace them.
        ("wandb.add_tags", (!run.tags.is_empty()).then(|| "false".to_owned())),
        // A checkpoint has the name already.
        ("job_name", run.name.clone().filter(|_| !is_resumed)),
    ];
    given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Sets a flag, in the place of one of its name.
fn replace(arguments: &mut Vec<String>, name: &str, value: &str) {
    let start = format!("--{name}=");
    let flag = format!("{start}{value}");
    match arguments.iter_mut().find(|argument| argument.starts_with(&start)) {
        Some(argument) => *argument = flag,
        None => arguments.push(flag),
    }
}

/// Links the run of LeRobot's client: its page, where it printed one, and the folder of the records that this session wrote.
pub(super) fn link(run_dir: &mut RunDir, page: Option<&str>, output_dir: &Path, before: &[PathBuf]) {
    if let Some(page) = page {
        run_dir.add_link(PAGE, page);
    }
    if let Some(folder) = records(output_dir).into_iter().find(|folder| !before.contains(folder)) {
        run_dir.add_link(RECORDS, &folder.display().to_string());
    }
}

/// The folders of LeRobot's client below LeRobot's output folder, one for each session.
pub(super) fn records(output_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(output_dir.join("wandb")).into_iter().flatten();
    let folders = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path.is_dir() && (name.starts_with("run-") || name.starts_with("offline-run-"))
    });
    folders.collect()
}
