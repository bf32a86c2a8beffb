//! NSVQ: noise-substitution vector quantization (Vali & Bäckström 2022).
//!
//! In training the decoders see the change plus noise of the length of its quantization error. The gradient reaches the
//! encoder directly, and encoder and selected code through that length; there is no codebook or commitment loss.
//! Evaluation uses the code itself. Codes that training does not use are rewritten on a schedule.
//!
//! Shape suffixes: B samples, S code slots, K codes, Q width of a code vector.

mod refresh;

pub use refresh::{Refresh, RefreshSchedule};

use super::codebook::{CODEBOOK, Codebook, distances};
use super::usage::{CodeUsage, count_codes};
use super::{Codes, Latent, Quantizer, Scale, TrainContext, TrainPass, in_float32};
use crate::dims::Dims;
use crate::draws::Draws;
use hlrp_nn::{Init, Scope};
use hlrp_schema::{NsvqConfig, NsvqDonors};
use hlrp_torch::TorchError;
use hlrp_train::RowReset;
use refresh::{cutoff, is_unused, rewrite_unused};
use tch::{Kind, Tensor, no_grad};

/// Smallest residual length that still carries noise.
const MIN_RESIDUAL: f64 = 1e-12;

/// A codebook with noise substitution.
pub struct Nsvq {
    codebook: Codebook,
    discarding_threshold: f64,
    schedule: RefreshSchedule,
    donors: NsvqDonors,
    /// The optimizer step that refreshed last: its further micro-batches do not refresh again.
    refreshed_at: Option<u64>,
}

impl Nsvq {
    /// A codebook with fresh weights; `usage_decay` is the fraction of the old average per step in the running code
    /// frequencies.
    pub fn new(scope: &Scope<'_>, dims: &Dims, usage_decay: f64, config: &NsvqConfig) -> Self {
        Self {
            codebook: Codebook {
                rows_KQ: scope.parameter(CODEBOOK, &[dims.codebook_size, dims.code_dim], Init::Normal),
                usage: CodeUsage::new(scope, dims.codebook_size, usage_decay),
                remedy: "refresh more often (model.quantizer.nsvq.refresh_schedule)",
            },
            discarding_threshold: config.discarding_threshold,
            schedule: RefreshSchedule::new(&config.refresh_schedule),
            donors: config.donors.unwrap_or(NsvqDonors::Index),
            refreshed_at: None,
        }
    }

    /// Squared distance of each change to each code, `[B,S,K]`; carries no gradient.
    pub fn distances(&self, change_BSQ: &Tensor) -> Tensor {
        distances(&self.codebook.rows_KQ, change_BSQ)
    }

    /// The change with its quantization error replaced by noise of the same length, `[B,S,Q]`.
    fn substitute_noise(&self, change_BSQ: &Tensor, ids_BS: &Tensor, draws: &mut dyn Draws) -> Tensor {
        in_float32(self.codebook.rows_KQ.device(), || {
            let noise_BSQ = draws.normal_of_batch(&change_BSQ.size(), change_BSQ.device());
            let length = |x: &Tensor| x.norm_scalaropt_dim(2.0, [-1].as_slice(), true);
            let residual_BS1 = length(&(change_BSQ - self.codebook.vectors(ids_BS)));
            change_BSQ + (residual_BS1 / length(&noise_BSQ) + MIN_RESIDUAL) * noise_BSQ
        })
    }

    /// Counts assignments in `int64 [K]`, as a training pass does.
    pub fn count(&mut self, counts_K: &Tensor) {
        self.codebook.usage.add(counts_K);
    }

    /// Rewrites the codes that the window of [`CodeUsage`] shows as under-used, and starts a new window.
    pub fn refresh(&mut self, draws: &mut dyn Draws) -> Refresh {
        let Codebook { rows_KQ, usage, .. } = &mut self.codebook;
        let refresh = rewrite_unused(rows_KQ, usage.window(), self.discarding_threshold, self.donors, draws);
        usage.start_window();
        refresh
    }

    /// Code statistics of a batch and of the window, without waiting for the device. `codebook_replaced_count` is what
    /// a refresh at this step rewrites or would rewrite; `codebook_replaced` is whether it happened.
    fn statistics(&self, counts_K: &Tensor) -> Vec<(&'static str, Tensor)> {
        no_grad(|| {
            let window_K = self.codebook.usage.window();
            let unused_K = is_unused(window_K, self.discarding_threshold);
            let num_unused = unused_K.sum(Kind::Float);
            let mut metrics = self.codebook.usage.metrics(counts_K);
            metrics.extend([
                ("codebook_replaced", num_unused.zeros_like()),
                ("codebook_replaced_count", num_unused.shallow_clone()),
                ("codebook_used_count", unused_K.logical_not().sum(Kind::Float)),
                ("codebook_min_count", cutoff(window_K, self.discarding_threshold)),
                ("codebook_window_total", window_K.sum(Kind::Int64).to_kind(Kind::Float)),
                ("codebook_dead_fraction", num_unused / self.codebook.num_codes() as f64),
            ]);
            metrics
        })
    }

    /// Refreshes when the schedule says so, once per optimizer step and alike in all processes, and notes it in `metrics`.
    fn refresh_if_due(
        &mut self,
        context: &mut TrainContext<'_>,
        metrics: &mut [(&'static str, Tensor)],
    ) -> Result<Vec<RowReset>, TorchError> {
        let step = context.step;
        if self.refreshed_at == Some(step) || !self.schedule.is_due(step) {
            return Ok(Vec::new());
        }
        self.refreshed_at = Some(step);
        let refresh = self.refresh(context.draws);
        context.world.broadcast(&self.codebook.rows_KQ)?;
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
            return Ok(Vec::new());
        }
        Ok(vec![RowReset { parameter: CODEBOOK.to_owned(), rows: refresh.unused }])
    }
}

impl Quantizer for Nsvq {
    fn train_pass(&mut self, change_BSQ: &Tensor, context: &mut TrainContext<'_>) -> Result<TrainPass, TorchError> {
        let distances_BSK = self.distances(change_BSQ);
        context.pass.record(|| "vq.distances".into(), &distances_BSK);
        let ids_BS = distances_BSK.argmin(-1, false);
        let vectors_BSQ = self.substitute_noise(change_BSQ, &ids_BS, context.draws);
        context.pass.record(|| "vq.before_project_out".into(), &vectors_BSQ);

        let counts_K = count_codes(&ids_BS, self.codebook.num_codes());
        context.world.all_reduce(&counts_K)?;
        self.codebook.usage.add(&counts_K);
        let mut metrics = self.statistics(&counts_K);
        let row_resets = self.refresh_if_due(context, &mut metrics)?;
        Ok(TrainPass { latent: Latent { vectors_BSQ, ids_BS: Some(ids_BS) }, loss: None, metrics, row_resets })
    }

    fn is_scheduled(&self, step: u64) -> bool {
        self.schedule.is_due(step)
    }

    fn quantize(&self, change_BSQ: &Tensor) -> Latent {
        self.codebook.quantize(change_BSQ)
    }

    fn start_codes(&mut self, change_NQ: &Tensor, context: &mut TrainContext<'_>) -> Result<Vec<RowReset>, TorchError> {
        let _ = self.codebook.start(change_NQ, context)?;
        let rows = Tensor::arange(self.codebook.num_codes(), (Kind::Int64, change_NQ.device()));
        Ok(vec![RowReset { parameter: CODEBOOK.to_owned(), rows }])
    }

    fn scale(&self) -> Scale {
        self.codebook.scale()
    }

    fn codes(&self) -> Option<&dyn Codes> {
        Some(&self.codebook)
    }
}
