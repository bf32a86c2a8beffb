//! The backbone, and its weights in a model folder.

use super::read_sizes;
use crate::hub::WeightFiles;
use crate::layers::Linear;
use crate::llama::LlamaStack;
use crate::siglip::VisionTower;
use crate::store::{Init, Scope};
use crate::{NnError, Pass};
use hlrp_schema::policy::BackboneSizes;
use hlrp_torch::load_strict;
use std::path::Path;
use tch::Tensor;

/// Std of fresh token embeddings.
const EMBEDDING_STD: f64 = 0.02;
const LM_HEAD: &str = "lm_head.weight";

/// Vision tower, connector, token embedding and text decoder.
///
/// The language-model head belongs to the tensors, because checkpoints of this model have it, and to no computation here.
pub struct SmolVlm {
    vision: VisionTower,
    connector: Connector,
    embedding_VD: Tensor,
    text: LlamaStack,
    patch_size: i64,
}

impl SmolVlm {
    /// A backbone with fresh weights under transformers' names: `model.vision_model`, `model.connector`, `model.text_model` and, unless it
    /// is tied to the embedding, `lm_head`. `sizes` are checked.
    pub fn new(scope: &Scope<'_>, sizes: &BackboneSizes) -> Self {
        let (vision, text) = (&sizes.vision, &sizes.text);
        let model = scope.child("model");
        let text_model = model.child("text_model");
        let embedding_shape = [text.vocab_size, text.hidden_size];
        let backbone = Self {
            vision: VisionTower::new(&model.child("vision_model"), vision),
            connector: Connector::new(
                &model.child("connector"),
                vision.hidden_size,
                text.hidden_size,
                sizes.scale_factor,
            ),
            embedding_VD: text_model.child("embed_tokens").parameter(
                "weight",
                &embedding_shape,
                Init::ScaledNormal(EMBEDDING_STD),
            ),
            text: LlamaStack::new(&text_model, text),
            patch_size: vision.patch_size,
        };
        if !sizes.tie_word_embeddings {
            Linear::new(&scope.child("lm_head"), text.hidden_size, text.vocab_size, false);
        }
        backbone
    }

    /// Image tokens `[B,N,D]` of images `[B,3,H,W]` in [−1, 1]; sizes as [`BackboneSizes::num_image_tokens`] accepts them.
    pub fn embed_images(&self, pixels_BCHW: &Tensor, pass: &Pass<'_>) -> Tensor {
        let (_, _, height, width) = pixels_BCHW.size4().expect("images are [B,3,H,W]");
        let patches_BND = self.vision.forward(pixels_BCHW, pass);
        self.connector.forward(&patches_BND, height / self.patch_size, width / self.patch_size, pass)
    }

    /// Embeddings `[B,L,D]` of token ids `[B,L]`.
    pub fn embed_tokens(&self, ids_BL: &Tensor) -> Tensor {
        Tensor::embedding(&self.embedding_VD, ids_BL, -1, false, false)
    }

    /// The text decoder.
    pub fn text(&self) -> &LlamaStack {
        &self.text
    }
}

/// Each block of `scale`×`scale` neighbouring vision tokens becomes one token, mapped to the text width without a bias.
pub struct Connector {
    proj: Linear,
    scale: i64,
}

impl Connector {
    /// A connector under the name `modality_projection.proj`.
    pub fn new(scope: &Scope<'_>, vision_dim: i64, text_dim: i64, scale: i64) -> Self {
        let scope = scope.child("modality_projection").child("proj");
        Self { proj: Linear::castable(&scope, vision_dim * scale * scale, text_dim, false), scale }
    }

    /// `[B,rows·columns,D_v]` to `[B,rows·columns/scale²,D]`, both row by row.
    ///
    /// Records `vision.pixel_shuffled` and `connector`.
    pub fn forward(&self, x_BND: &Tensor, rows: i64, columns: i64, pass: &Pass<'_>) -> Tensor {
        let shuffled_BNX = pixel_shuffle(x_BND, rows, columns, self.scale);
        pass.record(|| "vision.pixel_shuffled".to_owned(), &shuffled_BNX);
        let out_BND = self.proj.forward(&shuffled_BNX);
        pass.record(|| "connector".to_owned(), &out_BND);
        out_BND
    }
}

/// Space to channels: inside a block, the row comes first, then the column, then the token's own channels.
fn pixel_shuffle(x_BND: &Tensor, rows: i64, columns: i64, scale: i64) -> Tensor {
    let (batch, dim) = (x_BND.size()[0], x_BND.size()[2]);
    x_BND.reshape([batch, rows / scale, scale, columns / scale, scale, dim]).permute([0, 1, 3, 2, 4, 5]).reshape([
        batch,
        (rows / scale) * (columns / scale),
        scale * scale * dim,
    ])
}

/// A model folder whose configuration was read and whose weight files exist.
#[derive(Debug)]
pub struct SmolVlmFolder {
    sizes: BackboneSizes,
    weights: WeightFiles,
}

impl SmolVlmFolder {
    /// Reads the configuration and lists the weight files; tensors stay on disk.
    ///
    /// # Errors
    /// No `config.json`, a model of another kind, no safetensors, an index that names a missing file.
    pub fn open(path: &Path) -> Result<Self, NnError> {
        Ok(Self { sizes: read_sizes(path)?, weights: WeightFiles::of(path)? })
    }

    /// Sizes of the whole model in the folder.
    pub fn sizes(&self) -> &BackboneSizes {
        &self.sizes
    }

    /// Overwrites the backbone that was built below `scope` with the folder's weights, as float32.
    ///
    /// Text layers above those that `sizes` keep are skipped, and a language-model head that is tied here; every other name must be on
    /// both sides.
    ///
    /// # Errors
    /// An unreadable file, a missing or unknown tensor, another shape; the backbone is then unchanged.
    pub fn load_into(&self, scope: &Scope<'_>, sizes: &BackboneSizes) -> Result<(), NnError> {
        let target = scope.state();
        let is_tied = target.iter().all(|(name, _)| name != LM_HEAD);
        let dropped_layers = sizes.text.num_hidden_layers..self.sizes.text.num_hidden_layers;
        let is_skipped = |name: &str| {
            (name == LM_HEAD && is_tied) || text_layer(name).is_some_and(|layer| dropped_layers.contains(&layer))
        };
        let source = self.weights.read(|name| !is_skipped(name)).map_err(|cause| self.weights.mismatch(cause))?;
        load_strict(&target, &source).map_err(|cause| self.weights.mismatch(cause.into()))
    }
}

/// 7 for `model.text_model.layers.7.mlp.up_proj.weight`.
fn text_layer(name: &str) -> Option<i64> {
    name.strip_prefix("model.text_model.layers.")?.split('.').next()?.parse().ok()
}
