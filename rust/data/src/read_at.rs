//! Random access to the bytes of a file, wherever it is.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt};

/// A file that is read at random, by many threads at once.
pub trait ReadAt: Send + Sync {
    /// Its size.
    ///
    /// # Errors
    /// It cannot be asked.
    fn num_bytes(&self) -> io::Result<u64>;

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// The file ends before, or cannot be read.
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()>;

    /// Says which bytes will be read next, so that they come together.
    ///
    /// # Errors
    /// They cannot be read.
    fn prepare(&self, _range: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    /// Whether it is on another machine.
    fn is_remote(&self) -> bool {
        false
    }
}

impl ReadAt for File {
    fn num_bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, out, offset)
    }
}
