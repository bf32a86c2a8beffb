//! What a validation measures: losses, and how far predictions are from the truth, next to baselines that do not look at the image.
//!
//! Losses are means over the supervised values of the whole validation. A sample at the start of an episode has no past to repeat: it
//! counts for the policy and not for the baseline that repeats. Frame pairs that reach beyond the end do not count.
//!
//! Noise and times come from one seed, so that validations of one run differ by their weights alone.

mod code_accuracy;
mod error_bins;
mod errors;
mod images;

use crate::flow::WorldNoise;
use crate::loss;
use crate::masks::by_slot;
use crate::observation::{ActionTarget, LatentTarget, Prediction};
use crate::policy::{LabelledBatch, Policy};
use crate::processor::TimeIndices;
use code_accuracy::CodeAccuracy;
use error_bins::ErrorBins;
use errors::Errors;
use hlrp_nn::Pass;
use hlrp_schema::VlaValidationConfig;
use hlrp_schema::policy::LatentShape;
use hlrp_track::metrics::{Curve, MetricSpec};
use hlrp_train::validation::{EvenSamples, Sums};
use hlrp_train::{DeviceBatch, Validation, ValidationContext};
use images::SampleImage;
use tch::Tensor;

/// Seed of the noise and times of every validation.
const SEED: u64 = 0;

/// What the configuration says of a validation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Samples that are drawn.
    num_fixed_samples: usize,
    /// Samples of the flow whose mean is the prediction.
    num_flow_samples: usize,
}

impl Options {
    pub(crate) fn new(config: &VlaValidationConfig) -> Self {
        Self { num_fixed_samples: config.num_fixed_samples, num_flow_samples: config.num_flow_samples }
    }
}

/// Predictions for a batch and the truth, everything on the device.
struct Compared {
    labelled: LabelledBatch,
    predicted: Prediction,
}

/// How far predicted latent actions are from the true ones, next to those of the former pair.
struct LatentErrors {
    vectors: Errors,
    /// For a teacher with codes.
    codes: Option<CodeAccuracy>,
}

impl LatentErrors {
    /// Adds a batch; `repeated` are the latent actions of the former pair.
    fn add(&mut self, predicted: &Prediction, repeated: &LatentTarget, target: &LatentTarget) {
        let Some(predicted_BSD) = &predicted.latents_BSD else { return };
        let num_slots = predicted_BSD.size()[1];
        let [is_valid_BS1, was_valid_BS1] = [target, repeated].map(|latent| by_slot(&latent.is_valid_B, num_slots));
        if let (Some(repeated_BSD), Some(true_BSD)) = (&repeated.vectors_BSD, &target.vectors_BSD) {
            self.vectors.add(predicted_BSD, repeated_BSD, true_BSD, &is_valid_BS1, &was_valid_BS1);
        }
        if let (Some(codes), Some(predicted_BS), Some(repeated_BS), Some(true_BS)) =
            (&mut self.codes, &predicted.codes_BS, &repeated.codes_BS, &target.codes_BS)
        {
            let [is_valid_BS, was_valid_BS] = [&is_valid_BS1, &was_valid_BS1].map(|x_BS1| x_BS1.squeeze_dim(2));
            codes.add(predicted_BS, repeated_BS, true_BS, &is_valid_BS, &was_valid_BS);
        }
    }
}

/// How far predicted actions are from the true ones, next to the last action before.
#[derive(Default)]
struct ActionErrors {
    values: Errors,
    bins: ErrorBins,
}

impl ActionErrors {
    /// Adds a batch; `before` is the last action before each chunk.
    fn add(&mut self, predicted: &Prediction, before: &ActionTarget, target: &ActionTarget) {
        let Some(predicted_BTA) = &predicted.actions_BTA else { return };
        let repeated_BTA = before.chunk_BTA.expand_as(&target.chunk_BTA);
        let [is_valid_BTA, was_valid_B1A] = [target, before].map(ActionTarget::is_supervised_BTA);
        self.values.add(predicted_BTA, &repeated_BTA, &target.chunk_BTA, &is_valid_BTA, &was_valid_B1A);
        self.bins.add(predicted_BTA, &target.chunk_BTA, &is_valid_BTA);
    }
}

/// Evaluates the policy on `batches`, whose samples hold the past too, and draws a few of them.
///
/// # Errors
/// Data that cannot be read, or images that cannot be rendered.
pub(crate) fn run(
    policy: &Policy,
    indices: TimeIndices,
    options: Options,
    batches: &mut dyn Iterator<Item = anyhow::Result<DeviceBatch>>,
    context: &ValidationContext<'_>,
) -> anyhow::Result<Validation> {
    let device = policy.model.store().device();
    hlrp_torch::rng::seed(device, SEED)?;
    let mut sums = Sums::default();
    let num_codes = policy.teacher.as_ref().and_then(|teacher| teacher.identity().codebook_size);
    let mut latents = LatentErrors {
        vectors: Errors::default(),
        codes: num_codes.map(|num_codes| CodeAccuracy::new(num_codes, device)),
    };
    let mut actions = ActionErrors::default();
    let mut drawn = EvenSamples::new(options.num_fixed_samples);
    let mut batches = batches.fuse();
    loop {
        let batch = batches.next().transpose()?;
        let num_own = batch.as_ref().map_or(0, |batch| batch.meta.len());
        let Some(mut noise) = WorldNoise::of_batch(context.world, num_own)? else { break };
        // The last batch of all processes may have nothing for this one.
        let Some(batch) = batch else { continue };
        let labelled = policy.label(&batch, indices, None)?;
        add_losses(&mut sums, policy, &labelled, &mut noise)?;
        let predicted = predict(policy, &labelled, options.num_flow_samples, &mut noise)?;
        if let Some(target) = &labelled.targets.latent {
            latents.add(&predicted, &policy.former_latents(&batch, indices)?, target);
        }
        if let Some(target) = &labelled.targets.action {
            let before = policy.processor.actions(&batch)?.steps(indices.action - 1, 1);
            actions.add(&predicted, &before, target);
        }
        let compared = Compared { labelled, predicted };
        for index in 0..batch.meta.len() {
            drawn.offer(|| SampleImage::new(policy, indices, &batch, &compared, index))?;
        }
    }
    let mut metrics = sums.means(context.world, device)?;
    let terms = loss::weights(&policy.spec.objective)
        .map(|(name, weight)| metrics.get(&format!("val/{name}")).map_or(0.0, |mean| mean * weight));
    metrics.insert("val/loss".to_owned(), terms.iter().sum());
    metrics.extend(latents.vectors.metrics("latent", context.world, device)?);
    metrics.extend(actions.values.metrics("action", context.world, device)?);
    if let Some(codes) = latents.codes {
        metrics.extend(codes.metrics(context.world)?);
    }
    let histograms = actions.bins.histograms(context.world, device)?;
    Ok(Validation { metrics, images: images::draw(context.step, &drawn.take())?, histograms })
}

/// The metrics of a policy that learns latents of this shape, actions of `action_dim` dimensions, or both.
pub(crate) fn metrics(latent: Option<LatentShape>, action_dim: Option<i64>) -> Vec<MetricSpec> {
    let losses = Curve::new("losses.png", "Losses", "mean over what is supervised").log();
    let mut specs = vec![MetricSpec::new("val/loss", "validation loss").lower_is_better()];
    if let Some(LatentShape { code_dim, codebook_size, .. }) = latent {
        let curve = Curve::new("latent_error.png", "Latent actions and the baselines", "mean squared error");
        specs.extend(["train/latent_loss", "val/latent_loss"].map(|name| MetricSpec::detail(name).drawn_in(&losses)));
        specs.extend(errors::metrics("latent", "last pair", code_dim, &curve));
        specs.extend(codebook_size.into_iter().flat_map(|_| code_accuracy::metrics()));
    }
    if let Some(action_dim) = action_dim {
        let curve = Curve::new("action_error.png", "Actions and the baselines", "mean squared error, normalised");
        specs.extend(["train/action_loss", "val/action_loss"].map(|name| MetricSpec::detail(name).drawn_in(&losses)));
        specs.extend(errors::metrics("action", "last action", action_dim, &curve));
    }
    specs
}

fn add_losses(
    sums: &mut Sums,
    policy: &Policy,
    labelled: &LabelledBatch,
    noise: &mut WorldNoise<'_>,
) -> anyhow::Result<()> {
    let (model, pass) = (&policy.model, Pass::plain(false));
    let found = model.loss(&labelled.observation, &labelled.targets, &policy.spec.objective, noise, &pass)?;
    for (name, part) in [(loss::LATENT, &found.latent), (loss::ACTION, &found.action)] {
        if let Some(part) = part {
            sums.add_masked(&format!("val/{name}"), &part.mean, &part.num_values);
        }
    }
    Ok(())
}

/// The mean over several samples of the flow: an estimate of the expectation, which is what a squared error rewards. Latents have vectors and,
/// where the teacher has codes, the nearest code. Without noise, one sample says it all.
fn predict(
    policy: &Policy,
    labelled: &LabelledBatch,
    num_samples: usize,
    noise: &mut WorldNoise<'_>,
) -> anyhow::Result<Prediction> {
    let (observation, mode) = (&labelled.observation, policy.spec.objective.mode);
    let num_samples = if policy.model.noise_shapes(mode, 1).is_empty() { 1 } else { num_samples };
    let mut sample = || policy.model.sample(observation, mode, None, noise, &Pass::plain(false));
    let samples = (0..num_samples).map(|_| sample()).collect::<Result<Vec<_>, _>>()?;
    let mean = |of: fn(&Prediction) -> Option<&Tensor>| {
        let all: Vec<&Tensor> = samples.iter().filter_map(of).collect();
        (!all.is_empty()).then(|| Tensor::stack(&all, 0).mean_dim([0].as_slice(), false, tch::Kind::Float))
    };
    let actions_BTA = mean(|sample| sample.actions_BTA.as_ref());
    let mut latents_BSD = mean(|sample| sample.latents_BSD.as_ref());
    let mut codes_BS = samples.iter().find_map(|sample| sample.codes_BS.as_ref()).map(Tensor::shallow_clone);
    if let Some(teacher) = policy.teacher.as_ref().filter(|teacher| teacher.identity().codebook_size.is_some()) {
        match (&latents_BSD, &codes_BS) {
            (Some(vectors_BSD), None) => codes_BS = Some(teacher.nearest(vectors_BSD)?),
            (None, Some(codes_BS)) => latents_BSD = Some(teacher.vectors(codes_BS)?),
            _ => {}
        }
    }
    Ok(Prediction { actions_BTA, latents_BSD, codes_BS })
}
