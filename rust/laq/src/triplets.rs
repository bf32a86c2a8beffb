//! Changes that add up, over the frames t, t+k and t+2k of a training sample: with c(a,b) the change from frame a to frame b before it is
//! normalised, c(t,t+2k) = c(t,t+k) + c(t+k,t+2k) (additivity) and c(t+k,t) = -c(t,t+k) (reversal), as ALAM trains its latent actions.
//!
//! Errors are squared, in units of the variance of c(t,t+k) over the batch of all processes, by slot and dimension. So they do not fall when all changes
//! shrink, and changes that are the same for all pairs do not meet them. A normalisation's mean is no part of them: where nothing moves,
//! c = 0 meets both.
//!
//! Shape suffixes: B samples, T frames, C channels, H×W pixels, S code slots, Q width of a code vector.

use crate::decoders::Term;
use crate::model::LaqModel;
use crate::quantizers::in_float32;
use hlrp_nn::Pass;
use hlrp_torch::{TorchError, World};
use tch::{Kind, Tensor};

/// Keeps the unit of a dimension that does not vary above 0.
const MIN_VARIANCE: f64 = 1e-10;

/// The losses that `model` has over float samples `[B,T,C,H,W]` in [0, 1], whose first two frames have the change `change_BSQ`.
///
/// # Errors
/// Another process of `world` is gone.
pub(crate) fn losses(
    model: &LaqModel,
    samples_BTCHW: &Tensor,
    change_BSQ: &Tensor,
    world: &World,
    pass: &Pass<'_>,
) -> Result<Vec<Term>, TorchError> {
    let weights = &model.config().triplets;
    if !weights.is_on() {
        return Ok(Vec::new());
    }
    let mut pairs: Vec<[i64; 2]> = Vec::new();
    if weights.additivity_weight > 0.0 {
        pairs.extend([[1, 2], [0, 2]]);
    }
    if weights.reversal_weight > 0.0 {
        pairs.push([1, 0]);
    }
    // One pass of the encoder for all further pairs.
    let frames =
        |[from, to]: &[i64; 2]| Tensor::cat(&[samples_BTCHW.narrow(1, *from, 1), samples_BTCHW.narrow(1, *to, 1)], 1);
    let frames_BTCHW = Tensor::cat(&pairs.iter().map(frames).collect::<Vec<_>>(), 0);
    let encoded = model.encode(&frames_BTCHW, &Pass::plain(pass.train));
    let changes = encoded.change_BSQ.chunk(pairs.len() as i64, 0);
    in_float32(change_BSQ.device(), || {
        let unit = Unit::new(change_BSQ, world)?;
        let mut losses = Vec::new();
        if let [second_BSQ, whole_BSQ, ..] = changes.as_slice() {
            let value = unit.mean_square(&(whole_BSQ - change_BSQ - second_BSQ))?;
            losses.push(Term { metric: "additivity_loss", value, weight: weights.additivity_weight });
        }
        if let Some(back_BSQ) = changes.last().filter(|_| weights.reversal_weight > 0.0) {
            let value = unit.mean_square(&(change_BSQ + back_BSQ))?;
            losses.push(Term { metric: "reversal_loss", value, weight: weights.reversal_weight });
        }
        Ok(losses)
    })
}

/// Mean over the batch of this process, `[1,S,Q]`.
fn mean_1SQ(x_BSQ: &Tensor) -> Tensor {
    x_BSQ.mean_dim([0].as_slice(), true, Kind::Float)
}

/// The unit of squared errors: the variance of changes over the batch of all processes. Changes have a gradient through it.
///
/// With several processes a loss is a mean of quotients m/v of which each process r has its part m_r and v_r, with m and v their means. The
/// gradient of the mean over processes is that of m_r/v − m/v²·v_r.
struct Unit<'a> {
    world: &'a World,
    /// The part of this process: mean squared distance from the mean of all.
    own_1SQ: Tensor,
    /// The value of all processes with the gradient of the own part.
    variance_1SQ: Tensor,
}

impl<'a> Unit<'a> {
    fn new(change_BSQ: &Tensor, world: &'a World) -> Result<Self, TorchError> {
        let own_mean_1SQ = mean_1SQ(change_BSQ);
        // The mean of all has no gradient: distances from it add up to 0 over all processes, though not over one.
        let center_1SQ = if world.size() == 1 { own_mean_1SQ } else { world.mean(&own_mean_1SQ)? };
        let own_1SQ = mean_1SQ(&(change_BSQ - center_1SQ).square());
        let of_all_1SQ = &own_1SQ + (world.mean(&own_1SQ)? - own_1SQ.detach());
        Ok(Self { world, own_1SQ, variance_1SQ: of_all_1SQ + MIN_VARIANCE })
    }

    /// Mean of squared errors in this unit.
    fn mean_square(&self, error_BSQ: &Tensor) -> Result<Tensor, TorchError> {
        let square_BSQ = error_BSQ.square();
        let mean = (&square_BSQ / &self.variance_1SQ).mean(Kind::Float);
        if self.world.size() == 1 {
            return Ok(mean);
        }
        // Adds 0, with the gradient through the variance that the errors of the other processes have.
        let own_square_1SQ = mean_1SQ(&square_BSQ).detach();
        let of_others_1SQ = self.world.mean(&own_square_1SQ)? - own_square_1SQ;
        let zero_1SQ = &self.own_1SQ - self.own_1SQ.detach();
        Ok(mean - (of_others_1SQ / self.variance_1SQ.detach().square() * zero_1SQ).mean(Kind::Float))
    }
}
