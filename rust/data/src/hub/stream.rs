//! Videos of the Hub that are read where they are: ranges of bytes over HTTP, of which the last used ones stay in memory.
//!
//! A file is a row of blocks. Blocks that are missing are fetched in one request as far as they are next to each other; a thread that needs one that another
//! thread is fetching waits for it. The memory of all files together is bounded.

#![cfg_attr(not(feature = "ffmpeg"), allow(dead_code))] // without FFmpeg nothing reads videos

use super::{
    client::{Answer, Failure, Hub, Tries, cut_off, shown},
    error::HubError,
};
use crate::lock::lock;
use crate::lru::ByteLru;
use crate::read_at::ReadAt;
use hlrp_schema::hub::{Pinned, RepoKind};
use reqwest::Url;
use std::{
    collections::{HashMap, HashSet},
    io::{self, Read},
    ops::Range,
    sync::{Arc, Condvar, Mutex, PoisonError},
};

/// Bytes of a block.
const BLOCK: u64 = 1 << 18;
/// Most blocks of one request.
const MAX_RUN: u64 = 32;

/// Number of a file, the same however often it is opened, and of a block in it.
type Key = (u64, u64);

/// What is read over HTTP, by all threads and of all datasets together.
pub struct Streams {
    hub: Hub,
    state: Mutex<State>,
    arrived: Condvar,
    /// By address and content.
    files: Mutex<HashMap<(String, Option<String>), u64>>,
    /// Most blocks of one request: what is fetched ahead must not drive out what is in use.
    max_run: u64,
}

struct State {
    blocks: ByteLru<Key, Arc<Vec<u8>>>,
    in_flight: HashSet<Key>,
}

impl Streams {
    /// Keeps `budget` bytes at most.
    #[must_use]
    pub fn new(hub: Hub, budget: usize) -> Self {
        let state = State { blocks: ByteLru::new(budget, usize::MAX), in_flight: HashSet::new() };
        let max_run = (budget as u64 / BLOCK / 4).clamp(1, MAX_RUN);
        Self { hub, state: Mutex::new(state), arrived: Condvar::new(), files: Mutex::default(), max_run }
    }
}

impl Streams {
    /// The number of a file: its blocks are those of everyone who has opened it.
    fn number(&self, url: &Url, etag: Option<&str>) -> u64 {
        let mut files = lock(&self.files);
        let next = files.len() as u64;
        *files.entry((url.to_string(), etag.map(str::to_owned))).or_insert(next)
    }
}

/// A video of the Hub.
pub(crate) struct RemoteVideo {
    streams: Arc<Streams>,
    number: u64,
    /// Its address on the Hub, which redirects.
    url: Url,
    /// Where the Hub has led to; it may expire.
    found: Mutex<Option<Url>>,
    len: u64,
    /// Names its content.
    etag: Option<String>,
}

impl RemoteVideo {
    /// Opens a file of a dataset.
    ///
    /// # Errors
    /// The Hub does not give it, or nothing may be fetched.
    pub(crate) fn open(streams: &Arc<Streams>, pinned: &Pinned, path: &str) -> Result<Self, HubError> {
        if streams.hub.settings.is_offline() {
            return Err(HubError::Offline { what: format!("{path} of {pinned}") });
        }
        let url = streams.hub.file_url(RepoKind::Dataset, pinned, path)?;
        let mut tries = Tries::default();
        // The first block tells the size as well.
        let answer = loop {
            match streams.hub.get(&url, Some(0..BLOCK)) {
                Ok(answer) => break answer,
                Err(failure) => tries.failed(&url, failure)?,
            }
        };
        let unsized_file =
            || HubError::Damaged { url: shown(&url), what: "the server does not say its size".to_owned() };
        let len = answer.size.ok_or_else(unsized_file)?;
        let found = Mutex::new(Some(answer.url.clone()));
        let (etag, streams) = (answer.etag.clone(), Arc::clone(streams));
        let number = streams.number(&url, etag.as_deref());
        let opened = Self { streams, number, url, found, len, etag };
        let first = opened.receive(0..BLOCK.min(len), Some(answer))?;
        opened.keep(0, first);
        Ok(opened)
    }

    /// Fetches bytes; `answer` has them, or their first part, if it is given. A connection that breaks is tried again from where it broke.
    fn receive(&self, range: Range<u64>, mut answer: Option<Answer>) -> Result<Vec<u8>, HubError> {
        let len = (range.end - range.start) as usize;
        let mut bytes = Vec::with_capacity(len);
        let mut tries = Tries::default();
        while bytes.len() < len {
            let before = bytes.len();
            let start = range.start + before as u64;
            let received = match answer.take() {
                Some(answer) => Ok(answer),
                None => self.ask(start..range.end),
            };
            let failure = received.and_then(|answer| append(answer, start, len, &mut bytes)).err();
            if bytes.len() > before {
                tries.progress();
            }
            if let Some(failure) = failure {
                tries.failed(&self.url, failure)?;
            }
        }
        Ok(bytes)
    }

    /// Asks for bytes where the Hub has led to; anew where that has expired.
    fn ask(&self, range: Range<u64>) -> Result<Answer, Failure> {
        let found = lock(&self.found).clone();
        if let Some(found) = found.filter(|found| *found != self.url) {
            match self.streams.hub.get(&found, Some(range.clone())) {
                Err(Failure::Final(_)) => *lock(&self.found) = None,
                answered => return answered,
            }
        }
        let answer = self.streams.hub.get(&self.url, Some(range))?;
        if answer.etag.is_some() && self.etag.is_some() && answer.etag != self.etag {
            let what = "it has changed on the server while it was read".to_owned();
            return Err(Failure::Final(HubError::Damaged { url: shown(&self.url), what }));
        }
        *lock(&self.found) = Some(answer.url.clone());
        Ok(answer)
    }

    /// Keeps fetched bytes as blocks from the `first` on, and returns them.
    fn keep(&self, first: u64, bytes: Vec<u8>) -> Vec<Arc<Vec<u8>>> {
        let blocks: Vec<Arc<Vec<u8>>> = bytes.chunks(BLOCK as usize).map(|block| Arc::new(block.to_vec())).collect();
        let mut state = lock(&self.streams.state);
        for (number, block) in (first..).zip(&blocks) {
            state.blocks.put((self.number, number), Arc::clone(block), block.len());
            state.in_flight.remove(&(self.number, number));
        }
        drop(state);
        self.streams.arrived.notify_all();
        blocks
    }

    /// The block `first`, with those after it up to `end` that were fetched in the same request.
    fn blocks(&self, first: u64, end: u64) -> Result<Vec<Arc<Vec<u8>>>, HubError> {
        let mut state = lock(&self.streams.state);
        let run = loop {
            if let Some(block) = state.blocks.get(&(self.number, first)) {
                return Ok(vec![Arc::clone(block)]);
            }
            if !state.in_flight.contains(&(self.number, first)) {
                let is_missing = |state: &mut State, block: u64| {
                    let key = (self.number, block);
                    !state.in_flight.contains(&key) && state.blocks.get(&key).is_none()
                };
                let last = end.min(first + self.streams.max_run);
                let run = first..(first + 1..last).find(|&block| !is_missing(&mut state, block)).unwrap_or(last);
                state.in_flight.extend(run.clone().map(|block| (self.number, block)));
                break run;
            }
            state = self.streams.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        drop(state);
        match self.receive(run.start * BLOCK..(run.end * BLOCK).min(self.len), None) {
            Ok(bytes) => Ok(self.keep(run.start, bytes)),
            Err(error) => {
                let mut state = lock(&self.streams.state);
                for block in run {
                    state.in_flight.remove(&(self.number, block));
                }
                drop(state);
                self.streams.arrived.notify_all();
                Err(error)
            }
        }
    }
}

/// Appends the bytes of an answer from the byte `start` of the file on, until there are `len` of them.
fn append(mut answer: Answer, start: u64, len: usize, bytes: &mut Vec<u8>) -> Result<(), Failure> {
    let passing = |reason: String| Failure::Passing { after: None, reason };
    let Some(too_early) = start.checked_sub(answer.start) else {
        return Err(passing(format!("it was sent from byte {} on, not from {start}", answer.start)));
    };
    // A server without ranges sends all.
    io::copy(&mut answer.response.by_ref().take(too_early), &mut io::sink())
        .map_err(|error| passing(cut_off(&error)))?;
    let wanted = (len - bytes.len()) as u64;
    let read = answer.response.take(wanted).read_to_end(bytes);
    match read {
        Ok(_) if bytes.len() < len => Err(passing(format!("it ended {} bytes too early", len - bytes.len()))),
        Ok(_) => Ok(()),
        Err(error) => Err(passing(cut_off(&error))),
    }
}

impl ReadAt for RemoteVideo {
    fn num_bytes(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset + out.len() as u64;
        if end > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let last = end.div_ceil(BLOCK);
        let mut at = offset;
        while at < end {
            let first = at / BLOCK;
            for (number, block) in (first..).zip(self.blocks(first, last).map_err(io::Error::other)?) {
                let from = (at - number * BLOCK) as usize;
                let count = (block.len() - from).min((end - at) as usize);
                out[(at - offset) as usize..][..count].copy_from_slice(&block[from..from + count]);
                at += count as u64;
                if at == end {
                    break;
                }
            }
        }
        Ok(())
    }

    fn prepare(&self, range: Range<u64>) -> io::Result<()> {
        let first = range.start / BLOCK;
        let end = range.end.min(self.len).div_ceil(BLOCK).min(first + self.streams.max_run);
        let mut block = first;
        while block < end {
            block += self.blocks(block, end).map_err(io::Error::other)?.len() as u64;
        }
        Ok(())
    }

    fn is_remote(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::Streams;
    use crate::hub::{Hub, HubSettings};
    use reqwest::Url;

    #[test]
    fn a_file_that_is_opened_again_has_the_same_blocks() {
        let streams = Streams::new(Hub::new(HubSettings::of_environment()).unwrap(), 1 << 20);
        let [a, b] = ["https://hub/a.mp4", "https://hub/b.mp4"].map(|url| Url::parse(url).unwrap());
        let numbers = [(&a, "1"), (&b, "1"), (&a, "1"), (&a, "2")].map(|(url, etag)| streams.number(url, Some(etag)));
        assert_eq!(numbers, [0, 1, 0, 2], "another content is another file");
    }
}
