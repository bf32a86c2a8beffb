//! A trained model in use: codes of frame pairs, vectors of codes, predictions from codes.

use crate::decoders::Decoders;
use crate::dims::Dims;
use crate::error::LaqError;
use crate::label_head::LabelHead;
use crate::model::{LaqModel, Parts};
use crate::patches::unit_frames;
use crate::quantizers::{Codes, Latent, Scale};
use crate::step::eval_step;
use crate::stored::Stored;
use hlrp_nn::Pass;
use hlrp_schema::LaqDescription;
use std::path::Path;
use tch::{Device, Tensor, no_grad};

/// What a frozen model says about frame pairs.
pub(crate) struct PairLabels {
    /// Vectors before the quantizer, normalised, `float32 [B,S,Q]`.
    pub(crate) change_BSQ: Tensor,
    /// Codes `int64 [B,S]`; none where the latent is continuous.
    pub(crate) ids_BS: Option<Tensor>,
    /// Vectors of the codes `float32 [B,S,Q]`, as [`LaqInference::code_vectors`].
    pub(crate) code_vectors_BSQ: Option<Tensor>,
}

/// A frozen latent action model.
pub struct LaqInference {
    model: LaqModel,
    weights_sha256: Option<String>,
    description: LaqDescription,
    scale: Scale,
}

impl LaqInference {
    /// Loads a checkpoint folder or a run directory. The sizes come from its manifest; the weights must fit exactly, without those of
    /// a label head.
    /// [`Parts::Encoder`] leaves the decoders out of memory: codes and vectors only, for which a folder of `hlrp export-laq` is enough.
    ///
    /// # Errors
    /// A folder that is not a complete checkpoint of stage 1, or not such a folder.
    pub fn load(path: &Path, parts: Parts, device: Device) -> anyhow::Result<Self> {
        let stored = Stored::open(path, parts)?;
        let model = LaqModel::new(&stored.description.model, parts, device);
        let mut weights = stored.weights()?;
        let is_unused = |name: &str| LabelHead::owns(name) || parts == Parts::Encoder && Decoders::owns(name);
        weights.retain(|(name, _)| !is_unused(name));
        model.store().load_strict(&weights).map_err(LaqError::from)?;
        Ok(Self::frozen(model, stored))
    }

    /// The model of such a folder with fresh weights drawn from `seed`: a control, whose codes
    /// nothing was learned for. The state of the default generator is left as it was.
    ///
    /// # Errors
    /// As [`LaqInference::load`].
    pub fn random(path: &Path, parts: Parts, device: Device, seed: u64) -> anyhow::Result<Self> {
        let stored = Stored::open(path, parts)?;
        let model = hlrp_torch::rng::seeded(seed, || LaqModel::new(&stored.description.model, parts, device))?;
        Ok(Self::frozen(model, stored))
    }

    fn frozen(model: LaqModel, Stored { weights_sha256, description, .. }: Stored) -> Self {
        model.store().freeze();
        let scale = no_grad(|| model.quantizer.scale());
        Self { model, weights_sha256, description, scale }
    }

    /// The network.
    pub(crate) fn model(&self) -> &LaqModel {
        &self.model
    }

    /// Sizes: codes K, slots S, width Q of a code vector, side of a frame.
    pub fn dims(&self) -> &Dims {
        self.model.dims()
    }

    /// SHA-256 of the checkpoint's file with the weights that it exports, hexadecimal.
    pub fn weights_sha256(&self) -> Option<&str> {
        self.weights_sha256.as_deref()
    }

    /// The model and the frame pairs that it was trained on.
    pub fn description(&self) -> &LaqDescription {
        &self.description
    }

    /// Codes `int64 [B,S]` of frame pairs `uint8 [B,2,C,H,W]`.
    ///
    /// # Errors
    /// Frames of another shape, or a model without codes.
    pub fn codes(&self, frames_BTCHW: &Tensor) -> Result<Tensor, LaqError> {
        self.latent(frames_BTCHW)?.ids_BS.ok_or(LaqError::NoCodes)
    }

    /// What a policy learns from frame pairs `uint8 [B,2,C,H,W]`: their vectors `float32 [B,S,Q]`, standardised, and
    /// their codes.
    ///
    /// *Standardised* is over the codes: each dimension minus its mean over all of them, divided by its std. The rows
    /// of a trained codebook are close to each other, with a common mean far larger than their differences, so that a
    /// flow that starts at unit noise could not tell them apart. The scale follows from the weights alone.
    ///
    /// # Errors
    /// Frames of another shape.
    pub fn targets(&self, frames_BTCHW: &Tensor) -> Result<Latent, LaqError> {
        let Latent { vectors_BSQ, ids_BS } = self.latent(frames_BTCHW)?;
        Ok(Latent { vectors_BSQ: self.scale.standardise(&vectors_BSQ), ids_BS })
    }

    /// Standardised vectors `float32 [B,S,Q]` of codes `int64 [B,S]`, as in [`LaqInference::targets`].
    ///
    /// # Errors
    /// A model without codes.
    pub fn target_vectors(&self, ids_BS: &Tensor) -> Result<Tensor, LaqError> {
        let codes = self.codebook()?;
        Ok(no_grad(|| self.scale.standardise(&codes.vectors(ids_BS))))
    }

    /// The codes `int64 [B,S]` whose standardised vectors are nearest to `standardised_BSQ`.
    ///
    /// # Errors
    /// A model without codes.
    pub fn nearest_codes(&self, standardised_BSQ: &Tensor) -> Result<Tensor, LaqError> {
        let codes = self.codebook()?;
        Ok(no_grad(|| codes.nearest(standardised_BSQ, &self.scale)))
    }

    /// Code vectors `[B,S,Q]` of codes `int64 [B,S]`: rows of the codebook.
    ///
    /// # Errors
    /// A model without codes.
    pub fn code_vectors(&self, ids_BS: &Tensor) -> Result<Tensor, LaqError> {
        let codes = self.codebook()?;
        Ok(no_grad(|| codes.vectors(ids_BS)))
    }

    /// The frame that codes `[B,S]` lead to from frame t `uint8 [B,C,H,W]`: `float32 [B,C,H,W]`, not clamped.
    ///
    /// # Errors
    /// A model without codes or without a pixel decoder.
    pub fn predict(&self, frame_BCHW: &Tensor, ids_BS: &Tensor) -> Result<Tensor, LaqError> {
        let tokens_BSD =
            no_grad(|| Ok::<_, LaqError>(self.model.bottleneck.action_tokens(&self.code_vectors(ids_BS)?)))?;
        let frame = self.model.predicted_frame(&self.unit_frames(frame_BCHW), &tokens_BSD);
        frame.ok_or(LaqError::NoDecoder("pixel"))
    }

    /// Codes of frame pairs `uint8 [B,2,C,H,W]` and the later frame that they predict.
    ///
    /// # Errors
    /// Frames of another shape, or a model without codes or without a pixel decoder.
    pub fn reconstruct(&self, frames_BTCHW: &Tensor) -> Result<(Tensor, Tensor), LaqError> {
        self.model.check_frames(frames_BTCHW)?;
        let frames_BTCHW = self.unit_frames(frames_BTCHW);
        let step = eval_step(&self.model, &frames_BTCHW);
        let pixels_BCHW = self.model.decoders.frame(&step.predictions, &frames_BTCHW.select(1, 0));
        Ok((step.latent.ids_BS.ok_or(LaqError::NoCodes)?, pixels_BCHW.ok_or(LaqError::NoDecoder("pixel"))?))
    }

    /// Labels of frame pairs `uint8 [B,2,C,H,W]`; the codes are those of [`LaqInference::codes`].
    ///
    /// # Errors
    /// Frames of another shape.
    pub(crate) fn pair_labels(&self, frames_BTCHW: &Tensor) -> Result<PairLabels, LaqError> {
        let change_BSQ = self.change(frames_BTCHW)?;
        Ok(no_grad(|| {
            let Latent { vectors_BSQ, ids_BS } = self.model.quantizer.quantize(&change_BSQ);
            let code_vectors_BSQ = ids_BS.as_ref().map(|_| vectors_BSQ);
            PairLabels { change_BSQ: self.model.quantizer.normalised(&change_BSQ), ids_BS, code_vectors_BSQ }
        }))
    }

    /// Number of codes K; none where the latent is continuous.
    pub(crate) fn num_codes(&self) -> Option<i64> {
        self.model.quantizer.codes().map(Codes::num_codes)
    }

    /// The scale of [`LaqInference::targets`].
    pub(crate) fn scale(&self) -> &Scale {
        &self.scale
    }

    /// Where the model is.
    pub(crate) fn device(&self) -> Device {
        self.model.store().device()
    }

    fn latent(&self, frames_BTCHW: &Tensor) -> Result<Latent, LaqError> {
        let change_BSQ = self.change(frames_BTCHW)?;
        Ok(no_grad(|| self.model.quantizer.quantize(&change_BSQ)))
    }

    /// Changes `[B,S,Q]` as the encoder sees them.
    fn change(&self, frames_BTCHW: &Tensor) -> Result<Tensor, LaqError> {
        self.model.check_frames(frames_BTCHW)?;
        let frames_BTCHW = self.unit_frames(frames_BTCHW);
        Ok(no_grad(|| self.model.encode(&frames_BTCHW, &Pass::plain(false)).change_BSQ))
    }

    fn codebook(&self) -> Result<&dyn Codes, LaqError> {
        self.model.quantizer.codes().ok_or(LaqError::NoCodes)
    }

    fn unit_frames(&self, pixels_u8: &Tensor) -> Tensor {
        let device = self.model.store().device();
        // `to_device` would count as a wait of the host even where nothing moves (`hlrp_torch::count`).
        if pixels_u8.device() == device { unit_frames(pixels_u8) } else { unit_frames(&pixels_u8.to_device(device)) }
    }
}
