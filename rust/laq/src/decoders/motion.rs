//! How much each pixel counts in a loss: what moves more than what does not.
//!
//! Shape suffixes: B samples, T = 2 frames, C channels, H×W pixels.

use hlrp_schema::DecoderConfig;
use hlrp_torch::{TorchError, World};
use tch::{Kind, Reduction, Tensor, no_grad};

/// Keeps the weights finite where no pixel of a batch changes.
const MIN_CHANGE: f64 = 1e-6;

/// Weights of the pixels of frame pairs. What is a mean over the batch is one over the batches of all processes, so that the gradients'
/// average is that of the global batch.
pub struct PixelWeights<'a> {
    weight_B1HW: Tensor,
    world: &'a World,
}

impl<'a> PixelWeights<'a> {
    /// Those of a decoder for frame pairs `[B,2,C,H,W]`: 1 + λ·|Δ|/mean|Δ|, with the mean over the batch, or 1 + λ where |Δ| is above a
    /// threshold. |Δ| is the mean over channels. None where all pixels count alike.
    ///
    /// # Errors
    /// Another process of `world` is gone.
    pub(super) fn new(
        config: &DecoderConfig,
        frames_BTCHW: &Tensor,
        world: &'a World,
    ) -> Result<Option<Self>, TorchError> {
        if config.motion_weight <= 0.0 {
            return Ok(None);
        }
        no_grad(|| {
            let change_BCHW = (frames_BTCHW.select(1, 1) - frames_BTCHW.select(1, 0)).to_kind(Kind::Float).abs();
            let change_B1HW = change_BCHW.mean_dim([1].as_slice(), true, Kind::Float);
            let motion_B1HW = match config.motion_threshold {
                Some(threshold) => change_B1HW.gt(threshold).to_kind(Kind::Float),
                None => &change_B1HW / world.mean(&change_B1HW.mean(Kind::Float))?.clamp_min(MIN_CHANGE),
            };
            Ok(Some(Self { weight_B1HW: motion_B1HW * config.motion_weight + 1.0, world }))
        })
    }

    /// Mean of errors `[B,C,H,W]` by the weights, which are averaged where the grid of the errors is coarser.
    ///
    /// # Errors
    /// Another process is gone.
    pub(super) fn mean(&self, error_BCHW: &Tensor) -> Result<Tensor, TorchError> {
        let size = error_BCHW.size();
        let weight_B1HW = self.weight_B1HW.adaptive_avg_pool2d([size[2], size[3]]);
        let mean_weight = self.world.mean(&weight_B1HW.mean(Kind::Float))?;
        Ok((error_BCHW * weight_B1HW).mean(Kind::Float) / mean_weight)
    }
}

/// Mean squared error in float32, over `[B,C,H,W]` of pixels or of a coarser grid; the weighted mean with weights of pixels.
///
/// # Errors
/// Another process is gone.
pub(super) fn squared_error(
    prediction: &Tensor,
    target: &Tensor,
    weights: Option<&PixelWeights<'_>>,
) -> Result<Tensor, TorchError> {
    let [prediction, target] = [prediction, target].map(|x| x.to_kind(Kind::Float));
    match weights {
        None => Ok(prediction.mse_loss(&target, Reduction::Mean)),
        Some(weights) => weights.mean(&(prediction - target).square()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use tch::Device;

    fn config(motion_weight: f64, motion_threshold: Option<f64>) -> DecoderConfig {
        DecoderConfig {
            enabled: true,
            depth: 1,
            loss_weight: 1.0,
            warmup_steps: 0,
            motion_weight,
            motion_threshold,
            from_latent_only: false,
            trains_codes: true,
        }
    }

    /// One pair of 2×2 pixels and one channel, of which one pixel changes by 0.8.
    fn frames() -> Tensor {
        let frames = Tensor::zeros([1, 2, 1, 2, 2], (Kind::Float, Device::Cpu));
        let _ = frames.get(0).get(1).get(0).get(0).get(1).fill_(0.8);
        frames
    }

    #[test]
    fn the_weight_grows_with_the_change() {
        let world = World::single();
        let weights = |config: &DecoderConfig| Some(PixelWeights::new(config, &frames(), &world).unwrap()?.weight_B1HW);
        assert!(weights(&config(0.0, None)).is_none());
        let weight = weights(&config(3.0, None)).unwrap();
        let expected = Tensor::from_slice(&[1.0_f32, 1.0 + 3.0 * 4.0, 1.0, 1.0]).view([1, 1, 2, 2]);
        assert!(weight.allclose(&expected, 1e-6, 1e-6, false), "{weight:?}");
        let masked = weights(&config(20.0, Some(0.5))).unwrap();
        let expected = Tensor::from_slice(&[1.0_f32, 21.0, 1.0, 1.0]).view([1, 1, 2, 2]);
        assert!(masked.allclose(&expected, 1e-6, 1e-6, false), "{masked:?}");
    }

    #[test]
    fn a_weighted_error_is_the_weighted_mean_on_any_grid() {
        let world = World::single();
        let weights = PixelWeights::new(&config(3.0, None), &frames(), &world).unwrap().unwrap();
        let (zero, target) = (Tensor::zeros([1, 1, 2, 2], (Kind::Float, Device::Cpu)), frames().select(1, 1));
        let fine = squared_error(&zero, &target, Some(&weights)).unwrap().double_value(&[]);
        assert!((fine - 13.0 * 0.64 / 16.0).abs() < 1e-6, "{fine}");
        let coarse = squared_error(
            &Tensor::from(2.0_f32).view([1, 1, 1, 1]),
            &Tensor::from(0.0_f32).view([1, 1, 1, 1]),
            Some(&weights),
        )
        .unwrap();
        assert!((coarse.double_value(&[]) - 4.0).abs() < 1e-6, "one place has all the weight");
    }
}
