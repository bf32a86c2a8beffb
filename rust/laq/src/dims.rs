//! The sizes of a model.

use hlrp_nn::spacetime::SpaceTimeConfig;
use hlrp_schema::LaqModelConfig;

/// Sizes that follow from a checked configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dims {
    /// Cameras, whose views are side by side in a frame.
    pub num_views: i64,
    /// Side of a view in pixels.
    pub image_size: i64,
    /// Channels of a frame.
    pub channels: i64,
    /// Side of a patch in pixels.
    pub patch_size: i64,
    /// Side of the token grid of a view.
    pub grid: i64,
    /// Token width D.
    pub dim: i64,
    /// Width Q of a code vector.
    pub code_dim: i64,
    /// Channels of the grid encoder before its last layer.
    pub grid_width: i64,
    /// Codes K; 0 where the latent is continuous.
    pub codebook_size: i64,
    /// Code slots S of a frame pair.
    pub code_seq_len: i64,
}

impl Dims {
    /// The sizes of a checked configuration.
    pub fn new(config: &LaqModelConfig) -> Self {
        Self {
            num_views: config.cameras.len() as i64,
            image_size: config.image_size,
            channels: config.channels,
            patch_size: config.patch_size,
            grid: config.image_size / config.patch_size,
            dim: config.dim,
            code_dim: config.quantizer.code_dim,
            grid_width: config.quantizer.grid_width.unwrap_or(config.quantizer.code_dim),
            codebook_size: if config.quantizer.none.is_some() { 0 } else { config.quantizer.codebook_size },
            code_seq_len: config.quantizer.code_seq_len,
        }
    }

    /// Columns of the token grid of all views.
    pub fn grid_columns(&self) -> i64 {
        self.grid * self.num_views
    }

    /// Length of a patch vector.
    pub fn patch_dim(&self) -> i64 {
        self.channels * self.patch_size * self.patch_size
    }
}

/// Sizes of one of the model's transformers.
pub(crate) fn transformer_config(config: &LaqModelConfig, depth: i64, cross_attention: bool) -> SpaceTimeConfig {
    SpaceTimeConfig {
        dim: config.dim,
        heads: config.heads,
        dim_head: config.dim_head,
        depth,
        cross_attention,
        attn_dropout: config.attn_dropout,
        ff_dropout: config.ff_dropout,
    }
}
