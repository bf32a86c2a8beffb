//! Small trees for tests.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)] // each test file uses a part of it

use hlrp_config::{Composed, Problem, Project, compose, with_hint};
use std::path::Path;

/// A folder of YAML files that goes away with the test.
pub struct Tree(tempfile::TempDir);

impl Tree {
    /// Files by name below the root, without `.yaml`.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(format!("{name}.yaml"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self(folder)
    }

    pub fn root(&self) -> &Path {
        self.0.path()
    }

    pub fn compose(&self, overrides: &[&str]) -> Result<Composed, Problem> {
        compose(&PROJECT, self.root(), "config", &owned(overrides))
    }

    /// The composition as compact JSON.
    pub fn json(&self, overrides: &[&str]) -> String {
        self.compose(overrides).unwrap_or_else(|error| panic!("{error}")).tree().to_json().to_string()
    }

    /// The text of the error, which must have a hint.
    pub fn error(&self, overrides: &[&str]) -> String {
        let text = with_hint(&self.compose(overrides).expect_err("an invalid tree"));
        assert!(text.contains("\nhint: "), "no hint in: {text}");
        text
    }
}

pub fn owned(overrides: &[&str]) -> Vec<String> {
    overrides.iter().map(|argument| (*argument).to_string()).collect()
}

/// The project of these trees.
pub const PROJECT: Project = Project {
    experiments: "experiment",
    crossed_with: "cluster",
    sweep_params: "sweep.params",
    run_name: "experiment.name",
    run_dir: "logging.run_dir",
    config_dir_variable: "TEST_CONFIG_DIR",
    renamed: |_, _| None,
    check: |_| Ok(()),
    migrate: |_| Vec::new(),
};
