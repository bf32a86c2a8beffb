//! Where a dataset is: in a folder, or on the Hugging Face Hub.

use crate::data::SourceConfig;
use crate::hub::{MAIN, is_repo_id, is_revision};
use crate::rules::{Checked, require};

impl SourceConfig {
    /// A dataset is in a folder or on the Hub.
    pub(crate) fn check_place(&self) -> Checked {
        let Self { root, repo_id, revision, .. } = self;
        let is_placed = root.is_some() || repo_id.is_some();
        require(is_placed, "root", "no dataset", "give a folder, or the name of a dataset on the Hub: repo_id")?;
        let Some(repo_id) = repo_id else {
            let hint = "set it to null: it is of repo_id";
            require(revision.is_none(), "revision", "a folder has no revisions", hint)?;
            return require(
                !self.is_streamed(),
                "streaming",
                "a folder is read as it is",
                "set it to false: it is of repo_id",
            );
        };
        let hint = "set root=null, or repo_id=null";
        require(root.is_none(), "repo_id", "root already names a dataset", hint)?;
        let hint = "give owner/name, such as lerobot/pusht";
        require(is_repo_id(repo_id), "repo_id", format!("'{repo_id}' is not a name on the Hub"), hint)?;
        let name = revision.as_deref().unwrap_or(MAIN);
        let hint = "give a branch, a tag or a commit";
        require(is_revision(name), "revision", format!("'{name}' is not a revision"), hint)?;
        let hint = "set it to null: datasets of the Hub have LeRobot's format";
        require(self.rlds.is_none(), "rlds", "not a setting of a dataset of the Hub", hint)?;
        require(self.scenes.is_none(), "scenes", "not a setting of a dataset of the Hub", hint)
    }

    /// Whether its videos are read over HTTP.
    #[must_use]
    pub fn is_streamed(&self) -> bool {
        self.streaming.unwrap_or(false)
    }

    /// Where it is, in words.
    #[must_use]
    pub fn place(&self) -> String {
        match (&self.root, &self.repo_id) {
            (Some(root), _) => root.display().to_string(),
            (None, repo_id) => repo_id.clone().unwrap_or_default(),
        }
    }

    /// The key that says where it is.
    #[must_use]
    pub fn place_key(&self) -> &'static str {
        if self.repo_id.is_some() { "repo_id" } else { "root" }
    }
}
