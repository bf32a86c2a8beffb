//! How much memory a training of stage 1 needs, roughly.

use hlrp_schema::{LaqConfig, Precision};

/// Bytes of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemoryNeeds {
    /// Where the model computes.
    pub(super) device: u64,
    /// In the data loader.
    pub(super) host: u64,
}

impl MemoryNeeds {
    /// What a training with this configuration needs: weights with their gradients, moments and average, the activations of a batch, and
    /// the loader's budgets.
    pub(super) fn of(config: &LaqConfig) -> Self {
        /// Float32 weights, gradients and two moments.
        const STATE_BYTES: f64 = 16.0;
        let model = &config.model;
        let [dim, inner] = [model.dim, model.heads * model.dim_head].map(|size| size as f64);
        let grid = (model.image_size / model.patch_size.max(1)) as f64;
        let (attention, feed_forward) = (4.0 * dim * inner, 8.0 * dim * dim);
        let encoder = (model.spatial_depth + model.temporal_depth) as f64;
        let decoders = model.decoders.all().into_iter().map(|(_, decoder)| decoder);
        let decoder: f64 = decoders.filter(|decoder| decoder.enabled).map(|decoder| decoder.depth as f64).sum();
        let num_weights = encoder * (attention + feed_forward) + decoder * (2.0 * attention + feed_forward);
        let average = if config.training.ema.enabled { 4.0 } else { 0.0 };
        // For each token and layer: what the two blocks keep for the backward pass, and the attention weights of every head.
        let bytes = if config.precision == Precision::Float32 { 4.0 } else { 2.5 };
        let per_token = bytes * (20.0 * dim + 2.0 * model.heads as f64 * grid * grid);
        let num_tokens = grid * grid * (2.0 * encoder + decoder);
        let activations = config.data.loader.batch_size as f64 * num_tokens * per_token;
        let loader = (config.data.loader.memory_budget_mb + config.data.loader.table_cache_mb) as u64;
        Self { device: (num_weights * (STATE_BYTES + average) + activations) as u64, host: loader << 20 }
    }
}
