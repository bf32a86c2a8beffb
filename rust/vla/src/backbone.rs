//! A backbone as the description has it, and as the network does: the sizes have the same names on both sides.

use crate::VlaError;
use hlrp_nn::smolvlm::{Padding, Side, SmolVlmConfig, TextLayout, TextTokenizer};
use hlrp_schema::policy::{BackboneFacts, BackboneSizes, ImageSpecialTokens};
use serde::{Serialize, de::DeserializeOwned};
use std::path::Path;

/// Tokens around an image in SmolVLM's vocabulary.
const FAKE_TOKEN: &str = "<fake_token_around_image>";
const GLOBAL_TOKEN: &str = "<global-img>";
/// The vocabulary does not depend on the layout of batches.
const ANY_LAYOUT: TextLayout =
    TextLayout { padding: Padding::Longest, padding_side: Side::Right, truncation_side: Side::Left, max_length: 1 };

/// What a description takes from a backbone (`sizes` of its folder, if it has one) and from a tokenizer.
///
/// # Errors
/// A tokenizer that cannot be read.
pub fn facts(sizes: Option<BackboneSizes>, tokenizer_folder: &Path) -> Result<BackboneFacts, VlaError> {
    let tokenizer = TextTokenizer::from_folder(tokenizer_folder, ANY_LAYOUT)?;
    let [fake, global] = [FAKE_TOKEN, GLOBAL_TOKEN].map(|name| tokenizer.token_id(name).ok());
    let image_special_tokens = fake.zip(global).map(|(fake_id, global_id)| ImageSpecialTokens { fake_id, global_id });
    Ok(BackboneFacts { sizes, num_tokens: tokenizer.vocab_size(), image_special_tokens })
}

/// What the network is built from.
pub(crate) fn smolvlm(sizes: &BackboneSizes) -> SmolVlmConfig {
    same_names(sizes)
}

/// What a description says of a backbone in a folder.
pub fn sizes(config: &SmolVlmConfig) -> BackboneSizes {
    same_names(config)
}

fn same_names<From: Serialize, Into: DeserializeOwned>(from: &From) -> Into {
    let value = serde_json::to_value(from).and_then(serde_json::from_value);
    value.expect("both types have the same names")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hlrp_schema::policy::{TextSizes, VisionSizes};

    #[test]
    fn sizes_come_back() {
        let vision = VisionSizes {
            hidden_size: 1,
            intermediate_size: 2,
            num_hidden_layers: 3,
            num_attention_heads: 4,
            image_size: 5,
            patch_size: 6,
            layer_norm_eps: 1e-6,
        };
        let text = TextSizes {
            hidden_size: 7,
            intermediate_size: 8,
            num_hidden_layers: 9,
            num_attention_heads: 10,
            num_key_value_heads: 11,
            head_dim: 12,
            rms_norm_eps: 1e-5,
            rope_theta: 1e5,
            vocab_size: 13,
        };
        let own = BackboneSizes { vision, text, scale_factor: 14, image_token_id: 15, tie_word_embeddings: true };
        assert_eq!(sizes(&smolvlm(&own)), own);
    }
}
