//! What the folders of a backbone and its tokenizer say of a policy.

use crate::VlaError;
use hlrp_nn::smolvlm::{TextLayout, TextTokenizer};
use hlrp_schema::policy::{BackboneFacts, BackboneSizes, ImageSpecialTokens, Padding, Side};
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
