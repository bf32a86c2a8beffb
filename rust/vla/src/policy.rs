//! A policy under training: its description, its network, what prepares its inputs and who labels them.

use crate::VlaError;
use crate::archs::VlaModel;
use crate::observation::{ActionTarget, LatentTarget, Observation, Targets};
use crate::processor::{Processor, TimeIndices};
use crate::teacher::Teacher;
use hlrp_schema::PolicySpec;
use hlrp_train::{DeviceBatch, DeviceImages};
use tch::{Kind, Tensor};

/// Everything that turns a batch into losses.
pub(crate) struct Policy {
    /// What it is, resolved.
    pub(crate) spec: PolicySpec,
    /// The network; parameters that keep their first values are frozen.
    pub(crate) model: VlaModel,
    /// Prepares its inputs.
    pub(crate) processor: Processor,
    /// Labels frame pairs, in modes with latent actions.
    pub(crate) teacher: Option<Teacher>,
}

/// What a batch shows at the present, and its targets.
pub(crate) struct LabelledBatch {
    pub(crate) observation: Observation,
    pub(crate) targets: Targets,
    /// `int64 [B,S]` the teacher's codes, where it has codes.
    pub(crate) codes_BS: Option<Tensor>,
}

impl Policy {
    /// Prepares and labels a batch. Frames after the present reach the teacher alone.
    pub(crate) fn label(&self, batch: &DeviceBatch, indices: TimeIndices) -> Result<LabelledBatch, VlaError> {
        let mode = self.spec.objective.mode;
        let mut targets = Targets::default();
        let mut codes_BS = None;
        if mode.with_latents() {
            let codes = self.codes(batch, indices.image)?;
            targets.latent = Some(codes.0);
            codes_BS = codes.1;
        }
        if mode.with_actions() {
            let all = self.processor.actions(batch)?;
            targets.action = Some(ActionTarget {
                chunk_BTA: from_step(&all.chunk_BTA, indices.action),
                is_pad_BT: from_step(&all.is_pad_BT, indices.action),
            });
        }
        Ok(LabelledBatch { observation: self.processor.observe(batch, indices)?, targets, codes_BS })
    }

    /// Numbers of supervised frame pairs and action steps in a batch, where the mode learns from them; in the order of `VlaLoss::masked`.
    pub(crate) fn num_supervised(&self, batch: &DeviceBatch, indices: TimeIndices) -> Result<Vec<Tensor>, VlaError> {
        let mode = self.spec.objective.mode;
        let mut counts = Vec::new();
        if mode.with_latents() {
            counts.push(self.is_real_pair(batch, indices.image)?.sum(Kind::Int64));
        }
        if let Some(action) = batch.action.as_ref().filter(|_| mode.with_actions()) {
            counts.push(from_step(&action.is_pad_BT, indices.action).logical_not().sum(Kind::Int64));
        }
        Ok(counts)
    }

    /// `bool [B]`: whether both frames of the pair whose first frame has index `first` are inside their episode.
    fn is_real_pair(&self, batch: &DeviceBatch, first: i64) -> Result<Tensor, VlaError> {
        Ok(self.teachers_images(batch)?.is_real_BT.narrow(1, first, 2).all_dim(1, false))
    }

    fn teachers_images<'a>(&self, batch: &'a DeviceBatch) -> Result<&'a DeviceImages, VlaError> {
        let role = &self.spec.teacher.camera;
        batch.images.get(role).ok_or_else(|| {
            VlaError::input(format!("camera `{role}`"), "the batch lacks it", "map a camera of every source to it")
        })
    }

    /// The teacher's labels for the frame pair whose first frame has index `first`: targets, and codes where the teacher has them.
    pub(crate) fn codes(&self, batch: &DeviceBatch, first: i64) -> Result<(LatentTarget, Option<Tensor>), VlaError> {
        let teacher = self
            .teacher
            .as_ref()
            .ok_or_else(|| VlaError::input("latent actions", "there is no teacher", "set policy.teacher.checkpoint"))?;
        let latent = teacher.targets(&self.teachers_images(batch)?.pixels_BTCHW.narrow(1, first, 2))?;
        let is_valid_B = self.is_real_pair(batch, first)?;
        Ok((LatentTarget { codes_BSD: latent.vectors_BSQ, is_valid_B }, latent.ids_BS))
    }
}

/// The steps of `[B,T,…]` from `first` on.
fn from_step(x: &Tensor, first: i64) -> Tensor {
    x.narrow(1, first, x.size()[1] - first)
}
