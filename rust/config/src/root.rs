//! Finding the configuration tree.

use crate::problem::{Problem, ProblemKind, Result};
use std::path::{Path, PathBuf};

/// The folder of the configuration tree: `named` (from `--config-dir`), else that in `variable`, else `config/` in the
/// working directory or a folder above it, else `../../config` of the program's folder.
///
/// # Errors
/// The named folder, or all of these, do not exist.
pub fn find_root(named: Option<&Path>, variable: &str) -> Result<PathBuf> {
    let set = std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = named.map(Path::to_path_buf).or(set) {
        if folder.is_dir() {
            return Ok(folder);
        }
        let message = format!("the configuration folder {} does not exist", folder.display());
        let hint = format!("check --config-dir and {variable}");
        return Err(Problem::of(ProblemKind::File, message).hint(hint));
    }
    let is_tree = |folder: &Path| folder.join("config.yaml").is_file();
    let working = std::env::current_dir().unwrap_or_default();
    let above = working.ancestors().map(|folder| folder.join("config")).find(|folder| is_tree(folder));
    // Paths below the working directory read best relative to it.
    let relative = |folder: PathBuf| folder.strip_prefix(&working).map(Path::to_path_buf).unwrap_or(folder);
    if let Some(folder) = above.map(relative) {
        return Ok(folder);
    }
    let program = std::env::current_exe().ok();
    let beside = program.iter().flat_map(|path| path.ancestors()).skip(1).take(4).map(|folder| folder.join("config"));
    if let Some(folder) = beside.into_iter().find(|folder| is_tree(folder)) {
        return Ok(folder);
    }
    let message =
        format!("no configuration tree: neither {} nor a folder above it holds config/config.yaml", working.display());
    Err(Problem::of(ProblemKind::File, message)
        .hint(format!("run inside the repository, or name the tree with --config-dir or {variable}")))
}
