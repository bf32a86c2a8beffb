//! A validation: losses and code use, which every validation measures, and strategies, which look at more when they are due.
//!
//! To add a strategy: a file here that implements [`Strategy`], a line in [`build`], its section in `strategies!` of
//! `hlrp_schema`'s `laq/validation.rs` and its defaults in `config/validation/strategy/`.

mod code_histogram;
mod code_use;
mod codebook_embedding;
mod flow;
mod latent_transfer;
mod losses;
mod observed;
mod pictures;
mod reconstructions;
mod samples;
mod scatter;
mod sequence_examples;
mod sequence_histogram;
#[cfg(test)]
mod tests;
mod training_pairs;

pub(crate) use code_use::{PERPLEXITY, entropy, sequence_name, slot_perplexity};
pub(crate) use losses::SIGNAL_TO_NOISE;
pub(crate) use observed::Observed;
pub(crate) use pictures::{FrameImage, Row, frame_image, render_rows};
pub(crate) use samples::KeyedSamples;
pub(crate) use training_pairs::TrainingPairs;

use crate::data::{relative_actions, validation_frames_of};
use crate::error::LaqError;
use crate::flow_teachers::{FlowCache, known_flow};
use crate::label_head::{LabelHead, Score};
use crate::model::LaqModel;
use crate::step::{EvalStep, Samples, eval_step};
use code_use::CodeUse;
use hlrp_schema::{Conditions, LaqConfig, LaqValidationConfig, StrategyConfig, StrategyMethod};
use hlrp_torch::World;
use hlrp_track::metrics::MetricSpec;
use hlrp_track::sinks::NamedImage;
use hlrp_train::{DeviceBatch, Validation, ValidationContext};
use losses::Losses;
use std::collections::BTreeMap;
use std::rc::Rc;
use tch::Tensor;

/// How many strategies failed.
const FAILED: &str = "val/failed_strategies";

/// Losses of the pairs `[B,2,C,H,W]` of all processes and how the decoders depend on their codes, by the names of a validation's metrics.
///
/// # Errors
/// Whatever libtorch refuses, or another process is gone.
pub(crate) fn dependence(
    model: &LaqModel,
    frames_BTCHW: &Tensor,
    step: &EvalStep,
    world: &World,
) -> anyhow::Result<BTreeMap<String, f64>> {
    let mut losses = Losses::of(model);
    losses.add(model, frames_BTCHW, step);
    losses.metrics(model, world)
}

/// One way to look at a validation set.
trait Strategy {
    /// Sees the samples `chosen` of a batch.
    ///
    /// # Errors
    /// What it cannot compute.
    fn observe(&mut self, batch: &Observed<'_>, chosen: &[usize]) -> anyhow::Result<()>;

    /// What it found. All processes call it, each after its part of the samples.
    ///
    /// # Errors
    /// What it cannot compute or draw, or another process that is gone.
    fn finish(self: Box<Self>, scene: &Scene<'_>) -> anyhow::Result<Found>;
}

/// What a strategy found.
#[derive(Default)]
struct Found {
    /// Scalars by full name.
    metrics: Vec<(String, f64)>,
    images: Vec<NamedImage>,
}

/// What a strategy may use once it has seen all samples.
struct Scene<'a> {
    model: &'a LaqModel,
    world: &'a World,
    /// Optimizer steps done.
    step: u64,
    /// Name of the strategy and its bucket: that of its image.
    name: String,
    /// End of the names of its metrics.
    suffix: String,
    min_samples: usize,
}

impl Scene<'_> {
    /// Whether there are enough samples, of which this process has `num_samples`; says so where there are not.
    ///
    /// # Errors
    /// Another process is gone.
    fn has_enough(&self, num_samples: usize) -> anyhow::Result<bool> {
        let total = Tensor::from(i64::try_from(num_samples)?);
        self.world.all_reduce(&total)?;
        let total = usize::try_from(total.int64_value(&[]))?;
        let needed = self.min_samples.max(1);
        if total < needed {
            tracing::info!("validation strategy {} is left out: {total} samples, it needs {needed}", self.name);
        }
        Ok(total >= needed)
    }

    /// The image `image` under the strategy's name.
    fn image(&self, image: hlrp_track::plot::RgbImage) -> NamedImage {
        NamedImage { name: self.name.clone(), image }
    }
}

/// What a run has beside its model.
#[derive(Clone, Copy, Default)]
pub(crate) struct Beside<'a> {
    pub(crate) label_head: Option<&'a LabelHead>,
    pub(crate) flow_cache: Option<&'a FlowCache>,
    pub(crate) training_pairs: Option<&'a Rc<TrainingPairs>>,
}

/// The validations of a run.
pub(crate) struct Validations {
    config: LaqValidationConfig,
    max_steps: u64,
}

/// A strategy that is due, on one bucket or on all samples.
struct Running {
    strategy: Box<dyn Strategy>,
    name: String,
    suffix: String,
    min_samples: usize,
    filter: Option<Conditions>,
    /// Samples that it may still see.
    num_left: usize,
    failure: Option<anyhow::Error>,
}

impl Running {
    fn observe(&mut self, batch: &Observed<'_>) {
        if self.failure.is_some() {
            return;
        }
        let fits =
            |index: &usize| self.filter.as_ref().is_none_or(|filter| filter.hold(|fact| batch.fact(*index, fact)));
        let chosen: Vec<usize> = (0..batch.num_samples()).filter(fits).take(self.num_left).collect();
        self.num_left -= chosen.len();
        self.failure = self.strategy.observe(batch, &chosen).err();
    }
}

impl Validations {
    /// Those of a run of `config`.
    pub(crate) fn new(config: &LaqConfig) -> Self {
        Self { config: config.validation.clone(), max_steps: config.training.max_steps }
    }

    /// Evaluates `model`, and what trains with it, on `batches` with hard codes and every decoder at full weight.
    ///
    /// # Errors
    /// Data that cannot be read, another process that is gone, or a strategy that fails where the configuration asks for that.
    pub(crate) fn run(
        &self,
        model: &LaqModel,
        beside: Beside<'_>,
        batches: &mut dyn Iterator<Item = anyhow::Result<DeviceBatch>>,
        context: &ValidationContext<'_>,
    ) -> anyhow::Result<Validation> {
        self.evaluate(model, beside, batches, context, self.due(model, beside, context))
    }

    fn evaluate(
        &self,
        model: &LaqModel,
        beside: Beside<'_>,
        batches: &mut dyn Iterator<Item = anyhow::Result<DeviceBatch>>,
        context: &ValidationContext<'_>,
        mut running: Vec<Running>,
    ) -> anyhow::Result<Validation> {
        let mut losses = Losses::of(model);
        let mut codes = CodeUse::of(model);
        let mut score = beside.label_head.map(|head| Score::new(head.network(), model.store().device()));
        for batch in batches {
            let batch = batch?;
            let samples_BTCHW = validation_frames_of(&batch, model)?;
            let flow_B2HW = known_flow(beside.flow_cache, model, &batch, &samples_BTCHW)?;
            let step = eval_step(model, Samples { frames_BTCHW: &samples_BTCHW, flow_B2HW });
            let frames_BTCHW = samples_BTCHW.narrow(1, 0, 2);
            losses.add(model, &frames_BTCHW, &step);
            if let Some((score, actions_BA)) = score.as_mut().zip(relative_actions(&batch)) {
                score.add(&model.quantizer.normalised(&step.encoded.change_BSQ), &actions_BA);
            }
            let observed = Observed::new(model, &batch, &frames_BTCHW, &step)?;
            if let Some(codes) = &mut codes {
                observed.all_codes().iter().for_each(|ids| codes.add(ids));
            }
            running.iter_mut().for_each(|running| running.observe(&observed));
        }
        let mut metrics = losses.metrics(model, context.world)?;
        if metrics.is_empty() {
            return Err(LaqError::NoValidationData.into());
        }
        if let Some(score) = score {
            metrics.extend(score.metrics(context.world)?);
        }
        let mut histograms = Vec::new();
        if let Some(codes) = codes {
            let codes = codes.of_all(context.world)?;
            metrics.extend(codes.metrics());
            histograms = codes.histograms();
        }
        let mut validation = Validation { metrics, images: Vec::new(), histograms };
        self.finish(running, model, context, &mut validation)?;
        Ok(validation)
    }

    /// Adds what the strategies found, and how many of them failed.
    fn finish(
        &self,
        running: Vec<Running>,
        model: &LaqModel,
        context: &ValidationContext<'_>,
        validation: &mut Validation,
    ) -> anyhow::Result<()> {
        let mut num_failed = 0;
        for Running { strategy, name, suffix, min_samples, failure, .. } in running {
            let scene = Scene { model, world: context.world, step: context.step, name, suffix, min_samples };
            match agree_on(failure, context.world)?.map_or_else(|| strategy.finish(&scene), Err) {
                Ok(found) => {
                    validation.metrics.extend(found.metrics);
                    validation.images.extend(found.images);
                }
                Err(error) if hlrp_train::is_of_exchange(error.as_ref()) => return Err(error),
                Err(error) => {
                    let error = error.context(format!("validation strategy {} fails", scene.name));
                    if self.config.fail_on_error {
                        return Err(error);
                    }
                    tracing::error!("{error:#}\nhint: set validation.strategies.…enabled=false to leave it out");
                    num_failed += 1;
                }
            }
        }
        validation.metrics.insert(FAILED.to_owned(), f64::from(num_failed));
        Ok(())
    }

    /// The strategies that are due.
    fn due(&self, model: &LaqModel, beside: Beside<'_>, context: &ValidationContext<'_>) -> Vec<Running> {
        let (step, num_processes) = (context.step, context.world.size());
        let number = step.div_ceil(self.config.check_interval).saturating_sub(1);
        let is_due = |every: u64| step >= self.max_steps || number.is_multiple_of(every);
        let enabled = self.config.strategies.iter().filter(|(_, strategy)| strategy.enabled);
        let mut running = Vec::new();
        for (name, strategy) in enabled.filter(|(_, strategy)| is_due(strategy.every_n_validations)) {
            for place in strategy.places() {
                let training_pairs = beside.training_pairs.filter(|_| place.is_none() && context.world.is_main());
                let Some(built) = build(strategy, &self.config, model, context, training_pairs) else { continue };
                let bucket = place.and_then(|place| self.config.buckets.get(place));
                let suffix = self.suffix(place);
                running.push(Running {
                    strategy: built,
                    name: format!("{name}{suffix}"),
                    suffix,
                    min_samples: strategy.min_samples,
                    filter: bucket.map(|bucket| Conditions::of(&bucket.filters).expect("a checked filter")),
                    num_left: bucket.map_or(usize::MAX, |bucket| bucket.max_samples.div_ceil(num_processes)),
                    failure: None,
                });
            }
        }
        running
    }

    /// The end of the names of what was measured on a bucket.
    fn suffix(&self, place: Option<&str>) -> String {
        let bucket = place.and_then(|place| Some((place, self.config.buckets.get(place)?)));
        bucket.map_or(String::new(), |(name, bucket)| {
            format!("_{name}{}", if bucket.is_holdout { "_holdout" } else { "" })
        })
    }

    /// The metrics of a model that trains and validates on batches of `batch_size` pairs.
    pub(crate) fn metrics(&self, model: &LaqModel, batch_size: usize) -> Vec<MetricSpec> {
        let mut specs = losses::metrics(model, batch_size);
        specs.extend(model.quantizer.metrics());
        specs.extend(code_use::metrics(model, ""));
        for strategy in self.config.strategies.values().filter(|strategy| strategy.enabled) {
            for place in strategy.places() {
                let suffix = self.suffix(place);
                match method(strategy) {
                    StrategyMethod::LatentTransfer(_) => specs.extend(latent_transfer::metrics(model, &suffix)),
                    StrategyMethod::CodeHistogram(_) if place.is_some() => {
                        specs.extend(code_use::metrics(model, &suffix));
                    }
                    _ => {}
                }
            }
        }
        specs.push(MetricSpec::detail(FAILED).lower_is_better());
        specs
    }
}

/// The failure of a strategy; where it fails in one process, it fails in all, so that all exchange the same.
///
/// # Errors
/// Another process is gone.
fn agree_on(failure: Option<anyhow::Error>, world: &World) -> anyhow::Result<Option<anyhow::Error>> {
    let num_failures = Tensor::from(i64::from(failure.is_some()));
    world.all_reduce(&num_failures)?;
    let of_others = || (num_failures.int64_value(&[]) > 0).then(|| anyhow::anyhow!("it fails in another process"));
    Ok(failure.or_else(of_others))
}

fn method(strategy: &StrategyConfig) -> StrategyMethod<'_> {
    strategy.method().expect("a checked strategy is of one kind").1
}

/// A strategy of a validation; none where the model lacks what it looks at.
fn build(
    strategy: &StrategyConfig,
    config: &LaqValidationConfig,
    model: &LaqModel,
    context: &ValidationContext<'_>,
    training_pairs: Option<&Rc<TrainingPairs>>,
) -> Option<Box<dyn Strategy>> {
    let (step, num_processes) = (context.step, context.world.size());
    match method(strategy) {
        StrategyMethod::Reconstructions(own) => {
            Some(reconstructions::new(own, config.num_fixed_samples, step, training_pairs.cloned()))
        }
        StrategyMethod::LatentTransfer(own) => latent_transfer::new(own, model, num_processes),
        StrategyMethod::CodeHistogram(_) => code_histogram::new(model),
        StrategyMethod::SequenceHistogram(own) => sequence_histogram::new(own, model),
        StrategyMethod::CodebookEmbedding(_) => codebook_embedding::new(model),
        StrategyMethod::SequenceExamples(own) => sequence_examples::new(own, model),
        StrategyMethod::Scatter(own) => scatter::new(own, model, num_processes),
        StrategyMethod::Flow(own) => flow::new(own, model),
    }
}
