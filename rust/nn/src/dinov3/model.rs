//! The network: patches with rotary positions among a class token and registers, pre-norm blocks with layer scale.
//!
//! Shape suffixes: B samples, C channels, H×W pixels or patches, N patches, L = 1 + registers + N tokens, D token width,
//! A attention heads, E width of a head, P patch side.

use crate::layers::{LayerNorm, Linear};
use crate::store::{Init, Scope};
use crate::trace::Pass;
use hlrp_schema::{Dinov3Activation, Dinov3Sizes};
use std::f64::consts::PI;
use tch::{Kind, Tensor};

/// Channels of an image.
const NUM_CHANNELS: i64 = 3;
/// Std of fresh tokens.
const TOKEN_STD: f64 = 0.02;
/// Mean and std of ImageNet's pixels by channel, in [0, 1].
const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// A DINOv3 vision transformer.
pub struct Dinov3 {
    sizes: Dinov3Sizes,
    cls_token_11D: Tensor,
    register_tokens_1RD: Tensor,
    patch_weight_DCPP: Tensor,
    patch_bias_D: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
    /// Frequencies of the rotary angles, F = E/4.
    frequencies_F: Tensor,
    /// `[3,1,1]`.
    mean: Tensor,
    std: Tensor,
}

struct Block {
    norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    scale1_D: Tensor,
    norm2: LayerNorm,
    gate_proj: Option<Linear>,
    up_proj: Linear,
    down_proj: Linear,
    scale2_D: Tensor,
    activation: Dinov3Activation,
    num_heads: i64,
}

/// Cosines and sines of the rotary angles of all patches, `[N,E]`.
struct Rotation {
    cos_NE: Tensor,
    sin_NE: Tensor,
}

impl Dinov3 {
    /// With fresh weights under the names of a published checkpoint: `embeddings`, `layer.N`, `norm`.
    pub fn new(scope: &Scope<'_>, sizes: &Dinov3Sizes) -> Self {
        let (dim, patch) = (sizes.hidden_size, sizes.patch_size);
        let embeddings = scope.child("embeddings");
        let patches = embeddings.child("patch_embeddings");
        let fan_in = Init::FanIn(NUM_CHANNELS * patch * patch);
        let channels = |values: &[f32]| Tensor::from_slice(values).view([3, 1, 1]).to_device(scope.device());
        Self {
            cls_token_11D: embeddings.parameter("cls_token", &[1, 1, dim], Init::ScaledNormal(TOKEN_STD)),
            register_tokens_1RD: embeddings.parameter(
                "register_tokens",
                &[1, sizes.num_register_tokens, dim],
                Init::ScaledNormal(TOKEN_STD),
            ),
            patch_weight_DCPP: patches.parameter("weight", &[dim, NUM_CHANNELS, patch, patch], fan_in),
            patch_bias_D: patches.parameter("bias", &[dim], fan_in),
            blocks: (0..sizes.num_hidden_layers)
                .map(|layer| Block::new(&scope.child("layer").child(layer), sizes))
                .collect(),
            norm: LayerNorm::with_eps(&scope.child("norm"), dim, sizes.layer_norm_eps),
            frequencies_F: frequencies(sizes).to_device(scope.device()),
            mean: channels(&IMAGENET_MEAN),
            std: channels(&IMAGENET_STD),
            sizes: sizes.clone(),
        }
    }

    /// Side to which an image of `side` pixels is resized: the nearest multiple of the patch.
    pub fn working_size(&self, side: i64) -> i64 {
        let patch = self.sizes.patch_size;
        ((side as f64 / patch as f64).round() as i64).max(1) * patch
    }

    /// Square images `[B,3,H,H]` in [0, 1] as the network sees them: [`Dinov3::working_size`], ImageNet's scale.
    pub fn prepare(&self, images_BCHW: &Tensor) -> Tensor {
        let side = images_BCHW.size()[3];
        let working = self.working_size(side);
        let resized = match working == side {
            true => images_BCHW.shallow_clone(),
            false => images_BCHW.upsample_bilinear2d([working, working], false, None, None),
        };
        (resized - &self.mean) / &self.std
    }

    /// All tokens after the last norm, `[B,L,D]`, of prepared images.
    ///
    /// Records `dinov3.{rope_cos,rope_sin,embeddings,hidden_states.N,layer0.{norm1,attention,mlp},last_hidden_state}`.
    pub fn tokens(&self, pixels_BCHW: &Tensor, pass: &Pass<'_>) -> Tensor {
        let record = |name: &str, x: &Tensor| pass.record(|| format!("dinov3.{name}"), x);
        let size = pixels_BCHW.size();
        let (rows, columns) = (size[2] / self.sizes.patch_size, size[3] / self.sizes.patch_size);
        let rotation = Rotation::new(&self.frequencies_F, rows, columns);
        record("rope_cos", &rotation.cos_NE);
        record("rope_sin", &rotation.sin_NE);
        let mut x_BLD = self.embed(pixels_BCHW, rows, columns);
        record("embeddings", &x_BLD);
        for (layer, block) in self.blocks.iter().enumerate() {
            record(&format!("hidden_states.{layer}"), &x_BLD);
            let normed_BLD = block.norm1.forward(&x_BLD);
            let attended_BLD = block.attention(&normed_BLD, &rotation);
            x_BLD = x_BLD.g_add(&(&attended_BLD * &block.scale1_D));
            let fed_BLD = block.feed_forward(&block.norm2.forward(&x_BLD));
            x_BLD = x_BLD.g_add(&(&fed_BLD * &block.scale2_D));
            if layer == 0 {
                record("layer0.norm1", &normed_BLD);
                record("layer0.attention", &attended_BLD);
                record("layer0.mlp", &fed_BLD);
            }
        }
        record(&format!("hidden_states.{}", self.blocks.len()), &x_BLD);
        let out_BLD = self.norm.forward(&x_BLD);
        record("last_hidden_state", &out_BLD);
        out_BLD
    }

    /// Features of the patches of prepared images, `[B,H,W,D]`.
    pub fn patch_features(&self, pixels_BCHW: &Tensor) -> Tensor {
        let size = pixels_BCHW.size();
        let (rows, columns) = (size[2] / self.sizes.patch_size, size[3] / self.sizes.patch_size);
        let tokens_BLD = self.tokens(pixels_BCHW, &Pass::plain(false));
        let first = 1 + self.sizes.num_register_tokens;
        tokens_BLD.narrow(1, first, rows * columns).unflatten(1, [rows, columns])
    }

    fn embed(&self, pixels_BCHW: &Tensor, rows: i64, columns: i64) -> Tensor {
        let (batch, patch) = (pixels_BCHW.size()[0], self.sizes.patch_size);
        // Patches do not overlap: the convolution is one product over their pixels.
        let patches_BNX = pixels_BCHW
            .narrow(2, 0, rows * patch)
            .narrow(3, 0, columns * patch)
            .reshape([batch, NUM_CHANNELS, rows, patch, columns, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch, rows * columns, NUM_CHANNELS * patch * patch]);
        let patches_BND = patches_BNX.linear(&self.patch_weight_DCPP.flatten(1, 3), Some(&self.patch_bias_D));
        let prefix = |tokens: &Tensor| tokens.expand([batch, -1, -1], false).to_kind(patches_BND.kind());
        Tensor::cat(&[&prefix(&self.cls_token_11D), &prefix(&self.register_tokens_1RD), &patches_BND], 1)
    }
}

impl Block {
    fn new(scope: &Scope<'_>, sizes: &Dinov3Sizes) -> Self {
        let (dim, inner) = (sizes.hidden_size, sizes.intermediate_size);
        let (attention, mlp) = (scope.child("attention"), scope.child("mlp"));
        let norm = |name| LayerNorm::with_eps(&scope.child(name), dim, sizes.layer_norm_eps);
        let scale = |name| scope.child(name).parameter("lambda1", &[dim], Init::Constant(1.0));
        let projection = |name, with_bias| Linear::new(&attention.child(name), dim, dim, with_bias);
        let widen = |name| Linear::new(&mlp.child(name), dim, inner, sizes.mlp_bias);
        Self {
            norm1: norm("norm1"),
            q_proj: projection("q_proj", true),
            k_proj: projection("k_proj", sizes.key_bias),
            v_proj: projection("v_proj", true),
            o_proj: projection("o_proj", true),
            scale1_D: scale("layer_scale1"),
            norm2: norm("norm2"),
            gate_proj: sizes.use_gated_mlp.then(|| widen("gate_proj")),
            up_proj: widen("up_proj"),
            down_proj: Linear::new(&mlp.child("down_proj"), inner, dim, sizes.mlp_bias),
            scale2_D: scale("layer_scale2"),
            activation: sizes.hidden_act,
            num_heads: sizes.num_attention_heads,
        }
    }

    fn attention(&self, x_BLD: &Tensor, rotation: &Rotation) -> Tensor {
        let heads = |projection: &Linear| projection.forward(x_BLD).unflatten(-1, [self.num_heads, -1]).transpose(1, 2);
        let (q_BALE, k_BALE) = (rotation.rotate(&heads(&self.q_proj)), rotation.rotate(&heads(&self.k_proj)));
        let v_BALE = heads(&self.v_proj);
        let attended =
            Tensor::scaled_dot_product_attention(&q_BALE, &k_BALE, &v_BALE, None::<&Tensor>, 0.0, false, None, false);
        self.o_proj.forward(&attended.transpose(1, 2).flatten(2, 3))
    }

    fn feed_forward(&self, x_BLD: &Tensor) -> Tensor {
        let activate = |x: Tensor| match self.activation {
            Dinov3Activation::Gelu => x.gelu("none"),
            Dinov3Activation::Silu => x.silu(),
        };
        let up = self.up_proj.forward(x_BLD);
        let inner = match &self.gate_proj {
            Some(gate_proj) => activate(gate_proj.forward(x_BLD)) * up,
            None => activate(up),
        };
        self.down_proj.forward(&inner)
    }
}

/// Frequencies from 1 down to almost 1/θ, as many as a quarter of a head is wide.
fn frequencies(sizes: &Dinov3Sizes) -> Tensor {
    let width = sizes.hidden_size / sizes.num_attention_heads;
    let frequency = |index: i64| sizes.rope_theta.powf(-(4.0 * index as f64) / width as f64) as f32;
    Tensor::from_slice(&(0..width / 4).map(frequency).collect::<Vec<_>>())
}

impl Rotation {
    /// Angles 2π·coordinate·frequency: the centre of a patch in [−1, 1], first by row and then by column.
    fn new(frequencies_F: &Tensor, rows: i64, columns: i64) -> Self {
        let options = (Kind::Float, frequencies_F.device());
        let centres = |count: i64| (Tensor::arange(count, options) + 0.5) / count as f64 * 2.0 - 1.0;
        let grid = |axis: Tensor| axis.expand([rows, columns], false).reshape([-1, 1]);
        let angles = |coordinates_N1: Tensor| coordinates_N1 * (2.0 * PI) * frequencies_F;
        let by_axis = [grid(centres(rows).unsqueeze(1)), grid(centres(columns).unsqueeze(0))].map(angles);
        let angles_NE = Tensor::cat(&by_axis, 1).repeat([1, 2]);
        Self { cos_NE: angles_NE.cos(), sin_NE: angles_NE.sin() }
    }

    /// Rotates the patches of `x_BALE`; class token and registers stay.
    fn rotate(&self, x_BALE: &Tensor) -> Tensor {
        let num_patches = self.cos_NE.size()[0];
        let num_prefix = x_BALE.size()[2] - num_patches;
        let patches = x_BALE.narrow(2, num_prefix, num_patches);
        let halves = patches.chunk(2, -1);
        let turned = Tensor::cat(&[&-&halves[1], &halves[0]], -1);
        let rotated = &patches * &self.cos_NE + turned * &self.sin_NE;
        Tensor::cat(&[x_BALE.narrow(2, 0, num_prefix), rotated.to_kind(x_BALE.kind())], 2)
    }
}
