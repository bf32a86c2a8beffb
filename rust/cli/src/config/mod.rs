//! `hlrp config`: groups and options, the configuration that they make, and what set each value.

mod completion;
mod diff;
mod show;

use clap::{Args, Subcommand};
use hlrp_config::{
    Finding, Outcome, Problem, ProblemKind, Repository, compose, find_root, groups, inspect, num_runs, secret, sweep,
    with_hint,
};
use hlrp_schema::{ConfigArgs, PRIMARY, PROJECT};
use hlrp_slurm::shell::quoted;
use hlrp_track::exit_code;
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

const SWEEP_EXAMPLE: &str = "\
Example, one run after the other on this machine:
  hlrp config sweep experiment=laq_lr_sweep | xargs -L 1 hlrp train-laq";

/// Inspect the configuration.
#[derive(Debug, Clone, Subcommand)]
#[allow(missing_docs)] // a doc comment of a flattened field would become help text of nothing
pub(crate) enum ConfigCommand {
    /// List the groups and their options, each with the first line of its file.
    List {
        /// Only this group.
        group: Option<String>,
        #[command(flatten)]
        tree: TreeArgs,
    },
    /// Print the configuration that a run with these overrides would have.
    Show(show::ShowArgs),
    /// Show which file or override set a key, and what it overrode.
    Explain {
        /// Dotted path, for example training.optimizer.lr; then overrides as for a run.
        #[arg(value_name = "KEY")]
        key: String,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Compare two experiments, run directories, or quoted lists of overrides.
    Diff {
        /// Name of an experiment, a run directory, or overrides in quotes.
        left: String,
        /// The same for the other side.
        right: String,
        #[command(flatten)]
        tree: TreeArgs,
    },
    /// Print the runs of a sweep: one line for each combination of the values in sweep.params, with all its overrides.
    #[command(after_help = SWEEP_EXAMPLE)]
    Sweep(ConfigArgs),
    /// Print the script with which a shell completes groups, options and keys: source <(hlrp config completion)
    Completion {
        #[command(flatten)]
        tree: TreeArgs,
    },
    /// Print the completions of an override that is being typed; the completion script calls it.
    #[command(hide = true)]
    Complete(completion::CompleteArgs),
    /// Compose every file of the tree and check every experiment; exit code 2 if one is invalid.
    Check {
        #[command(flatten)]
        tree: TreeArgs,
    },
}

/// Which tree.
#[derive(Debug, Clone, Args)]
pub(crate) struct TreeArgs {
    /// Folder of the configuration tree; else HLRP_CONFIG_DIR, else config/ here or above.
    #[arg(long, value_name = "DIR")]
    config_dir: Option<PathBuf>,
    /// Primary file of the tree, without .yaml.
    #[arg(long, value_name = "NAME", default_value = PRIMARY)]
    config_name: String,
}

impl TreeArgs {
    fn root(&self) -> Result<PathBuf, Problem> {
        find_root(self.config_dir.as_deref(), PROJECT.config_dir_variable)
    }
}

/// Runs a command and prints its result to standard output.
///
/// # Errors
/// An error in the tree or the overrides.
pub(crate) fn run(command: &ConfigCommand) -> Result<ExitCode, Problem> {
    match command {
        ConfigCommand::List { group, tree } => list(group.as_deref(), tree),
        ConfigCommand::Show(arguments) => show::show(arguments),
        ConfigCommand::Explain { key, config } => print(&config.compose()?.explain(key)?.to_string()),
        ConfigCommand::Diff { left, right, tree } => diff::differences(left, right, tree),
        ConfigCommand::Sweep(config) => print_sweep(config),
        ConfigCommand::Completion { tree } => print(&completion::script(tree)?),
        ConfigCommand::Complete(arguments) => print(&completion::candidates(arguments)),
        ConfigCommand::Check { tree } => check(tree),
    }
}

/// Writes to standard output; a reader that has gone away is not an error.
fn print(text: &str) -> Result<ExitCode, Problem> {
    match io::stdout().lock().write_all(secret::redact(text).as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Problem::of(ProblemKind::File, format!("cannot write to standard output: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn list(only: Option<&str>, tree: &TreeArgs) -> Result<ExitCode, Problem> {
    let root = tree.root()?;
    let groups = groups(&root)?;
    if let Some(name) = only.filter(|name| groups.iter().all(|group| group.name != *name)) {
        let error = Problem::of(ProblemKind::File, format!("there is no group '{name}'"));
        return Err(error.hint(Repository::open(&root)?.groups_hint(name)));
    }
    let mut text = String::new();
    for group in groups.iter().filter(|group| only.is_none_or(|name| group.name == name)) {
        let width = group.options.iter().map(|option| option.name.len()).max().unwrap_or(0);
        text += &format!("{}\n", group.name);
        for option in &group.options {
            let description = option.description.as_deref().unwrap_or_default();
            let runs = if group.name == PROJECT.experiments {
                sweep_note(&root, &tree.config_name, &option.name)
            } else {
                None
            };
            let runs = runs.unwrap_or_default();
            text += format!("  {:width$}  {description}{runs}", option.name).trim_end();
            text.push('\n');
        }
    }
    print(&text)
}

/// How many runs an experiment makes, if several; an error in it is reported by `check`.
fn sweep_note(root: &Path, config_name: &str, experiment: &str) -> Option<String> {
    let composed = compose(&PROJECT, root, config_name, &[format!("{}={experiment}", PROJECT.experiments)]).ok()?;
    let num_runs = num_runs(&PROJECT, &composed).ok()?;
    (num_runs > 1).then(|| format!(" [{num_runs} runs]"))
}

fn print_sweep(config: &ConfigArgs) -> Result<ExitCode, Problem> {
    let runs = sweep(&PROJECT, hlrp_schema::check, &config.root()?, &config.config_name, &config.overrides)?;
    let line = |overrides: &[String]| overrides.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(" ") + "\n";
    print(&runs.iter().map(|run| line(&run.overrides)).collect::<String>())
}

fn check(tree: &TreeArgs) -> Result<ExitCode, Problem> {
    let findings = inspect(&PROJECT, hlrp_schema::check, &tree.root()?, &tree.config_name)?;
    let mut num_wrong = 0;
    let mut text = String::new();
    for Finding { subject, outcome } in &findings {
        match outcome {
            // A valid pair of experiment and cluster gets no line.
            Outcome::Good { .. } if subject.contains(' ') => {}
            Outcome::Good { needs } if needs.is_empty() => text += &format!("ok     {subject}\n"),
            Outcome::Good { needs } => text += &format!("ok     {subject}  needs {}=...\n", needs.join("=..., ")),
            Outcome::Misfit(error) => {
                text += &format!("unfit  {subject}: {error}\n");
            }
            Outcome::Wrong(error) => {
                num_wrong += 1;
                text += &format!("WRONG  {subject}\n{}\n", indented(&with_hint(error)));
            }
        }
    }
    text += &format!("{} composed, {num_wrong} wrong\n", findings.len());
    print(&text)?;
    Ok(if num_wrong == 0 { ExitCode::SUCCESS } else { ExitCode::from(exit_code::INVALID_SETTING) })
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("       {line}")).collect::<Vec<_>>().join("\n")
}
