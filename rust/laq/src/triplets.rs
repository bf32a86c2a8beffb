//! Changes that add up, over the frames t, t+k and t+2k of a training sample: with c(a,b) the change from frame a to frame b before it is
//! normalised, c(t,t+2k) = c(t,t+k) + c(t+k,t+2k) (additivity) and c(t+k,t) = -c(t,t+k) (reversal), as ALAM trains its latent actions.
//!
//! Errors are squared, in units of the variance of c(t,t+k) over the batch, by slot and dimension. So they do not fall when all changes
//! shrink, and changes that are the same for all pairs do not meet them. A normalisation's mean is no part of them: where nothing moves,
//! c = 0 meets both.
//!
//! Shape suffixes: B samples, T frames, C channels, H×W pixels, S code slots, Q width of a code vector.

use crate::decoders::Term;
use crate::model::LaqModel;
use crate::quantizers::in_float32;
use hlrp_nn::Pass;
use tch::{Kind, Tensor};

/// Keeps the unit of a dimension that does not vary above 0.
const MIN_VARIANCE: f64 = 1e-10;

/// The losses that `model` has over float samples `[B,T,C,H,W]` in [0, 1], whose first two frames have the change `change_BSQ`.
pub(crate) fn losses(model: &LaqModel, samples_BTCHW: &Tensor, change_BSQ: &Tensor, pass: &Pass<'_>) -> Vec<Term> {
    let weights = &model.config().triplets;
    if !weights.is_on() {
        return Vec::new();
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
        let over_batch = [0].as_slice();
        let centred_BSQ = change_BSQ - change_BSQ.mean_dim(over_batch, true, Kind::Float);
        let variance_1SQ = centred_BSQ.square().mean_dim(over_batch, true, Kind::Float) + MIN_VARIANCE;
        let in_units = |error_BSQ: Tensor| (error_BSQ.square() / &variance_1SQ).mean(Kind::Float);
        let mut losses = Vec::new();
        if let [second_BSQ, whole_BSQ, ..] = changes.as_slice() {
            let value = in_units(whole_BSQ - change_BSQ - second_BSQ);
            losses.push(Term { metric: "additivity_loss", value, weight: weights.additivity_weight });
        }
        if let Some(back_BSQ) = changes.last().filter(|_| weights.reversal_weight > 0.0) {
            let value = in_units(change_BSQ + back_BSQ);
            losses.push(Term { metric: "reversal_loss", value, weight: weights.reversal_weight });
        }
        losses
    })
}
