//! The quantizer alone.

use crate::case::Case;
use crate::compare::{Comparison, Tolerance};
use crate::draws::RecordedDraws;
use anyhow::Context;
use hlrp_laq::{Bottleneck, CODEBOOK, Codes, Dims, Nsvq, Quantizer, TrainContext, TrainPass};
use hlrp_nn::{Pass, Store};
use hlrp_schema::{NsvqConfig, NsvqDonors};
use hlrp_torch::World;
use tch::{Kind, Tensor, no_grad};

pub(crate) fn run(case: &Case, comparison: &mut Comparison) -> anyhow::Result<()> {
    let mut setup = Setup::new(case)?;
    training(case, &mut setup, comparison)?;
    inference(case, &setup, comparison)?;
    refresh(case, comparison)?;
    Ok(())
}

struct Setup {
    store: Store,
    quantizer: Nsvq,
    bottleneck: Bottleneck,
}

impl Setup {
    fn new(case: &Case) -> anyhow::Result<Self> {
        let args = &case.config["args"];
        let integer = |key: &str| args[key].as_i64().with_context(|| format!("config.json has no integer args.{key}"));
        let grid = args["grid_size"][0].as_i64().context("config.json has no args.grid_size")?;
        let dims = Dims {
            num_views: 1,
            image_size: integer("image_size")?,
            channels: args["channels"].as_i64().unwrap_or(3),
            patch_size: integer("patch_size")?,
            grid,
            dim: integer("dim")?,
            code_dim: integer("embedding_dim")?,
            grid_width: integer("embedding_dim")?,
            codebook_size: integer("num_embeddings")?,
            code_seq_len: integer("code_seq_len")?,
        };
        let threshold = args["discarding_threshold"].as_f64();
        let config = NsvqConfig {
            discarding_threshold: threshold.context("config.json has no args.discarding_threshold")?,
            refresh_schedule: Vec::new(),
            donors: Some(NsvqDonors::Index),
        };
        let store = Store::new(case.device());
        let quantizer = Nsvq::new(&store.root(), &dims, 0.9, &config);
        let bottleneck = Bottleneck::new(&store.root(), &dims, false);
        case.load_model(&store)?;
        Ok(Self { store, quantizer, bottleneck })
    }

    fn codebook(&self) -> Tensor {
        let parameters = self.store.parameters();
        parameters.into_iter().find(|(name, _)| name == CODEBOOK).expect("the codebook is a parameter").1
    }

    fn codes(&self) -> &dyn Codes {
        self.quantizer.codes().expect("a quantizer with a codebook has codes")
    }

    /// What one training forward pass computes; it counts its codes.
    fn forward(&mut self, earlier: &Tensor, later: &Tensor, draws: &mut RecordedDraws) -> anyhow::Result<Forward> {
        let features = Tensor::stack(&[earlier, later], 1);
        let pass = Pass::plain(true);
        let change = self.bottleneck.change(&features, &pass);
        let mut context = TrainContext { step: 1, world: &World::single(), draws, pass: &pass };
        let TrainPass { latent, metrics, .. } = self.quantizer.train_pass(&change, &mut context)?;
        let perplexity = metrics.into_iter().find(|(name, _)| *name == "vq_perplexity").context("no perplexity")?.1;
        let tokens = self.bottleneck.action_tokens(&latent.vectors_BSQ);
        Ok(Forward { change, ids: latent.ids_BS.context("no codes")?, tokens, perplexity })
    }

    /// Tokens of hard codes.
    fn tokens_of(&self, ids: &Tensor) -> Tensor {
        self.bottleneck.action_tokens(&self.codes().vectors(ids))
    }
}

struct Forward {
    change: Tensor,
    ids: Tensor,
    tokens: Tensor,
    perplexity: Tensor,
}

fn training(case: &Case, setup: &mut Setup, comparison: &mut Comparison) -> anyhow::Result<()> {
    let leaf = |name: &str| anyhow::Ok(case.input(name)?.copy().set_requires_grad(true));
    let (earlier, later) = (leaf("first")?, leaf("last")?);
    let mut draws =
        RecordedDraws::default().normal(Some(case.input("noise")?)).normal(Some(case.input("noise_second")?));

    let first = case.forward_pass(|| setup.forward(&earlier, &later, &mut draws))??;
    comparison.check("train.change", &first.change, Tolerance::Forward);
    comparison.check("train.distances", &setup.quantizer.distances(&first.change), Tolerance::Forward);
    comparison.check("train.indices", &first.ids, Tolerance::Forward);
    comparison.check("train.tokens", &first.tokens, Tolerance::Forward);
    comparison.check("train.perplexity", &first.perplexity, Tolerance::Forward);
    comparison.check("train.usage_after", setup.codes().usage().window(), Tolerance::Forward);
    comparison.check("hard_training.tokens", &setup.tokens_of(&first.ids), Tolerance::Forward);

    (&first.tokens * case.input("cotangent")?).sum(Kind::Float).backward();
    comparison.check("grad.INPUT.first", &earlier.grad(), Tolerance::Gradient);
    comparison.check("grad.INPUT.last", &later.grad(), Tolerance::Gradient);
    let parameters = setup.store.parameters();
    // The bias of the last convolution cancels between the frames.
    let last_bias = parameters.iter().rev().map(|(name, _)| name.clone()).find(|name| name.starts_with("cnn_encoder"));
    for (name, parameter) in parameters {
        let tolerance = if Some(&name) == last_bias.as_ref() { Tolerance::Zero } else { Tolerance::Gradient };
        comparison.check(&format!("grad.{name}"), &parameter.grad(), tolerance);
    }

    let second = case.forward_pass(|| setup.forward(&later, &earlier, &mut draws))??;
    comparison.check("second.indices", &second.ids, Tolerance::Forward);
    comparison.check("second.tokens", &second.tokens, Tolerance::Forward);
    comparison.check("second.perplexity", &second.perplexity, Tolerance::Forward);
    comparison.check("second.usage_after", setup.codes().usage().window(), Tolerance::Forward);
    Ok(())
}

fn inference(case: &Case, setup: &Setup, comparison: &mut Comparison) -> anyhow::Result<()> {
    let quantizer = &setup.quantizer;
    let features = Tensor::stack(&[case.input("first")?, case.input("last")?], 1);
    let change = case.forward_pass(|| no_grad(|| setup.bottleneck.change(&features, &Pass::plain(false))))?;
    let ids = quantizer.quantize(&change).ids_BS.context("no codes")?;
    let forced_list = case.outputs.get("inference.user_list.indices").context("no forced codes are recorded")?;
    let forced_int = ids.full_like(case.config["user_int"].as_i64().context("config.json has no user_int")?);
    for (prefix, ids) in
        [("inference", &ids), ("inference.user_list", forced_list), ("inference.user_int", &forced_int)]
    {
        comparison.check(&format!("{prefix}.indices"), ids, Tolerance::Forward);
        comparison.check(&format!("{prefix}.tokens"), &setup.tokens_of(ids), Tolerance::Forward);
    }
    comparison.check("inference.usage_after", setup.codes().usage().window(), Tolerance::Forward);
    Ok(())
}

fn refresh(case: &Case, comparison: &mut Comparison) -> anyhow::Result<()> {
    for situation in case.scalars["replace"].as_object().context("outputs.json has no `replace`")?.keys() {
        let key = |what: &str| format!("replace.{situation}.{what}");
        let mut setup = Setup::new(case)?;
        setup.quantizer.count(case.input(&key("counts"))?);
        let mut draws = RecordedDraws::default()
            .normal(case.inputs.get(&key("randn")))
            .permutation(case.inputs.get(&key("randperm")));
        let refresh = setup.quantizer.refresh(&mut draws);
        comparison.check(&key("codebooks"), &setup.codebook(), Tolerance::Forward);
        comparison.check(&key("counts_after"), setup.codes().usage().window(), Tolerance::Forward);
        comparison.check(&key("unused"), &refresh.unused, Tolerance::Forward);
        comparison.check(&key("used"), &refresh.used, Tolerance::Forward);
        let recorded = &case.scalars["replace"][situation];
        let expected = |index: usize| recorded["returned"][index].as_f64().unwrap_or(f64::NAN);
        comparison.check_number(&key("total"), refresh.num_assignments as f64, expected(2), Tolerance::Formula);
        comparison.check_number(&key("cutoff"), refresh.cutoff, expected(3), Tolerance::Forward);
    }
    Ok(())
}
