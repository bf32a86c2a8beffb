//! SmolVLM as a language model: chat prompts with image placeholders, and the language-model head. Policies use neither.

use anyhow::ensure;
use hlrp_nn::Store;
use hlrp_nn::smolvlm::SmolVlm;
use hlrp_schema::policy::BackboneSizes;
use tch::{Kind, Tensor};

/// Embeddings `[B,L,D]` of a prompt whose image placeholders are replaced, in order, by `image_tokens_IND` (all images of the batch, I of
/// them).
///
/// # Errors
/// The prompt has another number of placeholders than there are image tokens.
pub fn embed_prompt(
    model: &SmolVlm,
    config: &BackboneSizes,
    ids_BL: &Tensor,
    image_tokens_IND: &Tensor,
) -> anyhow::Result<Tensor> {
    let placeholders_BL = ids_BL.eq(config.image_token_id);
    let num_placeholders = placeholders_BL.sum(Kind::Int64).int64_value(&[]);
    let image_tokens_XD = image_tokens_IND.flatten(0, 1);
    let num_image_tokens = image_tokens_XD.size()[0];
    ensure!(
        num_placeholders == num_image_tokens,
        "{num_placeholders} image placeholders in the prompt, {num_image_tokens} image tokens"
    );
    let text_BLD = model.embed_tokens(ids_BL);
    let image_tokens_XD = image_tokens_XD.to_kind(text_BLD.kind());
    Ok(text_BLD.masked_scatter(&placeholders_BL.unsqueeze(-1), &image_tokens_XD))
}

/// Logits `[B,L,V]` of hidden states after the final norm, by the head in `store`, or the token embedding where the head is tied to it.
///
/// # Panics
/// A store that holds no SmolVLM at its root.
pub fn logits(store: &Store, normed_BLD: &Tensor) -> Tensor {
    let named = |wanted: &str| store.state().into_iter().find(|(name, _)| name == wanted).map(|(_, tensor)| tensor);
    let head_VD = named("lm_head.weight").or_else(|| named("model.text_model.embed_tokens.weight"));
    normed_BLD.linear(head_VD.as_ref().expect("a SmolVLM has a token embedding"), None::<&Tensor>)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hlrp_schema::policy::{TextSizes, VisionSizes};
    use tch::Device;

    fn tiny(tie_word_embeddings: bool) -> (Store, SmolVlm, BackboneSizes) {
        let config = BackboneSizes {
            vision: VisionSizes {
                hidden_size: 12,
                intermediate_size: 16,
                num_hidden_layers: 1,
                num_attention_heads: 3,
                image_size: 16,
                patch_size: 4,
                layer_norm_eps: 1e-6,
            },
            text: TextSizes {
                hidden_size: 16,
                intermediate_size: 24,
                num_hidden_layers: 1,
                num_attention_heads: 4,
                num_key_value_heads: 2,
                head_dim: 4,
                rms_norm_eps: 1e-5,
                rope_theta: 1e5,
                vocab_size: 20,
            },
            scale_factor: 2,
            image_token_id: 19,
            tie_word_embeddings,
        };
        let store = Store::new(Device::Cpu);
        let model = SmolVlm::new(&store.root(), &config);
        (store, model, config)
    }

    #[test]
    fn placeholders_of_a_prompt_are_replaced_in_order() {
        let (_store, model, config) = tiny(false);
        let image = config.image_token_id;
        let ids_BL = Tensor::from_slice2(&[[1, image, image, 2], [image, 3, 4, image]]);
        let image_tokens_IND = Tensor::rand([2, 2, 16], (Kind::Float, Device::Cpu));
        let prompt_BLD = embed_prompt(&model, &config, &ids_BL, &image_tokens_IND).expect("as many as placeholders");
        for (row, position, image, token) in [(0, 1, 0, 0), (0, 2, 0, 1), (1, 0, 1, 0), (1, 3, 1, 1)] {
            let placed = prompt_BLD.select(0, row).select(0, position);
            assert!(placed.equal(&image_tokens_IND.select(0, image).select(0, token)));
        }
        assert!(prompt_BLD.select(0, 1).select(0, 1).equal(&model.embed_tokens(&ids_BL).select(0, 1).select(0, 1)));

        let too_few = embed_prompt(&model, &config, &ids_BL, &image_tokens_IND.narrow(0, 0, 1));
        let error = too_few.expect_err("one image is missing").to_string();
        assert_eq!(error, "4 image placeholders in the prompt, 2 image tokens");
    }

    #[test]
    fn a_tied_head_is_the_embedding() {
        let identity = Tensor::eye(16, (Kind::Float, Device::Cpu));
        for is_tied in [true, false] {
            let (store, _, _) = tiny(is_tied);
            let named = |wanted: &str| store.state().into_iter().find(|(name, _)| name == wanted);
            let (_, embedding) = named("model.text_model.embed_tokens.weight").expect("the embedding");
            assert_eq!(named("lm_head.weight").is_none(), is_tied);
            assert_eq!(logits(&store, &identity).equal(&embedding.transpose(0, 1)), is_tied);
        }
    }
}
