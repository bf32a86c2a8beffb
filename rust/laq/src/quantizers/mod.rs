//! Quantizers: from the latent change between two frames to what the decoders see, one per folder or file.
//!
//! To add one: a file here, a line in [`method`], its section in `hlrp_schema`'s `laq/quantizer.rs` and its defaults in
//! `config/model/quantizer/`. The [`Bottleneck`] before and after it and the [`QuantizerStage`] around it are the same for
//! all. All of it runs in float32, whatever the precision of the rest.
//!
//! Shape suffixes: B samples, S code slots, K codes, Q width of a code vector.

mod bottleneck;
mod codebook;
mod continuous;
mod ema_vq;
mod fsq;
mod normalize;
mod nsvq;
mod signal_to_noise;
mod stage;
mod usage;

pub use bottleneck::Bottleneck;
pub use codebook::CODEBOOK;
pub(crate) use codebook::{kmeans, nearest_rows};
pub use ema_vq::EmaVq;
pub use fsq::Fsq;
pub use nsvq::{Nsvq, Refresh, RefreshSchedule};
pub(crate) use signal_to_noise::SignalToNoise;
pub use stage::QuantizerStage;
pub(crate) use usage::count_codes_by_slot;
pub use usage::{CodeUsage, perplexity};

use crate::dims::Dims;
use crate::draws::Draws;
use hlrp_nn::{Pass, Scope};
use hlrp_schema::{QuantizerConfig, QuantizerMethod};
use hlrp_torch::{Autocast, TorchError, World};
use hlrp_track::metrics::{Curve, MetricSpec};
use hlrp_train::RowReset;
use tch::{Device, Tensor};

/// What a training pass has besides the change.
pub struct TrainContext<'a> {
    /// The optimizer step that this gradient will make, 1-based. 0 = none: nothing that follows a schedule happens.
    pub step: u64,
    /// The processes that train together: the use of codes is counted over all of them.
    pub world: &'a World,
    /// Source of noise.
    pub draws: &'a mut dyn Draws,
    /// The forward pass.
    pub pass: &'a Pass<'a>,
}

/// Latent actions of a batch.
pub struct Latent {
    /// `[B,S,Q]` vectors that the decoders see, float32.
    pub vectors_BSQ: Tensor,
    /// `int64 [B,S]` codes; none where the latent is continuous.
    pub ids_BS: Option<Tensor>,
}

/// Result of a training pass.
pub struct TrainPass {
    /// What the decoders see, with gradient.
    pub latent: Latent,
    /// A loss of the quantizer's own, weighted.
    pub loss: Option<Tensor>,
    /// Scalars on the device, by name.
    pub metrics: Vec<(&'static str, Tensor)>,
    /// Rows of parameters that the pass rewrote; names are relative to the quantizer's scope.
    pub row_resets: Vec<RowReset>,
}

/// Mean and std of code vectors, each `[Q]`: where and how far apart the codes are.
pub struct Scale {
    /// Mean.
    pub mean_Q: Tensor,
    /// Standard deviation, above 0.
    pub std_Q: Tensor,
}

impl Scale {
    /// Vectors `[…,Q]` with mean 0 and std 1 over the codes.
    pub fn standardise(&self, vectors: &Tensor) -> Tensor {
        (vectors - &self.mean_Q) / &self.std_Q
    }
}

/// From a latent change to what the decoders see.
pub trait Quantizer: Send {
    /// One training pass over changes `[B,S,Q]`. Counts the use of codes. What it changes in its parameters it changes
    /// after everything that depends on them was computed. Only a pass that does something on a schedule waits for the
    /// device.
    ///
    /// # Errors
    /// Another process is gone.
    fn train_pass(&mut self, change_BSQ: &Tensor, context: &mut TrainContext<'_>) -> Result<TrainPass, TorchError>;

    /// Whether the pass of optimizer step `step` does something on a schedule.
    fn is_scheduled(&self, _step: u64) -> bool {
        false
    }

    /// Those of the training's metrics that are drawn: the codes in use.
    fn metrics(&self) -> Vec<MetricSpec> {
        if self.codes().is_none() {
            return Vec::new();
        }
        ["train/num_unique_codes", "train/codebook_window_perplexity"]
            .map(|name| MetricSpec::detail(name).higher_is_better().drawn_in(&codes_curve()))
            .into()
    }

    /// Latent actions in evaluation: no noise, no change of state.
    fn quantize(&self, change_BSQ: &Tensor) -> Latent;

    /// Sets the codes by changes `[N,Q]`, alike in all processes; only a quantizer with a codebook does. Returns the rows
    /// that it rewrote.
    ///
    /// # Errors
    /// Another process is gone.
    fn start_codes(
        &mut self,
        _change_NQ: &Tensor,
        _context: &mut TrainContext<'_>,
    ) -> Result<Vec<RowReset>, TorchError> {
        Ok(Vec::new())
    }

    /// Where and how far apart the vectors are, over the codes (or over what training saw).
    fn scale(&self) -> Scale;

    /// The codes; none where the latent is continuous.
    fn codes(&self) -> Option<&dyn Codes>;
}

/// The codes of a discrete quantizer.
pub trait Codes {
    /// K.
    fn num_codes(&self) -> i64;

    /// Vectors `[B,S,Q]` of codes `int64 [B,S]`.
    fn vectors(&self, ids_BS: &Tensor) -> Tensor;

    /// The codes `int64 [B,S]` whose standardised vectors are nearest to `standardised_BSQ`, by the scale of
    /// [`Quantizer::scale`].
    fn nearest(&self, standardised_BSQ: &Tensor, scale: &Scale) -> Tensor;

    /// How often training used each.
    fn usage(&self) -> &CodeUsage;

    /// What to do when training uses few of them, as the end of a sentence that begins with a verb.
    fn remedy(&self) -> &'static str;
}

/// The plot of the codes in use.
pub(crate) fn codes_curve() -> Curve {
    Curve::new("codes.png", "Codes in use", "codes")
}

/// The quantizer of a checked configuration, with fresh weights in `scope`.
fn method(scope: &Scope<'_>, dims: &Dims, config: &QuantizerConfig) -> Box<dyn Quantizer> {
    match config.method().expect("a checked configuration has one quantizer") {
        QuantizerMethod::Nsvq(nsvq) => Box::new(Nsvq::new(scope, dims, config.usage_decay, nsvq)),
        QuantizerMethod::EmaVq(ema_vq) => Box::new(EmaVq::new(scope, dims, config.usage_decay, ema_vq)),
        QuantizerMethod::Fsq(fsq) => Box::new(Fsq::new(scope, dims, config.usage_decay, fsq)),
        QuantizerMethod::Continuous => Box::new(continuous::Continuous::new(scope, dims, config.normalization_decay)),
    }
}

/// Computes without autocast.
pub(crate) fn in_float32<T>(device: Device, compute: impl FnOnce() -> T) -> T {
    let _guard = Autocast::disable(device).expect("autocast can be turned off on a device that holds tensors");
    compute()
}
