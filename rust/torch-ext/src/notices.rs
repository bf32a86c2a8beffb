//! What the processes of a run tell each other besides tensors, through the store: that they have arrived, that one is ending, how each ended.
//!
//! An operation of c10d's store waits for ever if the process with the store hangs. So a thread of its own does all of them, and the
//! program reads what the thread has found. A thread that never returns is left alone; the process ends without it.
#![allow(unsafe_code)] // each call hands strings to the C++ shim

use crate::{
    TorchError,
    ending::{Note, Peer},
    ffi,
};
use std::{
    collections::VecDeque,
    ffi::{CString, c_void},
    ptr,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

/// How often the thread reads what it waits for.
pub(crate) const POLL: Duration = Duration::from_millis(20);
/// How often it looks whether a process is ending, while nothing else happens.
const QUIET: Duration = Duration::from_secs(1);
/// Until every process that lives has heard that one is ending, and why.
pub(crate) const HEARD: Duration = Duration::from_millis(1500);
/// How often a process gives a sign while another one is ending.
const SIGN: Duration = Duration::from_millis(500);
/// How often the program looks whether it still waits for c10d.
const LOOK: Duration = Duration::from_millis(100);
/// How long the program waits for the thread at its end.
const FAREWELL: Duration = Duration::from_secs(1);

/// The C++ side of the connection to the store and to the other processes.
#[derive(Debug)]
pub(crate) struct Handle(pub(crate) *mut c_void);

// SAFETY: c10d's stores and process groups lock their own state; the shim keeps none besides them, and they are replaced only while the
// processes connect and when the connections are cut, after which nothing is exchanged.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle is of this object alone.
        unsafe { ffi::hlrp_world_free(self.0) }
    }
}

impl Handle {
    fn set(&self, key: &str, value: &str) -> Result<(), TorchError> {
        let (key, value) = (c_string(key), c_string(value));
        // SAFETY: a live handle and NUL-terminated strings.
        ffi::check("store", unsafe { ffi::hlrp_world_set(self.0, key.as_ptr(), value.as_ptr()) })
    }

    fn get(&self, key: &str) -> Result<Option<String>, TorchError> {
        let key = c_string(key);
        let mut out = ptr::null_mut();
        // SAFETY: a live handle and a NUL-terminated string; `out` is a string or null on success.
        ffi::check("store", unsafe { ffi::hlrp_world_get(self.0, key.as_ptr(), &mut out) })?;
        Ok((!out.is_null()).then(|| ffi::take_string(out)))
    }
}

/// A string without NUL bytes, which end it in C.
pub(crate) fn c_string(text: &str) -> CString {
    let bytes: Vec<u8> = text.bytes().take_while(|byte| *byte != 0).collect();
    CString::new(bytes).unwrap_or_default()
}

/// What a process waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Attention {
    /// That all are ready to connect.
    #[default]
    Readiness,
    /// That one is ending.
    Quiet,
    /// The notes of all, and that they leave.
    Notes,
}

/// What is known.
#[derive(Debug, Clone)]
pub(crate) struct Board {
    /// When the store answered last.
    pub(crate) answered: Instant,
    /// Whether the store has refused: it is gone.
    pub(crate) is_lost: bool,
    /// Whether a process is ending.
    pub(crate) is_ending: bool,
    /// The processes by rank, this one included.
    pub(crate) peers: Vec<Peer>,
}

#[derive(Debug)]
struct State {
    board: Board,
    attention: Attention,
    outbox: VecDeque<(String, String)>,
    is_over: bool,
    /// Another thread than that of the program ends the process.
    ends_at_once: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The notices of one process.
#[derive(Debug)]
pub(crate) struct Notices {
    rank: usize,
    shared: Arc<Shared>,
    /// Ends with the thread.
    end: Mutex<mpsc::Receiver<()>>,
}

impl Notices {
    /// Opens the store in the thread of the notices and announces this process. None if that takes longer than `limit`, or `is_hopeless`.
    pub(crate) fn open(
        rank: usize,
        size: usize,
        limit: Duration,
        is_hopeless: impl Fn() -> bool,
        open: impl FnOnce() -> Result<Handle, TorchError> + Send + 'static,
    ) -> Option<Result<(Self, Arc<Handle>), TorchError>> {
        let board =
            Board { answered: Instant::now(), is_lost: false, is_ending: false, peers: vec![Peer::default(); size] };
        let outbox = VecDeque::from([(key_of("here", rank), "yes".to_owned())]);
        let state = State { board, attention: Attention::default(), outbox, is_over: false, ends_at_once: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let (opened, result) = mpsc::channel();
        let (at_end, end) = mpsc::channel();
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || {
            let _at_end: mpsc::Sender<()> = at_end;
            match open().map(Arc::new) {
                Ok(handle) => {
                    if opened.send(Ok(Arc::clone(&handle))).is_ok() {
                        attend(&handle, &of_thread, rank);
                    }
                }
                Err(error) => drop(opened.send(Err(error))),
            }
        });
        let result = receive(&result, limit, is_hopeless)?;
        Some(result.map(|handle| (Self { rank, shared, end: Mutex::new(end) }, handle)))
    }

    /// What is known now.
    pub(crate) fn board(&self) -> Board {
        self.shared.state().board.clone()
    }

    pub(crate) fn attend_to(&self, attention: Attention) {
        self.shared.state().attention = attention;
        self.shared.changed.notify_all();
    }

    /// Says that this process is ready to connect.
    pub(crate) fn ready(&self) {
        self.post(key_of("ready", self.rank), "yes");
    }

    /// Says that this process is ending.
    pub(crate) fn end(&self) {
        self.post("ending".to_owned(), "yes");
        self.attend_to(Attention::Notes);
    }

    /// Leaves the note of this process.
    pub(crate) fn note(&self, note: &Note) {
        let mut state = self.shared.state();
        if !state.ends_at_once {
            state.outbox.push_back((key_of("note", self.rank), note.encode()));
        }
        self.shared.changed.notify_all();
    }

    /// Leaves the note of this process and says that it is ending; returns when both are at the store. The program leaves no other note.
    pub(crate) fn end_at_once(&self, note: &Note) {
        let mut state = self.shared.state();
        state.ends_at_once = true;
        state.outbox.push_back((key_of("note", self.rank), note.encode()));
        state.outbox.push_back((key_of("left", self.rank), "yes".to_owned()));
        drop(state);
        self.end(); // whoever reads this finds the note
        let began = Instant::now();
        let is_posted = || {
            let state = self.shared.state();
            state.outbox.is_empty() || state.board.is_lost
        };
        while !is_posted() && began.elapsed() < FAREWELL {
            thread::sleep(POLL);
        }
    }

    /// Whether another thread ends the process.
    pub(crate) fn ends_at_once(&self) -> bool {
        self.shared.state().ends_at_once
    }

    /// Says that this process has left.
    pub(crate) fn leave(&self) {
        self.post(key_of("left", self.rank), "yes");
    }

    fn post(&self, key: String, value: &str) {
        self.shared.state().outbox.push_back((key, value.to_owned()));
        self.shared.changed.notify_all();
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.shared.state().is_over = true;
        self.shared.changed.notify_all();
        // It returns an error when the thread has ended, or is stuck.
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = end.recv_timeout(FAREWELL);
    }
}

/// What a thread sends that waits in c10d; none if that takes longer than `limit`, or `is_hopeless`.
pub(crate) fn receive<T>(result: &mpsc::Receiver<T>, limit: Duration, is_hopeless: impl Fn() -> bool) -> Option<T> {
    let began = Instant::now();
    loop {
        match result.recv_timeout(LOOK) {
            Ok(result) => return Some(result),
            Err(RecvTimeoutError::Timeout) if began.elapsed() < limit && !is_hopeless() => {}
            Err(_) => return None,
        }
    }
}

fn key_of(kind: &str, rank: usize) -> String {
    format!("{kind}/{rank}")
}

/// The thread: writes and reads until the program ends or the store refuses.
fn attend(handle: &Handle, shared: &Shared, rank: usize) {
    let mut signs = Signs::default();
    loop {
        let state = shared.state();
        let (mut board, outbox, attention) = (state.board.clone(), state.outbox.clone(), state.attention);
        drop(state);
        let result = exchange(handle, rank, &outbox, attention, &mut board, &mut signs);
        let mut state = shared.state();
        match result {
            Ok(()) => board.answered = Instant::now(),
            Err(_) => board.is_lost = true,
        }
        state.outbox.drain(..outbox.len());
        state.board = board;
        if state.board.is_lost || state.is_over && state.outbox.is_empty() {
            return;
        }
        let pause = match state.attention {
            Attention::Quiet if state.board.is_ending => SIGN,
            Attention::Quiet => QUIET,
            Attention::Readiness | Attention::Notes => POLL,
        };
        if state.outbox.is_empty() && !state.is_over {
            drop(shared.changed.wait_timeout(state, pause));
        }
    }
}

/// The signs of this process.
#[derive(Default)]
struct Signs {
    count: u64,
    newest: Option<Instant>,
}

fn exchange(
    handle: &Handle,
    rank: usize,
    outbox: &VecDeque<(String, String)>,
    attention: Attention,
    board: &mut Board,
    signs: &mut Signs,
) -> Result<(), TorchError> {
    for (key, value) in outbox {
        handle.set(key, value)?;
    }
    board.is_ending = board.is_ending || handle.get("ending")?.is_some();
    if board.is_ending && signs.newest.is_none_or(|newest| newest.elapsed() >= SIGN) {
        signs.count += 1;
        signs.newest = Some(Instant::now());
        handle.set(&key_of("sign", rank), &signs.count.to_string())?;
    }
    for (other, peer) in board.peers.iter_mut().enumerate() {
        let read = |kind: &str| handle.get(&key_of(kind, other));
        if attention == Attention::Readiness && !peer.is_ready {
            peer.is_ready = read("ready")?.is_some();
        }
        // Those of a process that is ending, before it takes the store with it.
        let reads_notes = attention == Attention::Notes || board.is_ending;
        if reads_notes && !peer.has_arrived {
            peer.has_arrived = read("here")?.is_some();
        }
        if !reads_notes || !peer.has_arrived || peer.has_left {
            continue;
        }
        if peer.note.is_none() {
            peer.note = read("note")?.as_deref().and_then(Note::decode);
        }
        peer.has_left = read("left")?.is_some();
        match read("sign")? {
            Some(sign) if peer.sign.as_ref().is_none_or(|(known, _)| *known != sign) => {
                peer.sign = Some((sign, Instant::now()));
            }
            _ => {}
        }
    }
    Ok(())
}
