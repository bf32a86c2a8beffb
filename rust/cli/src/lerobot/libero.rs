//! LIBERO asks on the terminal where its files lie when it is first imported without a configuration; a run that nobody watches would
//! wait forever. The answers are those of its own installation.

use super::plugin::module_folder;
use anyhow::Result;
use hlrp_track::fs::write_atomic;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// LeRobot's name of the simulator, which is also that of the module.
const LIBERO: &str = "libero";
/// Where LIBERO looks for its configuration.
const CONFIG_PATH: &str = "LIBERO_CONFIG_PATH";
/// Folders below the module's inner package.
const FOLDERS: [(&str, &str); 4] =
    [("assets", "assets"), ("bddl_files", "bddl_files"), ("datasets", "../datasets"), ("init_states", "init_files")];

/// Writes a configuration into the run directory where LIBERO is the simulator and has none, and names it in `env`.
///
/// # Errors
/// The file cannot be written.
pub(super) fn configure(
    simulator: Option<&str>,
    python: &Path,
    run_dir: &Path,
    env: &mut BTreeMap<String, String>,
) -> Result<()> {
    let is_configured = || env.contains_key(CONFIG_PATH) || std::env::var_os(CONFIG_PATH).is_some() || has_own_config();
    if simulator != Some(LIBERO) || is_configured() {
        return Ok(());
    }
    let Some(module) = module_folder(python, LIBERO) else { return Ok(()) }; // LeRobot says that it is missing
    let root = module.join(LIBERO);
    let entries = FOLDERS.map(|(key, folder)| format!("{key}: {}\n", root.join(folder).display()));
    let folder = run_dir.join(LIBERO);
    fs::create_dir_all(&folder)?;
    write_atomic(&folder.join("config.yaml"), format!("benchmark_root: {}\n{}", root.display(), entries.concat()))?;
    env.insert(CONFIG_PATH.to_owned(), std::path::absolute(&folder)?.display().to_string());
    Ok(())
}

fn has_own_config() -> bool {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    home.is_some_and(|home| home.join(".libero/config.yaml").is_file())
}
