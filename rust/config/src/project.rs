//! What the engine needs to know of the project whose tree it composes.

use crate::composed::Composed;
use crate::node::Node;
use crate::problem::Result;

/// Names and rules of one project's tree. The engine reads no key that is not named here.
#[derive(Debug, Clone, Copy)]
pub struct Project {
    /// The group whose options are whole configurations.
    pub experiments: &'static str,
    /// A group whose every option is composed with every experiment when the tree is inspected.
    pub crossed_with: &'static str,
    /// Dotted path of the keys to sweep over, each with its values.
    pub sweep_params: &'static str,
    /// Dotted path of the name that a sweep makes different for each of its runs.
    pub run_name: &'static str,
    /// Dotted path of the directory that no two runs may share.
    pub run_dir: &'static str,
    /// Environment variable with the folder of the tree.
    pub config_dir_variable: &'static str,
    /// What a key that is not in a tree is called there, if an older version of the project had it under that name.
    pub renamed: fn(&Node, &str) -> Option<String>,
    /// Types and checks a composition: an override of an unknown key is only told to be added where the typed form takes it.
    pub check: fn(&Composed) -> Result<()>,
    /// Brings a finished configuration of an older version up to date. Returns what it changed, one line per key: nothing if it is of this
    /// version.
    pub migrate: fn(&mut serde_json::Value) -> Vec<String>,
}

/// A project whose compositions need no typed form.
#[cfg(test)]
pub(crate) const OF_TESTS: Project = Project {
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
