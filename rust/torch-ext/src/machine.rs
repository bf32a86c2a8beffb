//! Which process of a machine reports what all of its processes find, where they cannot ask each other.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, ErrorKind},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// How long the process that has reported stays, so that the others of the machine find that it has.
const LINGER: Duration = Duration::from_secs(3);

/// How often a process looks whether another one has reported.
const POLL: Duration = Duration::from_millis(100);

/// The names that this process holds.
static HELD: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// Whether this process is the first of its machine that asks for `name`: it holds the name, an abstract socket address, until it ends.
pub fn speaks_for_machine(name: &str) -> bool {
    match address_of(name).and_then(|address| UnixListener::bind_addr(&address)) {
        Ok(listener) => {
            HELD.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
            true
        }
        // A report too many is better than none.
        Err(error) => error.kind() != ErrorKind::AddrInUse,
    }
}

/// Whether a process of this machine holds `name`.
pub(crate) fn is_held(name: &str) -> bool {
    address_of(name).and_then(|address| UnixStream::connect_addr(&address)).is_ok()
}

/// Waits until a process of this machine holds `name`, for at most as long as an ending process keeps one; returns whether it is held.
pub(crate) fn wait_until_held(name: &str) -> bool {
    let began = Instant::now();
    loop {
        match is_held(name) {
            false if began.elapsed() < LINGER => thread::sleep(POLL),
            is_held => return is_held,
        }
    }
}

fn address_of(name: &str) -> io::Result<SocketAddr> {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    SocketAddr::from_abstract_name(format!("hlrp/{:016x}", hasher.finish()))
}

/// Waits a little if this process holds a name: one that ends at once would leave the name to the next.
pub fn linger() {
    if !HELD.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
        thread::sleep(LINGER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_speaks() {
        let name = format!("test {}", std::process::id());
        assert!(!is_held(&name));
        assert_eq!((speaks_for_machine(&name), speaks_for_machine(&name)), (true, false));
        assert!(is_held(&name) && wait_until_held(&name));
        assert!(speaks_for_machine(&format!("another {name}")));
    }
}
