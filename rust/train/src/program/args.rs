//! The command line.

use super::Program;
use clap::{CommandFactory, Parser};
use hlrp_config::{Composed, Problem, from_resolved, write_path};
use hlrp_schema::{ConfigArgs, PROJECT, parse_command_line};
use std::path::{Path, PathBuf};

const EXIT_CODES: &str = "Exit codes: 0 done, 1 error, 2 invalid setting, 65 unusable dataset, 69 a process of the run is lost, 71 out of memory, 73 another process \
                          has the run, 74 disk full, 75 interrupted by a signal (resume it), 77 login node.";

#[derive(Parser)]
#[command(version)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// Resume the run in this directory from its last checkpoint, or from the one that
    /// training.resume_from_checkpoint=… names; other overrides change its configuration.
    #[arg(long, value_name = "RUN_DIR", conflicts_with_all = ["config_dir"])]
    pub(super) resume: Option<PathBuf>,
    /// With --resume: continue even if a dataset has changed since the checkpoint. Held-out episodes stay held out.
    #[arg(long, requires = "resume")]
    pub(super) accept_changed_data: bool,
    /// Print the resolved configuration and stop.
    #[arg(long)]
    pub(super) print_config: bool,
    /// Train although this looks like the login node of a cluster.
    #[arg(long)]
    pub(super) allow_login_node: bool,
    /// Print versions as JSON and stop.
    #[arg(long, hide = true)]
    pub(super) version_json: bool,
}

impl Arguments {
    /// Reads the command line of `P`; help, version and user errors end the process.
    pub(super) fn parse_for<P: Program>() -> Self {
        let command = Self::command()
            .name(P::NAME)
            .about(P::ABOUT)
            .after_help(format!("Examples:\n{}\n\n{EXIT_CODES}", P::EXAMPLES));
        parse_command_line(command)
    }

    /// The configuration: composed, with the run directory `run_dir` if one is given, or that of the run to continue.
    ///
    /// # Errors
    /// An invalid tree or override.
    pub(super) fn compose(&self, run_dir: Option<&str>) -> Result<Composed, Problem> {
        match &self.resume {
            Some(run_dir) if !run_dir.is_dir() => {
                let message = format!("there is no folder {}", run_dir.display());
                Err(Problem::new("--resume", message, "give a run directory, which contains run.json and checkpoints/"))
            }
            Some(run_dir) => from_resolved(&PROJECT, &run_dir.join("config.yaml"), &self.config.overrides),
            None => match run_dir {
                None => self.config.compose(),
                Some(run_dir) => {
                    let mut config = self.config.clone();
                    config.overrides.push(format!("{}={}", PROJECT.run_dir, write_path(Path::new(run_dir))));
                    config.compose()
                }
            },
        }
    }
}
