//! Predicts the optical flow from frame t to frame t+k, as a frozen teacher sees it.
//!
//! Shape suffixes: B samples, C channels, H×W pixels.

use super::network::Network;
use super::running_square::RunningSquare;
use super::{Decoder, DecoderInput, PixelWeights, Registration, Target, Term};
use crate::error::LaqError;
use crate::flow_teachers::{self, FlowTeacher};
use crate::patches::unpatchify;
use crate::views::{flow_of_views, split_views};
use hlrp_nn::{Linear, Pass};
use hlrp_schema::{FlowDecoderConfig, FlowLoss, FlowUnit};
use hlrp_torch::{TorchError, World};
use hlrp_track::metrics::MetricSpec;
use std::f64::consts::PI;
use tch::{Device, Kind, Reduction, Tensor, no_grad};

/// Where its network and its last layer are, and where its unit is.
const SCOPES: [&str; 2] = ["flow_decoder", "flow_unit"];
/// Where the configuration describes it.
const SECTION: &str = "model.decoders.flow";
/// Metrics of the mean flow: its loss, and its mean absolute errors in pixels.
const SUMMARY_METRICS: [&str; 3] = ["flow_summary_loss", "flow_mean_dx_abs_err", "flow_mean_dy_abs_err"];
/// dx and dy.
const NUM_COMPONENTS: i64 = 2;
/// Where the robust loss turns from squared to linear, in units of the loss.
const CHARBONNIER_EPS: f64 = 1e-2;
/// Length of a flow below which it counts as still in a mean. It keeps the mean and its gradient finite where nothing
/// moves.
const STILL: f64 = 1e-6;
/// Smallest unit in pixels, for data without any motion.
const MIN_UNIT: f64 = 1e-3;

pub(super) const REGISTRATION: Registration = Registration {
    scopes: &SCOPES,
    config: |decoders| Some(decoders.flow.as_ref()?.shared()),
    build: |context, shared| {
        let [name, unit] = SCOPES;
        let (scope, dims) = (context.root.child(name), context.dims);
        let config = context.config.decoders.flow.as_ref().expect("an enabled decoder has a section");
        Box::new(FlowDecoder {
            network: Network::new(&scope.child("transformer"), name, context.config, dims, shared.depth),
            to_flow: Linear::new(
                &scope.child("to_flow").child(0),
                dims.dim,
                NUM_COMPONENTS * dims.patch_size * dims.patch_size,
                true,
            ),
            patch_size: dims.patch_size,
            image_size: dims.image_size,
            num_views: dims.num_views,
            mean_square: (config.unit == FlowUnit::Rms)
                .then(|| RunningSquare::new(&context.root.child(unit), MIN_UNIT)),
            config: config.clone(),
            teacher: None,
        })
    },
};

struct FlowDecoder {
    network: Network,
    to_flow: Linear,
    patch_size: i64,
    image_size: i64,
    num_views: i64,
    /// Of the teacher's flows in pixels, where their root mean square is the unit.
    mean_square: Option<RunningSquare>,
    config: FlowDecoderConfig,
    /// None until it is loaded: predictions need none.
    teacher: Option<Box<dyn FlowTeacher>>,
}

impl FlowDecoder {
    /// The teacher's flow in pixels.
    fn truth<'a>(&self, target: &'a Target) -> Option<&'a Tensor> {
        if let Some(known_B2HW) = target.flow_B2HW.get() {
            return Some(known_B2HW);
        }
        let flow_B2HW = self.teacher_flow(&target.frames_BTCHW)?;
        Some(target.flow_B2HW.get_or_init(|| flow_B2HW))
    }

    /// Pixels of one unit of a prediction.
    fn pixels(&self, flow: Tensor) -> Tensor {
        match &self.mean_square {
            Some(mean_square) => flow * mean_square.root(),
            None => flow,
        }
    }

    /// A prediction and the teacher's flow in units of the loss, `[B,2,H,W]`.
    fn in_units(&self, prediction: &Tensor, truth_B2HW: &Tensor) -> [Tensor; 2] {
        match &self.mean_square {
            Some(mean_square) => [prediction.shallow_clone(), truth_B2HW / mean_square.root()],
            None => [prediction, truth_B2HW].map(|flow| flow / self.image_size as f64),
        }
    }
}

impl Decoder for FlowDecoder {
    fn name(&self) -> &'static str {
        "flow"
    }

    fn metric(&self) -> &'static str {
        "flow_loss"
    }

    /// `[B,2,H,W]` float32: in pixels, or in units of the root mean square.
    fn predict(&self, input: &DecoderInput<'_>, pass: &Pass<'_>) -> Tensor {
        pass.record(|| "context".into(), input.pixel_canvas_B1HWD);
        let tokens_B1HWD = self.network.forward(input.pixel_canvas_B1HWD, input, pass);
        let patches_BHWP = self.to_flow.forward(&tokens_B1HWD.squeeze_dim(1)).to_kind(Kind::Float);
        let flow_B2HW = unpatchify(&patches_BHWP, self.patch_size);
        pass.record(|| "flow_decoder.flow".into(), &flow_B2HW);
        flow_B2HW
    }

    fn observe(&self, target: &Target, world: &World) -> Result<(), TorchError> {
        match (&self.mean_square, self.truth(target)) {
            (Some(mean_square), Some(truth_B2HW)) => mean_square.update(truth_B2HW, world),
            _ => Ok(()),
        }
    }

    fn loss(
        &self,
        prediction: &Tensor,
        target: &Target,
        weights: Option<&PixelWeights<'_>>,
    ) -> Result<Option<Tensor>, TorchError> {
        let Some(truth_B2HW) = self.truth(target) else { return Ok(None) };
        let [prediction_B2HW, truth_B2HW] = self.in_units(prediction, truth_B2HW);
        let error_B2HW = prediction_B2HW - truth_B2HW;
        let cost = match self.config.loss {
            FlowLoss::Squared => error_B2HW.square(),
            FlowLoss::Charbonnier => {
                let square_B1HW = error_B2HW.square().sum_dim_intlist([1].as_slice(), true, Kind::Float);
                (square_B1HW + CHARBONNIER_EPS * CHARBONNIER_EPS).sqrt() - CHARBONNIER_EPS
            }
        };
        match weights {
            Some(weights) => weights.mean(&cost).map(Some),
            None => Ok(Some(cost.mean(Kind::Float))),
        }
    }

    /// The mean flow of each view, which no sum over single pixels asks for; its errors in pixels, too.
    fn terms(&self, prediction: &Tensor, target: &Target) -> Vec<Term> {
        let Some((weight, truth_B2HW)) = self.config.summary_loss_weight.zip(self.truth(target)) else {
            return Vec::new();
        };
        let [predicted_B2, true_B2] =
            self.in_units(prediction, truth_B2HW).map(|flow_B2HW| mean_flow(&split_views(&flow_B2HW, self.num_views)));
        let value = predicted_B2.mse_loss(&true_B2, Reduction::Mean);
        let error_B2 = no_grad(|| match &self.mean_square {
            Some(mean_square) => (&predicted_B2 - &true_B2).abs() * mean_square.root(),
            None => (&predicted_B2 - &true_B2).abs() * self.image_size as f64,
        });
        let errors = SUMMARY_METRICS[1..].iter().zip([0, 1]).map(|(metric, component)| Term {
            metric,
            value: error_B2.select(1, component).mean(Kind::Float),
            weight: 0.0,
        });
        std::iter::once(Term { metric: SUMMARY_METRICS[0], value, weight }).chain(errors).collect()
    }

    fn metrics(&self) -> Vec<MetricSpec> {
        let of_summary = SUMMARY_METRICS.iter().filter(|_| self.config.summary_loss_weight.is_some());
        let names = std::iter::once(self.metric()).chain(of_summary.copied());
        names.map(|name| MetricSpec::detail(format!("val/{name}")).lower_is_better()).collect()
    }

    fn load_teacher(&mut self, device: Device) -> Result<(), LaqError> {
        let FlowDecoderConfig { teacher, teacher_weights, teacher_num_updates, teacher_chunk_size, .. } = &self.config;
        let options = [*teacher_num_updates, *teacher_chunk_size];
        self.teacher = Some(flow_teachers::load(*teacher, teacher_weights.as_deref(), options, device, SECTION)?);
        Ok(())
    }

    fn teacher_flow(&self, frames_BTCHW: &Tensor) -> Option<Tensor> {
        Some(flow_of_views(&**self.teacher.as_ref()?, frames_BTCHW, self.num_views))
    }

    fn reads_patches(&self) -> bool {
        true
    }

    fn no_change(&self, target: &Target) -> Tensor {
        target.earlier_frame().narrow(1, 0, NUM_COMPONENTS).zeros_like()
    }

    fn image(&self, prediction: &Tensor, _frame_BCHW: &Tensor) -> Option<(&'static str, Tensor)> {
        Some(("flow", flow_colors(&self.pixels(prediction.shallow_clone()))))
    }
}

/// Mean of flows `[B,2,H,W]` by their lengths, `[B,2]`: what moves counts, and where nothing does all pixels alike.
pub(crate) fn mean_flow(flow_B2HW: &Tensor) -> Tensor {
    let square_B1HW = flow_B2HW.square().sum_dim_intlist([1].as_slice(), true, flow_B2HW.kind());
    let length_B1HW = (square_B1HW + STILL * STILL).sqrt();
    let over_image = |x: &Tensor| x.sum_dim_intlist([2, 3].as_slice(), false, flow_B2HW.kind());
    over_image(&(flow_B2HW * &length_B1HW)) / over_image(&length_B1HW)
}

/// A flow `[B,2,H,W]` as colors `[B,3,H,W]` in [0, 1]: the direction is the hue, the magnitude against the largest of the
/// sample the saturation; white where nothing moves.
pub(crate) fn flow_colors(flow_B2HW: &Tensor) -> Tensor {
    const MIN_LENGTH: f64 = 1e-6;
    /// Places of red, green and blue on the circle of hues, in sixths.
    const CHANNELS: [f64; 3] = [0.0, 2.0, 4.0];
    let (dx, dy) = (flow_B2HW.select(1, 0), flow_B2HW.select(1, 1));
    let length = (dx.square() + dy.square()).sqrt();
    let saturation = &length / length.amax([1, 2], true).clamp_min(MIN_LENGTH);
    let hue = dy.atan2(&dx) * (3.0 / PI);
    let channel = |place: f64| {
        let distance = ((&hue - place + 9.0).remainder(6.0) - 3.0).abs();
        let pure: Tensor = (-distance + 2.0).clamp(0.0, 1.0);
        (pure - 1.0) * &saturation + 1.0
    };
    Tensor::stack(&CHANNELS.map(channel), 1)
}

#[cfg(test)]
mod tests {
    use super::{flow_colors, mean_flow};
    use tch::{Device, Kind, Tensor};

    #[test]
    fn a_mean_flow_weighs_by_length_and_has_a_gradient_where_nothing_moves() {
        let flow = Tensor::from_slice(&[3.0_f32, 0.0, 0.0, 4.0, 1.0, 0.0]).view([1, 2, 1, 3]);
        // Vectors (3, 4), (0, 1) and (0, 0) have the lengths 5, 1 and 0.
        let expected = Tensor::from_slice(&[15.0_f32 / 6.0, 21.0 / 6.0]).view([1, 2]);
        assert!(mean_flow(&flow).allclose(&expected, 1e-5, 1e-5, false));
        let still = Tensor::zeros([2, 2, 4, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let error = (mean_flow(&still) - 1.0).square().sum(Kind::Float);
        error.backward();
        let gradient = still.grad();
        assert_eq!(error.double_value(&[]), 4.0, "no motion");
        // As of a plain mean over 16 pixels.
        assert!(gradient.allclose(&gradient.full_like(-2.0 / 16.0), 1e-5, 1e-6, false), "{gradient:?}");
    }

    #[test]
    fn directions_are_hues_and_no_motion_is_white() {
        // Right, and left at half the speed, and none.
        let flow = Tensor::from_slice(&[2.0_f32, -1.0, 0.0, 0.0, 0.0, 0.0]).view([1, 2, 1, 3]);
        let expected = Tensor::from_slice(&[1.0_f32, 0.5, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]).view([1, 3, 1, 3]);
        let colors = flow_colors(&flow);
        assert!(colors.allclose(&expected, 1e-5, 1e-5, false), "{colors:?}");
    }
}
