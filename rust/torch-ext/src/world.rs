//! The processes that train one model together, and what they exchange.
//!
//! Tensors in main memory go through torch's own Gloo, those on GPUs through its NCCL. A store, which every process reaches, is where they
//! meet and where each leaves a note when it ends with an error: so the others can say whom they waited for.
#![allow(unsafe_code)] // each call hands borrowed tensors and strings to the C++ shim

use crate::{TorchError, ffi};
use std::{
    ffi::{CString, c_void},
    path::PathBuf,
    ptr,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};
use tch::{Device, Tensor};

/// How often a process looks for what the others left in the store.
const POLL: Duration = Duration::from_millis(20);
/// How long a process that ends waits for the notes of the others.
const WAIT_FOR_NOTES: Duration = Duration::from_secs(5);
/// How much longer the process with the store stays, so that the others can read the notes.
const KEEP_STORE: Duration = Duration::from_millis(500);
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

/// One process among those of a run. Whatever sums, counts, draws or writes takes it.
///
/// With a single process every exchange is the identity.
#[derive(Debug, Clone)]
pub struct World {
    rank: usize,
    size: usize,
    pub(crate) group: Option<Arc<Group>>,
}

/// How a process ended, for the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The smaller, the nearer to the cause: of several errors the one with the smallest number is reported.
    pub priority: u8,
    /// Exit code.
    pub code: u8,
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

    fn encode(&self) -> String {
        format!("{} {} {}", self.priority, self.code, self.text)
    }

    fn decode(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ' ');
        let (priority, code) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self { priority, code, text: parts.next()?.to_owned() })
    }
}

/// What the processes agree on after an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The process that reports its error; the others end in silence.
    pub reporter: usize,
    /// Its note.
    pub note: Note,
    /// The processes that left no note: they are gone, or hang.
    pub missing: Vec<usize>,
}

/// The connection of a process to the others.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) handle: *mut c_void,
    meeting: Meeting,
    verdict: Mutex<Option<Verdict>>,
}

// SAFETY: c10d's stores and process groups lock their own state; the shim keeps none besides them, and they are replaced only while the
// processes connect and in `conclude`, which holds a lock and after which nothing is exchanged.
unsafe impl Send for Group {}
// SAFETY: as above.
unsafe impl Sync for Group {}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: the handle is of this object alone.
        unsafe { ffi::hlrp_world_free(self.handle) }
    }
}

impl Group {
    fn set(&self, key: &str, value: &str) -> Result<(), TorchError> {
        let (key, value) = (c_string(key), c_string(value));
        // SAFETY: a live handle and NUL-terminated strings.
        ffi::check("store", unsafe { ffi::hlrp_world_set(self.handle, key.as_ptr(), value.as_ptr()) })
    }

    fn get(&self, key: &str) -> Result<Option<String>, TorchError> {
        let key = c_string(key);
        let mut out = ptr::null_mut();
        // SAFETY: a live handle and a NUL-terminated string; `out` is a string or null on success.
        ffi::check("store", unsafe { ffi::hlrp_world_get(self.handle, key.as_ptr(), &mut out) })?;
        Ok((!out.is_null()).then(|| ffi::take_string(out)))
    }

    /// Waits until every process is at the store; returns those that are not when the time of the first that waits is over.
    fn meet(&self) -> Result<Vec<usize>, TorchError> {
        const OVER: &str = "over";
        let here = |rank| format!("here/{rank}");
        self.set(&here(self.meeting.rank), "yes")?;
        let deadline = Instant::now() + self.meeting.timeout;
        let mut missing: Vec<usize> = (0..self.meeting.size).collect();
        loop {
            let is_over = self.get(OVER)?.is_some();
            let mut still = Vec::new();
            for rank in missing {
                if self.get(&here(rank))?.is_none() {
                    still.push(rank);
                }
            }
            missing = still;
            if missing.is_empty() || is_over {
                return Ok(missing);
            }
            if Instant::now() > deadline {
                self.set(OVER, "yes")?;
                self.keep_store();
                return Ok(missing);
            }
            thread::sleep(POLL);
        }
    }

    /// Stays until the others have read what they want, if the store is in this process.
    fn keep_store(&self) {
        if self.meeting.rank == 0 && matches!(self.meeting.store, Store::Tcp { is_of_rank_0: true, .. }) {
            thread::sleep(KEEP_STORE);
        }
    }

    /// The exchange failed: some process is gone.
    pub(crate) fn exchanged(&self, operation: &'static str, message: ffi::Message) -> Result<(), TorchError> {
        ffi::check(operation, message).map_err(|error| match error {
            TorchError::Exception { operation, message } => TorchError::Exchange { operation, message },
            other => other,
        })
    }
}

impl World {
    /// The only process of a run.
    pub fn single() -> Self {
        Self { rank: 0, size: 1, group: None }
    }

    /// Meets the other processes and connects to them.
    ///
    /// # Errors
    /// A store that does not answer, a port that is taken, processes that do not come within the time.
    pub fn join(meeting: Meeting) -> Result<Self, TorchError> {
        // SAFETY: sets a number.
        unsafe { ffi::hlrp_world_quiet() };
        let Meeting { rank, size, .. } = meeting;
        let group = Group { handle: open(&meeting)?, meeting, verdict: Mutex::new(None) };
        let missing = group.meet().map_err(|error| not_met(&group.meeting, error))?;
        if !missing.is_empty() {
            let seconds = group.meeting.timeout.as_secs();
            return Err(TorchError::NotJoined {
                ranks: named(&missing),
                seconds,
                is_reporter: is_first(rank, &missing),
            });
        }
        let interface = group.meeting.interface.as_deref().map(c_string);
        let address = group.meeting.is_local.then(|| c_string("127.0.0.1"));
        let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
        // SAFETY: a live handle; strings that outlive the call, or null.
        let message = unsafe { ffi::hlrp_world_connect(group.handle, pointer(&interface), pointer(&address)) };
        group.exchanged("connect the processes", message)?;
        Ok(Self { rank, size, group: Some(Arc::new(group)) })
    }

    /// Prepares the exchange of tensors on `device`: the processes of GPUs are connected through NCCL. All of them call it, each
    /// with a GPU of its own, after CUDA has been [started](crate::cuda::start_up).
    ///
    /// # Errors
    /// A libtorch without NCCL; no GPU.
    pub fn prepare(&self, device: Device) -> Result<(), TorchError> {
        let Some(group) = self.group.as_ref().filter(|_| device.is_cuda()) else { return Ok(()) };
        // SAFETY: a live handle.
        let message = unsafe { ffi::hlrp_world_connect_gpus(group.handle) };
        ffi::check("connect the GPUs", message).map_err(|error| match error {
            TorchError::Exception { message, .. } => TorchError::NoNccl { size: self.size, message },
            other => other,
        })
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
        group.exchanged("all-reduce", unsafe { ffi::hlrp_world_all_reduce(group.handle, tensor.as_ptr()) })
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
        group.exchanged("broadcast", unsafe { ffi::hlrp_world_broadcast(group.handle, tensor.as_ptr()) })
    }

    /// The tensors of all processes, in the order of their ranks.
    ///
    /// # Errors
    /// As [`World::all_reduce`].
    pub fn all_gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>, TorchError> {
        let Some(group) = &self.group else { return Ok(vec![tensor.shallow_clone()]) };
        let mut out = vec![ptr::null_mut(); self.size];
        // SAFETY: a live handle and a live tensor; `out` has room for a tensor of each process, which are set on success.
        let message = unsafe { ffi::hlrp_world_all_gather(group.handle, tensor.as_ptr(), out.as_mut_ptr()) };
        group.exchanged("all-gather", message)?;
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

    /// Ends this process's part of a run that fails: tells the others why, hears how they end, and returns who reports the error. The first
    /// call decides; nothing can be exchanged afterwards. None for a single process.
    pub fn conclude(&self, note: Note) -> Option<Verdict> {
        let group = self.group.as_ref()?;
        let mut verdict = group.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        Some(verdict.get_or_insert_with(|| group.conclude(note)).clone())
    }
}

impl Group {
    fn conclude(&self, note: Note) -> Verdict {
        let Meeting { rank, size, .. } = self.meeting;
        let mut notes: Vec<Option<Note>> = vec![None; size];
        let is_told = self.set(&format!("note/{rank}"), &note.encode()).is_ok();
        notes[rank] = Some(note);
        // SAFETY: a live handle; nothing is exchanged any more.
        unsafe { ffi::hlrp_world_disconnect(self.handle) };
        let deadline = Instant::now() + WAIT_FOR_NOTES;
        let mut is_reached = is_told;
        while is_reached && notes.contains(&None) && Instant::now() < deadline {
            for (other, found) in notes.iter_mut().enumerate().filter(|(_, found)| found.is_none()) {
                match self.get(&format!("note/{other}")) {
                    Ok(text) => *found = text.as_deref().and_then(Note::decode),
                    Err(_) => is_reached = false,
                }
            }
            thread::sleep(POLL);
        }
        self.keep_store();
        // Without the store the processes cannot agree: it was in rank 0, and the first of the others reports that.
        let missing = match is_reached {
            true => (0..size).filter(|other| notes[*other].is_none()).collect(),
            false => vec![0],
        };
        let noted = notes.into_iter().enumerate().filter_map(|(rank, note)| Some((rank, note?)));
        let first = noted.min_by_key(|(rank, note)| (note.priority, *rank));
        match first {
            Some((_, note)) if !is_reached => Verdict { reporter: 1, note, missing },
            Some((reporter, note)) => Verdict { reporter, note, missing },
            None => {
                Verdict { reporter: rank, note: Note { priority: Note::LOST, code: 1, text: String::new() }, missing }
            }
        }
    }
}

/// `rank 1`, or `ranks 1, 3`.
pub fn named(ranks: &[usize]) -> String {
    let numbers = ranks.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    format!("{} {numbers}", if ranks.len() == 1 { "rank" } else { "ranks" })
}

/// Whether `rank` is the first that is not missing.
fn is_first(rank: usize, missing: &[usize]) -> bool {
    (0..rank).all(|earlier| missing.contains(&earlier))
}

fn open(meeting: &Meeting) -> Result<*mut c_void, TorchError> {
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
    match (ffi::check("meet", message), store) {
        (Ok(()), _) => Ok(handle),
        (Err(error), Store::Tcp { port, .. }) if is_server => {
            Err(TorchError::PortInUse { port: *port, message: first_line(&error) })
        }
        (Err(error), _) => Err(not_met(meeting, error)),
    }
}

/// The error of a process that loses the store before it has met the others.
fn not_met(meeting: &Meeting, error: TorchError) -> TorchError {
    match &meeting.store {
        Store::File(_) => error,
        Store::Tcp { host, port, .. } => TorchError::NoMaster {
            host: host.clone(),
            port: *port,
            seconds: meeting.timeout.as_secs(),
            message: first_line(&error),
            is_reporter: meeting.rank == 1,
        },
    }
}

fn first_line(error: &TorchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// A string without NUL bytes, which end it in C.
fn c_string(text: &str) -> CString {
    let bytes: Vec<u8> = text.bytes().take_while(|byte| *byte != 0).collect();
    CString::new(bytes).unwrap_or_default()
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

    #[test]
    fn a_note_survives_its_way_through_the_store() {
        let note = Note { priority: Note::DERIVED, code: 65, text: "an error\nhint: two lines".to_owned() };
        assert_eq!(Note::decode(&note.encode()), Some(note));
        assert_eq!(Note::decode("no note"), None);
    }
}
