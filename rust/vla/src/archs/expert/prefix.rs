//! The observation as tokens of the backbone: images, instruction, state.
//!
//! Shape suffixes: B samples, P prefix tokens, N tokens of an image, L language tokens, D width of the text model.

use crate::observation::{CameraImages, Observation};
use crate::{VlaError, masks};
use hlrp_nn::smolvlm::SmolVlm;
use hlrp_nn::{Linear, Pass};
use hlrp_schema::policy::{ExpertSpec, ImageSpecialTokens, ModelSpec};
use tch::{Device, Kind, Tensor};

/// Pixel value of an absent camera.
const EMPTY_PIXEL: f64 = -1.0;

/// The prefix of a batch.
pub(crate) struct Prefix {
    /// `[B,·,D]` tokens of images and instruction: they see each other and nothing after them.
    seen_BND: Tensor,
    /// `[B,·,D]` tokens after them: the state and padding.
    state_BND: Tensor,
    /// `bool [B,P]`.
    pub(crate) is_valid_BP: Tensor,
    /// `int64 [B,P]`: 1 opens a new block.
    pub(crate) opens_block_BP: Tensor,
}

impl Prefix {
    /// `[B,P,D]`.
    pub(crate) fn tokens(&self) -> Tensor {
        Tensor::cat(&[&self.seen_BND, &self.state_BND], 1)
    }

    /// The tokens in parts that can run one after another through the backbone, each over the keys and values of those before.
    ///
    /// Under a frozen backbone images and instruction are constants and only the state carries a gradient, so it runs on its own: nothing of
    /// the rest is kept for a backward pass. Otherwise there is one part.
    pub(crate) fn parts(&self) -> Vec<Tensor> {
        if self.state_BND.requires_grad() && !self.seen_BND.requires_grad() {
            vec![self.seen_BND.shallow_clone(), self.state_BND.shallow_clone()]
        } else {
            vec![self.tokens()]
        }
    }

    /// `bool [B,P,P]`: who sees whom.
    pub(crate) fn mask(&self) -> Tensor {
        masks::block_mask(&self.is_valid_BP, &self.opens_block_BP)
    }
}

/// Embeds observations.
pub(crate) struct PrefixEmbedder<'a> {
    pub(crate) spec: &'a ModelSpec,
    pub(crate) own: &'a ExpertSpec,
    pub(crate) vlm: &'a SmolVlm,
    pub(crate) state_proj: &'a Linear,
}

/// Tokens of one part of the prefix.
struct Part {
    tokens_BND: Tensor,
    is_valid_BN: Tensor,
}

impl PrefixEmbedder<'_> {
    /// The prefix of `observation`.
    ///
    /// # Errors
    /// States that do not fit the description, or a prefix that is too long. The cameras are checked already.
    pub(crate) fn embed(&self, observation: &Observation, pass: &Pass<'_>) -> Result<Prefix, VlaError> {
        let ids_BL = &observation.language.ids_BL;
        let (num_samples, device) = (ids_BL.size()[0], ids_BL.device());
        let scale = (self.spec.backbone.sizes()?.text.hidden_size as f64).sqrt();

        let mut parts = Vec::new();
        for (index, images) in self.complete(observation, num_samples, device).into_iter().enumerate() {
            pass.record(|| format!("image{index}"), &images.pixels_BCHW);
            pass.record(|| format!("image{index}.mask"), &images.is_real_B);
            let tokens_BND = self.vlm.embed_images(&images.pixels_BCHW, &Pass { trace: None, ..*pass }) * scale;
            let is_valid_BN = images.is_real_B.unsqueeze(1).expand([num_samples, tokens_BND.size()[1]], false);
            self.push_image(&mut parts, Part { tokens_BND, is_valid_BN }, num_samples, device);
        }
        parts.push(Part {
            tokens_BND: self.vlm.embed_tokens(ids_BL) * scale,
            is_valid_BN: observation.language.is_valid_BL.shallow_clone(),
        });
        let seen: Vec<Tensor> = parts.iter().map(|part| part.tokens_BND.to_kind(parts[0].tokens_BND.kind())).collect();
        let seen_BND = Tensor::cat(&seen, 1);
        let state_BN = self.padded_state(observation, num_samples, device)?;
        pass.record(|| "state".into(), &state_BN);
        let state_BND = self.state_proj.forward(&state_BN).unsqueeze(1).to_kind(seen_BND.kind());
        parts.push(Part { tokens_BND: state_BND.shallow_clone(), is_valid_BN: all_valid(num_samples, 1, device) });

        let is_valid: Vec<&Tensor> = parts.iter().map(|part| &part.is_valid_BN).collect();
        let is_valid_BP = Tensor::cat(&is_valid, 1);
        let opens_block_BP = is_valid_BP.zeros_like().to_kind(Kind::Int64);
        let _ = opens_block_BP.narrow(1, seen_BND.size()[1], 1).fill_(1);
        let prefix = self.pad(Prefix { seen_BND, state_BND, is_valid_BP, opens_block_BP })?;
        pass.record(|| "prefix_embeddings".into(), &prefix.tokens());
        pass.record(|| "prefix_pad_mask".into(), &prefix.is_valid_BP);
        pass.record(|| "prefix_block_flags".into(), &prefix.opens_block_BP);
        Ok(prefix)
    }

    /// Adds an image, between its special tokens if there are any; those are valid even around an absent image.
    fn push_image(&self, parts: &mut Vec<Part>, image: Part, num_samples: i64, device: Device) {
        let Some(ImageSpecialTokens { fake_id, global_id }) = self.own.image_special_tokens else {
            parts.push(image);
            return;
        };
        // Made on the device: a copy from the host would wait for it.
        let tokens_B1 = |id: i64| Tensor::full([num_samples, 1], id, (Kind::Int64, device));
        let special = |ids: &[i64]| Part {
            tokens_BND: self.vlm.embed_tokens(&Tensor::cat(&ids.iter().copied().map(tokens_B1).collect::<Vec<_>>(), 1)),
            is_valid_BN: all_valid(num_samples, ids.len() as i64, device),
        };
        parts.extend([special(&[fake_id, global_id]), image, special(&[fake_id])]);
    }

    /// The images of the cameras that are present, then a dark image for each of the others.
    fn complete(&self, observation: &Observation, num_samples: i64, device: Device) -> Vec<CameraImages> {
        let [height, width] = self.spec.image_size();
        let present = observation.cameras.iter().flatten().map(CameraImages::shallow_clone);
        let absent = observation.cameras.iter().filter(|images| images.is_none()).map(|_| CameraImages {
            pixels_BCHW: Tensor::full([num_samples, 3, height, width], EMPTY_PIXEL, (Kind::Float, device)),
            is_real_B: Tensor::zeros([num_samples], (Kind::Bool, device)),
        });
        present.chain(absent).collect()
    }

    fn padded_state(&self, observation: &Observation, num_samples: i64, device: Device) -> Result<Tensor, VlaError> {
        let max_dim = self.own.max_state_dim;
        let Some(state_BN) = &observation.state_BN else {
            return Ok(Tensor::zeros([num_samples, max_dim], (Kind::Float, device)));
        };
        let size = state_BN.size();
        if size.len() != 2 || size[0] != num_samples || size[1] > max_dim {
            let problem = format!("shape {size:?} where [{num_samples}, at most {max_dim}] is needed");
            return Err(VlaError::input("state", problem, "raise policy.model.arch.expert.max_state_dim"));
        }
        Ok(pad_last(state_BN, max_dim))
    }

    fn pad(&self, prefix: Prefix) -> Result<Prefix, VlaError> {
        let Some(target) = self.own.prefix_length else { return Ok(prefix) };
        let length = prefix.is_valid_BP.size()[1];
        if length > target {
            let problem = format!("{length} tokens of images, instruction and state exceed the fixed length {target}");
            return Err(VlaError::input("prefix", problem, "raise prefix_length or set it to null"));
        }
        Ok(Prefix {
            state_BND: prefix.state_BND.constant_pad_nd([0, 0, 0, target - length]),
            is_valid_BP: pad_last(&prefix.is_valid_BP, target),
            opens_block_BP: pad_last(&prefix.opens_block_BP, target),
            ..prefix
        })
    }
}

/// Pads the last dimension with zeros to `length` entries.
pub(crate) fn pad_last(x: &Tensor, length: i64) -> Tensor {
    let present = x.size().last().copied().unwrap_or(0);
    x.constant_pad_nd([0, length - present])
}

fn all_valid(num_samples: i64, num_tokens: i64, device: Device) -> Tensor {
    Tensor::ones([num_samples, num_tokens], (Kind::Bool, device))
}
