//! The processes that train one model together, and what they exchange.
//!
//! Tensors in main memory go through torch's own Gloo, those on GPUs through its NCCL. A store, which every process reaches, is where they
//! meet, and where they agree on the end of a run that fails ([`crate::ending`] has the protocol).
#![allow(unsafe_code)] // each call hands borrowed tensors and strings to the C++ shim

use crate::{
    TorchError,
    ending::{Note, SILENCE, Verdict, Wait},
    ffi,
    machine::speaks_for_machine,
    notices::{Attention, Board, Handle, Notices, POLL, c_string},
};
use std::{
    ffi::{CString, c_void},
    path::PathBuf,
    ptr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};
use tch::{Device, Tensor};

/// How much longer than c10d itself a process waits for an operation of c10d that has a timeout.
const MARGIN: Duration = Duration::from_secs(2);

/// Where the processes of a run meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// A file on one machine.
    File(PathBuf),
    /// A port.
    Tcp {
        /// Name or address of the machine.
        host: String,
        /// Port.
        port: u16,
        /// Whether the store runs in the process of rank 0; otherwise in the program that started it.
        is_of_rank_0: bool,
    },
}

/// A process and where it meets the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meeting {
    /// Index of the process, `0..size`.
    pub rank: usize,
    /// Number of processes.
    pub size: usize,
    /// Where they meet.
    pub store: Store,
    /// Distinguishes the starts of a run that meet at one store.
    pub prefix: String,
    /// Network interface that Gloo uses; none = the one of the host's name.
    pub interface: Option<String>,
    /// Whether all processes are on one machine.
    pub is_local: bool,
    /// The longest that a process waits for another.
    pub timeout: Duration,
}

impl Meeting {
    /// Whether the store is in the process of rank 0.
    fn is_store_of_first(&self) -> bool {
        matches!(self.store, Store::Tcp { is_of_rank_0: true, .. })
    }

    /// Distinguishes this start of this run from others on the same machine.
    fn name(&self) -> String {
        match &self.store {
            Store::File(path) => format!("{} {}", path.display(), self.prefix),
            Store::Tcp { host, port, .. } => format!("{host}:{port} {}", self.prefix),
        }
    }
}

/// One process among those of a run. Whatever sums, counts, draws or writes takes it.
///
/// With a single process every exchange is the identity.
#[derive(Debug, Clone)]
pub struct World {
    rank: usize,
    size: usize,
    pub(crate) group: Option<Arc<Group>>,
}

/// The connection of a process to the others.
#[derive(Debug)]
pub(crate) struct Group {
    /// Ends first: the thread of the notices has the handle too, and the last one frees it.
    notices: Notices,
    handle: Arc<Handle>,
    meeting: Meeting,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the exchange began that failed.
    failed: Option<Instant>,
    /// The operation that never returned uses the connections.
    is_stuck: bool,
    /// Since this process is ending: how it waits for the others.
    wait: Option<Wait>,
    verdict: Option<Verdict>,
}

impl World {
    /// The only process of a run.
    pub fn single() -> Self {
        Self { rank: 0, size: 1, group: None }
    }

    /// Opens the store where the processes of a run meet. The processes are [connected](World::connect) afterwards; one that fails before can
    /// [conclude](World::conclude) without.
    ///
    /// # Errors
    /// A store that does not answer, a port that is taken.
    pub fn open(meeting: Meeting) -> Result<Self, TorchError> {
        // SAFETY: sets a number.
        unsafe { ffi::hlrp_world_quiet() };
        let (rank, size, limit) = (meeting.rank, meeting.size, meeting.timeout + MARGIN);
        let of_thread = meeting.clone();
        let opened = Notices::open(rank, size, limit, move || open(&of_thread));
        let silence = || TorchError::Exception { operation: "meet", message: "no answer".to_owned() };
        let opened = opened.unwrap_or_else(|| Err(silence()));
        let (notices, handle) = opened.map_err(|error| not_opened(&meeting, error))?;
        let group = Group { notices, handle, meeting, state: Mutex::default() };
        Ok(Self { rank, size, group: Some(Arc::new(group)) })
    }

    /// Waits for the other processes and connects to them.
    ///
    /// # Errors
    /// Processes that do not come within the time, or that are ending; no network.
    pub fn connect(&self) -> Result<(), TorchError> {
        let Some(group) = &self.group else { return Ok(()) };
        let began = Instant::now();
        group.state().failed = Some(began); // until it is done
        group.listen()?;
        group.notices.ready();
        group.meet(began)?;
        group.connect()?;
        group.state().failed = None;
        group.notices.attend_to(Attention::Quiet);
        Ok(())
    }

    /// Prepares the exchange of tensors on `device`: the processes of GPUs are connected through NCCL. All of them call it, each
    /// with a GPU of its own, after CUDA has been [started](crate::cuda::start_up).
    ///
    /// # Errors
    /// A libtorch without NCCL; no GPU.
    pub fn prepare(&self, device: Device) -> Result<(), TorchError> {
        let Some(group) = self.group.as_ref().filter(|_| device.is_cuda()) else { return Ok(()) };
        // SAFETY: a live handle.
        let message = unsafe { ffi::hlrp_world_connect_gpus(group.handle()) };
        ffi::check("connect the GPUs", message).map_err(|error| match error {
            TorchError::Exception { message, .. } => TorchError::NoNccl { size: self.size, message },
            other => other,
        })
    }

    /// Finds an exchange between GPUs that failed after its step went on: what came out of it is undefined. The GPU must have done what
    /// is checked.
    ///
    /// # Errors
    /// An exchange that was aborted.
    pub fn check(&self) -> Result<(), TorchError> {
        let Some(group) = &self.group else { return Ok(()) };
        // SAFETY: a live handle.
        group.exchange("exchange between GPUs", || unsafe { ffi::hlrp_world_check(group.handle()) })
    }

    /// Index of this process, `0..size`.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of processes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether this process writes what a run leaves behind: rank 0.
    pub fn is_main(&self) -> bool {
        self.rank == 0
    }

    /// Replaces `tensor` by its sum over all processes, in place.
    ///
    /// # Errors
    /// A process that is gone, or tensors of different shapes.
    pub fn all_reduce(&self, tensor: &Tensor) -> Result<(), TorchError> {
        let Some(group) = &self.group else { return Ok(()) };
        // SAFETY: a live handle and a live tensor.
        group.exchange("all-reduce", || unsafe { ffi::hlrp_world_all_reduce(group.handle(), tensor.as_ptr()) })
    }

    /// Mean of `tensor` over all processes, without gradient: of the global batch, where each process has the mean of its equal part.
    ///
    /// # Errors
    /// As [`World::all_reduce`].
    pub fn mean(&self, tensor: &Tensor) -> Result<Tensor, TorchError> {
        let sum = tensor.detach().copy();
        self.all_reduce(&sum)?;
        Ok(sum / self.size as f64)
    }

    /// Replaces `tensor` by that of rank 0, in place.
    ///
    /// # Errors
    /// As [`World::all_reduce`].
    pub fn broadcast(&self, tensor: &Tensor) -> Result<(), TorchError> {
        let Some(group) = &self.group else { return Ok(()) };
        // SAFETY: a live handle and a live tensor.
        group.exchange("broadcast", || unsafe { ffi::hlrp_world_broadcast(group.handle(), tensor.as_ptr()) })
    }

    /// The tensors of all processes, in the order of their ranks.
    ///
    /// # Errors
    /// As [`World::all_reduce`].
    pub fn all_gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>, TorchError> {
        let Some(group) = &self.group else { return Ok(vec![tensor.shallow_clone()]) };
        let mut out = vec![ptr::null_mut(); self.size];
        // SAFETY: a live handle and a live tensor; `out` has room for a tensor of each process, which are set on success.
        let gather = || unsafe { ffi::hlrp_world_all_gather(group.handle(), tensor.as_ptr(), out.as_mut_ptr()) };
        group.exchange("all-gather", gather)?;
        Ok(out.into_iter().map(ffi::take_tensor).collect())
    }

    /// The texts of all processes, in the order of their ranks.
    ///
    /// # Errors
    /// As [`World::all_reduce`].
    pub fn all_gather_text(&self, text: &str) -> Result<Vec<String>, TorchError> {
        if self.group.is_none() {
            return Ok(vec![text.to_owned()]);
        }
        let failed = |error: tch::TchError| TorchError::Exception { operation: "gather", message: error.to_string() };
        let own = Tensor::from_slice(text.as_bytes());
        let lengths = self.all_gather(&Tensor::from(text.len() as i64))?;
        let lengths =
            lengths.iter().map(|length| i64::try_from(length).map_err(failed)).collect::<Result<Vec<_>, _>>()?;
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if longest == 0 {
            return Ok(vec![String::new(); self.size]);
        }
        let padded = Tensor::zeros([longest], (tch::Kind::Uint8, Device::Cpu));
        padded.narrow(0, 0, text.len() as i64).copy_(&own);
        let bytes = |(padded, length): (&Tensor, i64)| {
            let bytes = Vec::<u8>::try_from(padded.narrow(0, 0, length)).map_err(failed)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        self.all_gather(&padded)?.iter().zip(lengths).map(bytes).collect()
    }

    /// The rows `[B, …]` of all processes, `[B·size, …]`, in the order in which one process alone would have them: the samples of a
    /// global batch go to the processes in turn.
    ///
    /// # Errors
    /// As [`World::all_reduce`].
    pub fn all_gather_rows(&self, rows: &Tensor) -> Result<Tensor, TorchError> {
        if self.group.is_none() {
            return Ok(rows.shallow_clone());
        }
        Ok(Tensor::stack(&self.all_gather(rows)?, 1).flatten(0, 1))
    }

    /// This process's rows `[B, …]` of the `[B·size, …]` rows that `draw` makes, which are alike in all processes: its part of a global
    /// batch, in the order of [`World::all_gather_rows`]. So a run draws the same for each sample on any number of processes, and
    /// their random generators stay alike.
    pub fn own_rows(&self, num_rows: i64, draw: impl FnOnce(i64) -> Tensor) -> Tensor {
        let size = self.size as i64;
        let all = draw(num_rows * size);
        if self.size == 1 {
            return all;
        }
        all.slice(0, self.rank as i64, num_rows * size, size).contiguous()
    }

    /// Waits until every process is here.
    ///
    /// # Errors
    /// A process that is gone.
    pub fn barrier(&self) -> Result<(), TorchError> {
        if self.group.is_none() {
            return Ok(());
        }
        self.all_reduce(&Tensor::from(0i64))
    }

    /// Says that this process is ending, and cuts its connections: the others notice in their next exchange. What this process still has to
    /// finish comes after this, and then its [note](World::conclude). Nothing can be exchanged any more.
    pub fn begin_end(&self) {
        let Some(group) = &self.group else { return };
        let mut state = group.state();
        if state.wait.is_some() {
            return;
        }
        group.notices.end();
        if !state.is_stuck {
            // SAFETY: a live handle; nothing is exchanged any more.
            unsafe { ffi::hlrp_world_disconnect(group.handle()) };
        }
        state.wait = Some(Wait::new(Instant::now(), state.failed, group.meeting.timeout));
    }

    /// Ends this process's part of a run that fails: leaves its note, reads those of the others, and returns who reports the error. The first
    /// call decides. None for a single process.
    pub fn conclude(&self, note: Note) -> Option<Verdict> {
        self.begin_end();
        let group = self.group.as_ref()?;
        let mut state = group.state();
        let wait = state.wait?;
        Some(state.verdict.get_or_insert_with(|| group.conclude(note, wait)).clone())
    }

    /// Says that this process has reported what it had to. If it has the store, it stays until the others have read what they need.
    /// Nothing happens unless the run [failed](World::conclude).
    pub fn leave(&self) {
        let Some((group, wait)) = self.group.as_ref().and_then(|group| Some((group, group.state().wait?))) else {
            return;
        };
        group.notices.leave();
        let is_needed = |board: &Board| {
            let now = Instant::now();
            let mut others = board.peers.iter().enumerate().filter(|(rank, _)| *rank != self.rank);
            others.any(|(_, peer)| !peer.has_left && !wait.is_missing(peer, now))
        };
        while group.has_store() && !group.is_unreachable(wait) && is_needed(&group.notices.board()) {
            thread::sleep(POLL);
        }
    }
}

impl Group {
    pub(crate) fn handle(&self) -> *mut c_void {
        self.handle.0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an exchange with the other processes. If it fails, one of them is gone.
    pub(crate) fn exchange(
        &self,
        operation: &'static str,
        exchange: impl FnOnce() -> ffi::Message,
    ) -> Result<(), TorchError> {
        let began = Instant::now();
        ffi::check(operation, exchange()).map_err(|error| {
            self.state().failed.get_or_insert(began);
            lost(operation, error)
        })
    }

    /// Opens the network device.
    fn listen(&self) -> Result<(), TorchError> {
        let interface = self.meeting.interface.as_deref().map(c_string);
        let address = self.meeting.is_local.then(|| c_string("127.0.0.1"));
        let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
        // SAFETY: a live handle; strings that outlive the call, or null.
        let message = unsafe { ffi::hlrp_world_listen(self.handle(), pointer(&interface), pointer(&address)) };
        ffi::check("listen", message).map_err(|error| TorchError::NoNetwork {
            interface: self.meeting.interface.clone(),
            message: first_line(&error),
        })
    }

    /// Waits until every process is ready to connect.
    fn meet(&self, began: Instant) -> Result<(), TorchError> {
        let failed = |message: &str| TorchError::Exchange { operation: "meet", message: message.to_owned() };
        loop {
            let board = self.notices.board();
            let is_missing = |rank: &usize| !board.peers[*rank].is_ready;
            let missing: Vec<usize> = (0..self.meeting.size).filter(is_missing).collect();
            match () {
                () if board.is_ending => return Err(failed("another process is ending")),
                () if is_silent(&board, began) => return Err(failed("the store does not answer")),
                () if missing.is_empty() => return Ok(()),
                () if began.elapsed() > self.meeting.timeout => {
                    let seconds = self.meeting.timeout.as_secs();
                    return Err(TorchError::NotJoined { ranks: named(&missing), seconds });
                }
                () => thread::sleep(POLL),
            }
        }
    }

    /// Connects to the others, in a thread: c10d waits for ever where the store hangs meanwhile.
    fn connect(&self) -> Result<(), TorchError> {
        const OPERATION: &str = "connect the processes";
        let (send, result) = mpsc::channel();
        let handle = Arc::clone(&self.handle);
        thread::spawn(move || {
            // SAFETY: a live handle, on which nothing else is done meanwhile.
            let result = ffi::check(OPERATION, unsafe { ffi::hlrp_world_connect(handle.0) });
            drop(send.send(result));
        });
        match result.recv_timeout(self.meeting.timeout + MARGIN) {
            Ok(result) => result.map_err(|error| lost(OPERATION, error)),
            Err(_) => {
                self.state().is_stuck = true;
                Err(TorchError::Exchange { operation: OPERATION, message: "no answer".to_owned() })
            }
        }
    }

    fn conclude(&self, note: Note, wait: Wait) -> Verdict {
        self.notices.note(&note);
        let own = self.meeting.rank;
        loop {
            if self.is_unreachable(wait) {
                let is_reporter = speaks_for_machine(&self.meeting.name());
                let missing = if self.meeting.is_store_of_first() { vec![0] } else { Vec::new() };
                return Verdict { is_reporter, rank: own, note, missing };
            }
            if let Some(verdict) = wait.verdict(own, &self.notices.board().peers, Instant::now()) {
                return verdict;
            }
            thread::sleep(POLL);
        }
    }

    fn is_unreachable(&self, wait: Wait) -> bool {
        is_silent(&self.notices.board(), wait.since)
    }

    /// Whether the store is in this process.
    fn has_store(&self) -> bool {
        self.meeting.rank == 0 && self.meeting.is_store_of_first()
    }
}

/// Whether the store is gone, or has not answered since a process began to wait for it.
fn is_silent(board: &Board, since: Instant) -> bool {
    board.is_lost || board.answered.max(since).elapsed() > SILENCE
}

/// The error of an exchange.
fn lost(operation: &'static str, error: TorchError) -> TorchError {
    match error {
        TorchError::Exception { message, .. } => TorchError::Exchange { operation, message },
        other => other,
    }
}

/// `rank 1`, or `ranks 1, 3`.
pub fn named(ranks: &[usize]) -> String {
    let numbers = ranks.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    format!("{} {numbers}", if ranks.len() == 1 { "rank" } else { "ranks" })
}

fn open(meeting: &Meeting) -> Result<Handle, TorchError> {
    let Meeting { rank, size, store, prefix, timeout, .. } = meeting;
    let (file, host, port, is_server) = match store {
        Store::File(path) => (Some(c_string(&path.to_string_lossy())), c_string(""), 0, false),
        Store::Tcp { host, port, is_of_rank_0 } => (None, c_string(host), *port, *is_of_rank_0 && *rank == 0),
    };
    let prefix = c_string(prefix);
    let mut handle = ptr::null_mut();
    // SAFETY: strings that outlive the call, or null; `handle` is set on success.
    let message = unsafe {
        ffi::hlrp_world_open(
            file.as_ref().map_or(ptr::null(), |file| file.as_ptr()),
            host.as_ptr(),
            port,
            is_server,
            prefix.as_ptr(),
            *rank as i32,
            *size as i32,
            timeout.as_millis() as i64,
            &mut handle,
        )
    };
    ffi::check("meet", message).map(|()| Handle(handle))
}

/// Why the store cannot be opened.
fn not_opened(meeting: &Meeting, error: TorchError) -> TorchError {
    let message = first_line(&error);
    match &meeting.store {
        Store::File(_) => error,
        Store::Tcp { port, .. } if meeting.rank == 0 && meeting.is_store_of_first() => {
            TorchError::PortInUse { port: *port, message }
        }
        Store::Tcp { host, port, .. } => TorchError::NoMaster {
            host: host.clone(),
            port: *port,
            seconds: meeting.timeout.as_secs(),
            message,
            is_reporter: speaks_for_machine(&meeting.name()),
        },
    }
}

fn first_line(error: &TorchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;

    #[test]
    fn alone_every_exchange_is_the_identity() {
        let world = World::single();
        let tensor = Tensor::from_slice(&[1.0, 2.0]);
        world.all_reduce(&tensor).unwrap();
        world.broadcast(&tensor).unwrap();
        assert_eq!(world.all_gather(&tensor).unwrap(), [Tensor::from_slice(&[1.0, 2.0])]);
        assert_eq!(world.all_gather_rows(&tensor).unwrap(), Tensor::from_slice(&[1.0, 2.0]));
        assert_eq!(world.all_gather_text("a").unwrap(), ["a"]);
        world.barrier().unwrap();
        assert_eq!((world.rank(), world.size(), world.is_main()), (0, 1, true));
    }
}
