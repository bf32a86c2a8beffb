//! One decode thread: draws in, outcomes out.

use super::{
    clips::{self, ClipFrames, ClipStore},
    queue::Queue,
    samples::{BadSample, Outcome, Sample, SampleParts, Vectors},
    stats::Counters,
};
use crate::anchors::{Anchor, AnchorTable};
use crate::batch::SampleMeta;
use crate::error::DataError;
use crate::frames::FrameReader;
use crate::mixture::Mixture;
use crate::sampler::{Draw, Plan};
use crate::source::{Source, VectorKey};
use hlrp_track::console::panic_text;
use lru::LruCache;
use std::{
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

/// What the threads of a loader share.
pub(super) struct Shared {
    pub(super) mixture: Arc<Mixture>,
    pub(super) plan: Plan,
    pub(super) queue: Queue,
    pub(super) clips: ClipStore,
    pub(super) counters: Counters,
}

/// Works until the queue ends.
pub(super) fn run(shared: &Shared) {
    let mut worker = Worker::new(shared);
    loop {
        let asked = Instant::now();
        let work = shared.queue.take();
        let began = Instant::now();
        shared.counters.add_idle(began - asked);
        let Some(work) = work else { return };
        let outcome = catch_unwind(AssertUnwindSafe(|| worker.make(work.draw, work.parts))).unwrap_or_else(|panic| {
            // The state of a reader after a panic is unknown: begin with new ones.
            worker = Worker::new(shared);
            let anchor = worker.anchor(&shared.plan.draw(work.draw));
            Outcome::Panicked { meta: worker.meta(&anchor, 0.0), message: panic_text(&*panic) }
        });
        shared.counters.add_busy(began.elapsed());
        shared.queue.put(work.draw, outcome);
    }
}

/// A thread's open readers.
struct Worker<'a> {
    mixture: &'a Mixture,
    anchors: &'a AnchorTable,
    plan: &'a Plan,
    clips: &'a ClipStore,
    /// By source and role.
    readers: LruCache<(usize, usize), Box<dyn FrameReader + 'a>>,
    /// Video files that each reader may keep open.
    max_open_per_reader: usize,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared) -> Self {
        let mixture = &*shared.mixture;
        let max_open = NonZeroUsize::new(mixture.loader.max_open_decoders).unwrap_or(NonZeroUsize::MIN);
        let num_streams = mixture.sources.len() * mixture.layout.roles.len();
        Self {
            mixture,
            anchors: mixture.anchors(shared.plan.split()),
            plan: &shared.plan,
            clips: &shared.clips,
            readers: LruCache::new(max_open),
            max_open_per_reader: (max_open.get() / num_streams.max(1)).max(1),
        }
    }

    /// Makes the sample of a draw, or of the first substitute that can be decoded.
    fn make(&mut self, draw: u64, mut parts: SampleParts) -> Outcome {
        let mut first_bad = None;
        let mut num_tried = 0;
        loop {
            let drawn = self.plan.substitute(draw, num_tried);
            let anchor = self.anchor(&drawn);
            let reason = match self.read(&drawn, &anchor, &mut parts) {
                Ok(sample) => return Outcome::Ready(Box::new(sample), first_bad),
                Err(reason) => reason,
            };
            num_tried += 1;
            let bad = BadSample { meta: self.meta(&anchor, 0.0), reason };
            if num_tried > self.mixture.loader.max_bad_samples as u64 {
                return Outcome::Failed { last: bad, num_tried };
            }
            first_bad.get_or_insert(bad);
        }
    }

    /// Reads one sample; its images go into `parts`.
    fn read(&mut self, drawn: &Draw, anchor: &Anchor, parts: &mut SampleParts) -> Result<Sample, DataError> {
        let source = &self.mixture.sources[anchor.source];
        let layout = &self.mixture.layout;
        let (image_rows, is_pad_T) = anchor.span.window(anchor.row, &source.request.image_deltas);
        let clip = (!drawn.is_alone()).then(|| self.clips.get(drawn.clip.start));
        let frames = clip.as_ref().and_then(|clip| clip.get_or_init(|| self.clip(drawn)).as_ref());
        for (role, part) in parts.iter_mut().enumerate() {
            match frames {
                Some(frames) => frames.copy(role, anchor.source, &image_rows, part),
                None => self.read_images(role, anchor.source, &image_rows, part)?,
            }
        }
        let request = &source.request;
        let action = if source.shows_actions(&anchor.span, self.plan.split()) {
            vectors(source, source.action.as_ref(), layout.action, anchor, &request.action_deltas)?
        } else {
            let num_dims = source.action.as_ref().map_or(0, |action| action.width);
            layout.action.map(|size| Vectors::missing(size, num_dims))
        };
        let labels = source.labels.iter().zip(layout.labels.values()).filter_map(|(label, size)| {
            vectors(source, Some(label), Some(*size), anchor, &request.label_deltas).transpose()
        });
        Ok(Sample {
            labels: labels.collect::<Result<_, DataError>>()?,
            state: vectors(source, source.state.as_ref(), layout.state, anchor, &request.state_deltas)?,
            action,
            task: source.dataset.task(anchor.row)?,
            meta: self.meta(anchor, source.seconds_between(&image_rows)),
            is_real_T: is_pad_T.iter().map(|is_pad| !is_pad).collect(),
            parts: std::mem::take(parts),
        })
    }

    /// The frames of a clip. None where one of them cannot be decoded: then each sample is read alone, and those that show it report what is
    /// wrong.
    fn clip(&mut self, drawn: &Draw) -> Option<ClipFrames> {
        match catch_unwind(AssertUnwindSafe(|| self.read_clip(drawn))) {
            Ok(Ok(frames)) => Some(frames),
            Ok(Err(reason)) => {
                tracing::debug!(anchor = drawn.anchor, "the samples of a clip are read one by one: {reason}");
                None
            }
            Err(_) => {
                self.readers.clear();
                None
            }
        }
    }

    /// Decodes every frame of a clip.
    fn read_clip(&mut self, drawn: &Draw) -> Result<ClipFrames, DataError> {
        let keys = clips::frames_of(&drawn.clip, self.anchors, &self.mixture.sources);
        let mut frames = self.clips.unread(&self.mixture.layout, keys);
        frames.fill(|role, source, rows, out_NCHW| self.read_images(role, source, rows, out_NCHW))?;
        Ok(frames)
    }

    /// Reads images of one role of one source.
    fn read_images(&mut self, role: usize, source: usize, rows: &[u64], out_TCHW: &mut [u8]) -> Result<(), DataError> {
        let (mixture, max_open) = (self.mixture, self.max_open_per_reader);
        let camera = &mixture.sources[source].cameras[&mixture.layout.roles[role]];
        self.readers.try_get_or_insert_mut((source, role), || camera.reader(max_open))?.read(rows, out_TCHW)
    }

    fn anchor(&self, drawn: &Draw) -> Anchor {
        // The plan was made for this table: its indices exist.
        self.anchors.get(drawn.anchor).unwrap_or_else(|| unreachable!("there is no anchor {}", drawn.anchor))
    }

    fn meta(&self, anchor: &Anchor, dt_s: f64) -> SampleMeta {
        SampleMeta {
            source: self.mixture.sources[anchor.source].name.clone(),
            episode: anchor.span.episode,
            frame: anchor.row - anchor.span.from_row,
            dt_s,
        }
    }
}

/// States, actions or labels around an anchor, padded to the steps and, with zeros, to the width that all sources share: nothing but padding
/// where the source has none, and none where the batch has none.
fn vectors(
    source: &Source,
    vector: Option<&VectorKey>,
    size: Option<[usize; 2]>,
    anchor: &Anchor,
    deltas: &[i64],
) -> Result<Option<Vectors>, DataError> {
    let Some([num_steps, width]) = size else { return Ok(None) };
    let Some(vector) = vector else { return Ok(Some(Vectors::missing([num_steps, width], 0))) };
    let (rows, mut is_pad_T) = anchor.span.window(anchor.row, deltas);
    let mut values_TN = vec![0.0; rows.len() * vector.width];
    source.dataset.read_vectors(&vector.key, &rows, &mut values_TN)?;
    if vector.width < width {
        let padding = std::iter::repeat_n(0.0, width - vector.width);
        values_TN =
            values_TN.chunks_exact(vector.width).flat_map(|row| row.iter().copied().chain(padding.clone())).collect();
    }
    values_TN.resize(num_steps * width, 0.0);
    is_pad_T.resize(num_steps, true);
    Ok(Some(Vectors { values_TN, is_pad_T, num_dims: vector.width }))
}
