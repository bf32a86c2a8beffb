//! NSVQ: noise-substitution vector quantization (Vali & Bäckström 2022) of what changed between two frames.
//!
//! In training the decoders see the latent plus noise of the length of its quantization error. The gradient reaches the encoder
//! directly, and encoder and selected code through that length; there is no codebook or commitment loss. Evaluation uses the code itself.
//! All of it runs in float32, whatever the precision of the rest.
//!
//! Shape suffixes: B samples, T = 2 frames, N tokens, D token width, S code slots, K codes, Q width of a code vector, R = B·S rows.

mod grid_encoder;
mod refresh;
mod usage;

pub use refresh::{Refresh, RefreshSchedule};
pub(crate) use refresh::{cutoff, is_unused};
pub(crate) use usage::count_codes;
pub use usage::{CodeUsage, perplexity};

use crate::{Dims, Draws};
use grid_encoder::GridEncoder;
use hlrp_nn::{Init, Linear, Pass, Scope};
use hlrp_torch::Autocast;
use tch::{Kind, Tensor, no_grad};

/// Smallest residual length that still carries noise.
const MIN_RESIDUAL: f64 = 1e-12;

/// Frame features to codes, and codes to action tokens.
pub struct Quantizer {
    codebook_KQ: Tensor,
    project_in: Linear,
    project_out: Linear,
    grid_encoder: GridEncoder,
    /// Use of the codes in training.
    pub usage: CodeUsage,
    dims: Dims,
}

impl Quantizer {
    /// Name of the codebook below the quantizer's own name.
    pub const CODEBOOK: &'static str = "codebooks";

    /// A quantizer with fresh weights; `usage_decay` is the share of the old average per step in the running code frequencies.
    pub fn new(scope: &Scope<'_>, dims: &Dims, usage_decay: f64) -> Self {
        Self {
            codebook_KQ: scope.parameter(Self::CODEBOOK, &[dims.codebook_size, dims.quant_dim], Init::Normal),
            project_in: Linear::new(&scope.child("project_in"), dims.dim, dims.quant_dim, true),
            project_out: Linear::new(&scope.child("project_out"), dims.quant_dim, dims.dim, true),
            grid_encoder: GridEncoder::new(&scope.child("cnn_encoder"), dims),
            usage: CodeUsage::new(scope, dims.codebook_size, usage_decay),
            dims: *dims,
        }
    }

    /// The latent change between the two frames of `features_BTND`, `[B,S,Q]` float32.
    pub fn change(&self, features_BTND: &Tensor, pass: &Pass<'_>) -> Tensor {
        let record = |name: &str, x_BTND: &Tensor| {
            for frame in 0..if pass.trace.is_some() { 2 } else { 0 } {
                pass.record(|| format!("vq.{name}.frame{frame}"), &x_BTND.select(1, frame));
            }
        };
        self.in_float32(|| {
            let features_BTND = features_BTND.to_kind(Kind::Float);
            record("in", &features_BTND);
            let projected_BTNQ = self.project_in.forward(&features_BTND);
            record("project_in", &projected_BTNQ);
            let slots_BTSQ = self.grid_encoder.forward(&projected_BTNQ, pass);
            slots_BTSQ.select(1, 1) - slots_BTSQ.select(1, 0)
        })
    }

    /// Squared distance of each change to each code, `[B,S,K]`; carries no gradient.
    pub fn distances(&self, change_BSQ: &Tensor) -> Tensor {
        let squares = |x: &Tensor, keep| x.square().sum_dim_intlist([-1].as_slice(), keep, Kind::Float);
        self.in_float32(|| {
            no_grad(|| {
                squares(change_BSQ, true) - change_BSQ.matmul(&self.codebook_KQ.tr()) * 2.0
                    + squares(&self.codebook_KQ, false)
            })
        })
    }

    /// The nearest code of each slot, `int64 [B,S]`.
    pub fn nearest(&self, change_BSQ: &Tensor) -> Tensor {
        self.distances(change_BSQ).argmin(-1, false)
    }

    /// Code vectors `[B,S,Q]` of codes `[B,S]`.
    pub fn lookup(&self, ids_BS: &Tensor) -> Tensor {
        Tensor::embedding(&self.codebook_KQ, ids_BS, -1, false, false)
    }

    /// The change with its quantization error replaced by noise of the same length, `[B,S,Q]`.
    pub fn substitute_noise(&self, change_BSQ: &Tensor, ids_BS: &Tensor, draws: &mut dyn Draws) -> Tensor {
        self.in_float32(|| {
            let size = change_BSQ.size();
            let noise_BSQ = draws.normal(&[size[0] * size[1], size[2]], change_BSQ.device()).view_as(change_BSQ);
            let length = |x: &Tensor| x.norm_scalaropt_dim(2.0, [-1].as_slice(), true);
            let residual_BS1 = length(&(change_BSQ - self.lookup(ids_BS)));
            change_BSQ + (residual_BS1 / length(&noise_BSQ) + MIN_RESIDUAL) * noise_BSQ
        })
    }

    /// Code vectors `[B,S,Q]` to the tokens `[B,S,D]` that every decoder attends to: the one way from codes to decoders.
    pub fn action_tokens(&self, codes_BSQ: &Tensor) -> Tensor {
        self.in_float32(|| self.project_out.forward(codes_BSQ))
    }

    /// Rewrites the codes that the window of `usage` shows as under-used, and starts a new window.
    pub fn refresh(&mut self, discarding_threshold: f64, draws: &mut dyn Draws) -> Refresh {
        let refresh = refresh::rewrite_unused(&self.codebook_KQ, self.usage.window(), discarding_threshold, draws);
        self.usage.start_window();
        refresh
    }

    fn in_float32<T>(&self, compute: impl FnOnce() -> T) -> T {
        let _guard =
            Autocast::disable(self.codebook_KQ.device()).expect("autocast can be left on the device of the codebook");
        compute()
    }

    /// Codes K.
    pub fn codebook_size(&self) -> i64 {
        self.dims.codebook_size
    }
}
