//! How much memory a training needs, roughly.

use hlrp_schema::{LaqConfig, LoaderConfig, Precision, VlaConfig};

/// Bytes of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryNeeds {
    /// Where the model computes.
    pub(crate) device: u64,
    /// In the data loader.
    pub(crate) host: u64,
}

/// Bytes of a float32 weight with its gradient and two moments.
const STATE_BYTES: f64 = 16.0;
/// Bytes of a float32 weight that does not train.
const FROZEN_BYTES: f64 = 4.0;

impl MemoryNeeds {
    /// What a training of stage 1 needs: weights with their gradients, moments and average, the activations of a batch, and
    /// the loader's budgets.
    pub(crate) fn of_laq(config: &LaqConfig) -> Self {
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
        Self {
            device: (num_weights * (STATE_BYTES + average) + activations) as u64,
            host: of_loader(&config.data.loader),
        }
    }

    /// What a training of stage 2 needs: the backbone, what trains beside it, the activations of a batch, and the loader's budgets. None
    /// where the configuration does not say the sizes of the backbone.
    pub(crate) fn of_vla(config: &VlaConfig) -> Option<Self> {
        let model = &config.policy.model;
        let (backbone, sizes) = (&model.backbone, model.backbone.sizes.as_ref()?);
        let (vision, text) = (&sizes.vision, &sizes.text);
        let num_layers = backbone.num_vlm_layers.unwrap_or(text.num_hidden_layers) as f64;
        let [width, inner, heads] =
            [text.hidden_size, text.intermediate_size, text.num_attention_heads * text.head_dim]
                .map(|size| size as f64);
        let [vision_width, vision_inner] = [vision.hidden_size, vision.intermediate_size].map(|size| size as f64);
        let vision_layers = vision.num_hidden_layers as f64;
        let of_vision = vision_layers * (4.0 * vision_width * vision_width + 2.0 * vision_width * vision_inner);
        let of_text = num_layers * (3.0 * width * heads + 3.0 * width * inner) + 2.0 * text.vocab_size as f64 * width;
        let train_expert_only = backbone.train_expert_only;
        let bytes_of = |trains: bool| if trains { STATE_BYTES } else { FROZEN_BYTES };
        let beside = num_layers * 4.0 * width * inner; // an expert, or heads: at most as wide as the text layers
        let weights = of_vision * bytes_of(!train_expert_only && !backbone.freeze_vision_encoder)
            + of_text * bytes_of(!train_expert_only)
            + beside * STATE_BYTES;
        let side = (vision.image_size / vision.patch_size.max(1)) as f64;
        let num_images = model.cameras.len() as f64;
        let vision_tokens = num_images * side * side;
        let text_tokens = vision_tokens / (sizes.scale_factor * sizes.scale_factor).max(1) as f64
            + config.policy.processor.tokenizer_max_length as f64;
        let bytes = if config.precision == Precision::Float32 { 4.0 } else { 2.5 };
        // A frozen tower keeps one layer at a time.
        let kept_vision = if train_expert_only || backbone.freeze_vision_encoder { 1.0 } else { vision_layers };
        let per_sample = bytes * 20.0 * (vision_tokens * vision_width * kept_vision + text_tokens * width * num_layers);
        let activations = config.data.loader.batch_size as f64 * per_sample;
        Some(Self { device: (weights + activations) as u64, host: of_loader(&config.data.loader) })
    }
}

/// Budgets of the data loader.
fn of_loader(loader: &LoaderConfig) -> u64 {
    ((loader.memory_budget_mb + loader.table_cache_mb) as u64) << 20
}
