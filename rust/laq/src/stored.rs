//! A trained model on disk: a checkpoint, or what `hlrp export-laq` made of one.

use crate::error::LaqError;
use crate::interop::ExportedEncoder;
use crate::model::Parts;
use hlrp_config::Check;
use hlrp_schema::{LaqDescription, TaskDescription};
use hlrp_train::checkpoint::Checkpoint;
use std::path::Path;
use tch::Tensor;

/// What is read of a trained model.
pub(crate) struct Stored {
    source: Source,
    /// SHA-256 of the checkpoint's file with the weights that it exports.
    pub(crate) weights_sha256: Option<String>,
    pub(crate) description: LaqDescription,
}

enum Source {
    Checkpoint(Checkpoint),
    Encoder(ExportedEncoder),
}

impl Stored {
    /// Opens a checkpoint folder or a run directory; for [`Parts::Encoder`] also a folder of `hlrp export-laq`, which has no more than that.
    ///
    /// # Errors
    /// A folder that is none of these, or a damaged one.
    pub(crate) fn open(path: &Path, parts: Parts) -> anyhow::Result<Self> {
        let exported = match parts {
            Parts::Encoder => ExportedEncoder::find(path)?,
            Parts::All => None,
        };
        let Some(exported) = exported else {
            let (checkpoint, description) = open_checkpoint(path)?;
            let weights_sha256 = checkpoint.exported_digest().map(|digest| digest.sha256.clone());
            return Ok(Self { source: Source::Checkpoint(checkpoint), weights_sha256, description });
        };
        let description = exported.description.clone();
        check(path, "description", &description)?;
        let weights_sha256 = exported.weights_sha256.clone();
        Ok(Self { source: Source::Encoder(exported), weights_sha256, description })
    }

    /// Its weights by name.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn weights(&self) -> anyhow::Result<Vec<(String, Tensor)>> {
        match &self.source {
            Source::Checkpoint(checkpoint) => Ok(checkpoint.weights()?.into_iter().collect()),
            Source::Encoder(exported) => Ok(exported.weights()?),
        }
    }
}

/// A checkpoint of stage 1 and its task.
///
/// # Errors
/// A folder that is not a complete checkpoint of stage 1.
pub(crate) fn open_checkpoint(path: &Path) -> anyhow::Result<(Checkpoint, LaqDescription)> {
    let checkpoint = Checkpoint::open(path)?;
    let description = match &checkpoint.manifest().task {
        TaskDescription::Laq(description) => description.clone(),
        other => {
            let problem = format!("it is a checkpoint of stage {}, not laq", other.stage().name());
            return Err(LaqError::Checkpoint { path: checkpoint.dir().to_path_buf(), problem }.into());
        }
    };
    check(checkpoint.dir(), "task", &description)?;
    Ok((checkpoint, description))
}

/// Refuses a model that this version cannot build; `key` has its description in a file of `folder`.
fn check(folder: &Path, key: &str, description: &LaqDescription) -> Result<(), LaqError> {
    let refuse = |problem| LaqError::Checkpoint { path: folder.to_path_buf(), problem };
    description.model.check().map_err(|problem| refuse(format!("{key}.model.{problem}")))
}
