//! Vector quantization whose codes are running means of the changes assigned to them (van den Oord et al. 2017, appendix
//! A.1), with the straight-through gradient and a commitment loss. The formulas are those of `vector-quantize-pytorch`.
//!
//! Shape suffixes: B samples, S code slots, N = B·S, K codes, Q width of a code vector.

use super::codebook::{CODEBOOK, Codebook, distances, one_hot, random_rows};
use super::usage::CodeUsage;
use super::{Codes, Latent, Quantizer, Scale, TrainContext, TrainPass, in_float32};
use crate::dims::Dims;
use hlrp_nn::Scope;
use hlrp_schema::EmaVqConfig;
use hlrp_torch::TorchError;
use hlrp_train::RowReset;
use tch::{Device, Kind, Reduction, Tensor, no_grad};

/// Added to the use of every code, so that none is divided by zero.
const EPS: f64 = 1e-5;

/// A codebook of running means. It has no trained parameter: all of it is buffers.
pub struct EmaVq {
    codebook: Codebook,
    /// `float32 [K]` running number of changes that a batch assigns.
    use_K: Tensor,
    /// `float32 [K,Q]` running sum of those changes.
    sum_KQ: Tensor,
    config: EmaVqConfig,
}

impl EmaVq {
    /// Codes drawn from N(0, 1), each with a use of 1; `usage_decay` as in [`CodeUsage`].
    pub fn new(scope: &Scope<'_>, dims: &Dims, usage_decay: f64, config: &EmaVqConfig) -> Self {
        let options = (Kind::Float, Device::Cpu);
        let start_KQ = Tensor::randn([dims.codebook_size, dims.code_dim], options);
        let remedy = "raise model.quantizer.ema_vq.restart_threshold, set model.quantizer.normalization to batch_norm";
        let rows_KQ = scope.buffer(CODEBOOK, &start_KQ);
        Self {
            use_K: scope.buffer("code_use", &Tensor::ones([dims.codebook_size], options)),
            sum_KQ: scope.buffer("code_sums", &start_KQ.copy()),
            codebook: Codebook { rows_KQ, usage: CodeUsage::new(scope, dims.codebook_size, usage_decay), remedy },
            config: config.clone(),
        }
    }

    /// Moves the codes towards the changes `[N,Q]` that `ids_N` assigns to them. Returns the counts of the batch over all
    /// processes, `float32 [K]`.
    fn update(&self, change_NQ: &Tensor, ids_N: &Tensor, context: &TrainContext<'_>) -> Result<Tensor, TorchError> {
        let num_codes = self.codebook.num_codes();
        let one_hot_NK = one_hot(ids_N, num_codes);
        let counts_K = one_hot_NK.sum_dim_intlist([0].as_slice(), false, Kind::Float);
        let sums_KQ = one_hot_NK.tr().matmul(change_NQ);
        context.world.all_reduce(&counts_K)?;
        context.world.all_reduce(&sums_KQ)?;
        for (running, new) in [(&self.use_K, &counts_K), (&self.sum_KQ, &sums_KQ)] {
            let step = (new - running) * (1.0 - self.config.decay);
            let _ = running.shallow_clone().g_add_(&step);
        }
        let total = self.use_K.sum(Kind::Float);
        let smooth_K = (&self.use_K + EPS) / (&total + EPS * num_codes as f64) * &total;
        self.codebook.rows_KQ.shallow_clone().copy_(&(&self.sum_KQ / smooth_K.unsqueeze(1)));
        Ok(counts_K)
    }

    /// Restarts codes that are hardly used at changes `[N,Q]` of the batches of all processes; returns how many, a scalar on the device.
    fn restart(&self, change_NQ: &Tensor, context: &mut TrainContext<'_>) -> Result<Tensor, TorchError> {
        let least = self.use_K.mean(Kind::Float) * self.config.restart_threshold;
        let is_dead_K = self.use_K.lt_tensor(&least);
        let candidates_KQ = random_rows(change_NQ, self.codebook.num_codes(), context.draws);
        context.world.broadcast(&candidates_KQ)?;
        let is_dead_K1 = is_dead_K.unsqueeze(1);
        let replace = |target: &Tensor, is_dead: &Tensor, new: &Tensor| {
            target.shallow_clone().copy_(&new.where_self(is_dead, target));
        };
        replace(&self.codebook.rows_KQ, &is_dead_K1, &candidates_KQ);
        replace(&self.sum_KQ, &is_dead_K1, &(&candidates_KQ * &least));
        replace(&self.use_K, &is_dead_K, &least.expand_as(&self.use_K));
        Ok(is_dead_K.sum(Kind::Float))
    }
}

impl Quantizer for EmaVq {
    fn train_pass(&mut self, change_BSQ: &Tensor, context: &mut TrainContext<'_>) -> Result<TrainPass, TorchError> {
        let device = self.codebook.rows_KQ.device();
        let ids_BS = distances(&self.codebook.rows_KQ, change_BSQ).argmin(-1, false);
        let code_BSQ = self.codebook.vectors(&ids_BS);
        let (vectors_BSQ, commitment) = in_float32(device, || {
            let vectors_BSQ = change_BSQ + (&code_BSQ - change_BSQ).detach();
            (vectors_BSQ, change_BSQ.mse_loss(&code_BSQ, Reduction::Mean))
        });
        let (counts_K, num_restarted) = in_float32(device, || {
            no_grad(|| {
                let (change_NQ, ids_N) = (change_BSQ.detach().flatten(0, 1), ids_BS.flatten(0, 1));
                let counts_K = self.update(&change_NQ, &ids_N, context)?;
                let num_restarted = match self.config.restart_threshold {
                    0.0 => counts_K.sum(Kind::Float).zeros_like(),
                    _ => self.restart(&context.world.all_gather_rows(&change_BSQ.detach())?.flatten(0, 1), context)?,
                };
                Ok::<_, TorchError>((counts_K, num_restarted))
            })
        })?;
        self.codebook.usage.add(&counts_K.to_kind(Kind::Int64));
        let mut metrics = self.codebook.usage.metrics(&counts_K);
        metrics.extend([("codebook_restarted_count", num_restarted), ("commitment_loss", commitment.detach())]);
        Ok(TrainPass {
            latent: Latent { vectors_BSQ, ids_BS: Some(ids_BS) },
            loss: Some(commitment * self.config.commitment_weight),
            metrics,
            row_resets: Vec::new(),
        })
    }

    fn quantize(&self, change_BSQ: &Tensor) -> Latent {
        self.codebook.quantize(change_BSQ)
    }

    fn start_codes(&mut self, change_NQ: &Tensor, context: &mut TrainContext<'_>) -> Result<Vec<RowReset>, TorchError> {
        let counts_K = self.codebook.start(change_NQ, context)?;
        no_grad(|| {
            self.sum_KQ.shallow_clone().copy_(&(&self.codebook.rows_KQ * counts_K.unsqueeze(1)));
            self.use_K.shallow_clone().copy_(&counts_K);
        });
        Ok(Vec::new())
    }

    fn scale(&self) -> Scale {
        self.codebook.scale()
    }

    fn codes(&self) -> Option<&dyn Codes> {
        Some(&self.codebook)
    }
}
