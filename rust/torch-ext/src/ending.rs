//! How the processes of a run agree on its end after an error. The protocol:
//!
//! 1. A process that fails says at the store that it is ending and cuts its connections, before it waits for work of its own such as a
//!    checkpoint: the others find this in their next exchange, and fail too.
//! 2. When its own work is done it leaves a [`Note`]: its error, and the checkpoint at which the run can go on.
//! 3. It reads the notes of the others. As soon as one process is ending, every process that lives gives a sign twice per second, from a
//!    thread of its own, whatever it computes. One without a sign for [`SILENCE`] is missing. One with signs has as long for its note as it
//!    would have had for the exchange: the timeout, from the beginning of the exchange that failed, at least [`SILENCE`]. One that has
//!    not arrived yet has the same time.
//! 4. The note with the smallest priority counts, of equal ones that of the smallest rank; its process reports. It decides as soon as no
//!    note that may still come could change this.
//! 5. After its report each process says that it has left. The one with the store stays until all others that give signs have left, at most
//!    as long as they have for their notes.
//!
//! A store that does not answer for [`SILENCE`] is gone, with rank 0 if it is in that process. The others cannot agree then: the first of
//! them on each machine reports that ([`crate::speaks_for_machine`]).

use std::time::{Duration, Instant};

/// How long a process that is asked gives no sign, or a store no answer, until it counts as gone.
pub(crate) const SILENCE: Duration = Duration::from_secs(5);

/// How a process ended, for the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The smaller, the nearer to the cause: of several errors the one with the smallest number is reported.
    pub priority: u8,
    /// Exit code.
    pub code: u8,
    /// Whether there is a checkpoint of this session, so that trying again is progress.
    pub can_continue: bool,
    /// Folder of the newest checkpoint, or that there is none.
    pub checkpoint: String,
    /// The error with its hints.
    pub text: String,
}

impl Note {
    /// An error of the process itself.
    pub const OWN: u8 = 0;
    /// An error that follows from what another process computed.
    pub const DERIVED: u8 = 1;
    /// The other processes are gone.
    pub const LOST: u8 = 2;

    pub(crate) fn encode(&self) -> String {
        let Self { priority, code, can_continue, checkpoint, text } = self;
        format!("{priority} {code} {can_continue} {checkpoint}\n{text}")
    }

    pub(crate) fn decode(text: &str) -> Option<Self> {
        let (head, text) = text.split_once('\n')?;
        let mut parts = head.splitn(4, ' ');
        Some(Self {
            priority: parts.next()?.parse().ok()?,
            code: parts.next()?.parse().ok()?,
            can_continue: parts.next()?.parse().ok()?,
            checkpoint: parts.next()?.to_owned(),
            text: text.to_owned(),
        })
    }
}

/// What the processes agree on after an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether this process reports; the others end in silence.
    pub is_reporter: bool,
    /// The process whose error is reported.
    pub rank: usize,
    /// Its note.
    pub note: Note,
    /// The processes that left no note, where the others are gone: they are gone too, or hang.
    pub missing: Vec<usize>,
}

/// What a process knows of another one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer {
    /// Whether it is at the store.
    pub(crate) has_arrived: bool,
    /// Whether it is ready to connect.
    pub(crate) is_ready: bool,
    pub(crate) note: Option<Note>,
    /// Its newest sign, and when that was read.
    pub(crate) sign: Option<(String, Instant)>,
    pub(crate) has_left: bool,
}

/// Since when a process waits for the others, and until when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    pub(crate) since: Instant,
    pub(crate) until: Instant,
}

impl Wait {
    /// Of a process that fails now, in an exchange that `began` then.
    pub(crate) fn new(now: Instant, began: Option<Instant>, timeout: Duration) -> Self {
        Self { since: now, until: (began.unwrap_or(now) + timeout).max(now + SILENCE) }
    }

    /// Whether nothing more can be expected of a process.
    pub(crate) fn is_missing(&self, peer: &Peer, now: Instant) -> bool {
        let newest = peer.sign.as_ref().map_or(self.since, |(_, read)| (*read).max(self.since));
        now > self.until || peer.has_arrived && now.duration_since(newest) > SILENCE
    }

    /// The verdict of `own`, a rank with a note; none while a note that may still come could change it.
    pub(crate) fn verdict(&self, own: usize, peers: &[Peer], now: Instant) -> Option<Verdict> {
        let noted = peers.iter().enumerate().filter_map(|(rank, peer)| Some((rank, peer.note.as_ref()?)));
        let (first, note) = noted.min_by_key(|(rank, note)| (note.priority, *rank))?;
        let is_open = |rank: usize| peers[rank].note.is_none() && !self.is_missing(&peers[rank], now);
        let last_that_matters = if note.priority == Note::OWN { first } else { peers.len() };
        if (0..last_that_matters).any(is_open) {
            return None;
        }
        let missing = (0..peers.len()).filter(|rank| *rank != own && peers[*rank].note.is_none()).collect();
        Some(Verdict { is_reporter: first == own, rank: first, note: note.clone(), missing })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;

    fn note(priority: u8) -> Note {
        Note {
            priority,
            code: 65,
            can_continue: true,
            checkpoint: "a b/step-5".to_owned(),
            text: "an error\nhint: two".to_owned(),
        }
    }

    fn peer(priority: Option<u8>) -> Peer {
        Peer { has_arrived: true, note: priority.map(note), ..Peer::default() }
    }

    #[test]
    fn a_note_survives_its_way_through_the_store() {
        assert_eq!(Note::decode(&note(Note::DERIVED).encode()), Some(note(Note::DERIVED)));
        assert_eq!(Note::decode("no note"), None);
    }

    #[test]
    fn the_error_of_the_first_process_is_reported_at_once() {
        let now = Instant::now();
        let wait = Wait::new(now, None, Duration::from_secs(60));
        let verdict = wait.verdict(0, &[peer(Some(Note::OWN)), peer(None)], now).unwrap();
        assert!(verdict.is_reporter);
        // An error of the second may be that of the first too.
        assert_eq!(wait.verdict(1, &[peer(None), peer(Some(Note::OWN))], now), None);
        let verdict = wait.verdict(1, &[peer(Some(Note::LOST)), peer(Some(Note::OWN))], now).unwrap();
        assert!(verdict.is_reporter && verdict.rank == 1);
    }

    #[test]
    fn a_process_with_signs_is_waited_for_until_the_timeout_of_the_exchange() {
        let (began, at) = (Instant::now(), |seconds| Duration::from_secs(seconds));
        let wait = Wait::new(began + at(10), Some(began), at(60));
        let alive = |now: Instant| Peer { sign: Some(("1".to_owned(), now)), ..peer(None) };
        for (seconds, is_missing) in [(12, false), (59, false), (61, true)] {
            let now = began + at(seconds);
            assert_eq!(wait.is_missing(&alive(now), now), is_missing, "{seconds}");
        }
        assert!(!wait.is_missing(&peer(None), began + at(14)) && wait.is_missing(&peer(None), began + at(16)));
        let not_arrived = Peer::default();
        assert!(!wait.is_missing(&not_arrived, began + at(59)), "it may still start");
        let hung = Wait::new(began + at(60), Some(began), at(60));
        assert!(!hung.is_missing(&alive(began + at(64)), began + at(64)), "others need a moment for their notes");
        assert!(hung.is_missing(&alive(began + at(66)), began + at(66)));
    }
}
