//! Compares the models with recorded numbers of reference implementations and prints one line per case.
#![allow(clippy::print_stdout)] // a program that reports on the terminal
#![allow(non_snake_case)] // shape suffixes

mod case;
mod cases;
mod compare;
mod draws;
mod relu_sides;

use anyhow::{Context, ensure};
use case::Case;
use clap::{CommandFactory, Parser};
use compare::Comparison;
use hlrp_schema::Precision;
use hlrp_track::{console, exit_code};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Runs every recorded case of a folder; exit code 1 when a tensor is outside its tolerance or a case cannot be computed.
///
/// A case that no part of the project computes is listed as "not implemented"; it fails only when --cases names it exactly.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Folder of case folders, each with config.json and *.safetensors; noise.json beside them widens tolerances.
    dir: PathBuf,
    /// Glob that selects cases by name; all when absent or empty.
    #[arg(long, default_value = "")]
    cases: String,
    /// Where to compute: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: hlrp_schema::Device,
    /// How to compute: float32 throughout (TF32 off), or under bf16 autocast with tolerances of its own.
    #[arg(long, value_enum, default_value_t = Precision::Float32)]
    precision: Precision,
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        console::report_error(error.as_ref(), &[]);
        ExitCode::from(exit_code::of(error.as_ref(), hlrp_train::EXIT_CODES))
    })
}

fn run() -> anyhow::Result<ExitCode> {
    let arguments: Arguments = hlrp_schema::parse_command_line(Arguments::command());
    let device = hlrp_train::select_device(arguments.device)?;
    hlrp_torch::cuda::allow_tf32(false)?;
    let mut all_passed = true;
    for name in case_names(&arguments.dir, &arguments.cases)? {
        // libtorch panics through tch; the next case has nothing of this one.
        let outcome = catch_unwind(AssertUnwindSafe(|| compare(&arguments, &name, device)))
            .unwrap_or_else(|_| Err(anyhow::anyhow!("panicked; the message is on standard error")));
        match outcome {
            Ok(Some(comparison)) => {
                println!("{comparison}");
                all_passed &= comparison.passed();
            }
            Ok(None) => {
                println!("{name:<20} -     not implemented");
                all_passed &= arguments.cases != name;
            }
            Err(error) => {
                println!("{name:<20} FAIL  {error:#}");
                all_passed = false;
            }
        }
    }
    Ok(if all_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The comparison of the case `name`; none when no part of the project computes it.
fn compare(arguments: &Arguments, name: &str, device: tch::Device) -> anyhow::Result<Option<Comparison>> {
    let case = Case::open(&arguments.dir, name, device, arguments.precision)?;
    let Some(run) = cases::runner(&case) else { return Ok(None) };
    let mut comparison = Comparison::new(&case);
    run(&case, &mut comparison)?;
    Ok(Some(comparison))
}

/// Names of the cases in `dir` that match `glob`, in order.
fn case_names(dir: &Path, glob: &str) -> anyhow::Result<Vec<String>> {
    let pattern = glob::Pattern::new(if glob.is_empty() { "*" } else { glob }).context("--cases is not a glob")?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.join("config.json").is_file() && pattern.matches(&name) {
            names.push(name);
        }
    }
    ensure!(!names.is_empty(), "{} holds no case that matches `{pattern}`", dir.display());
    names.sort();
    Ok(names)
}
