//! How every program reads its command line, and the arguments that programs with a configuration share.

use crate::stage::{PROJECT, RunBasics};
use clap::{Args, Command, Parser};
use hlrp_config::{Composed, Result, compose, find_root, secret};
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process,
};

/// Name of the primary file without `--config-name`.
pub const PRIMARY: &str = "config";

/// Reads the command line of a program; help, version and user errors end the process. Errors are printed without secrets.
pub fn parse_command_line<T: Parser>(command: Command) -> T {
    let parsed = command.try_get_matches().and_then(|matches| T::from_arg_matches(&matches));
    parsed.unwrap_or_else(|error| {
        let text = error.render().to_string();
        if !secret::has_secret(&text) {
            error.exit();
        }
        // Nowhere is left to report that standard error is closed.
        let _ = io::stderr().write_all(secret::redact(&text).as_bytes());
        process::exit(error.exit_code())
    })
}

/// Refuses a path for writing that a command line names with `option`, where it is outside of the `cluster.allowed_roots` that the
/// configuration tree in use has by itself. Without a tree there is no such rule.
///
/// # Errors
/// As [`ClusterConfig::refuse_output`](crate::ClusterConfig::refuse_output), or the tree is invalid.
pub fn refuse_named_output(option: &str, path: &Path) -> Result<()> {
    let Ok(root) = find_root(None, PROJECT.config_dir_variable) else { return Ok(()) };
    RunBasics::unchecked(&compose(&PROJECT, &root, PRIMARY, &[])?)?.cluster.refuse_output(option, path)
}

/// Which tree, which primary file, and what to change.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// Changes of the configuration: `experiment=NAME`, `group=option`, `a.b=1`, `+a.b=1` (new key), `++a.b=1`
    /// (new or not), `~a.b` (remove).
    #[arg(value_name = "OVERRIDE")]
    pub overrides: Vec<String>,
    /// Folder of the configuration tree; else HLRP_CONFIG_DIR, else config/ here or above.
    #[arg(long, value_name = "DIR")]
    pub config_dir: Option<PathBuf>,
    /// Primary file of the tree, without .yaml.
    #[arg(long, value_name = "NAME", default_value = PRIMARY)]
    pub config_name: String,
}

impl ConfigArgs {
    /// The folder of the tree.
    ///
    /// # Errors
    /// As [`find_root`].
    pub fn root(&self) -> Result<PathBuf> {
        find_root(self.config_dir.as_deref(), PROJECT.config_dir_variable)
    }

    /// Composes the configuration of the arguments.
    ///
    /// # Errors
    /// No tree, or an error in it or in an override.
    pub fn compose(&self) -> Result<Composed> {
        compose(&PROJECT, &self.root()?, &self.config_name, &self.overrides)
    }
}
