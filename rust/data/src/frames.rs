//! The frames of one camera: what the videos, the embedded images and the frame cache offer to whoever makes samples.

use crate::error::DataError;

/// Height and width in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct FrameSize {
    pub height: usize,
    pub width: usize,
}

impl FrameSize {
    /// Bytes of one frame: three planes, `uint8 [3,H,W]`.
    #[must_use]
    pub const fn frame_bytes(self) -> usize {
        3 * self.height * self.width
    }
}

/// The frames of one camera of one dataset, shared by all threads.
pub trait FrameStore: Send + Sync {
    /// Opens what one thread needs to read: file handles, decoders, buffers.
    /// `max_open` bounds the number of video files that stay open.
    ///
    /// # Errors
    /// Whatever keeps the thread from reading.
    fn reader(&self, max_open: usize) -> Result<Box<dyn FrameReader + '_>, DataError>;

    /// Size in which frames are delivered.
    fn size(&self) -> FrameSize;
}

/// One thread's access to a [`FrameStore`].
pub trait FrameReader {
    /// Reads the frames at the global rows `rows` of the dataset into `out_TCHW` (`uint8 [T,3,H,W]`, RGB planes).
    ///
    /// # Errors
    /// Names the file, the episode and the time of a frame that cannot be read. Other frames can be read afterwards.
    fn read(&mut self, rows: &[u64], out_TCHW: &mut [u8]) -> Result<(), DataError>;
}
