//! A run that the official client records for a program of its own: what makes it the run of this directory.

use super::{
    session::Identity,
    settings::{Mode, Settings},
    upload,
};
use crate::{TrackError, env};
use std::{collections::BTreeMap, path::Path};

/// Under which id and settings the official client records a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Official {
    /// Id of the run.
    pub id: String,
    /// `online` or `offline`.
    pub mode: &'static str,
    /// Project.
    pub project: String,
    /// User or team; the user's default when none.
    pub entity: Option<String>,
    /// Name of the run, if one is set.
    pub name: Option<String>,
    /// Notes, if there are any.
    pub notes: Option<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// Everything else, as the client's environment variables.
    pub variables: BTreeMap<String, String>,
}

impl Settings {
    /// How the official client records the run in `run_dir`, which keeps its id from session to session. With `is_resumed` the client will
    /// insist that the service has the run.
    ///
    /// # Errors
    /// The id cannot be kept, another one is set, or the service lacks the run that is resumed.
    pub fn for_official_client(&self, run_dir: &Path, is_resumed: bool) -> Result<Official, TrackError> {
        let identity = Identity::kept(run_dir, self)?;
        if is_resumed && self.mode == Mode::Online {
            upload::check_exists(self, &identity.id)?;
        }
        let timing = &self.timing;
        let interval = timing.stats_interval_s;
        let variables = [
            (env::WANDB_BASE_URL, Some(self.server.base_url.clone())),
            (env::WANDB_RUN_GROUP, self.group.clone()),
            (env::WANDB_TAGS, Some(self.tags.join(",")).filter(|tags| !tags.is_empty())),
            (env::WANDB_X_STATS_SAMPLING_INTERVAL, interval.map(|seconds| seconds.to_string())),
            (env::WANDB_X_DISABLE_STATS, interval.is_none().then(|| "true".to_owned())),
            (env::WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL, Some(timing.upload_interval_s.to_string())),
        ];
        Ok(Official {
            id: identity.id,
            mode: match self.mode {
                Mode::Online => "online",
                Mode::Offline => "offline",
            },
            project: self.project.clone(),
            entity: self.entity.clone(),
            name: self.name.clone(),
            notes: self.notes.clone(),
            tags: self.tags.clone(),
            variables: variables.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect(),
        })
    }
}
