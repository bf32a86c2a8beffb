//! On which side of their ReLU the hidden units of the grid encoder are.
//!
//! The latent is the difference of what the grid encoder makes of two frames that are nearly the same, so most of the gradient of the
//! encoder cancels between them, and a unit that rounding moves to the other side of zero in one frame changes much of what remains: in
//! `laq_dino_s2`, weights that are rounded to bf16 and then used in float32 change the gradients of the encoder by 0.9 of their
//! largest value, through one unit whose distance from zero is a thousandth of the units' standard deviation. Under bf16, biases are
//! therefore moved so that units are on their recorded sides before gradients are compared.
//!
//! Shape suffixes: F frames, C channels, P positions.

use crate::case::{Case, Tensors};
use anyhow::{Context, ensure};
use hlrp_laq::LaqModel;
use tch::{Kind, Tensor, no_grad};

/// How far past zero a unit is moved, relative to the standard deviation of the units.
const CLEARANCE: f64 = 1e-4;
/// Largest rounding of a unit, relative to their standard deviation: that of results under bf16.
const LARGEST_ROUNDING: f64 = 5e-2;

/// Moves each bias of the hidden layer by at most what rounding moved its units, to where the fewest units are on another side of zero
/// than the recorded ones: on none, but where rounding exchanged units of a channel. `records` are those of a training pass of `model`.
pub(crate) fn restore(case: &Case, model: &LaqModel, records: &Tensors) -> anyhow::Result<()> {
    let parameters: Tensors = model.store().parameters().into_iter().collect();
    ensure!(!parameters.contains_key("vq.cnn_encoder.4.weight"), "the grid encoder has two hidden layers");
    let parameter = |name: &str| parameters.get(name).with_context(|| format!("the model has no `{name}`"));
    let (weight, bias_C) = (parameter("vq.cnn_encoder.0.weight")?, parameter("vq.cnn_encoder.0.bias")?);
    let units = |of: &Tensors| hidden_units(of, weight, bias_C);
    let (ours_CP, recorded_CP) = (units(records)?, units(&case.outputs)?);
    let std = recorded_CP.std(true).double_value(&[]);
    for channel in 0..bias_C.size()[0] {
        let units = |of: &Tensor| Vec::<f64>::try_from(of.select(0, channel));
        let (ours, recorded) = (units(&ours_CP)?, units(&recorded_CP)?);
        let rounding = ours.iter().zip(&recorded).map(|(ours, recorded)| (ours - recorded).abs()).fold(0.0, f64::max);
        ensure!(
            rounding < LARGEST_ROUNDING * std,
            "hidden units of the grid encoder differ by {rounding:.2e} in channel {channel}, where their standard deviation is {std:.2e}"
        );
        let addition = best_addition(&ours, &recorded, rounding, CLEARANCE * std);
        let _ = no_grad(|| bias_C.select(0, channel).g_add_scalar_(addition));
    }
    Ok(())
}

/// The smallest addition up to `largest` that leaves the fewest of `ours` on another side of zero than `recorded`; it moves a unit
/// `clearance` past zero.
fn best_addition(ours: &[f64], recorded: &[f64], largest: f64, clearance: f64) -> f64 {
    let num_wrong = |addition: f64| {
        ours.iter().zip(recorded).filter(|(ours, recorded)| (*ours + addition > 0.0) != (**recorded > 0.0)).count()
    };
    let crossings = ours.iter().zip(recorded).map(|(ours, recorded)| clearance.copysign(*recorded) - ours);
    let additions = crossings.filter(|addition| addition.abs() <= largest + clearance);
    std::iter::once(0.0)
        .chain(additions)
        .min_by(|a, b| num_wrong(*a).cmp(&num_wrong(*b)).then(a.abs().total_cmp(&b.abs())))
        .unwrap_or(0.0)
}

/// The units of the hidden layer before its ReLU, of both frames, `float64 [C,P]` (autocast leaves float64 alone).
fn hidden_units(tensors: &Tensors, weight: &Tensor, bias_C: &Tensor) -> anyhow::Result<Tensor> {
    let frame = |index: usize| {
        let name = format!("vq.project_in.frame{index}");
        tensors.get(&name).with_context(|| format!("no `{name}`"))
    };
    let wide = |x: &Tensor| x.detach().to_kind(Kind::Double);
    let grid_FPC = Tensor::cat(&[frame(0)?, frame(1)?], 0);
    let side = (grid_FPC.size()[1] as f64).sqrt() as i64;
    let grid_FCHW = wide(&grid_FPC).transpose(1, 2).unflatten(2, [side, side]);
    let units = grid_FCHW.conv2d(&wide(weight), Some(wide(bias_C)), [2, 2], [1, 1], [1, 1], 1);
    Ok(units.transpose(0, 1).flatten(1, -1))
}

#[cfg(test)]
mod tests {
    use super::best_addition;

    #[test]
    fn units_return_to_their_recorded_sides() {
        assert!(best_addition(&[-1.0, 2.0], &[-1.1, 2.2], 0.2, 0.01).abs() < 1e-12, "none is on another side");
        let addition = best_addition(&[-1.0, -0.1, 2.0], &[-1.1, 0.1, 2.0], 0.2, 0.01);
        assert!((addition - 0.11).abs() < 1e-12, "{addition}");
        let exchanged = best_addition(&[-0.1, 0.1, 0.15], &[0.1, -0.1, -0.1], 0.3, 0.01);
        assert!((exchanged + 0.16).abs() < 1e-12, "one of three cannot return: {exchanged}");
    }
}
