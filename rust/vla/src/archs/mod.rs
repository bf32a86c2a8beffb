//! The architectures of a policy: a trait, one architecture per module, and [`VlaModel`], which is a policy of any of them.
//!
//! To add one: its section in `hlrp_schema::policy` (a struct and a line of `architectures!`), a module here and its arm in [`VlaModel::over`].

mod expert;
mod pooled;

pub use expert::{BACKBONE, ExpertModel, HeadKind, Initialised, PrefixMemory};
pub use pooled::PooledModel;

use crate::VlaError;
use crate::chunking::Guidance;
use crate::flow::FlowNoise;
use crate::loss::VlaLoss;
use crate::observation::{Observation, Prediction, Targets};
use hlrp_nn::smolvlm::SmolVlmFolder;
use hlrp_nn::{Pass, Store};
use hlrp_schema::policy::{ArchSpec, BackboneSpec, Mode, ModelSpec, ObjectiveSpec};
use std::{ops::Deref, path::Path};
use tch::Device;

/// The network of a policy.
pub trait Architecture {
    /// Parameters and buffers.
    fn store(&self) -> &Store;

    /// Prefix of the backbone's parameters.
    fn backbone_prefix(&self) -> &'static str;

    /// Patterns of the parameters that no loss can reach in any mode.
    fn unreachable(&self) -> Vec<String>;

    /// Patterns of the parameters that keep their first values, as the description says; what no loss can reach is among them.
    fn frozen(&self) -> Vec<String>;

    /// Patterns of the parameters that take no part in `mode`: the heads of other modes, and what no loss can reach.
    fn unused_in(&self, mode: Mode) -> Vec<String>;

    /// What the predecessor's tensor names begin with, and what ours do instead; other names are the same.
    fn predecessor_names(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Shapes of the noise that `mode` needs for `num_samples`, in the order in which it is needed. A head that regresses needs none.
    fn noise_shapes(&self, mode: Mode, num_samples: i64) -> Vec<(HeadKind, Vec<i64>)>;

    /// Losses of a batch, the observation seen once.
    ///
    /// # Errors
    /// An observation or target that is missing or does not fit the model, or a head that the model lacks.
    fn loss(
        &self,
        observation: &Observation,
        targets: &Targets,
        objective: &ObjectiveSpec,
        noise: &mut dyn FlowNoise,
        pass: &Pass<'_>,
    ) -> Result<VlaLoss, VlaError>;

    /// What the policy predicts, without a gradient. With `guidance` the actions begin where a chunk before them goes on.
    ///
    /// # Errors
    /// An observation that does not fit the model, a head that it lacks, or guidance of an architecture that does not denoise its actions.
    fn sample(
        &self,
        observation: &Observation,
        mode: Mode,
        guidance: Option<&Guidance>,
        noise: &mut dyn FlowNoise,
        pass: &Pass<'_>,
    ) -> Result<Prediction, VlaError>;

    /// Takes over the weights of a LeRobot `smolvla` policy: a folder with `model.safetensors`, or such a file. Half-precision weights become
    /// float32.
    ///
    /// # Errors
    /// A file that cannot be read or does not fit (the model is then unchanged), or an architecture that is not LeRobot's.
    fn init_from_smolvla(&self, checkpoint: &Path) -> Result<Initialised, VlaError> {
        let hint = "use the expert architecture, which is LeRobot's";
        Err(VlaError::input(
            checkpoint.display().to_string(),
            "this architecture cannot start from a smolvla policy",
            hint,
        ))
    }
}

/// A policy of any architecture, with its description.
pub struct VlaModel {
    spec: ModelSpec,
    network: Box<dyn Architecture>,
}

impl Deref for VlaModel {
    type Target = dyn Architecture;

    fn deref(&self) -> &Self::Target {
        &*self.network
    }
}

impl VlaModel {
    /// A model with fresh weights from the CPU's generator.
    ///
    /// # Errors
    /// A description that is not resolved.
    pub fn new(spec: &ModelSpec, device: Device) -> Result<Self, VlaError> {
        Self::over(spec, Store::new(device))
    }

    /// A model over the tensors of `store`, which is empty so far: those of the caller ([`Store::over`]), or shapes alone
    /// ([`Store::sketch`]).
    ///
    /// # Errors
    /// A description that is not resolved, or tensors that are not exactly its own.
    pub fn over(spec: &ModelSpec, store: Store) -> Result<Self, VlaError> {
        spec.check_resolved()?;
        let network: Box<dyn Architecture> = match &spec.arch {
            ArchSpec::Expert(own) => Box::new(ExpertModel::over(spec, own, store)?),
            ArchSpec::Pooled(_) => Box::new(PooledModel::over(spec, store)?),
        };
        Ok(Self { spec: spec.clone(), network })
    }

    /// What it is.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Overwrites the backbone with the weights of a folder, as float32.
    ///
    /// # Errors
    /// Weights that cannot be read or do not fit.
    pub fn load_backbone(&self, folder: &SmolVlmFolder) -> Result<(), VlaError> {
        let sizes = self.spec.backbone.sizes()?;
        Ok(folder.load_into(&self.store().root().child(self.backbone_prefix()), sizes)?)
    }
}

/// Parts of a backbone that features before its final norm never use.
fn unread_parts(prefix: &str, tie_word_embeddings: bool) -> Vec<String> {
    let own_head = (!tie_word_embeddings).then(|| format!("{prefix}.lm_head"));
    own_head.into_iter().chain([format!("{prefix}.model.text_model.norm")]).collect()
}

/// Patterns of a backbone's parameters that keep their first values; `unreachable` are those that no loss can reach.
fn frozen_in_backbone(prefix: &str, spec: &BackboneSpec, unreachable: Vec<String>) -> Vec<String> {
    if spec.train_expert_only {
        return vec![prefix.to_owned()];
    }
    let vision = spec.freeze_vision_encoder.then(|| format!("{prefix}.model.vision_model"));
    unreachable.into_iter().chain(vision).collect()
}

/// One entry for each camera of the model, no more missing than the model can do without, all at the model's size.
fn check_cameras(spec: &ModelSpec, observation: &Observation) -> Result<(), VlaError> {
    const HINT: &str =
        "map a camera of every source to each role of policy.model.cameras, or raise policy.model.empty_cameras";
    let (found, wanted) = (observation.cameras.len(), spec.cameras.len());
    if found != wanted {
        let problem = format!("{found} cameras where the model has {wanted}");
        return Err(VlaError::input("observation", problem, format!("give one entry for each of {:?}", spec.cameras)));
    }
    let by_role = || spec.cameras.iter().zip(&observation.cameras);
    let absent: Vec<&String> = by_role().filter(|(_, images)| images.is_none()).map(|(role, _)| role).collect();
    if absent.len() > spec.empty_cameras {
        let problem = format!("the data lacks {absent:?}, {} may be missing", spec.empty_cameras);
        return Err(VlaError::input("cameras", problem, HINT));
    }
    let [height, width] = spec.image_size();
    let expected = [observation.language.ids_BL.size()[0], 3, height, width];
    for (role, images) in by_role() {
        let size = images.as_ref().map(|images| images.pixels_BCHW.size());
        if let Some(size) = size.filter(|size| *size != expected) {
            let problem = format!("images of shape {size:?} where {expected:?} is needed");
            let hint = "prepare them for policy.model.resize_imgs_with_padding";
            return Err(VlaError::input(format!("camera `{role}`"), problem, hint));
        }
    }
    Ok(())
}
