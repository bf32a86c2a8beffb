//! LIBERO asks on the terminal where its files are when it is first imported without a configuration, which would make an unattended
//! run wait forever. The answers are those of its own installation.

use super::plugin::module_folder;
use crate::env::{self, LIBERO_CONFIG_PATH};
use anyhow::Result;
use hlrp_track::fs::write_atomic;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// LeRobot's name of the simulator, which is also that of the module.
const LIBERO: &str = "libero";
/// Folders below the module's inner package.
const FOLDERS: [(&str, &str); 4] =
    [("assets", "assets"), ("bddl_files", "bddl_files"), ("datasets", "../datasets"), ("init_states", "init_files")];

/// Writes a configuration into the run directory where LIBERO is the simulator and has none, and names it in `variables`.
///
/// # Errors
/// The file cannot be written.
pub(super) fn configure(
    simulator: Option<&str>,
    python: &Path,
    run_dir: &Path,
    variables: &mut BTreeMap<String, String>,
) -> Result<()> {
    let is_configured =
        || variables.contains_key(LIBERO_CONFIG_PATH) || env::is_set(LIBERO_CONFIG_PATH) || has_own_config();
    if simulator != Some(LIBERO) || is_configured() {
        return Ok(());
    }
    let Some(module) = module_folder(python, LIBERO) else { return Ok(()) }; // LeRobot says that it is missing
    let root = module.join(LIBERO);
    let entries = FOLDERS.map(|(key, folder)| format!("{key}: {}\n", root.join(folder).display()));
    let folder = run_dir.join(LIBERO);
    fs::create_dir_all(&folder)?;
    write_atomic(&folder.join("config.yaml"), format!("benchmark_root: {}\n{}", root.display(), entries.concat()))?;
    variables.insert(LIBERO_CONFIG_PATH.to_owned(), std::path::absolute(&folder)?.display().to_string());
    Ok(())
}

fn has_own_config() -> bool {
    let home = std::env::var_os(env::HOME).map(PathBuf::from);
    home.is_some_and(|home| home.join(".libero/config.yaml").is_file())
}
