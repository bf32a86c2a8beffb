//! A trained model at work: codes of frame pairs, vectors of codes, predictions from codes.

use crate::patches::unit_frames;
use crate::{Dims, LaqError, LaqModel, Parts, eval_step};
use hlrp_nn::Pass;
use hlrp_schema::{LaqDescription, TaskDescription};
use hlrp_train::checkpoint::{Checkpoint, Manifest};
use std::path::Path;
use tch::{Device, Tensor, no_grad};

/// A frozen latent action model.
pub struct LaqInference {
    model: LaqModel,
    manifest: Manifest,
    description: LaqDescription,
}

/// First parts of the names that only decoders have.
const DECODER_PLACES: [&str; 3] = ["dino_decoder.", "pixel_", "aux_"];
/// The patch tokens belong to the encoder although their name starts like a decoder's.
const ENCODER_PLACE: &str = "pixel_projection.";

impl LaqInference {
    /// Loads a checkpoint folder or a run directory. The sizes come from its manifest; the weights must fit exactly.
    /// [`Parts::Encoder`] leaves the decoders out of memory: codes and vectors only.
    ///
    /// # Errors
    /// A folder that is no whole checkpoint of stage 1.
    pub fn load(path: &Path, parts: Parts, device: Device) -> anyhow::Result<Self> {
        let (checkpoint, description) = open(path)?;
        let model = LaqModel::new(&description.model, parts, device)?;
        let is_decoder =
            |name: &str| DECODER_PLACES.iter().any(|place| name.starts_with(place)) && !name.starts_with(ENCODER_PLACE);
        let weights: Vec<(String, Tensor)> =
            checkpoint.weights()?.into_iter().filter(|(name, _)| parts == Parts::All || !is_decoder(name)).collect();
        model.store().load_strict(&weights).map_err(LaqError::from)?;
        model.store().freeze();
        Ok(Self { model, manifest: checkpoint.manifest().clone(), description })
    }

    /// The model of a checkpoint folder or run directory with fresh weights drawn from `seed`: what codes are worth that nothing was
    /// learned for. The state of the default generator is left as it was.
    ///
    /// # Errors
    /// As [`LaqInference::load`].
    pub fn random(path: &Path, parts: Parts, device: Device, seed: u64) -> anyhow::Result<Self> {
        let (checkpoint, description) = open(path)?;
        let before = hlrp_torch::rng::state(Device::Cpu)?;
        hlrp_torch::rng::seed(Device::Cpu, seed)?;
        let model = LaqModel::new(&description.model, parts, device);
        hlrp_torch::rng::set_state(Device::Cpu, &before)?;
        let model = model?;
        model.store().freeze();
        Ok(Self { model, manifest: checkpoint.manifest().clone(), description })
    }

    /// Sizes: codes K, slots S, width Q of a code vector, side of a frame.
    pub fn dims(&self) -> &Dims {
        self.model.dims()
    }

    /// What the checkpoint says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The model and the frame pairs it was trained on.
    pub fn description(&self) -> &LaqDescription {
        &self.description
    }

    /// Codes `int64 [B,S]` of frame pairs `uint8 [B,2,C,H,W]`.
    ///
    /// # Errors
    /// Frames of another shape.
    pub fn codes(&self, frames_BTCHW: &Tensor) -> Result<Tensor, LaqError> {
        self.model.check_frames(frames_BTCHW)?;
        let frames_BTCHW = unit_frames(&frames_BTCHW.to_device(self.model.store().device()));
        Ok(no_grad(|| {
            let encoded = self.model.encode(&frames_BTCHW, &Pass::plain(false));
            self.model.quantizer.nearest(&encoded.change_BSQ)
        }))
    }

    /// Code vectors `[B,S,Q]` of codes `int64 [B,S]`: rows of the codebook.
    pub fn code_vectors(&self, ids_BS: &Tensor) -> Tensor {
        no_grad(|| self.model.quantizer.lookup(ids_BS))
    }

    /// The frame that codes `[B,S]` lead to from frame t `uint8 [B,C,H,W]`: `float32 [B,C,H,W]`, not clamped.
    ///
    /// # Errors
    /// A model without a pixel decoder.
    pub fn predict(&self, frame_BCHW: &Tensor, ids_BS: &Tensor) -> Result<Tensor, LaqError> {
        let frame_B1CHW = unit_frames(&frame_BCHW.to_device(self.model.store().device())).unsqueeze(1);
        let predictions = no_grad(|| {
            let tokens_BSD = self.model.quantizer.action_tokens(&self.model.quantizer.lookup(ids_BS));
            self.model.predict(&frame_B1CHW, &tokens_BSD, &Pass::plain(false))
        });
        predictions.pixels_BCHW.or(predictions.aux_BCHW).ok_or(LaqError::NoDecoder("pixel"))
    }

    /// Codes of frame pairs `uint8 [B,2,C,H,W]` and the later frame that they predict.
    ///
    /// # Errors
    /// Frames of another shape, or a model without a pixel decoder.
    pub fn reconstruct(&self, frames_BTCHW: &Tensor) -> Result<(Tensor, Tensor), LaqError> {
        self.model.check_frames(frames_BTCHW)?;
        let frames_BTCHW = unit_frames(&frames_BTCHW.to_device(self.model.store().device()));
        let step = eval_step(&self.model, &frames_BTCHW);
        let predictions = step.predictions;
        let pixels_BCHW = predictions.pixels_BCHW.or(predictions.aux_BCHW).ok_or(LaqError::NoDecoder("pixel"))?;
        Ok((step.ids_BS, pixels_BCHW))
    }
}

/// A checkpoint of stage 1 and its task.
fn open(path: &Path) -> anyhow::Result<(Checkpoint, LaqDescription)> {
    let checkpoint = Checkpoint::open(path)?;
    match &checkpoint.manifest().task {
        TaskDescription::Laq(description) => {
            let description = description.clone();
            Ok((checkpoint, description))
        }
        other => {
            let problem = format!("it is a checkpoint of stage {}, not laq", other.stage().name());
            Err(LaqError::Checkpoint { path: checkpoint.dir().to_path_buf(), problem }.into())
        }
    }
}
