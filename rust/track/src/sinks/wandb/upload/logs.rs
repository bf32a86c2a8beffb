//! The logs of a run, read session after session. The last one may grow, and another session may follow it.

use super::super::{
    log::LogReader,
    record::Record,
    session::{Identity, Session},
};
use crate::{Result, TrackError};
use prost::Message;
use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// The logs of one run, and how far they are read.
pub(super) struct Logs {
    run_dir: PathBuf,
    sessions: Vec<Session>,
    current: usize,
    reader: Option<LogReader>,
}

impl Logs {
    /// From the first record on.
    pub(super) fn new(run_dir: &Path, identity: &Identity) -> Self {
        Self { run_dir: run_dir.to_path_buf(), sessions: identity.sessions(run_dir), current: 0, reader: None }
    }

    /// Sessions that are known.
    pub(super) fn num_sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Number of the session that is read.
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// Folder of the files of that session; none before the first one.
    pub(super) fn files(&self) -> Option<PathBuf> {
        Some(self.sessions.get(self.current)?.files())
    }

    /// The next record; none where the logs end, as yet.
    ///
    /// # Errors
    /// A log cannot be read.
    pub(super) fn next(&mut self) -> Result<Option<Record>> {
        loop {
            let Some(session) = self.sessions.get(self.current) else { return Ok(None) };
            let failed = |error| TrackError::io("read", &session.log)(error);
            if self.reader.is_none() {
                match LogReader::open(&session.log) {
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    reader => self.reader = Some(reader.map_err(failed)?),
                }
            }
            let bytes = match &mut self.reader {
                Some(reader) => reader.next().map_err(failed)?,
                None => None,
            };
            if let Some(bytes) = bytes {
                return Ok(Some(Record::decode(bytes.as_slice()).unwrap_or_default()));
            }
            if !self.advance()? {
                return Ok(None);
            }
        }
    }

    /// Goes on to the session that follows the one that is read, which does not grow any more. Returns whether there is one.
    ///
    /// # Errors
    /// The record of the sessions is damaged.
    pub(super) fn advance(&mut self) -> Result<bool> {
        if self.current + 1 == self.sessions.len()
            && let Some(identity) = Identity::read(&self.run_dir)?
        {
            self.sessions = identity.sessions(&self.run_dir);
        }
        let is_followed = self.current + 1 < self.sessions.len();
        if is_followed {
            (self.current, self.reader) = (self.current + 1, None);
        }
        Ok(is_followed)
    }
}
