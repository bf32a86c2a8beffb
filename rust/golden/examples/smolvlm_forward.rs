//! Runs a SmolVLM folder on recorded inputs, for comparison with another implementation.
//!
//! `smolvlm_forward FOLDER INPUTS OUTPUTS NUM_TEXT_LAYERS`: INPUTS holds `input_ids`, `attention_mask`, `pixel_values` (in [−1, 1]) and
//! `logit_weights`; OUTPUTS gets the image tokens, the hidden states, the logits, and the gradient of Σ logits·logit_weights for every
//! parameter.
#![allow(non_snake_case)] // shape suffixes

use hlrp_golden::smolvlm::{embed_prompt, logits};
use hlrp_nn::llama::causal_mask;
use hlrp_nn::smolvlm::{SmolVlm, SmolVlmFolder};
use hlrp_nn::{Pass, Store, Trace, read_tensors};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use tch::{Device, Kind, Tensor};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, inputs, outputs, num_text_layers] = arguments.as_slice() else {
        return Err("usage: smolvlm_forward FOLDER INPUTS OUTPUTS NUM_TEXT_LAYERS".into());
    };
    let inputs: BTreeMap<String, Tensor> = read_tensors(Path::new(inputs))?.into_iter().collect();
    let input = |name: &str| inputs.get(name).ok_or_else(|| format!("the inputs hold no `{name}`"));

    let folder = SmolVlmFolder::open(Path::new(folder))?;
    let mut config = folder.sizes().clone();
    config.text.num_hidden_layers = num_text_layers.parse()?;
    let store = Store::new(Device::Cpu);
    let model = SmolVlm::new(&store.root(), &config);
    folder.load_into(&store.root(), &config)?;

    let trace = Trace::default();
    let image_tokens_BND = model.embed_images(input("pixel_values")?, &Pass::plain(true));
    let prompt_BLD = embed_prompt(&model, &config, input("input_ids")?, &image_tokens_BND)?;
    let mask_B1LL = causal_mask(&input("attention_mask")?.to_kind(Kind::Bool));
    let positions_BL = Tensor::arange(prompt_BLD.size()[1], (Kind::Int64, Device::Cpu)).unsqueeze(0);
    let pass = Pass { train: true, trace: Some(&trace) };
    let hidden_BLD = model.text().forward(&prompt_BLD, &positions_BL, &mask_B1LL, &pass);
    let normed_BLD = model.text().norm().forward(&hidden_BLD);
    let logits_BLV = logits(&store, &normed_BLD);
    (&logits_BLV * input("logit_weights")?).sum(Kind::Float).backward();

    let mut results = trace.into_records();
    results.push(("image_tokens".to_owned(), image_tokens_BND));
    results.push(("norm".to_owned(), normed_BLD));
    results.push(("logits".to_owned(), logits_BLV));
    let gradients = store.parameters().into_iter().filter(|(_, parameter)| parameter.grad().defined());
    results.extend(gradients.map(|(name, parameter)| (format!("grad.{name}"), parameter.grad())));
    let results: Vec<_> = results.into_iter().map(|(name, x)| (name, x.detach().contiguous())).collect();
    Tensor::write_safetensors(&results, outputs)?;
    Ok(())
}
