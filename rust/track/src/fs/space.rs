//! Free space, asked for before each large write: of the disk, and of a quota where the site has a command that tells it.

use super::Superseded;
use crate::{Result, TrackError, command::output_within};
use std::{path::Path, process::Command, time::Duration};

const BYTES_PER_GIB: f64 = (1u64 << 30) as f64;

/// How long a quota command may take.
const QUOTA_TIMEOUT: Duration = Duration::from_secs(10);

/// How a run uses its disk: what must stay free, and what becomes of what it replaces.
#[derive(Debug, Clone, PartialEq)]
pub struct DiskRules {
    /// GiB that a write must leave free (`logging.min_free_gb`).
    pub min_free_gb: f64,
    /// Files that a write must leave free (`logging.min_free_files`).
    pub min_free_files: u64,
    /// Program and arguments that print what a quota leaves free (`cluster.quota_command`), as [`Free::in_quota`] reads it.
    pub quota_command: Option<Vec<String>>,
    /// What becomes of what is replaced.
    pub superseded: Superseded,
}

impl DiskRules {
    /// A write may use all of the disk, and what it replaces is removed.
    pub fn unlimited() -> Self {
        Self { min_free_gb: 0.0, min_free_files: 0, quota_command: None, superseded: Superseded::Removed }
    }
}

/// What is free in one place; none where nobody counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Free {
    /// Bytes.
    pub bytes: Option<u64>,
    /// Files (inodes).
    pub files: Option<u64>,
}

impl Free {
    /// What this user may still write on the disk of `path`; of its nearest existing ancestor when `path` does not exist yet.
    ///
    /// # Errors
    /// The file system cannot be asked.
    pub fn on_disk(path: &Path) -> Result<Self> {
        let existing = existing(path);
        let stats = rustix::fs::statvfs(existing)
            .map_err(|errno| TrackError::io("ask for the free space of", existing)(errno.into()))?;
        // File systems without a fixed number of files report none at all.
        let files = (stats.f_files > 0).then_some(stats.f_favail);
        Ok(Self { bytes: Some(stats.f_bavail.saturating_mul(stats.f_frsize)), files })
    }

    /// What the quota of `path` leaves free, as `command` prints it: two numbers, the bytes and the files, or `-` for one that is not limited. In
    /// its arguments `{path}` stands for the folder.
    ///
    /// # Errors
    /// A sentence: it cannot be started, fails, takes longer than ten seconds, or prints something else.
    pub fn in_quota(command: &[String], path: &Path) -> Result<Self, String> {
        let folder = existing(path).to_string_lossy();
        let shown = command.join(" ");
        let Some((program, arguments)) = command.split_first() else { return Err("no command".into()) };
        let arguments = arguments.iter().map(|argument| argument.replace("{path}", &folder));
        let output = output_within(Command::new(program).args(arguments), QUOTA_TIMEOUT)
            .map_err(|error| format!("`{shown}`: {error}"))?;
        let said = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
        let said = said.trim();
        let first = said.lines().next().unwrap_or("nothing");
        if !output.status.success() {
            return Err(format!("`{shown}` fails ({}): {first}", output.status));
        }
        Self::parse(said).ok_or_else(|| format!("`{shown}` prints {first:?} instead of two numbers, bytes and files"))
    }

    fn parse(text: &str) -> Option<Self> {
        // What is used beyond a quota is a negative rest.
        let number = |word: &str| match word {
            "-" => Some(None),
            word => Some(Some(u64::try_from(word.parse::<i64>().ok()?).unwrap_or(0))),
        };
        match text.split_whitespace().collect::<Vec<_>>()[..] {
            [bytes, files] => Some(Self { bytes: number(bytes)?, files: number(files)? }),
            _ => None,
        }
    }

    /// Whether a write of `bytes_needed` to `path` leaves what `rules` ask for; `limit` says what is full otherwise.
    ///
    /// # Errors
    /// [`TrackError::NoSpace`] or [`TrackError::NoFiles`].
    pub fn check(&self, path: &Path, limit: Limit, bytes_needed: u64, rules: &DiskRules) -> Result<()> {
        let DiskRules { min_free_gb: floor_gib, min_free_files: floor, .. } = *rules;
        if let Some(bytes) = self.bytes {
            let [free_gib, needed_gib] = [bytes, bytes_needed].map(|bytes| bytes as f64 / BYTES_PER_GIB);
            if free_gib - needed_gib < floor_gib {
                return Err(TrackError::NoSpace { path: path.to_path_buf(), limit, free_gib, needed_gib, floor_gib });
            }
        }
        match self.files {
            Some(free) if free < floor => Err(TrackError::NoFiles { path: path.to_path_buf(), limit, free, floor }),
            _ => Ok(()),
        }
    }
}

/// What limits the space of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The size of the disk.
    Disk,
    /// A quota.
    Quota,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Disk => "on its disk",
            Self::Quota => "in its quota",
        })
    }
}

/// Refuses a write of `bytes_needed` to `path` that would leave less than `rules` ask for, on its disk or in its quota. A quota command that
/// does not answer is a warning.
///
/// # Errors
/// [`TrackError::NoSpace`] or [`TrackError::NoFiles`] with the sizes.
pub fn ensure_free(path: &Path, bytes_needed: u64, rules: &DiskRules) -> Result<()> {
    Free::on_disk(path)?.check(path, Limit::Disk, bytes_needed, rules)?;
    let Some(command) = &rules.quota_command else { return Ok(()) };
    match Free::in_quota(command, path) {
        Ok(free) => free.check(path, Limit::Quota, bytes_needed, rules),
        Err(reason) => {
            tracing::warn!("cluster.quota_command does not tell the quota of {}: {reason}", path.display());
            Ok(())
        }
    }
}

/// The nearest ancestor of `path` that exists.
fn existing(path: &Path) -> &Path {
    let found = path.ancestors().find(|ancestor| ancestor.exists());
    found.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
