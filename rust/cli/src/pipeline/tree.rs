//! The configuration tree that the steps are composed from: here, and again by each step.

use anyhow::{Context, Result};
use hlrp_config::{Composed, compose, find_root};
use hlrp_schema::{ConfigArgs, PRIMARY, PROJECT};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A tree and its primary file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Tree {
    /// Its folder; absolute where the user has named it.
    config_dir: PathBuf,
    config_name: String,
    /// Whether the user has named it, with an option or the environment; if not, each step finds it as the pipeline did.
    is_named: bool,
}

impl Tree {
    /// The tree that the command line means; a pipeline that continues keeps the one it was started with, `former`, unless
    /// `--config-dir` names another place for it.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn find(config: &ConfigArgs, former: Option<Self>) -> Result<Self> {
        if let Some(former) = former.filter(|tree| tree.is_named && config.config_dir.is_none()) {
            return Ok(Self {
                config_dir: find_root(Some(&former.config_dir), PROJECT.config_dir_variable)?,
                ..former
            });
        }
        let is_named = config.config_dir.is_some()
            || std::env::var_os(PROJECT.config_dir_variable).is_some_and(|value| !value.is_empty())
            || config.config_name != PRIMARY;
        let found = config.root()?;
        let config_dir = if is_named {
            found.canonicalize().with_context(|| format!("cannot read {}", found.display()))?
        } else {
            found
        };
        Ok(Self { config_dir, config_name: config.config_name.clone(), is_named })
    }

    /// A tree that the caller has found.
    pub(super) fn at(config_dir: &Path, config_name: &str) -> Self {
        Self { config_dir: config_dir.to_path_buf(), config_name: config_name.to_owned(), is_named: true }
    }

    /// # Errors
    /// An error in the tree or in an override.
    pub(super) fn compose(&self, overrides: &[String]) -> Result<Composed> {
        Ok(compose(&PROJECT, &self.config_dir, &self.config_name, overrides)?)
    }

    /// The options that give it to a step.
    pub(super) fn options(&self) -> Vec<String> {
        if !self.is_named {
            return Vec::new();
        }
        let mut options = vec!["--config-dir".to_owned(), self.config_dir.display().to_string()];
        if self.config_name != PRIMARY {
            options.extend(["--config-name".to_owned(), self.config_name.clone()]);
        }
        options
    }
}
