//! Which process of a machine reports what all of its processes find, where they cannot ask each other.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io::ErrorKind,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

/// How long the process that has reported stays, so that the others of the machine find that it has.
const LINGER: Duration = Duration::from_secs(3);

/// The names that this process holds.
static HELD: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// Whether this process is the first of its machine that asks for `name`: it holds the name, an abstract socket address, until it ends.
pub fn speaks_for_machine(name: &str) -> bool {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let address = SocketAddr::from_abstract_name(format!("hlrp/{:016x}", hasher.finish()));
    match address.and_then(|address| UnixListener::bind_addr(&address)) {
        Ok(listener) => {
            HELD.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
            true
        }
        // A report too many is better than none.
        Err(error) => error.kind() != ErrorKind::AddrInUse,
    }
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
        assert_eq!((speaks_for_machine(&name), speaks_for_machine(&name)), (true, false));
        assert!(speaks_for_machine(&format!("another {name}")));
    }
}
