//! The command-line arguments that every program with a configuration shares.

use crate::stage::PROJECT;
use clap::Args;
use hlrp_config::{Composed, Result, compose, find_root};
use std::path::PathBuf;

/// Name of the primary file without `--config-name`.
pub const PRIMARY: &str = "config";

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
