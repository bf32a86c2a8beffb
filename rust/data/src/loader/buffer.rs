//! One buffer per role and batch, cut into the parts that threads fill at the same time.
//!
//! The parts are owned handles on one allocation, so joining them again copies nothing.

use crate::SampleLayout;
use bytes::{Bytes, BytesMut};

/// Part of one sample in the buffer of each role, in the order of [`SampleLayout::roles`].
pub(super) type SampleParts = Vec<BytesMut>;

/// Allocates a batch of `num_samples` and cuts it, first sample first.
pub(super) fn cut(layout: &SampleLayout, num_samples: usize) -> Vec<SampleParts> {
    let bytes = layout.image_bytes();
    let mut buffers: Vec<BytesMut> = layout.roles.iter().map(|_| BytesMut::zeroed(bytes * num_samples)).collect();
    (0..num_samples).map(|_| buffers.iter_mut().map(|buffer| buffer.split_to(bytes)).collect()).collect()
}

/// Joins the parts of one role, first sample first.
pub(super) fn join(parts: impl IntoIterator<Item = BytesMut>) -> Bytes {
    let mut parts = parts.into_iter();
    let mut whole = parts.next().unwrap_or_default();
    for part in parts {
        whole.unsplit(part);
    }
    whole.freeze()
}
