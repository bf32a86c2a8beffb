//! What a container sees: the paths that the configuration names, under their own names.

use crate::env;
use anyhow::Result;
use hlrp_config::{Composed, Problem};
use hlrp_schema::RunBasics;
use std::path::{Path, PathBuf};

/// Paths that the host reads, not the container.
const OF_THE_HOST: [&str; 2] = ["cluster.images.", "cluster.container."];
/// Files of the home folder with credentials; mounted where they exist.
const CREDENTIALS: [&str; 4] = [".netrc", ".config/wandb", ".cache/huggingface/token", ".huggingface"];

/// The mounts of a run: its working directory, the folder of its run directory, the cache, every path of its configuration that exists, credentials,
/// and what the user adds; none below another.
///
/// # Errors
/// A path with a character that would split the list; one of `submit.extra_mounts` that does not exist.
pub(super) fn of(composed: &Composed, basics: &RunBasics, run_dir: &Path, working_dir: &Path) -> Result<Vec<PathBuf>> {
    let mut mounts: Vec<(String, PathBuf)> = vec![
        ("the working directory".to_owned(), working_dir.to_path_buf()),
        ("logging.run_dir".to_owned(), run_dir.parent().unwrap_or(run_dir).to_path_buf()),
        ("paths.cache_dir".to_owned(), std::path::absolute(&basics.paths.cache_dir)?),
    ];
    for (key, path) in basics.stage.absolute_paths(composed) {
        if OF_THE_HOST.iter().all(|section| !key.starts_with(section)) {
            // The folder of a file: whoever replaces the file by renaming is then seen.
            let folder = if path.is_file() { path.parent().map(Path::to_path_buf) } else { Some(path) };
            mounts.extend(folder.filter(|folder| folder.is_dir()).map(|folder| (key, folder)));
        }
    }
    for path in &basics.submit.extra_mounts {
        let path = std::path::absolute(path)?;
        if !path.exists() {
            let message = format!("{} does not exist", path.display());
            return Err(Problem::new("submit.extra_mounts", message, "name folders of this host").into());
        }
        mounts.push(("submit.extra_mounts".to_owned(), path));
    }
    if let Some(home) = std::env::var_os(env::HOME).map(PathBuf::from) {
        let found = CREDENTIALS.iter().map(|name| home.join(name)).filter(|path| path.exists());
        mounts.extend(found.map(|path| (env::HOME.to_owned(), path)));
    }
    let mut kept: Vec<PathBuf> = Vec::new();
    for (key, path) in mounts {
        basics.cluster.refuse_unmountable(&key, &path)?;
        if path == Path::new("/") || kept.iter().any(|mounted| path.starts_with(mounted)) {
            continue;
        }
        kept.retain(|mounted| !mounted.starts_with(&path));
        kept.push(path);
    }
    Ok(kept)
}
