//! Quantizers against a library: a few training steps of one on given changes.

use crate::case::Case;
use crate::compare::{Comparison, Tolerance};
use crate::draws::RecordedDraws;
use anyhow::Context;
use hlrp_laq::{CODEBOOK, Dims, EmaVq, Fsq, Quantizer, TrainContext};
use hlrp_nn::{Pass, Store};
use hlrp_schema::QuantizerConfig;
use hlrp_torch::World;
use tch::Kind;

pub(crate) fn run(case: &Case, comparison: &mut Comparison) -> anyhow::Result<()> {
    let config: QuantizerConfig = serde_json::from_value(case.config["quantizer"].clone())?;
    let dims = Dims {
        num_views: 1,
        image_size: 64,
        channels: 3,
        patch_size: 8,
        grid: 8,
        dim: config.code_dim,
        code_dim: config.code_dim,
        grid_width: config.code_dim,
        codebook_size: config.codebook_size,
        code_seq_len: config.code_seq_len,
    };
    let store = Store::new(case.device());
    let mut quantizer: Box<dyn Quantizer> = match (&config.ema_vq, &config.fsq) {
        (Some(ema_vq), _) => Box::new(EmaVq::new(&store.root(), &dims, config.usage_decay, ema_vq)),
        (_, Some(fsq)) => Box::new(Fsq::new(&store.root(), &dims, config.usage_decay, fsq)),
        _ => anyhow::bail!("config.json has no quantizer that is compared here"),
    };
    for (name, tensor) in case.file("weights.safetensors")? {
        let own = store.state().into_iter().find(|(entry, _)| *entry == name).with_context(|| name.clone())?.1;
        own.shallow_clone().copy_(&tensor);
    }
    let num_steps = case.config["num_steps"].as_u64().context("config.json has no num_steps")?;
    for step in 1..=num_steps {
        let key = |what: &str| format!("step{step}.{what}");
        let change_BSQ = case.input(&key("change"))?.copy().set_requires_grad(true);
        let (world, pass) = (World::single(), Pass::plain(true));
        let mut draws = RecordedDraws::default().permutation(case.inputs.get(&key("permutation")));
        let mut context = TrainContext { step, world: &world, draws: &mut draws, pass: &pass };
        let result = case.forward_pass(|| quantizer.train_pass(&change_BSQ, &mut context))??;
        let mut total = (&result.latent.vectors_BSQ * case.input(&key("cotangent"))?).sum(Kind::Float);
        if let Some(loss) = &result.loss {
            comparison.check(&key("loss"), loss, Tolerance::Forward);
            total = total.g_add(loss);
        }
        total.backward();
        comparison.check(&key("vectors"), &result.latent.vectors_BSQ, Tolerance::Forward);
        comparison.check(&key("ids"), result.latent.ids_BS.as_ref().context("no codes")?, Tolerance::Forward);
        comparison.check(&key("gradient"), &change_BSQ.grad(), Tolerance::Gradient);
        for name in [CODEBOOK, "code_use", "code_sums"] {
            if let Some((_, tensor)) = store.state().into_iter().find(|(entry, _)| entry == name) {
                comparison.check(&key(name), &tensor, Tolerance::Forward);
            }
        }
    }
    let change_BSQ = case.input("evaluation.change")?;
    let evaluated = case.forward_pass(|| quantizer.quantize(change_BSQ))?;
    comparison.check("evaluation.vectors", &evaluated.vectors_BSQ, Tolerance::Forward);
    comparison.check("evaluation.ids", evaluated.ids_BS.as_ref().context("no codes")?, Tolerance::Forward);
    Ok(())
}
