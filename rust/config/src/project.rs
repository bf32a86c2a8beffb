//! What the engine has to know of the project whose tree it composes.

use crate::{Composed, problem::Result};

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
    /// Types and checks a composition; accepts one that has no typed form.
    pub check: fn(&Composed) -> Result<()>,
}
