//! TFRecord files: a record is its length, the checksum of the length, its bytes, and their checksum.

use crate::error::DataError;
use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    path::Path,
};

/// Length and its checksum.
const HEADER_BYTES: u64 = 12;
/// The checksum of the bytes.
const FOOTER_BYTES: u64 = 4;
/// Largest record: what a protocol buffer may have.
const MAX_RECORD_BYTES: u64 = (1 << 31) - 1;

/// The hint for a damaged shard.
pub(super) const DAMAGED: &str = "the shard is damaged or cut off: fetch it again";

/// Reads the records of a file in order.
pub(super) struct Records<'a> {
    path: &'a Path,
    file: File,
    len: u64,
    at: u64,
    num_read: u64,
    record: Vec<u8>,
}

impl<'a> Records<'a> {
    /// Opens a shard. A link that leads out of the dataset's folder is refused.
    ///
    /// # Errors
    /// The file is missing, or not a regular file of its folder.
    pub(super) fn open(path: &'a Path) -> Result<Self, DataError> {
        let len = inspect(path)?;
        let file = File::open(path).map_err(DataError::io(path))?;
        Ok(Self { path, file, len, at: 0, num_read: 0, record: Vec::new() })
    }

    /// The next record and its position in the file; none after the last.
    ///
    /// # Errors
    /// The file ends within the record, or a checksum is wrong.
    pub(super) fn next(&mut self) -> Result<Option<(u64, &[u8])>, DataError> {
        if self.at == self.len {
            return Ok(None);
        }
        let mut header = [0; HEADER_BYTES as usize];
        self.read(self.at, &mut header)?;
        let [length, sum] = [&header[..8], &header[8..]];
        let length = u64::from_le_bytes(length.try_into().unwrap_or_default());
        if masked(&header[..8]) != le32(sum) {
            return Err(self.failure("has the wrong checksum of its length"));
        }
        let left = self.len - self.at - HEADER_BYTES;
        if length > MAX_RECORD_BYTES || length + FOOTER_BYTES > left {
            return Err(self.failure(&format!("has {length} bytes, but {left} are left in the file")));
        }
        let start = self.at + HEADER_BYTES;
        let mut record = std::mem::take(&mut self.record);
        record.resize((length + FOOTER_BYTES) as usize, 0);
        self.read(start, &mut record)?;
        let sum = record.split_off(length as usize);
        if masked(&record) != le32(&sum) {
            return Err(self.failure("has the wrong checksum"));
        }
        self.record = record;
        self.at = start + length + FOOTER_BYTES;
        self.num_read += 1;
        Ok(Some((start, &self.record)))
    }

    fn read(&self, at: u64, out: &mut [u8]) -> Result<(), DataError> {
        self.file.read_exact_at(out, at).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => self.failure("is cut off"),
            _ => DataError::io(self.path)(error),
        })
    }

    /// The error of the record that comes next.
    fn failure(&self, what: &str) -> DataError {
        DataError::file(self.path, format!("record {} at byte {} {what}", self.num_read, self.at), DAMAGED)
    }
}

/// Whether a shard is there.
///
/// # Errors
/// As [`inspect`], but for a shard that is missing.
pub(super) fn is_there(path: &Path) -> Result<bool, DataError> {
    match hlrp_config::foreign::inspect(path, u64::MAX) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(_) => inspect(path).map(|_| true),
        Ok(_) => Ok(true),
    }
}

/// Size of a shard in bytes.
///
/// # Errors
/// It is missing, not a regular file, or a link out of its folder.
pub(super) fn inspect(path: &Path) -> Result<u64, DataError> {
    hlrp_config::foreign::inspect(path, u64::MAX).map_err(|error: io::Error| match error.kind() {
        ErrorKind::NotFound => DataError::file(path, "the file is missing", "dataset_info.json lists it: fetch it"),
        _ => DataError::file(path, error.to_string(), "put the shard itself there"),
    })
}

fn le32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().unwrap_or_default())
}

/// The CRC32C of `bytes` as TFRecord stores it (`masked_crc` in TensorFlow's `crc32c.h`).
pub(super) fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}
