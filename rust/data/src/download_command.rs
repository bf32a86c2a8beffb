//! `hlrp data download`: a dataset or a model of the Hub in the cache.

use anyhow::{Context, Result};
use clap::Args;
use hlrp_config::{Problem, find_root};
use hlrp_data::{
    DataError, DiskRules, disk_rules,
    hub::{Downloaded, Fetch, Hub, Selection, cache_dir, download, download_model},
};
use hlrp_schema::{
    ConfigArgs, PROJECT, RunBasics,
    hub::{RepoKind, is_repo_id, is_revision},
};
use hlrp_track::console::{self, Progress};
use std::{
    io::{IsTerminal, stderr},
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How often a progress line is written where there is no bar, and its rate is renewed where there is one.
const LINE_EVERY: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(1)];

/// Options of `hlrp data download`.
#[derive(Args)]
pub(crate) struct DownloadOptions {
    /// Name on the Hub: owner/name.
    repo: String,
    /// What it is. Of a model the weights (*.safetensors) and settings (*.json: sizes, tokenizer) at its top are fetched.
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = RepoKind::Dataset)]
    repo_type: RepoKind,
    /// Branch, tag or commit. [default: main]
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Feature keys of the cameras whose videos are fetched. [default: all]
    #[arg(long, value_name = "KEY,…", value_delimiter = ',')]
    cameras: Option<Vec<String>>,
    /// Episodes whose data and videos are fetched, such as 0-9,12; files that contain other episodes as well are fetched whole. [default: all]
    #[arg(long, value_name = "INDEX,…")]
    episodes: Option<String>,
    /// Fetches no videos: for sources that stream them.
    #[arg(long, conflicts_with = "cameras")]
    no_videos: bool,
    /// Folder of the cache. [default: $HF_HUB_CACHE, else hub in $HF_HOME, else ~/.cache/huggingface/hub]
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
}

impl DownloadOptions {
    /// Checks the name and the revision.
    fn check(&self) -> Result<(), Problem> {
        let Self { repo, revision, .. } = self;
        if !is_repo_id(repo) {
            let hint = "give owner/name, such as lerobot/pusht";
            return Err(Problem::new("REPO", format!("'{repo}' is not a name on the Hub"), hint));
        }
        if let Some(revision) = revision.as_ref().filter(|revision| !is_revision(revision)) {
            let hint = "give a branch, a tag or a commit";
            return Err(Problem::new("--revision", format!("'{revision}' is not a revision"), hint));
        }
        Ok(())
    }

    /// The part of a dataset that is wanted.
    fn selection(&self) -> Result<Selection, Problem> {
        Ok(Selection {
            repo_id: self.repo.clone(),
            revision: self.revision.clone(),
            cameras: self.cameras.clone(),
            episodes: self.episodes.as_deref().map(episodes).transpose()?,
            with_videos: !self.no_videos,
        })
    }

    /// Refuses the options of datasets.
    fn check_model(&self) -> Result<(), Problem> {
        let given = [
            ("--cameras", self.cameras.is_some()),
            ("--episodes", self.episodes.is_some()),
            ("--no-videos", self.no_videos),
        ];
        match given.into_iter().find(|(_, is_given)| *is_given) {
            Some((option, _)) => {
                let hint = format!("leave {option} out, or give --repo-type dataset");
                Err(Problem::new(option, "a model has neither cameras nor episodes", hint))
            }
            None => Ok(()),
        }
    }

    /// What the configuration says of this machine; none where there is no tree.
    fn basics(&self) -> Result<Option<RunBasics>> {
        let ConfigArgs { overrides, config_dir, .. } = &self.config;
        let has_tree = find_root(config_dir.as_deref(), PROJECT.config_dir_variable).is_ok();
        if !has_tree && overrides.is_empty() && config_dir.is_none() {
            return Ok(None);
        }
        Ok(Some(RunBasics::unchecked(&self.config.compose()?)?))
    }
}

/// Most episodes that a range may name.
const MAX_EPISODES: u64 = 1 << 24;

/// The indices in `0-9,12`.
fn episodes(text: &str) -> Result<Vec<u64>, Problem> {
    let bad = |part: &str| {
        let hint = "give indices and ranges, such as 0-9,12";
        Problem::new("--episodes", format!("'{part}' is neither an index nor a range"), hint)
    };
    let mut indices = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let [first, last] = [first, last].map(|number| number.trim().parse::<u64>().ok());
        let range = first.zip(last).filter(|(first, last)| first <= last && last - first < MAX_EPISODES);
        let (first, last) = range.ok_or_else(|| bad(part))?;
        indices.extend(first..=last);
    }
    indices.sort_unstable();
    indices.dedup();
    Ok(indices)
}

/// Downloads, and prints what is there then.
pub(crate) fn run(options: &DownloadOptions) -> Result<()> {
    options.check()?;
    let selection = match options.repo_type {
        RepoKind::Dataset => Some(options.selection()?),
        RepoKind::Model => options.check_model().map(|()| None)?,
    };
    let basics = options.basics()?;
    let no_folder = || Problem::new("--cache-dir", "no folder for the cache", "name one, or set HF_HUB_CACHE or HOME");
    let cache = options.cache_dir.clone().or_else(cache_dir).ok_or_else(no_folder)?;
    let cache = std::path::absolute(&cache).with_context(|| cache.display().to_string())?;
    if let Some(basics) = &basics {
        basics.cluster.refuse_output("--cache-dir", &cache)?;
    }
    let disk = basics.map_or_else(DiskRules::unlimited, |basics| disk_rules(&basics.cluster, &basics.logging));
    let shown = Mutex::new(Shown::default());
    let progress = |done: u64, total: u64| shown.lock().unwrap_or_else(PoisonError::into_inner).set(done, total);
    let fetch = Fetch { cache: &cache, disk: &disk, progress: &progress };
    let hub = Hub::of_environment()?;
    let downloaded = match &selection {
        Some(selection) => download(&hub, selection, &fetch),
        None => download_model(&hub, &options.repo, options.revision.as_deref(), &fetch).map_err(DataError::from),
    };
    drop(shown);
    let Downloaded { snapshot, pinned, num_files, num_bytes, num_fetched } = downloaded?;
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    console::print(&format!(
        "{pinned}: {num_files} files, {}, of which {} were fetched\n{}",
        megabytes(num_bytes),
        megabytes(num_fetched),
        snapshot.display()
    ));
    Ok(())
}

/// The progress of a download, whose size grows when the metadata is there.
#[derive(Default)]
struct Shown {
    progress: Option<(Progress, u64, Instant)>,
}

impl Shown {
    fn set(&mut self, done: u64, total: u64) {
        let every = LINE_EVERY[usize::from(stderr().is_terminal())];
        match &mut self.progress {
            Some((progress, of, told)) if *of == total => {
                progress.advance(done);
                if told.elapsed() >= every {
                    progress.set(done, &[]);
                    *told = Instant::now();
                }
            }
            progress => {
                // One bar at a time.
                *progress = None;
                *progress = Some((Progress::of_bytes(total, done), total, Instant::now()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::episodes;

    #[test]
    fn episodes_are_indices_and_ranges() {
        assert_eq!(episodes("3, 0-2,2").unwrap(), [0, 1, 2, 3]);
        for text in ["", "a", "3-", "5-3", "-1", "0-99999999999"] {
            assert!(episodes(text).is_err(), "{text}");
        }
    }
}
