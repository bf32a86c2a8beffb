//! The DINOv3 vision transformer.

use crate::case::Case;
use crate::compare::{Comparison, Tolerance};
use anyhow::Context;
use hlrp_nn::dinov3::{Dinov3, own_name, read_sizes, read_weights};
use hlrp_nn::{Pass, Store, Trace};
use tch::no_grad;

/// Tokens before the patches that are not registers.
const NUM_CLASS_TOKENS: i64 = 1;

pub(crate) fn run(case: &Case, comparison: &mut Comparison) -> anyhow::Result<()> {
    let folder = case.dir().join("hf");
    let sizes = read_sizes(&folder)?;
    let store = Store::new(case.device());
    let model = Dinov3::new(&store.root(), &sizes);
    store.load_strict(&read_weights(&folder)?)?;
    // The names of memory say the same as those of the file.
    let in_memory = case.file("weights.safetensors")?;
    let renamed: Vec<_> = in_memory
        .into_iter()
        .filter(|(name, _)| name != "embeddings.mask_token")
        .map(|(name, tensor)| (own_name(&name).to_owned(), tensor))
        .collect();
    store.load_strict(&renamed)?;

    let names: Vec<&str> = case.inputs.keys().filter_map(|name| name.strip_suffix(".pixel_values")).collect();
    anyhow::ensure!(!names.is_empty(), "the case has no images");
    for image in names {
        let pixels_BCHW = case.input(&format!("{image}.pixel_values"))?;
        let trace = Trace::default();
        let watched = Pass { train: false, trace: Some(&trace) };
        let tokens_BLD = case.forward_pass(|| no_grad(|| model.tokens(pixels_BCHW, &watched)))?;
        for (name, tensor) in trace.into_records() {
            let name = name.strip_prefix("dinov3.").context("a record of another model")?;
            comparison.check(&format!("{image}.{name}"), &tensor, Tolerance::Forward);
        }
        comparison.check(&format!("{image}.pooler_output"), &tokens_BLD.select(1, 0), Tolerance::Forward);
        let features_BHWD = case.forward_pass(|| no_grad(|| model.patch_features(pixels_BCHW)))?;
        let first = NUM_CLASS_TOKENS + sizes.num_register_tokens;
        let patches_BND = tokens_BLD.narrow(1, first, tokens_BLD.size()[1] - first);
        comparison.require(&format!("{image}.patches"), features_BHWD.flatten(1, 2).equal(&patches_BND), "differ");
    }
    Ok(())
}
