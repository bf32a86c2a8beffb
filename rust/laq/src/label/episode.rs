//! The labels of one episode.
//!
//! Shape suffixes: N frames of the episode, B pairs, T = 2 frames of a pair, S slots, Q width of a vector, A width of an action.

use super::frames::{FrameSource, FramesAhead};
use crate::inference::{LaqInference, PairLabels};
use hlrp_data::{Dataset, EpisodeSpan, FrameSize};
use hlrp_schema::policy::LabelSource;
use hlrp_schema::policy::label_columns::{CODE_VECTORS, CODES, VECTORS};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Pairs whose frames are decoded in one go.
const WINDOW: usize = 256;

/// What labels episodes.
pub(super) struct Labeller<'a> {
    pub(super) laq: &'a LaqInference,
    pub(super) dataset: &'a Arc<dyn Dataset>,
    /// The dataset's folder.
    pub(super) name: &'a str,
    /// Folder of the frame caches from which frames are read, if any.
    pub(super) cache_dir: Option<&'a Path>,
    /// In the order of the model.
    pub(super) cameras: &'a [String],
    /// Offsets of both frames, in frames of the dataset.
    pub(super) deltas: [i64; 2],
    pub(super) source: LabelSource,
    pub(super) batch_size: usize,
    pub(super) seed: u64,
}

impl Labeller<'_> {
    /// Rows of an episode that have both frames of their pair.
    pub(super) fn anchors(&self, episode: &EpisodeSpan) -> Range<u64> {
        let (first, last) = (self.deltas[0].min(self.deltas[1]).min(0), self.deltas[0].max(self.deltas[1]).max(0));
        let from = episode.from_row + first.unsigned_abs();
        from..episode.to_row.saturating_sub(last.unsigned_abs()).max(from)
    }

    /// Parts of an episode's [`Labeller::anchors`] whose frames are decoded in one go.
    fn windows(&self, episode: &EpisodeSpan) -> impl Iterator<Item = Range<u64>> + use<> {
        let anchors = self.anchors(episode);
        anchors.clone().step_by(WINDOW).map(move |start| start..(start + WINDOW as u64).min(anchors.end))
    }

    /// The rows of all windows of `episodes` in which [`Labeller::label`] needs frames, in its order.
    pub(super) fn rows_of_frames(&self, episodes: &[&EpisodeSpan]) -> Vec<Range<u64>> {
        let episodes = if self.source == LabelSource::Teacher { episodes } else { &[] };
        let (lowest, highest) = self.reach();
        let rows = |window: Range<u64>| {
            window.start.wrapping_add_signed(lowest)..(window.end - 1).wrapping_add_signed(highest) + 1
        };
        episodes.iter().flat_map(|episode| self.windows(episode)).map(rows).collect()
    }

    /// The lower and the higher offset.
    fn reach(&self) -> (i64, i64) {
        let [first, last] = self.deltas;
        (first.min(last), first.max(last))
    }

    /// Where frames come from, if [`Labeller::label`] needs any.
    ///
    /// # Errors
    /// What [`FrameSource::decoded`] and [`FrameSource::cached`] refuse.
    pub(super) fn frame_source(&self) -> anyhow::Result<FrameSource> {
        let cameras = if self.source == LabelSource::Teacher { self.cameras } else { &[] };
        let side = usize::try_from(self.laq.dims().image_size)?;
        let size = FrameSize { height: side, width: side };
        Ok(match self.cache_dir {
            Some(dir) => FrameSource::cached(self.dataset, self.name, cameras, size, dir)?,
            None => FrameSource::decoded(self.dataset, cameras, size)?,
        })
    }

    /// By name the labels of an episode's [`Labeller::anchors`], on the CPU; nothing where it has none. `frames` has the frames of its windows
    /// next.
    ///
    /// # Errors
    /// Frames or actions that cannot be read.
    pub(super) fn label(
        &self,
        episode: &EpisodeSpan,
        frames: &mut FramesAhead,
    ) -> anyhow::Result<Vec<(&'static str, Tensor)>> {
        let anchors = self.anchors(episode);
        if anchors.is_empty() {
            return Ok(Vec::new());
        }
        match self.source {
            LabelSource::Teacher => self.of_teacher(episode, frames),
            LabelSource::ActionAsLatent => Ok(vec![(VECTORS, self.summed_actions(anchors)?)]),
            LabelSource::Synthetic => self.synthetic(episode.episode, anchors),
        }
    }

    fn of_teacher(
        &self,
        episode: &EpisodeSpan,
        frames: &mut FramesAhead,
    ) -> anyhow::Result<Vec<(&'static str, Tensor)>> {
        let side = self.laq.dims().image_size;
        let (lowest, _) = self.reach();
        let mut found: Vec<PairLabels> = Vec::new();
        for window in self.windows(episode) {
            let views = frames.next()?;
            let views: Vec<_> =
                views.iter().map(|pixels| Tensor::from_slice(pixels).view([-1, 3, side, side])).collect();
            let pixels_NCHW = Tensor::cat(&views, -1);
            let len = (window.end - window.start) as i64;
            let pairs = self.deltas.map(|delta| pixels_NCHW.narrow(0, delta - lowest, len));
            for pairs_BTCHW in Tensor::stack(&pairs, 1).split(i64::try_from(self.batch_size)?, 0) {
                found.push(self.laq.pair_labels(&pairs_BTCHW)?);
            }
        }
        let joined = |of: fn(&PairLabels) -> Option<&Tensor>| {
            let all: Vec<&Tensor> = found.iter().filter_map(of).collect();
            (!all.is_empty()).then(|| Tensor::cat(&all, 0).to_device(Device::Cpu).contiguous())
        };
        let named = [
            (VECTORS, joined(|labels| Some(&labels.change_BSQ))),
            (CODES, joined(|labels| labels.ids_BS.as_ref())),
            (CODE_VECTORS, joined(|labels| labels.code_vectors_BSQ.as_ref())),
        ];
        Ok(named.into_iter().filter_map(|(name, tensor)| Some((name, tensor?))).collect())
    }

    /// Dimensions A of an action.
    pub(super) fn action_width(&self) -> usize {
        self.dataset.describe().features.get(ACTION).map_or(0, |feature| feature.num_values())
    }

    /// `float32 [N,A]`: of each anchor the sum of the actions from the first frame to the one before the last.
    fn summed_actions(&self, anchors: Range<u64>) -> anyhow::Result<Tensor> {
        let width = self.action_width();
        let (lowest, highest) = self.reach();
        let mut sums = Vec::new();
        for anchor in anchors {
            let rows: Vec<u64> = (anchor.wrapping_add_signed(lowest)..anchor.wrapping_add_signed(highest)).collect();
            let mut actions = vec![0.0; rows.len() * width];
            self.dataset.read_vectors(ACTION, &rows, &mut actions)?;
            sums.extend((0..width).map(|dim| actions.iter().skip(dim).step_by(width).sum::<f32>()));
        }
        Ok(Tensor::from_slice(&sums).view([-1, i64::try_from(width)?]))
    }

    fn synthetic(&self, episode: u64, anchors: Range<u64>) -> anyhow::Result<Vec<(&'static str, Tensor)>> {
        let (dims, num) = (self.laq.dims(), (anchors.end - anchors.start) as i64);
        let slots = self.laq.description().model.quantizer.code_seq_len;
        let draw = || {
            let vectors_NSQ = Tensor::randn([num, slots, dims.code_dim], (Kind::Float, Device::Cpu));
            let draw_ids = |num_codes| Tensor::randint(num_codes, [num, slots], (Kind::Int64, Device::Cpu));
            (vectors_NSQ, self.laq.num_codes().map(draw_ids))
        };
        let (vectors_NSQ, ids_NS) = hlrp_torch::rng::seeded(self.seed.wrapping_add(episode), draw)?;
        let mut labels = vec![(VECTORS, vectors_NSQ)];
        if let Some(ids_NS) = ids_NS {
            let code_vectors_NSQ = self.laq.code_vectors(&ids_NS.to_device(self.laq.device()))?;
            labels.extend([(CODE_VECTORS, code_vectors_NSQ.to_device(Device::Cpu)), (CODES, ids_NS)]);
        }
        Ok(labels)
    }
}

/// Key of the actions.
const ACTION: &str = "action";
