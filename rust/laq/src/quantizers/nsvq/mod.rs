//! NSVQ: noise-substitution vector quantization (Vali & Bäckström 2022).
//!
//! In training the decoders see the change plus noise of the length of its quantization error. The gradient reaches the
//! encoder directly, and encoder and selected code through that length; there is no codebook or commitment loss.
//! Evaluation uses the code itself. Codes that training does not use are rewritten on a schedule.
//!
//! Shape suffixes: B samples, S code slots, K codes, Q width of a code vector.

mod refresh;

pub use refresh::{Refresh, RefreshSchedule};

use super::codebook::{CODEBOOK, distances, kmeans, look_up, nearest_rows, scale_of_rows};
use super::usage::{CodeUsage, count_codes, perplexity};
use super::{Codes, Latent, Quantizer, Scale, TrainContext, TrainPass, codes_curve, in_float32};
use crate::dims::Dims;
use crate::draws::Draws;
use hlrp_nn::{Init, Scope};
use hlrp_schema::NsvqConfig;
use hlrp_torch::TorchError;
use hlrp_track::metrics::MetricSpec;
use hlrp_train::RowReset;
use refresh::{cutoff, is_unused, rewrite_unused};
use tch::{Kind, Tensor, no_grad};

/// Smallest residual length that still carries noise.
const MIN_RESIDUAL: f64 = 1e-12;

/// A codebook with noise substitution.
pub struct Nsvq {
    codebook_KQ: Tensor,
    usage: CodeUsage,
    discarding_threshold: f64,
    schedule: RefreshSchedule,
    /// The optimizer step that refreshed last: its further micro-batches do not refresh again.
    refreshed_at: Option<u64>,
}

impl Nsvq {
    /// A codebook with fresh weights; `usage_decay` is the fraction of the old average per step in the running code
    /// frequencies.
    pub fn new(scope: &Scope<'_>, dims: &Dims, usage_decay: f64, config: &NsvqConfig) -> Self {
        Self {
            codebook_KQ: scope.parameter(CODEBOOK, &[dims.codebook_size, dims.code_dim], Init::Normal),
            usage: CodeUsage::new(scope, dims.codebook_size, usage_decay),
            discarding_threshold: config.discarding_threshold,
            schedule: RefreshSchedule::new(&config.refresh_schedule),
            refreshed_at: None,
        }
    }

    /// Squared distance of each change to each code, `[B,S,K]`; carries no gradient.
    pub fn distances(&self, change_BSQ: &Tensor) -> Tensor {
        distances(&self.codebook_KQ, change_BSQ)
    }

    /// The change with its quantization error replaced by noise of the same length, `[B,S,Q]`.
    fn substitute_noise(&self, change_BSQ: &Tensor, ids_BS: &Tensor, draws: &mut dyn Draws) -> Tensor {
        in_float32(self.codebook_KQ.device(), || {
            let size = change_BSQ.size();
            let noise_BSQ = draws.normal(&[size[0] * size[1], size[2]], change_BSQ.device()).view_as(change_BSQ);
            let length = |x: &Tensor| x.norm_scalaropt_dim(2.0, [-1].as_slice(), true);
            let residual_BS1 = length(&(change_BSQ - self.vectors(ids_BS)));
            change_BSQ + (residual_BS1 / length(&noise_BSQ) + MIN_RESIDUAL) * noise_BSQ
        })
    }

    /// Counts assignments in `int64 [K]`, as a training pass does.
    pub fn count(&mut self, counts_K: &Tensor) {
        self.usage.add(counts_K);
    }

    /// Rewrites the codes that the window of [`CodeUsage`] shows as under-used, and starts a new window.
    pub fn refresh(&mut self, draws: &mut dyn Draws) -> Refresh {
        let refresh = rewrite_unused(&self.codebook_KQ, self.usage.window(), self.discarding_threshold, draws);
        self.usage.start_window();
        refresh
    }

    /// Code statistics of a batch and of the window, without waiting for the device. `codebook_replaced_count` is what
    /// a refresh at this step rewrites or would rewrite; `codebook_replaced` is whether it happened.
    fn statistics(&self, counts_K: &Tensor) -> Vec<(&'static str, Tensor)> {
        no_grad(|| {
            let window_K = self.usage.window();
            let unused_K = is_unused(window_K, self.discarding_threshold);
            let num_unused = unused_K.sum(Kind::Float);
            vec![
                ("vq_perplexity", perplexity(counts_K)),
                ("num_unique_codes", counts_K.gt(0).sum(Kind::Float)),
                ("codebook_replaced", num_unused.zeros_like()),
                ("codebook_replaced_count", num_unused.shallow_clone()),
                ("codebook_used_count", unused_K.logical_not().sum(Kind::Float)),
                ("codebook_min_count", cutoff(window_K, self.discarding_threshold)),
                ("codebook_window_total", window_K.sum(Kind::Int64).to_kind(Kind::Float)),
                ("codebook_window_perplexity", perplexity(self.usage.recent())),
                ("codebook_dead_fraction", num_unused / self.num_codes() as f64),
            ]
        })
    }

    /// Refreshes when the schedule says so, once per optimizer step, and notes it in `metrics`.
    fn refresh_if_due(
        &mut self,
        context: &mut TrainContext<'_>,
        metrics: &mut [(&'static str, Tensor)],
    ) -> Vec<RowReset> {
        let step = context.step;
        if self.refreshed_at == Some(step) || !self.schedule.is_due(step) {
            return Vec::new();
        }
        self.refreshed_at = Some(step);
        let refresh = self.refresh(context.draws);
        let (num_unused, num_used) = (refresh.unused.size()[0], refresh.used.size()[0]);
        tracing::info!(
            step,
            rewritten = num_unused,
            used = num_used,
            assignments = refresh.num_assignments,
            cutoff = refresh.cutoff,
            "codebook refreshed"
        );
        for (name, value) in metrics {
            if *name == "codebook_replaced" {
                *value = value.ones_like();
            }
        }
        if num_unused == 0 {
            return Vec::new();
        }
        vec![RowReset { parameter: CODEBOOK.to_owned(), rows: refresh.unused }]
    }
}

impl Quantizer for Nsvq {
    fn train_pass(&mut self, change_BSQ: &Tensor, context: &mut TrainContext<'_>) -> Result<TrainPass, TorchError> {
        let distances_BSK = self.distances(change_BSQ);
        context.pass.record(|| "vq.distances".into(), &distances_BSK);
        let ids_BS = distances_BSK.argmin(-1, false);
        let vectors_BSQ = self.substitute_noise(change_BSQ, &ids_BS, context.draws);
        context.pass.record(|| "vq.before_project_out".into(), &vectors_BSQ);

        let counts_K = count_codes(&ids_BS, self.num_codes());
        context.world.all_reduce(&counts_K)?;
        self.usage.add(&counts_K);
        let mut metrics = self.statistics(&counts_K);
        let row_resets = self.refresh_if_due(context, &mut metrics);
        Ok(TrainPass { latent: Latent { vectors_BSQ, ids_BS: Some(ids_BS) }, loss: None, metrics, row_resets })
    }

    fn metrics(&self) -> Vec<MetricSpec> {
        ["train/num_unique_codes", "train/codebook_window_perplexity"]
            .map(|name| MetricSpec::detail(name).higher_is_better().drawn_in(&codes_curve()))
            .into()
    }

    fn quantize(&self, change_BSQ: &Tensor) -> Latent {
        let ids_BS = self.distances(change_BSQ).argmin(-1, false);
        Latent { vectors_BSQ: self.vectors(&ids_BS), ids_BS: Some(ids_BS) }
    }

    fn start_codes(&mut self, change_NQ: &Tensor, draws: &mut dyn Draws) -> Vec<RowReset> {
        let (centres_KQ, _) = kmeans(change_NQ, self.num_codes(), draws);
        no_grad(|| self.codebook_KQ.shallow_clone().copy_(&centres_KQ));
        let rows = Tensor::arange(self.num_codes(), (Kind::Int64, change_NQ.device()));
        vec![RowReset { parameter: CODEBOOK.to_owned(), rows }]
    }

    fn scale(&self) -> Scale {
        scale_of_rows(&self.codebook_KQ)
    }

    fn codes(&self) -> Option<&dyn Codes> {
        Some(self)
    }
}

impl Codes for Nsvq {
    fn num_codes(&self) -> i64 {
        self.codebook_KQ.size()[0]
    }

    fn vectors(&self, ids_BS: &Tensor) -> Tensor {
        look_up(&self.codebook_KQ, ids_BS)
    }

    fn nearest(&self, standardised_BSQ: &Tensor, scale: &Scale) -> Tensor {
        nearest_rows(&self.codebook_KQ, standardised_BSQ, scale)
    }

    fn usage(&self) -> &CodeUsage {
        &self.usage
    }

    fn remedy(&self) -> &'static str {
        "refresh more often (model.quantizer.nsvq.refresh_schedule)"
    }
}
