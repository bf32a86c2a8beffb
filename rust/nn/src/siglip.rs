//! The SigLIP vision tower.
//!
//! Shape suffixes: B samples, C channels, H and W pixel rows and columns, N patches, D token width, P patch side.

use crate::layers::{LayerNorm, Linear};
use crate::store::{Init, Scope};
use crate::trace::Pass;
use hlrp_schema::policy::VisionSizes;
use tch::{Device, Kind, Tensor};

/// Channels of an image.
const NUM_CHANNELS: i64 = 3;
/// Std of fresh position embeddings.
const POSITION_STD: f64 = 0.02;

/// Patches, learned positions, pre-norm transformer blocks in which all patches see each other, and a last norm.
pub struct VisionTower {
    patch_weight_DCPP: Tensor,
    patch_bias_D: Tensor,
    positions_UD: Tensor,
    blocks: Vec<Block>,
    post_layernorm: LayerNorm,
    patch_size: i64,
    /// Rows (and columns) of the grid that the position table was made for.
    side: i64,
}

struct Block {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    num_heads: i64,
}

impl VisionTower {
    /// A tower under the names `embeddings`, `encoder.layers.N` and `post_layernorm`.
    pub fn new(scope: &Scope<'_>, sizes: &VisionSizes) -> Self {
        let (dim, patch) = (sizes.hidden_size, sizes.patch_size);
        let side = sizes.image_size / patch;
        let fan_in = Init::FanIn(NUM_CHANNELS * patch * patch);
        let embeddings = scope.child("embeddings");
        let patches = embeddings.child("patch_embedding");
        let positions = embeddings.child("position_embedding");
        let layers = scope.child("encoder").child("layers");
        Self {
            patch_weight_DCPP: patches.parameter("weight", &[dim, NUM_CHANNELS, patch, patch], fan_in),
            patch_bias_D: patches.parameter("bias", &[dim], fan_in),
            positions_UD: positions.parameter("weight", &[side * side, dim], Init::ScaledNormal(POSITION_STD)),
            blocks: (0..sizes.num_hidden_layers).map(|layer| Block::new(&layers.child(layer), sizes)).collect(),
            post_layernorm: LayerNorm::with_eps(&scope.child("post_layernorm"), dim, sizes.layer_norm_eps),
            patch_size: patch,
            side,
        }
    }

    /// Patches of an image: `pixels_BCHW` in [−1, 1] to `[B,N,D]`, row by row.
    ///
    /// Records `vision.{embeddings,layer{i}.self_attn,layer{i},post_layernorm}`.
    pub fn forward(&self, pixels_BCHW: &Tensor, pass: &Pass<'_>) -> Tensor {
        let mut x_BND = self.embed(pixels_BCHW);
        pass.record(|| "vision.embeddings".to_owned(), &x_BND);
        for (layer, block) in self.blocks.iter().enumerate() {
            let attended_BND = block.attention(&x_BND);
            pass.record(|| format!("vision.layer{layer}.self_attn"), &attended_BND);
            x_BND = &x_BND + attended_BND;
            x_BND = &x_BND + block.feed_forward(&x_BND);
            pass.record(|| format!("vision.layer{layer}"), &x_BND);
        }
        let out_BND = self.post_layernorm.forward(&x_BND);
        pass.record(|| "vision.post_layernorm".to_owned(), &out_BND);
        out_BND
    }

    fn embed(&self, pixels_BCHW: &Tensor) -> Tensor {
        let (batch, _, height, width) = pixels_BCHW.size4().expect("images are [B,3,H,W]");
        let (patch, rows, columns) = (self.patch_size, height / self.patch_size, width / self.patch_size);
        // Patches do not overlap: the convolution is one product over their pixels.
        let patches_BNX = pixels_BCHW
            .reshape([batch, NUM_CHANNELS, rows, patch, columns, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch, rows * columns, NUM_CHANNELS * patch * patch]);
        let embedded_BND = patches_BNX.linear(&self.patch_weight_DCPP.flatten(1, 3), Some(&self.patch_bias_D));
        let ids_N = position_ids(self.side, rows, columns, pixels_BCHW.device());
        embedded_BND + Tensor::embedding(&self.positions_UD, &ids_N, -1, false, false)
    }
}

impl Block {
    fn new(scope: &Scope<'_>, sizes: &VisionSizes) -> Self {
        let dim = sizes.hidden_size;
        let attention = scope.child("self_attn");
        let mlp = scope.child("mlp");
        let projection = |name| Linear::castable(&attention.child(name), dim, dim, true);
        Self {
            q_proj: projection("q_proj"),
            k_proj: projection("k_proj"),
            v_proj: projection("v_proj"),
            out_proj: projection("out_proj"),
            layer_norm1: LayerNorm::with_eps(&scope.child("layer_norm1"), dim, sizes.layer_norm_eps),
            layer_norm2: LayerNorm::with_eps(&scope.child("layer_norm2"), dim, sizes.layer_norm_eps),
            fc1: Linear::castable(&mlp.child("fc1"), dim, sizes.intermediate_size, true),
            fc2: Linear::castable(&mlp.child("fc2"), sizes.intermediate_size, dim, true),
            num_heads: sizes.num_attention_heads,
        }
    }

    fn attention(&self, x_BND: &Tensor) -> Tensor {
        let normed_BND = self.q_proj.cast(&self.layer_norm1.forward(x_BND));
        let heads =
            |projection: &Linear| projection.forward(&normed_BND).unflatten(-1, [self.num_heads, -1]).transpose(1, 2);
        let [q_BAND, k_BAND, v_BAND] = [&self.q_proj, &self.k_proj, &self.v_proj].map(heads);
        let attended =
            Tensor::scaled_dot_product_attention(&q_BAND, &k_BAND, &v_BAND, None::<&Tensor>, 0.0, false, None, false);
        self.out_proj.forward(&attended.transpose(1, 2).flatten(2, 3))
    }

    fn feed_forward(&self, x_BND: &Tensor) -> Tensor {
        self.fc2.forward(&self.fc1.forward(&self.layer_norm2.forward(x_BND)).gelu("tanh"))
    }
}

/// Rows `[rows·columns]` of a position table made for `side`×`side` patches, for a grid of `rows`×`columns`: patch i of n sits at
/// the fraction i/n of the image, which is row ⌊side·i/n⌋ of the table.
pub fn position_ids(side: i64, rows: i64, columns: i64, device: Device) -> Tensor {
    let rows_of = |count: i64| (Tensor::arange(count, (Kind::Int64, device)) * side).floor_divide_scalar(count);
    (rows_of(rows).unsqueeze(1) * side + rows_of(columns).unsqueeze(0)).flatten(0, 1)
}
