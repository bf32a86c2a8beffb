//! The backbone as a whole.

use super::{Connector, LlamaStack, SmolVlmConfig, SmolVlmError, VisionTower};
use crate::{Init, Linear, Pass, Scope};
use tch::{Kind, Tensor};

/// Standard deviation of freshly drawn token embeddings.
const EMBEDDING_STD: f64 = 0.02;

/// Whether a backbone has a language-model head. Policies do not use it, and it is as large as the embedding table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LmHead {
    /// With the head; it adds no tensor when it is tied to the embedding.
    Keep,
    /// Without.
    Drop,
}

/// Vision tower, connector, token embedding, text decoder and, if wanted, the language-model head.
pub struct SmolVlm {
    vision: VisionTower,
    connector: Connector,
    embedding_VD: Tensor,
    text: LlamaStack,
    lm_head: Option<Head>,
    patch_size: i64,
    image_token_id: i64,
}

enum Head {
    Own(Linear),
    Tied,
}

impl SmolVlm {
    /// A backbone with fresh weights under transformers' names: `model.vision_model`, `model.connector`, `model.text_model` and
    /// `lm_head`. `config` has been [validated](SmolVlmConfig::validate).
    pub fn new(scope: &Scope<'_>, config: &SmolVlmConfig, lm_head: LmHead) -> Self {
        let (vision, text) = (&config.vision, &config.text);
        let model = scope.child("model");
        let text_model = model.child("text_model");
        let embedding = Init::ScaledNormal(EMBEDDING_STD);
        Self {
            vision: VisionTower::new(&model.child("vision_model"), vision),
            connector: Connector::new(
                &model.child("connector"),
                vision.hidden_size,
                text.hidden_size,
                config.scale_factor,
            ),
            embedding_VD: text_model.child("embed_tokens").parameter(
                "weight",
                &[text.vocab_size, text.hidden_size],
                embedding,
            ),
            text: LlamaStack::new(&text_model, text),
            lm_head: match lm_head {
                LmHead::Drop => None,
                LmHead::Keep if config.tie_word_embeddings => Some(Head::Tied),
                LmHead::Keep => {
                    Some(Head::Own(Linear::new(&scope.child("lm_head"), text.hidden_size, text.vocab_size, false)))
                }
            },
            patch_size: vision.patch_size,
            image_token_id: config.image_token_id,
        }
    }

    /// Image tokens `[B,N,D]` of pictures `[B,3,H,W]` in [−1, 1]; sizes as [`SmolVlmConfig::num_image_tokens`] accepts them.
    pub fn embed_images(&self, pixels_BCHW: &Tensor, pass: &Pass<'_>) -> Tensor {
        let (_, _, height, width) = pixels_BCHW.size4().expect("pictures are [B,3,H,W]");
        let patches_BND = self.vision.forward(pixels_BCHW, pass);
        self.connector.forward(&patches_BND, height / self.patch_size, width / self.patch_size, pass)
    }

    /// Embeddings `[B,L,D]` of token ids `[B,L]`.
    pub fn embed_tokens(&self, ids_BL: &Tensor) -> Tensor {
        Tensor::embedding(&self.embedding_VD, ids_BL, -1, false, false)
    }

    /// Embeddings `[B,L,D]` of a prompt whose image placeholders are replaced, in order, by `image_tokens_IND` (all pictures of the
    /// batch, I of them).
    ///
    /// # Errors
    /// The prompt has another number of placeholders than there are image tokens.
    pub fn embed_prompt(&self, ids_BL: &Tensor, image_tokens_IND: &Tensor) -> Result<Tensor, SmolVlmError> {
        let placeholders_BL = ids_BL.eq(self.image_token_id);
        let num_placeholders = placeholders_BL.sum(Kind::Int64).int64_value(&[]);
        let image_tokens_XD = image_tokens_IND.flatten(0, 1);
        let num_image_tokens = image_tokens_XD.size()[0];
        if num_placeholders != num_image_tokens {
            return Err(SmolVlmError::Sizes {
                problem: format!(
                    "{num_placeholders} image placeholders in the prompt, {num_image_tokens} image tokens"
                ),
                hint: format!("write the token with id {} once per image token", self.image_token_id),
            });
        }
        let text_BLD = self.embed_tokens(ids_BL);
        let image_tokens_XD = image_tokens_XD.to_kind(text_BLD.kind());
        Ok(text_BLD.masked_scatter(&placeholders_BL.unsqueeze(-1), &image_tokens_XD))
    }

    /// The text decoder.
    pub fn text(&self) -> &LlamaStack {
        &self.text
    }

    /// Logits `[B,L,V]` of hidden states after the final norm; nothing without a language-model head.
    pub fn logits(&self, normed_BLD: &Tensor) -> Option<Tensor> {
        self.lm_head.as_ref().map(|head| match head {
            Head::Own(linear) => linear.forward(normed_BLD),
            Head::Tied => normed_BLD.linear(&self.embedding_VD, None::<&Tensor>),
        })
    }
}
