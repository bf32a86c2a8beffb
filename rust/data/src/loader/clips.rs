//! Frames of the clips whose samples are being made: decoded once, copied into each sample that shows them.

use crate::anchors::AnchorTable;
use crate::error::DataError;
use crate::frames::FrameSize;
use crate::lock::lock;
use crate::mixture::SampleLayout;
use crate::source::Source;
use lru::LruCache;
use std::{
    collections::BTreeSet,
    num::NonZeroUsize,
    ops::Range,
    sync::{Arc, Mutex, OnceLock},
};

/// Source and global row of a frame.
pub(super) type FrameKey = (usize, u64);

/// Memory of clips whose samples are made, for those that come: touching fresh memory takes time.
type Spare = Arc<Mutex<Vec<Vec<u8>>>>;

/// The frames that the samples of one clip show.
pub(super) struct ClipFrames {
    /// Ascending.
    keys: Vec<FrameKey>,
    /// `uint8 [N,C,H,W]` of each role, in the order of [`SampleLayout::roles`].
    pixels_NCHW: Vec<Vec<u8>>,
    /// By role.
    sizes: Vec<FrameSize>,
    spare: Spare,
}

impl Drop for ClipFrames {
    fn drop(&mut self) {
        lock(&self.spare).append(&mut self.pixels_NCHW);
    }
}

impl ClipFrames {
    /// Fills the frames with what `read` reads for one role, one source and ascending rows of it.
    pub(super) fn fill(
        &mut self,
        mut read: impl FnMut(usize, usize, &[u64], &mut [u8]) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        let mut num_before = 0;
        for of_source in self.keys.chunk_by(|a, b| a.0 == b.0) {
            let rows: Vec<u64> = of_source.iter().map(|&(_, row)| row).collect();
            for (role, (pixels_NCHW, size)) in self.pixels_NCHW.iter_mut().zip(&self.sizes).enumerate() {
                let bytes = num_before * size.frame_bytes()..(num_before + rows.len()) * size.frame_bytes();
                read(role, of_source[0].0, &rows, &mut pixels_NCHW[bytes])?;
            }
            num_before += rows.len();
        }
        Ok(())
    }

    /// Copies frames of one role to `out_TCHW`.
    pub(super) fn copy(&self, role: usize, source: usize, rows: &[u64], out_TCHW: &mut [u8]) {
        let frame_bytes = self.sizes[role].frame_bytes();
        for (&row, out_CHW) in rows.iter().zip(out_TCHW.chunks_exact_mut(frame_bytes)) {
            // A clip has the frames of all its anchors.
            let at = self.keys.partition_point(|key| *key < (source, row)) * frame_bytes;
            out_CHW.copy_from_slice(&self.pixels_NCHW[role][at..at + frame_bytes]);
        }
    }
}

/// A clip that some thread decodes, or has decoded; none where a frame of it cannot be decoded.
pub(super) type SharedClip = Arc<OnceLock<Option<ClipFrames>>>;

/// The clips whose samples are being made.
pub(super) struct ClipStore {
    /// By first anchor.
    clips: Mutex<LruCache<u64, SharedClip>>,
    spare: Spare,
}

impl ClipStore {
    /// A store of so many clips.
    pub(super) fn new(num_clips: usize) -> Self {
        let capacity = NonZeroUsize::new(num_clips).unwrap_or(NonZeroUsize::MIN);
        Self { clips: Mutex::new(LruCache::new(capacity)), spare: Spare::default() }
    }

    /// The clip that begins with the anchor `first`.
    pub(super) fn get(&self, first: u64) -> SharedClip {
        Arc::clone(lock(&self.clips).get_or_insert(first, SharedClip::default))
    }

    /// Frames whose content is still to be read.
    pub(super) fn unread(&self, layout: &SampleLayout, keys: Vec<FrameKey>) -> ClipFrames {
        let pixels_NCHW = layout.loaded.iter().map(|size| {
            let bytes = keys.len() * size.frame_bytes();
            let used = lock(&self.spare).pop().filter(|pixels| pixels.capacity() >= bytes);
            // Growing would double what the budget counts on.
            let mut pixels = used.unwrap_or_else(|| vec![0; bytes]);
            pixels.resize(bytes, 0);
            pixels
        });
        let (pixels_NCHW, sizes) = (pixels_NCHW.collect(), layout.loaded.clone());
        ClipFrames { keys, pixels_NCHW, sizes, spare: Arc::clone(&self.spare) }
    }
}

/// Every frame that the samples of some anchors show, ascending.
pub(super) fn frames_of(clip: &Range<u64>, anchors: &AnchorTable, sources: &[Source]) -> Vec<FrameKey> {
    let shown = clip.clone().filter_map(|index| anchors.get(index)).flat_map(|anchor| {
        let (rows, _) = anchor.span.window(anchor.row, &sources[anchor.source].request.image_deltas);
        rows.into_iter().map(move |row| (anchor.source, row))
    });
    shown.collect::<BTreeSet<_>>().into_iter().collect()
}
