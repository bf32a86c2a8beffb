//! A policy under training: its description, its network, what prepares its inputs and who labels them.

use crate::VlaError;
use crate::archs::VlaModel;
use crate::labels::Labelling;
use crate::observation::{LatentTarget, Observation, Targets};
use crate::processor::{Processor, TimeIndices};
use hlrp_schema::PolicySpec;
use hlrp_train::{Augmentation, DeviceBatch, DeviceImages};
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
    pub(crate) teacher: Option<Labelling>,
}

/// What a batch shows at the present, and its targets.
pub(crate) struct LabelledBatch {
    pub(crate) observation: Observation,
    pub(crate) targets: Targets,
}

impl Policy {
    /// Prepares and labels a batch. Frames after the present reach the teacher alone, and `augmentation` changes what the policy sees alone.
    pub(crate) fn label(
        &self,
        batch: &DeviceBatch,
        indices: TimeIndices,
        augmentation: Option<&Augmentation>,
    ) -> Result<LabelledBatch, VlaError> {
        let mode = self.spec.objective.mode;
        let mut targets = Targets::default();
        if mode.with_latents() {
            targets.latent = Some(self.latents(batch, indices)?);
        }
        if mode.with_actions() {
            let all = self.processor.actions(batch)?;
            targets.action = Some(all.steps(indices.action, all.is_pad_BT.size()[1] - indices.action));
        }
        let observation = self.processor.observe_changed(batch, indices, augmentation)?;
        Ok(LabelledBatch { observation, targets })
    }

    /// Numbers of supervised frame pairs and action values in a batch, where the mode learns from them; in the order of `VlaLoss::masked`.
    pub(crate) fn num_supervised(&self, batch: &DeviceBatch, indices: TimeIndices) -> Result<Vec<Tensor>, VlaError> {
        let mode = self.spec.objective.mode;
        let mut counts = Vec::new();
        if mode.with_latents() {
            counts.push(self.is_labelled(batch, indices)?.sum(Kind::Int64));
        }
        if let Some(action) = batch.action.as_ref().filter(|_| mode.with_actions()) {
            let num = |is_pad: &Tensor| is_pad.logical_not().sum_dim_intlist([1].as_slice(), false, Kind::Int64);
            let num_steps_B = num(&from_step(&action.is_pad_BT, indices.action));
            counts.push((num_steps_B * num(&action.is_pad_dim_BN)).sum(Kind::Int64));
        }
        Ok(counts)
    }

    /// `bool [B]`: whether the present has a label: where both frames of its pair are inside their episode.
    fn is_labelled(&self, batch: &DeviceBatch, indices: TimeIndices) -> Result<Tensor, VlaError> {
        match self.labelling()? {
            Labelling::Online(_) => {
                Ok(self.teachers_images(batch)?.is_real_BT.narrow(1, indices.image, 2).all_dim(1, false))
            }
            Labelling::Columns(columns) => columns.is_valid(batch, indices.label),
        }
    }

    fn labelling(&self) -> Result<&Labelling, VlaError> {
        let hint = "set policy.teacher.checkpoint";
        self.teacher.as_ref().ok_or_else(|| VlaError::input("latent actions", "there is no teacher", hint))
    }

    fn teachers_images<'a>(&self, batch: &'a DeviceBatch) -> Result<&'a DeviceImages, VlaError> {
        let role = &self.spec.teacher.camera;
        batch.images.get(role).ok_or_else(|| {
            VlaError::input(format!("camera `{role}`"), "the batch lacks it", "map a camera of every source to it")
        })
    }

    /// The labels of the present: of the frame pair that begins there.
    pub(crate) fn latents(&self, batch: &DeviceBatch, indices: TimeIndices) -> Result<LatentTarget, VlaError> {
        match self.labelling()? {
            Labelling::Online(teacher) => {
                let images = self.teachers_images(batch)?;
                let [pixels_BTCHW, is_real_BT] =
                    [&images.pixels_BTCHW, &images.is_real_BT].map(|x| x.narrow(1, indices.image, 2));
                teacher.label(&pixels_BTCHW, &is_real_BT)
            }
            Labelling::Columns(columns) => columns.label(batch, indices.label),
        }
    }

    /// The labels before those of the present, in a validation sample: of the frame pair that ends there.
    pub(crate) fn former_latents(&self, batch: &DeviceBatch, indices: TimeIndices) -> Result<LatentTarget, VlaError> {
        self.latents(batch, TimeIndices { image: indices.image - 1, label: indices.label - 1, ..indices })
    }
}

/// The steps of `[B,T,…]` from `first` on.
fn from_step(x: &Tensor, first: i64) -> Tensor {
    x.narrow(1, first, x.size()[1] - first)
}
