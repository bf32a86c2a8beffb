//! What became of each draw, and the batch that a run of draws makes.
//!
//! The images of a batch have one buffer per role, cut into the parts that threads fill at the same time. The parts are owned
//! handles on one allocation, so joining them again copies nothing.

use crate::batch::{Batch, ImageStream, SampleMeta, VectorStream};
use crate::error::{DataError, LoadError};
use crate::mixture::SampleLayout;
use bytes::{Bytes, BytesMut};
use hlrp_track::console::OWN_SAMPLES;
use std::collections::BTreeMap;

/// Part of one sample in the buffer of each role, in the order of [`SampleLayout::roles`].
pub(super) type SampleParts = Vec<BytesMut>;

/// Allocates a batch of `num_samples` and cuts it, first sample first.
pub(super) fn cut(layout: &SampleLayout, num_samples: usize) -> Vec<SampleParts> {
    let mut buffers: Vec<_> =
        layout.image_bytes().map(|bytes| (bytes, BytesMut::zeroed(bytes * num_samples))).collect();
    (0..num_samples).map(|_| buffers.iter_mut().map(|(bytes, buffer)| buffer.split_to(*bytes)).collect()).collect()
}

/// Joins the parts of one role, first sample first.
fn join(parts: impl IntoIterator<Item = BytesMut>) -> Bytes {
    let mut parts = parts.into_iter();
    let mut whole = parts.next().unwrap_or_default();
    for part in parts {
        whole.unsplit(part);
    }
    whole.freeze()
}

/// Vectors of one sample.
pub(super) struct Vectors {
    /// `float32 [T,N]`.
    pub(super) values_TN: Vec<f32>,
    /// `[T]`.
    pub(super) is_pad_T: Vec<bool>,
    /// Dimensions that the source has; those after them are padding.
    pub(super) num_dims: usize,
}

impl Vectors {
    /// Of `[T,N]`: nothing but padding, from a source with `num_dims` dimensions.
    pub(super) fn missing([num_steps, width]: [usize; 2], num_dims: usize) -> Self {
        Self { values_TN: vec![0.0; num_steps * width], is_pad_T: vec![true; num_steps], num_dims }
    }
}

/// One sample that is ready.
pub(super) struct Sample {
    pub(super) parts: SampleParts,
    /// `[T]`, the same for every role.
    pub(super) is_real_T: Vec<bool>,
    pub(super) state: Option<Vectors>,
    pub(super) action: Option<Vectors>,
    /// In the order of [`SampleLayout::labels`].
    pub(super) labels: Vec<Vectors>,
    pub(super) task: String,
    pub(super) meta: SampleMeta,
}

/// A sample that cannot be decoded.
pub(super) struct BadSample {
    pub(super) meta: SampleMeta,
    pub(super) reason: DataError,
}

/// What became of one draw.
pub(super) enum Outcome {
    /// The drawn sample, or its substitute and why it was needed.
    Ready(Box<Sample>, Option<BadSample>),
    /// The drawn sample and `num_tried - 1` substitutes failed; the last of them.
    Failed { last: BadSample, num_tried: u64 },
    /// The thread panicked.
    Panicked { meta: SampleMeta, message: String },
}

/// Counts bad samples against their budget, in the order of the draws.
pub(super) struct BadBudget {
    pub(super) num_bad: u64,
    pub(super) max_bad: u64,
}

impl BadBudget {
    /// The sample of a draw, unless the budget is exceeded.
    pub(super) fn admit(&mut self, outcome: Outcome) -> Result<Sample, DataError> {
        let (sample, bad, num_tried) = match outcome {
            Outcome::Ready(sample, None) => return Ok(*sample),
            Outcome::Ready(sample, Some(bad)) => (Some(sample), bad, 1),
            Outcome::Failed { last, num_tried } => (None, last, num_tried),
            Outcome::Panicked { meta, message } => {
                let SampleMeta { source: source_name, episode, frame, .. } = meta;
                return Err(LoadError::WorkerPanicked { source_name, episode, frame, message }.into());
            }
        };
        self.num_bad += num_tried;
        let BadSample { meta, reason } = bad;
        match sample {
            Some(sample) if self.num_bad <= self.max_bad => {
                tracing::warn!(
                    target: OWN_SAMPLES,
                    source = meta.source,
                    episode = meta.episode,
                    frame = meta.frame,
                    "sample replaced by its neighbour ({} of {} allowed): {reason}",
                    self.num_bad,
                    self.max_bad
                );
                Ok(*sample)
            }
            _ => Err(LoadError::TooManyBadSamples {
                num_bad: self.num_bad,
                max_bad: self.max_bad,
                source_name: meta.source,
                episode: meta.episode,
                frame: meta.frame,
                source: Box::new(reason),
            }
            .into()),
        }
    }
}

/// Puts samples together, first sample first.
pub(super) fn batch(layout: &SampleLayout, mut samples: Vec<Sample>) -> Batch {
    let num_samples = samples.len();
    let is_real_BT: Vec<bool> = samples.iter().flat_map(|s| s.is_real_T.iter().copied()).collect();
    // Roles are taken from the back of each sample's parts.
    let mut images = BTreeMap::new();
    for (role, loaded) in layout.roles.iter().zip(&layout.loaded).rev() {
        let pixels_BTCHW = join(samples.iter_mut().filter_map(|s| s.parts.pop()));
        let shape = [num_samples, layout.num_images, 3, loaded.height, loaded.width];
        let stream = ImageStream { pixels_BTCHW, shape, size: layout.size, is_real_BT: is_real_BT.clone() };
        images.insert(role.clone(), stream);
    }
    let state = layout.state.map(|size| stack(size, samples.iter().filter_map(|s| s.state.as_ref())));
    let action = layout.action.map(|size| stack(size, samples.iter().filter_map(|s| s.action.as_ref())));
    let labels = layout.labels.iter().enumerate().map(|(index, (key, &size))| {
        (key.clone(), stack(size, samples.iter().filter_map(|sample| sample.labels.get(index))))
    });
    let labels = labels.collect();
    let (task, meta) = samples.into_iter().map(|s| (s.task, s.meta)).unzip();
    Batch { images, task, state, action, labels, meta }
}

/// Vectors of all samples, one after the other.
fn stack<'a>([num_steps, width]: [usize; 2], samples: impl Iterator<Item = &'a Vectors>) -> VectorStream {
    let (mut values_BTN, mut is_pad_BT, mut is_pad_dim_BN, mut num_samples) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for vectors in samples {
        values_BTN.extend_from_slice(&vectors.values_TN);
        is_pad_BT.extend_from_slice(&vectors.is_pad_T);
        is_pad_dim_BN.extend((0..width).map(|dim| dim >= vectors.num_dims));
        num_samples += 1;
    }
    VectorStream { values_BTN, shape: [num_samples, num_steps, width], is_pad_BT, is_pad_dim_BN }
}
