//! The container of events: TensorFlow's record format, a length and the bytes, each with a masked CRC-32C, in little endian.

use super::event::Event;
use prost::Message;
use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// Bytes of a length and of a checksum.
const LENGTH: usize = 8;
const CHECKSUM: usize = 4;

/// An event file that is written.
pub(super) struct EventFile(File);

impl EventFile {
    /// A new file with the event that says its version.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut file = Self(File::create_new(path)?);
        file.append(&Event::version())?;
        Ok(file)
    }

    /// Appends an event; it reaches the operating system in one write.
    pub(super) fn append(&mut self, event: &Event) -> io::Result<()> {
        let event = event.encode_to_vec();
        let length = (event.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(LENGTH + event.len() + 2 * CHECKSUM);
        record.extend(length);
        record.extend(masked(&length));
        record.extend(&event);
        record.extend(masked(&event));
        self.0.write_all(&record)
    }

    /// Brings everything so far to the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// The events of a file, up to one that is not whole.
pub(super) fn read(path: &Path) -> io::Result<Vec<Event>> {
    let bytes = fs::read(path)?;
    let mut rest = bytes.as_slice();
    let mut events = Vec::new();
    while let Some(event) = next(&mut rest) {
        events.push(event);
    }
    Ok(events)
}

fn next(rest: &mut &[u8]) -> Option<Event> {
    let mut take = |length: usize| {
        let whole = *rest;
        let (taken, after) = whole.split_at_checked(length)?;
        *rest = after;
        Some(taken)
    };
    let length = take(LENGTH)?;
    let is_good = take(CHECKSUM)? == masked(length);
    let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok().filter(|_| is_good)?;
    let event = take(length)?;
    (take(CHECKSUM)? == masked(event)).then(|| Event::decode(event).ok())?
}

/// The checksum of `bytes` as it is stored: a checksum of data that contains checksums would be weak.
fn masked(bytes: &[u8]) -> [u8; CHECKSUM] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_that_of_the_format() {
        // CRC-32C of "123456789" is 0xe3069283; masked by TensorFlow's rule.
        let expected = 0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(super::masked(b"123456789"), expected.to_le_bytes());
    }
}
