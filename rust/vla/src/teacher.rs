//! A frozen latent action model that labels frame pairs while a policy trains.
//!
//! Its sizes and its pair spacing come from its checkpoint; a description of a policy or a data request that contradicts them is an error.
//!
//! What a policy learns are its standardised vectors: [`LaqInference::targets`].
//!
//! Shape suffixes: B samples, T = 2 frames, C channels, H×W pixels, S code slots, D dimensions of a code vector.

use crate::observation::LatentTarget;
use crate::{HINTS, VlaError};
use hlrp_laq::{LaqInference, Latent, Parts};
use hlrp_schema::policy::TeacherIdentity;
use hlrp_torch::Autocast;
use hlrp_track::console::message_and_hints;
use hlrp_track::fs::sha256_of;
use hlrp_train::{TrainError, resize_frames};
use std::path::Path;
use tch::{Device, Tensor};

/// Which weights a teacher has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TeacherInit {
    /// Those of its checkpoint.
    Trained,
    /// Fresh ones of the same architecture, drawn from `seed`: a control, whose codes nothing was learned for.
    Random {
        /// Equal seeds give equal teachers.
        seed: u64,
    },
}

/// The teacher: encoder and quantizer only.
pub struct Teacher {
    model: LaqInference,
    identity: TeacherIdentity,
    device: Device,
}

impl Teacher {
    /// Loads a checkpoint folder or run directory of stage 1, or a folder of `hlrp export-laq`, or draws random weights for it.
    ///
    /// # Errors
    /// A folder that is not a whole checkpoint of stage 1, or not such a folder.
    pub fn load(path: &Path, weights: TeacherInit, device: Device) -> Result<Self, VlaError> {
        let refuse = |problem: String| VlaError::file(path, problem, HINT);
        let model = match weights {
            TeacherInit::Trained => LaqInference::load(path, Parts::Encoder, device),
            TeacherInit::Random { seed } => LaqInference::random(path, Parts::Encoder, device, seed),
        };
        let model = model.map_err(|error| unreadable(path, &error))?;
        let cameras = &model.description().model.cameras;
        if cameras.len() > 1 {
            let problem = format!("its model sees several cameras: {}", cameras.join(", "));
            let hint = "label the dataset with `hlrp label` and name the columns in policy.teacher.label_prefix";
            return Err(VlaError::file(path, problem, hint));
        }
        let sha256 = match weights {
            TeacherInit::Trained => model.weights_sha256().map(str::to_owned),
            TeacherInit::Random { seed } => {
                let architecture = serde_json::to_string(&model.description().model);
                let architecture = architecture.map_err(|error| refuse(error.to_string()))?;
                let origin = format!("random weights from seed {seed} of {architecture}");
                Some(sha256_of(origin))
            }
        };
        let dims = model.dims();
        let identity = TeacherIdentity {
            sha256: sha256.ok_or_else(|| refuse("its manifest lists no weights".to_owned()))?,
            codebook_size: (dims.codebook_size > 0).then_some(dims.codebook_size),
            code_seq_len: dims.code_seq_len,
            code_dim: dims.code_dim,
            image_size: dims.image_size,
            pair: model.description().pair.clone(),
        };
        Ok(Self { model, identity, device })
    }

    /// Which latent action model labels.
    pub fn identity(&self) -> &TeacherIdentity {
        &self.identity
    }

    /// Standardised vectors and codes of frame pairs `uint8 [B,2,C,H,W]` of any size; a pair is valid when both of its frames are real (`bool [B,2]`).
    ///
    /// Frames of another size are resized to the teacher's as the data loader does it: bilinear, antialiased, rounded to uint8. Labels do
    /// not depend on the precision of the training.
    ///
    /// # Errors
    /// Frames that are not pairs.
    pub fn label(&self, frames_BTCHW: &Tensor, is_real_BT: &Tensor) -> Result<LatentTarget, VlaError> {
        let Latent { vectors_BSQ, ids_BS } = self.targets(frames_BTCHW)?;
        Ok(LatentTarget { vectors_BSD: Some(vectors_BSQ), codes_BS: ids_BS, is_valid_B: is_real_BT.all_dim(1, false) })
    }

    /// Standardised vectors `[B,S,D]` of such frame pairs, and their codes where the teacher has codes.
    ///
    /// # Errors
    /// Frames that are not pairs.
    pub fn targets(&self, frames_BTCHW: &Tensor) -> Result<Latent, VlaError> {
        let _float32 = Autocast::disable(self.device)?;
        Ok(self.model.targets(&self.resized(frames_BTCHW))?)
    }

    /// Codes `int64 [B,S]` of such frame pairs.
    ///
    /// # Errors
    /// Frames that are not pairs.
    pub fn codes(&self, frames_BTCHW: &Tensor) -> Result<Tensor, VlaError> {
        let _float32 = Autocast::disable(self.device)?;
        Ok(self.model.codes(&self.resized(frames_BTCHW))?)
    }

    /// Frames in the size that the model sees.
    fn resized(&self, frames_BTCHW: &Tensor) -> Tensor {
        resize_frames(frames_BTCHW, [self.identity.image_size; 2])
    }

    /// Standardised code vectors `float32 [B,S,D]` of codes `int64 [B,S]`.
    ///
    /// # Errors
    /// A teacher without codes.
    pub fn vectors(&self, codes_BS: &Tensor) -> Result<Tensor, VlaError> {
        Ok(self.model.target_vectors(codes_BS)?)
    }

    /// The codes `int64 [B,S]` whose vectors are nearest to predicted ones `[B,S,D]`.
    ///
    /// # Errors
    /// A teacher without codes.
    pub fn nearest(&self, latents_BSD: &Tensor) -> Result<Tensor, VlaError> {
        Ok(self.model.nearest_codes(latents_BSD)?)
    }
}

/// What to do about a checkpoint that cannot be a teacher.
const HINT: &str = "give a checkpoint folder or run directory of `hlrp train-laq`, or a folder of `hlrp export-laq`";

/// The cause with `path` once, and with one hint: its own where a checkpoint is damaged and it knows a whole one.
fn unreadable(path: &Path, error: &anyhow::Error) -> VlaError {
    let (problem, hints) = message_and_hints(error.as_ref(), HINTS);
    let is_damaged = matches!(error.downcast_ref(), Some(TrainError::Damaged { .. }));
    let own_hint = hints.first().filter(|_| is_damaged);
    let problem = problem.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&problem);
    VlaError::file(path, problem, own_hint.map_or(HINT, String::as_str))
}
