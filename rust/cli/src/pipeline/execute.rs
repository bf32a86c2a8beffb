//! Running the steps: each is started, continued or skipped, depending on its run directory.

use super::{
    handover::{Outputs, arguments, outputs},
    stage::Contract,
    state::{State, Status},
    steps::{Step, Work},
};
use crate::child::{self, Ended, Invocation};
use anyhow::Result;
use hlrp_schema::ArtifactChoice;
use hlrp_track::run::{Manifest, RunStatus};
use hlrp_track::signals::StopSignals;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

/// A pipeline that runs.
pub(super) struct Execution<'a> {
    pub(super) steps: &'a [Step],
    pub(super) state: State,
    pub(super) run_dir: &'a Path,
    pub(super) artifact: ArtifactChoice,
    /// This program, asked for at the start: a build while the pipeline runs puts another file in its place.
    pub(super) program: PathBuf,
    /// What its steps have besides their overrides.
    pub(super) options: &'a Options,
    /// The step to run; all when none.
    pub(super) only: Option<&'a str>,
}

/// Options of the pipeline that its steps have too.
pub(super) struct Options {
    /// The configuration tree, for a new run; one that continues has its configuration.
    pub(super) tree: Vec<String>,
    /// For every run.
    pub(super) allow_login_node: bool,
}

/// How it went.
pub(super) enum Outcome {
    /// Every step is done.
    Done,
    /// The one step that was to run is done, and others are left.
    StepDone {
        /// Its name.
        step: String,
    },
    /// A signal came in this step.
    Interrupted { step: String },
    /// This step failed.
    Failed { step: String, run_dir: PathBuf, code: u8 },
}

/// What is to be done with a step.
enum Start {
    /// Nothing: its run has finished.
    Finished(PathBuf),
    /// Its run continues from its last checkpoint.
    Continue(PathBuf),
    /// A new run.
    New(PathBuf),
}

impl Execution<'_> {
    /// Runs what is left to do.
    ///
    /// # Errors
    /// A step cannot be started, or has finished without what the next one needs.
    pub(super) fn run(&mut self, signals: &StopSignals) -> Result<Outcome> {
        for (index, step) in self.steps.iter().enumerate() {
            if self.state.steps[index].status == Status::Done {
                tracing::info!("{} is done", step.name);
                continue;
            }
            if let Some(only) = self.only.filter(|only| *only != step.name) {
                return Ok(Outcome::StepDone { step: only.to_owned() });
            }
            let (run_dir, ended) = match self.start(index, step) {
                Start::Finished(run_dir) => (run_dir, Ended { code: 0, is_interrupted: false }),
                Start::Continue(run_dir) => {
                    tracing::info!("{} continues in {}", step.name, run_dir.display());
                    let arguments = vec!["--resume".to_owned(), run_dir.display().to_string()];
                    let arguments = self.options.continued_run(arguments);
                    (run_dir.clone(), self.execute(index, step, &run_dir, arguments, signals)?)
                }
                Start::New(run_dir) => {
                    tracing::info!("{} starts in {}", step.name, run_dir.display());
                    let arguments = self.options.new_run(step, arguments(step, &outputs(&self.state), &run_dir));
                    (run_dir.clone(), self.execute(index, step, &run_dir, arguments, signals)?)
                }
            };
            if ended.code == 0 {
                let output = Contract::of(step.stage()).output(&run_dir, self.artifact)?;
                self.state.steps[index].run_dir = Some(run_dir);
                self.state.steps[index].output = Some(output);
                self.set(index, Status::Done)?;
                tracing::info!("{} is done after {:.0} s", step.name, self.state.steps[index].seconds);
            } else if !ended.is_interrupted {
                self.set(index, Status::Failed)?;
                return Ok(Outcome::Failed { step: step.name.clone(), run_dir, code: ended.code });
            }
            if ended.is_interrupted {
                if ended.code != 0 {
                    self.set(index, Status::Interrupted)?;
                }
                return Ok(Outcome::Interrupted { step: step.name.clone() });
            }
        }
        Ok(Outcome::Done)
    }

    fn start(&self, index: usize, step: &Step) -> Start {
        let first = self.run_dir.join(&step.name);
        let Some(former) = &self.state.steps[index].run_dir else { return Start::New(unused(&first)) };
        let has_finished = match step.work {
            Work::Run { .. } => Manifest::read(former).is_ok_and(|manifest| {
                manifest.sessions.last().is_some_and(|session| session.status == RunStatus::Finished)
            }),
            // A labelled dataset appears whole.
            Work::Label { .. } => former.exists(),
        };
        let has_checkpoint = Contract::of(step.stage()).can_continue(former);
        match () {
            () if has_finished => Start::Finished(former.clone()),
            () if has_checkpoint => Start::Continue(former.clone()),
            () => Start::New(unused(&first)),
        }
    }

    fn execute(
        &mut self,
        index: usize,
        step: &Step,
        run_dir: &Path,
        arguments: Vec<String>,
        signals: &StopSignals,
    ) -> Result<Ended> {
        self.state.steps[index].run_dir = Some(run_dir.to_path_buf());
        self.set(index, Status::Running)?;
        let started = Instant::now();
        let invocation = invocation(self.program.clone(), step, arguments);
        tracing::info!("{}", invocation.to_shell().replace(" \\\n ", ""));
        let ended = child::run(&invocation, signals, None);
        self.state.steps[index].seconds += started.elapsed().as_secs_f64();
        ended
    }

    fn set(&mut self, index: usize, status: Status) -> Result<()> {
        self.state.steps[index].status = status;
        self.state.write(self.run_dir)
    }
}

impl Options {
    /// All arguments of a new run of a step with these arguments of its own.
    fn new_run(&self, step: &Step, arguments: Vec<String>) -> Vec<String> {
        match step.work {
            Work::Run { .. } => self.continued_run(arguments.into_iter().chain(self.tree.iter().cloned()).collect()),
            // It reads no configuration and trains nothing.
            Work::Label { .. } => arguments,
        }
    }

    /// All arguments of a run that continues.
    fn continued_run(&self, arguments: Vec<String>) -> Vec<String> {
        arguments.into_iter().chain(self.allow_login_node.then(|| "--allow-login-node".to_owned())).collect()
    }
}

/// The commands of a new pipeline in `run_dir`, as a shell reads them.
pub(super) fn dry_run(steps: &[Step], run_dir: &Path, artifact: ArtifactChoice, options: &Options) -> Vec<String> {
    let mut outputs = Outputs::new();
    let commands = steps.iter().map(|step| {
        let step_dir = run_dir.join(&step.name);
        let arguments = options.new_run(step, arguments(step, &outputs, &step_dir));
        outputs.insert(step.name.clone(), Contract::of(step.stage()).expected_output(&step_dir, artifact));
        invocation(PathBuf::from("hlrp"), step, arguments).to_shell()
    });
    commands.collect()
}

fn invocation(program: PathBuf, step: &Step, arguments: Vec<String>) -> Invocation {
    let arguments = std::iter::once(step.command().to_owned()).chain(arguments).collect();
    Invocation { program, arguments, env: BTreeMap::new(), knows_usr1: true }
}

/// `first`, or the first of `first-2`, `first-3`, … that does not exist: what a killed run left stays as it is.
fn unused(first: &Path) -> PathBuf {
    let numbered = (2..).map(|number| first.with_file_name(format!("{}-{number}", name(first))));
    std::iter::once(first.to_path_buf())
        .chain(numbered)
        .find(|path| !path.exists())
        .unwrap_or_else(|| first.to_path_buf())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
