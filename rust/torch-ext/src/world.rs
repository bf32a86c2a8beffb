//! The processes that train one model together, and what they exchange.
//!
//! Tensors in main memory go through torch's own Gloo, those on GPUs through its NCCL. A store, which every process reaches, is where they
//! meet ([`crate::meeting`]), and where they agree on the end of a run that fails ([`crate::ending`] has the protocol).
#![allow(unsafe_code)] // each call hands borrowed tensors and strings to the C++ shim

use crate::{
    TorchError,
    ending::{Note, SILENCE, Verdict, Wait},
    ffi,
    machine::speaks_for_machine,
    meeting::Meeting,
    notices::{Board, HEARD, Handle, Notices, POLL},
};
use std::{
    ffi::c_void,
    ptr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};
use tch::{Device, Tensor};

/// One process among those of a run. Whatever sums, counts, draws or writes takes it.
///
/// With a single process every exchange is the identity.
#[derive(Debug, Clone)]
pub struct World {
    pub(crate) rank: usize,
    pub(crate) size: usize,
    pub(crate) group: Option<Arc<Group>>,
}

/// The connection of a process to the others.
#[derive(Debug)]
pub(crate) struct Group {
    /// Ends first: the thread of the notices has the handle too, and the last one frees it.
    pub(crate) notices: Notices,
    pub(crate) handle: Arc<Handle>,
    pub(crate) meeting: Meeting,
    pub(crate) state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// When the exchange began that failed.
    pub(crate) failed: Option<Instant>,
    /// The operation that never returned uses the connections.
    pub(crate) is_stuck: bool,
    /// Since this process is ending: how it waits for the others.
    wait: Option<Wait>,
    verdict: Option<Verdict>,
}

impl World {
    /// The only process of a run.
    pub fn single() -> Self {
        Self { rank: 0, size: 1, group: None }
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

    /// Whether exchanges go through c10d. A process that is started as one of several does that although it may be alone.
    pub fn is_exchanging(&self) -> bool {
        self.group.is_some()
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
        self.own_rows_of(num_rows * self.size as i64, draw)
    }

    /// As [`World::own_rows`], where `num_rows` is the number of rows of all processes together: their parts may differ in size by one row.
    pub fn own_rows_of(&self, num_rows: i64, draw: impl FnOnce(i64) -> Tensor) -> Tensor {
        let all = draw(num_rows);
        if self.size == 1 {
            return all;
        }
        all.slice(0, self.rank as i64, num_rows, self.size as i64).contiguous()
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

    /// Leaves the note of a process that ends at once, in whatever it is doing: its connections are cut by its end, which must follow. A
    /// [conclusion](World::conclude) never returns any more.
    pub fn end_at_once(&self, note: &Note) {
        let Some(group) = &self.group else { return };
        group.notices.end_at_once(note);
        if group.has_store() {
            thread::sleep(HEARD);
        }
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

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
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

    fn conclude(&self, note: Note, wait: Wait) -> Verdict {
        self.notices.note(&note);
        let own = self.meeting.rank;
        loop {
            let board = self.notices.board();
            let verdict = wait.verdict(own, &board.peers, Instant::now());
            match verdict {
                _ if self.notices.ends_at_once() => thread::park(), // another thread ends the process
                // Its cause is known, also where the process with the store was it.
                Some(verdict) if verdict.note.priority == Note::OWN => return verdict,
                _ if is_silent(&board, wait.since) => {
                    let is_reporter = speaks_for_machine(&self.meeting.name());
                    let missing = if self.meeting.is_store_of_first() { vec![0] } else { Vec::new() };
                    return Verdict { is_reporter, rank: own, note, missing };
                }
                Some(verdict) => return verdict,
                None => thread::sleep(POLL),
            }
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
pub(crate) fn is_silent(board: &Board, since: Instant) -> bool {
    board.is_lost || board.answered.max(since).elapsed() > SILENCE
}

/// The error of an exchange.
pub(crate) fn lost(operation: &'static str, error: TorchError) -> TorchError {
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
