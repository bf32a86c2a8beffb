//! How the processes of a run find each other: at a store, then through Gloo's connections.
#![allow(unsafe_code)] // each call hands strings to the C++ shim

use crate::{
    TorchError, World, ffi,
    machine::{is_held, speaks_for_machine, wait_until_held},
    notices::{Attention, Handle, Notices, POLL, c_string, receive},
    world::{Group, is_silent, lost, named},
};
use std::{
    ffi::CString,
    path::PathBuf,
    ptr,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

/// How much longer than c10d itself a process waits for an operation of c10d that has a timeout.
const MARGIN: Duration = Duration::from_secs(2);
/// What c10d says of a port that it cannot open.
const NOT_LISTENING: &str = "failed to listen";

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
    pub(crate) fn is_store_of_first(&self) -> bool {
        matches!(self.store, Store::Tcp { is_of_rank_0: true, .. })
    }

    /// Distinguishes this start of this run from others on the same machine.
    pub(crate) fn name(&self) -> String {
        match &self.store {
            Store::File(path) => format!("{} {}", path.display(), self.prefix),
            Store::Tcp { host, port, .. } => format!("{host}:{port} {}", self.prefix),
        }
    }

    /// What rank 0 holds on its machine where it reports that the store cannot be opened: the others need not.
    fn name_of_first(&self) -> String {
        format!("rank 0 of {}", self.name())
    }
}

impl World {
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
        let first = meeting.is_store_of_first().then(|| meeting.name_of_first());
        let has_first_failed = || rank > 0 && first.as_deref().is_some_and(is_held);
        let opened = Notices::open(rank, size, limit, has_first_failed, move || open(&of_thread));
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
}

impl Group {
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

    /// Connects to the others, in a thread: c10d waits for ever where the store hangs meanwhile, and for a process that is ending.
    fn connect(&self) -> Result<(), TorchError> {
        const OPERATION: &str = "connect the processes";
        let (send, result) = mpsc::channel();
        let handle = Arc::clone(&self.handle);
        thread::spawn(move || {
            // SAFETY: a live handle, on which nothing else is done meanwhile.
            let result = ffi::check(OPERATION, unsafe { ffi::hlrp_world_connect(handle.0) });
            drop(send.send(result));
        });
        let is_hopeless = || self.notices.board().is_ending;
        match receive(&result, self.meeting.timeout + MARGIN, is_hopeless) {
            Some(result) => result.map_err(|error| lost(OPERATION, error)),
            None => {
                self.state().is_stuck = true;
                Err(TorchError::Exchange { operation: OPERATION, message: "no answer".to_owned() })
            }
        }
    }
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
        Store::Tcp { host, port, .. } if meeting.rank == 0 && meeting.is_store_of_first() => {
            speaks_for_machine(&meeting.name_of_first());
            let (host, port) = (host.clone(), *port);
            match message.contains(NOT_LISTENING) {
                true => TorchError::PortInUse { port, message },
                false => TorchError::WrongMaster { host, port, message },
            }
        }
        Store::Tcp { host, port, .. } => {
            let is_of_first = meeting.is_store_of_first() && wait_until_held(&meeting.name_of_first());
            TorchError::NoMaster {
                host: host.clone(),
                port: *port,
                seconds: meeting.timeout.as_secs(),
                message,
                is_reporter: !is_of_first && speaks_for_machine(&meeting.name()),
            }
        }
    }
}

fn first_line(error: &TorchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
