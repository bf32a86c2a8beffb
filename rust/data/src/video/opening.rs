//! What FFmpeg sees of a video that is on another machine.

use super::container::Header;
use super::index::PacketIndex;
use crate::read_at::ReadAt;
use rustix::fs::{MemfdFlags, memfd_create};
use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::PathBuf,
};

/// Frames that are decoded to learn how a codec orders them: FFmpeg looks at 20.
const PROBED_FRAMES: usize = 64;

/// The part of a remote file that FFmpeg looks at when it opens one, in memory, under a name of this process. What it does not look at has no bytes
/// and takes no memory.
pub(super) struct Opening {
    file: File,
}

impl Opening {
    /// The header of a file.
    pub(super) fn of(bytes: &dyn ReadAt, header: &Header) -> io::Result<Self> {
        let file = File::from(memfd_create(c"video", MemfdFlags::CLOEXEC)?);
        file.set_len(bytes.num_bytes()?)?;
        for (at, part) in &header.parts {
            file.write_all_at(part, *at)?;
        }
        Ok(Self { file })
    }

    /// Adds the first frames.
    pub(super) fn add_frames(&self, bytes: &dyn ReadAt, index: &PacketIndex) -> io::Result<()> {
        let first = &index.packets()[..PROBED_FRAMES.min(index.packets().len())];
        let start = first.iter().map(|packet| packet.offset).min().unwrap_or(0);
        let end = first.iter().map(|packet| packet.offset + u64::from(packet.size)).max().unwrap_or(0);
        let mut block = vec![0; (end - start) as usize];
        bytes.read_exact_at(&mut block, start)?;
        self.file.write_all_at(&block, start)
    }

    /// Its name in this process.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }
}
