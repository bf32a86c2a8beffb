//! The files of a run that the service is to have, each once.

use super::{
    super::notice,
    Step,
    api::{Api, Failure},
    open::Open,
};
use crate::{env, host::matches};
use std::{
    collections::{BTreeSet, VecDeque},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Files of one request for their URLs.
const MAX_FILES: usize = 100;
/// Pause between two uploads while a run goes on.
const INTERVAL: Duration = Duration::from_secs(5);
/// Attempts to upload one file whose URL the service refuses.
const MAX_REFUSED: u32 = 3;

/// Files that the service has, by session and name.
pub(super) type Uploaded = BTreeSet<String>;

/// Files that wait for their upload.
pub(super) struct Files {
    /// Patterns of names of files that are not uploaded.
    ignored: Vec<String>,
    waiting: VecDeque<File>,
    num_refused: u32,
    last: Option<Instant>,
}

struct File {
    session: usize,
    path: PathBuf,
    name: String,
}

impl Files {
    pub(super) fn new() -> Self {
        let patterns = env::get(env::WANDB_IGNORE_GLOBS).unwrap_or_default();
        let ignored = patterns.split(',').map(|pattern| pattern.trim().to_owned()).collect();
        Self { ignored, waiting: VecDeque::new(), num_refused: 0, last: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether the last upload is long enough ago.
    pub(super) fn is_due(&self) -> bool {
        self.last.is_none_or(|time| time.elapsed() >= INTERVAL)
    }

    /// Whether the file `name` of a session is to be uploaded.
    pub(super) fn is_wanted(&self, session: usize, name: &str, uploaded: &Uploaded) -> bool {
        !self.ignored.iter().any(|pattern| matches(pattern, name)) && !uploaded.contains(&format!("{session}/{name}"))
    }

    /// Adds the file `name` in the folder of a session.
    pub(super) fn add(&mut self, session: usize, folder: &Path, name: &str) {
        self.waiting.push_back(File { session, path: folder.join(name), name: name.to_owned() });
    }

    /// Uploads what is waiting; `uploaded` gets what the service has.
    ///
    /// # Errors
    /// The service does not answer: the rest is still waiting. A file that it refuses again and again is left out.
    pub(super) fn upload(&mut self, api: &Api, open: &mut Open, uploaded: &mut Uploaded) -> Result<(), Step> {
        while !self.waiting.is_empty() {
            let num = self.waiting.len().min(MAX_FILES);
            let names: Vec<&str> = self.waiting.iter().take(num).map(|file| file.name.as_str()).collect();
            let urls = api.create_files(&open.place, &names)?;
            for _ in 0..num {
                let Some(File { session, path, name }) = self.waiting.front() else { break };
                let url = urls.files.iter().find(|(known, _)| known == name).map(|(_, url)| url);
                let put = match url {
                    Some(url) => api.put(url, &urls.headers, path),
                    None => Err(Failure::Refused { status: None, reason: "the service has no URL for it".to_owned() }),
                };
                match put {
                    Ok(()) => {
                        open.stream.uploaded(name.clone());
                        uploaded.insert(format!("{session}/{name}"));
                    }
                    // The URL may have expired: the next attempt asks for another.
                    Err(Failure::Refused { status: Some(_), reason }) if self.num_refused + 1 < MAX_REFUSED => {
                        self.num_refused += 1;
                        return Err(Failure::Again { after: None, reason }.into());
                    }
                    Err(Failure::Refused { reason, .. }) => {
                        notice::warn(&format!("{} is not uploaded to W&B: {reason}", path.display()));
                    }
                    Err(failure) => return Err(failure.into()),
                }
                self.num_refused = 0;
                self.waiting.pop_front();
            }
        }
        self.last = Some(Instant::now());
        Ok(())
    }
}
