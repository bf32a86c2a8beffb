//! Losses of the decoders and their weights.

use crate::{Encoded, LaqModel, Predictions};
use hlrp_schema::DecoderConfig;
use tch::{Kind, Reduction, Tensor};

/// Mean squared errors per decoder, unweighted, float32; none where a decoder does not exist.
pub struct DecoderLosses {
    /// Of the later frame's encoder tokens.
    pub token: Option<Tensor>,
    /// Of the later frame's pixels.
    pub pixel: Option<Tensor>,
    /// Of the later frame's pixels, aux decoder.
    pub aux: Option<Tensor>,
}

impl DecoderLosses {
    /// Compares predictions with frame t+k. The token target is detached.
    pub fn new(frames_BTCHW: &Tensor, encoded: &Encoded, predictions: &Predictions) -> Self {
        let later_BCHW = frames_BTCHW.select(1, 1);
        let error = |prediction: &Tensor, target: &Tensor| {
            prediction.to_kind(Kind::Float).mse_loss(&target.to_kind(Kind::Float), Reduction::Mean)
        };
        Self {
            token: predictions
                .tokens_B1HWD
                .as_ref()
                .map(|tokens| error(tokens, &encoded.tokens_BTHWD.narrow(1, 1, 1).detach())),
            pixel: predictions.pixels_BCHW.as_ref().map(|pixels| error(pixels, &later_BCHW)),
            aux: predictions.aux_BCHW.as_ref().map(|pixels| error(pixels, &later_BCHW)),
        }
    }

    /// Losses by metric name. `dino_loss` is the name that the field's logs have for the token loss.
    pub fn by_name(&self) -> Vec<(&'static str, Tensor)> {
        [("dino_loss", &self.token), ("pixel_loss", &self.pixel), ("aux_loss", &self.aux)]
            .into_iter()
            .filter_map(|(name, loss)| loss.as_ref().map(|loss| (name, loss.shallow_clone())))
            .collect()
    }

    /// Weighted sum: with warm-ups at optimizer step `step`, or at full weight.
    pub fn total(&self, model: &LaqModel, step: Option<u64>) -> Tensor {
        let config = model.config();
        let terms = [
            (&self.token, &config.token_decoder),
            (&self.pixel, &config.pixel_decoder),
            (&self.aux, &config.aux_decoder),
        ];
        let weighted =
            terms.into_iter().filter_map(|(loss, decoder)| loss.as_ref().map(|loss| loss * weight_at(decoder, step)));
        weighted.reduce(|sum, term| sum + term).expect("a model has at least one decoder")
    }
}

/// Weight of a decoder's loss: rises linearly to its full value at `warmup_steps`; `None` stands for the full value.
pub fn weight_at(decoder: &DecoderConfig, step: Option<u64>) -> f64 {
    match step {
        Some(step) if step < decoder.warmup_steps => decoder.loss_weight * step as f64 / decoder.warmup_steps as f64,
        _ => decoder.loss_weight,
    }
}
