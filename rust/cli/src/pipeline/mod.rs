//! `hlrp pipeline`: all stages in turn, each a command of this program with a run directory of its own.
//!
//! | question | module |
//! |---|---|
//! | Which steps, and with which overrides? | [`steps`] |
//! | What do all steps share with the pipeline? | [`shared`] |
//! | From which configuration tree do they come? | [`tree`] |
//! | What does a stage need, and what does it hand over? | [`stage`] |
//! | How is a step told what those before it handed over? | [`handover`] |
//! | Is every step valid? | [`check`] |
//! | Which steps are done? | [`state`] |
//! | How is a step started, continued or skipped? | [`execute`] |
//! | What do a submission and a reproduction ask about steps? | [`view`] |
//! | What are the results? | [`summary`], as a page in [`html`]; of a study also [`study`] |

mod check;
mod execute;
mod handover;
mod html;
mod options;
mod shared;
mod stage;
mod state;
mod steps;
mod study;
mod summary;
mod tree;
mod view;

pub(crate) use options::PipelineOptions;
pub(crate) use view::{Before, before, can_continue, composed_steps, is_done, run_dirs};

use crate::HINTS;
use crate::disk::disk_rules;
use crate::error::CommandError;
use crate::programs::own_versions;
use anyhow::{Context, Result};
use execute::{Execution, Options, Outcome};
use hlrp_config::{Composed, Problem, from_resolved};
use hlrp_schema::{PROJECT, PipelineConfig, StageConfig};
use hlrp_track::{
    RunDir, console, exit_code,
    fs::ensure_free,
    host,
    run::{RunInfo, RunStatus},
    signals::StopSignals,
};
use state::{State, Status};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};
use steps::Step;
use tree::Tree;

const NAME: &str = "hlrp pipeline";

/// Runs the command.
///
/// # Errors
/// An invalid configuration of the pipeline or of one of its steps, before anything runs. A step that fails is not an error here: its
/// exit code is passed on.
pub(crate) fn pipeline(options: &PipelineOptions) -> Result<ExitCode> {
    let composed = compose_or_continue(options)?;
    let config: PipelineConfig = PipelineConfig::of_run(&composed)?;
    if let Some(run_dir) = &options.resume {
        config.cluster.refuse_output("--resume", run_dir)?;
    }
    let run_path = options.resume.clone().unwrap_or_else(|| config.logging.run_dir.clone());
    let former = State::read(&run_path)?;
    let kept = former.as_ref().filter(|_| options.resume.is_some());
    let tree = Tree::find(&options.config, kept.map(|state| state.tree.clone()))?;
    let passed_on = shared::passed_on(&composed, kept.map(|state| state.passed_on.as_slice()));
    let mut steps = steps::of(&config, &passed_on);
    check::check(&mut steps, &composed, &tree, &run_path, config.pipeline.artifact)?;
    if let Some(step) = &options.step {
        refuse_unready(step, &steps, former.as_ref())?;
    }
    let step_options = Options { tree: tree.options(), allow_login_node: options.allow_login_node };
    if options.dry_run {
        for command in execute::dry_run(&steps, &run_path, config.pipeline.artifact, &step_options) {
            console::print(&command);
        }
        return Ok(ExitCode::SUCCESS);
    }
    console::init(config.logging.level.into(), 0)?;
    host::refuse_login_node(NAME, config.cluster.login_nodes.as_deref(), options.allow_login_node)?;
    ensure_free(&run_path, 0, &disk_rules(&config.cluster, &config.logging))?;
    let program = std::env::current_exe().context("cannot find the path of hlrp")?;
    let signals = StopSignals::listen()?;
    let state = State::of(former, &steps, &run_path, tree, passed_on)?;
    let run_dir = open(&run_path, &config, &composed)?;
    console::log_to(&run_dir.log_file())?;
    tracing::info!("run directory {}", run_path.display());
    let artifact = config.pipeline.artifact;
    let mut execution = Execution {
        steps: &steps,
        state,
        run_dir: &run_path,
        artifact,
        program,
        options: &step_options,
        only: options.step.as_deref(),
    };
    let outcome = execution.run(&signals);
    finish(outcome, &execution.state, &steps, run_dir, &config)
}

/// A step on its own needs those before it.
fn refuse_unready(step: &str, steps: &[Step], former: Option<&State>) -> Result<(), Problem> {
    let Some(index) = steps.iter().position(|known| known.name == step) else {
        let names = steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Problem::new("--step", format!("unknown step '{step}'"), format!("the steps are {names}")));
    };
    let is_done = |step: &&Step| former.is_some_and(|state| state.status(&step.name) == Some(Status::Done));
    match steps[..index].iter().find(|step| !is_done(step)) {
        None => Ok(()),
        Some(missing) => {
            let message = format!("{} is not done, which {step} needs", missing.name);
            Err(Problem::new("--step", message, format!("run it first: --step {}", missing.name)))
        }
    }
}

/// The configuration: composed, or that of the run to continue.
fn compose_or_continue(options: &PipelineOptions) -> Result<Composed> {
    let config = &options.config;
    Ok(match &options.resume {
        Some(run_dir) => from_resolved(&PROJECT, &run_dir.join("config.yaml"), &config.overrides)?,
        None => config.compose()?,
    })
}

/// Starts the pipeline's run directory, or continues it where the pipeline has run before.
fn open(path: &Path, config: &PipelineConfig, composed: &Composed) -> Result<RunDir> {
    let yaml = composed.to_yaml();
    let info = RunInfo {
        description: &config.experiment.description,
        overrides: composed.overrides(),
        versions: own_versions().collect(),
        num_threads: config.num_threads.unwrap_or_else(host::num_cores),
        ..RunInfo::new(NAME, &config.experiment.name, &yaml)
    };
    Ok(if State::exists(path) { RunDir::resume(path, 0, &info)? } else { RunDir::create(path, &info)? })
}

/// Records how the pipeline ended; when all steps are done, summarizes them.
fn finish(
    outcome: Result<Outcome>,
    state: &State,
    steps: &[Step],
    run_dir: RunDir,
    config: &PipelineConfig,
) -> Result<ExitCode> {
    let path: PathBuf = run_dir.path().to_owned();
    let again = format!("{NAME} --resume {}", path.display());
    let findings = config.pipeline.study.as_ref().map(|study| study::Findings::of(study, state)).transpose();
    match outcome {
        Ok(Outcome::Done) => {
            let report = summary::of(steps, state)?;
            let arms = findings?.map(|findings| findings.table());
            let page = html::write(&path, &config.experiment, &report, arms.as_ref())?;
            summary::write(&path, &report, arms.as_ref())?;
            run_dir.finish(RunStatus::Finished)?;
            console::print(&arms.unwrap_or_else(|| report.table()).to_text());
            console::print(&format!(
                "\n{:<14}{}\n{:<14}{}",
                "summary",
                page.display(),
                "run directory",
                path.display()
            ));
            Ok(ExitCode::SUCCESS)
        }
        Ok(Outcome::StepDone { step }) => {
            run_dir.finish(RunStatus::Interrupted)?;
            console::print(&format!("\n{step} is done; continue with: {again}"));
            Ok(ExitCode::SUCCESS)
        }
        Ok(Outcome::Interrupted { step }) => {
            run_dir.finish(RunStatus::Interrupted)?;
            if let Some(findings) = findings? {
                console::print(&findings.table().to_text());
            }
            console::print(&format!("\ninterrupted in {step}; continue with: {again}"));
            Ok(ExitCode::from(exit_code::INTERRUPTED))
        }
        Ok(Outcome::Failed { step, run_dir: of_step, code }) => {
            let reason = format!("{step} ended with exit code {code}");
            run_dir.finish(RunStatus::Failed { reason: reason.clone(), exit_code: Some(code) })?;
            let log = Some(of_step.join("unified.log")).filter(|log| log.is_file());
            let place = log.map_or_else(|| "its output above".to_owned(), |log| log.display().to_string());
            let hint = format!("see {place}; fix the cause, then resume with: {again}");
            console::report_error(&CommandError::new(reason, hint), HINTS);
            Ok(ExitCode::from(code))
        }
        Err(error) => {
            let exit_code = Some(exit_code::of(error.as_ref(), &[]));
            run_dir.finish(RunStatus::Failed { reason: console::error_text(error.as_ref(), HINTS), exit_code })?;
            Err(error)
        }
    }
}
