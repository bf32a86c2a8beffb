//! Checks of a node, inside the container of the run.

use crate::{
    doctor::{self, Finding, Report},
    env, lerobot, pipeline,
};
use anyhow::{Context, Result};
use hlrp_config::Composed;
use hlrp_schema::{ConfigArgs, Stage};
use hlrp_slurm::plan::JobPlan;
use hlrp_track::{
    console,
    fs::{write_atomic, write_json},
};
use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// Libraries that draw without a screen.
const RENDERERS: &str = "\
import ctypes
for name in ('libEGL.so.1', 'libOSMesa.so.8', 'libOSMesa.so'):
    try:
        ctypes.CDLL(name)
        print(name)
    except OSError:
        pass
";

/// Name of the finding about the GPUs.
const GPUS_OF_THE_JOB: &str = "gpus of the job";
/// Name of the finding about Python.
const INTERPRETER: &str = "interpreter";
const NO_RENDERER: &str = "neither EGL nor OSMesa";
const INSTALL_RENDERER: &str = "install libegl1 or libosmesa6 in the image";

/// Checks the node and writes the report beside the plan.
///
/// # Errors
/// The report cannot be written.
pub(super) fn run(plan: &JobPlan, config: &ConfigArgs) -> Result<ExitCode> {
    let mut report = doctor::examine(config);
    report.findings.extend(missing_gpus(plan));
    report.findings.push(writable("run directory", &plan.submit_dir));
    report.findings.push(writable("cache directory", &plan.cache_dir));
    report.findings.push(credentials());
    report.findings.extend(python_and_renderers(plan, config));
    console::print(&report.to_text());
    write_report(plan, &report)?;
    Ok(if report.is_healthy() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write_report(plan: &JobPlan, report: &Report) -> Result<()> {
    let path = plan.submit_dir.join(format!("{}.preflight.report.json", plan.cluster));
    Ok(write_json(&path, report)?)
}

/// GPUs that the job asks for and that are not on its node.
fn missing_gpus(plan: &JobPlan) -> Option<Finding> {
    let wanted = plan.resources.gpus_per_node as usize;
    let num_gpus = hlrp_track::host::gpus().map_or(0, |gpus| gpus.len());
    let text = format!("{num_gpus} on this node, but the job asks for {wanted}");
    let hint = "the run would train without them; look at nvidia-smi there, and at the container's flags";
    (num_gpus < wanted).then(|| Finding::problem(GPUS_OF_THE_JOB, text, Some(hint)))
}

fn writable(name: &'static str, folder: &Path) -> Finding {
    let probe = folder.join(".preflight");
    match write_atomic(&probe, "this file shows that a job can write here\n") {
        Ok(()) => Finding::ok(name, format!("{} is writable", folder.display())),
        Err(error) => Finding::error(name, &error),
    }
}

fn credentials() -> Finding {
    let netrc = std::env::var_os("NETRC").map(PathBuf::from).filter(|path| path.is_file());
    let found = [
        netrc.map(|path| path.display().to_string()),
        env::is_set("HF_TOKEN").then(|| "a token of Hugging Face".to_owned()),
        env::is_set("WANDB_API_KEY").then(|| "a key of W&B".to_owned()),
    ];
    let found: Vec<String> = found.into_iter().flatten().collect();
    match found.is_empty() {
        true => Finding::note("credentials", "none", Some("runs without the Hub and W&B need none")),
        false => Finding::ok("credentials", found.join(", ")),
    }
}

/// The Python of stage 3, and what draws without a screen there: the simulators need it. Stages 1 and 2 have no Python; what the machine's own
/// finds is good to know.
fn python_and_renderers(plan: &JobPlan, config: &ConfigArgs) -> Vec<Finding> {
    if !matches!(plan.stage, Stage::LerobotTrain | Stage::LerobotRollout) {
        return vec![renderers(Path::new("python3"), false)];
    }
    match composed(plan, config).and_then(|composed| lerobot::interpreter(plan.stage, &composed)) {
        Err(error) => vec![Finding::error(INTERPRETER, error.as_ref())],
        Ok(found) => {
            let text = format!("{}, Python {}, LeRobot {}", found.python.display(), found.version, found.lerobot);
            vec![Finding::ok(INTERPRETER, text), renderers(&found.python, true)]
        }
    }
}

/// The configuration of the run, or of the step that the job is.
fn composed(plan: &JobPlan, config: &ConfigArgs) -> Result<Composed> {
    let composed = config.compose()?;
    let Some(step) = &plan.step else { return Ok(composed) };
    let steps = pipeline::composed_steps(&composed, &config.root()?, &config.config_name, &plan.run_dir)?;
    let of_step = steps.into_iter().find_map(|(name, composed)| (name == *step).then_some(composed));
    of_step.with_context(|| format!("the pipeline has no step {step}"))
}

fn renderers(python: &Path, is_needed: bool) -> Finding {
    let output = Command::new(python).args(["-c", RENDERERS]).output();
    let found = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().replace('\n', ", "));
    match found {
        Ok(found) if !found.is_empty() => Finding::ok("rendering", found),
        Ok(_) if is_needed => Finding::problem("rendering", NO_RENDERER, Some(INSTALL_RENDERER)),
        Ok(_) => Finding::note("rendering", NO_RENDERER, Some(INSTALL_RENDERER)),
        Err(error) => Finding::note("rendering", format!("{} does not start: {error}", python.display()), None),
    }
}
