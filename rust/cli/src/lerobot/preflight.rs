//! Files that a training needs, looked for before it starts.

use anyhow::Result;
use hlrp_config::Problem;
use hlrp_schema::{
    LerobotTrainConfig,
    plugin::{FOLDER_FIELDS, FolderField},
};
use std::path::Path;

/// # Errors
/// A file that the policy needs is not there.
pub(super) fn refuse_missing_files_of_policy(config: &LerobotTrainConfig) -> Result<()> {
    FOLDER_FIELDS.into_iter().try_for_each(|FolderField { name, files }| {
        let path = config.lerobot.policy.get(name).and_then(serde_json::Value::as_str).map(Path::new);
        let key = format!("lerobot.policy.{name}");
        refuse_missing(&key, path)?;
        let has_one = |path: &Path| files.iter().any(|file| path.join(file).is_file());
        match path.zip(files.first()).filter(|(path, _)| !has_one(path)) {
            None => Ok(()),
            Some((path, file)) => {
                let message = format!("{} contains no {file}", path.display());
                let hint = format!("set {key} to the folder that contains it");
                Err(Problem::new(key, message, hint).into())
            }
        }
    })
}

/// A dry run may be for another machine, where the dataset is.
///
/// # Errors
/// The dataset's folder is not there.
pub(super) fn refuse_missing_dataset(config: &LerobotTrainConfig) -> Result<()> {
    refuse_missing("lerobot.dataset_root", config.lerobot.dataset_root.as_deref())
}

fn refuse_missing(key: &str, path: Option<&Path>) -> Result<()> {
    match path.filter(|path| !path.exists()) {
        None => Ok(()),
        Some(path) => Err(Problem::new(key, format!("{} does not exist", path.display()), format!("set {key}")).into()),
    }
}
