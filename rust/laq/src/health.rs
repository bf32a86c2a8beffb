//! Whether the codes carry anything: one rule for the training as it runs and for what a run says at its end.

use crate::model::LaqModel;
use crate::probes::PartialR2;
use crate::quantizers::{count_codes_by_slot, perplexity};
use crate::step::eval_step;
use crate::validation::{PERPLEXITY, SIGNAL_TO_NOISE, dependence, slot_perplexity};
use hlrp_schema::{LatentAblation, Normalization};
use hlrp_torch::World;
use std::collections::BTreeMap;
use tch::Tensor;

/// The least gain of the decoders from a pair's own codes, in units of the loss of predicting no change.
const MIN_CODE_GAIN: f64 = 0.02;
/// Variance of the changes over their mean squared distance to the codes, below which the codes say nothing about them.
const MIN_SIGNAL_TO_NOISE: f64 = 1.1;
/// Effective number of codes of a slot below which it always has the same one.
const MIN_SLOT_PERPLEXITY: f64 = 1.05;

/// How many codes are in use.
#[derive(Clone, Copy)]
struct CodesInUse {
    /// Perplexity over all slots.
    perplexity: f64,
    num_codes: f64,
    /// The least perplexity that is no collapse.
    least: f64,
}

/// What a validation or a batch says of the codes.
struct Signs {
    in_use: Option<CodesInUse>,
    /// Perplexity of the slot that varies most.
    most_of_slot: Option<f64>,
    /// Of the decoder that gains most.
    code_gain: Option<f64>,
    signal_to_noise: Option<f64>,
    partial_r2: Option<PartialR2>,
}

impl Signs {
    fn of(metrics: &BTreeMap<String, f64>, model: &LaqModel) -> Self {
        let value = |name: &str| metrics.get(name).copied();
        let num_codes = model.quantizer.codes().map(|codes| codes.num_codes() as f64);
        let gains = metrics.iter().filter(|(name, _)| is_code_gain(name));
        let slots = (0..).map_while(|slot| value(&slot_perplexity(slot)));
        Self {
            in_use: value(PERPLEXITY).zip(num_codes).map(|(perplexity, num_codes)| CodesInUse {
                perplexity,
                num_codes,
                least: num_codes * model.config().quantizer.collapse_perplexity,
            }),
            most_of_slot: slots.reduce(f64::max),
            code_gain: gains.map(|(_, gain)| *gain).reduce(f64::max),
            signal_to_noise: value(SIGNAL_TO_NOISE),
            partial_r2: PartialR2::of(metrics),
        }
    }

    /// What is wrong, and what to do.
    fn finding(&self, remedies: &Remedies) -> Option<String> {
        if self.partial_r2.is_some_and(|partial_r2| partial_r2.carries()) {
            return None;
        }
        let hardly_used = self.code_gain.filter(|gain| *gain < MIN_CODE_GAIN);
        let noise = self.signal_to_noise.filter(|ratio| *ratio < MIN_SIGNAL_TO_NOISE);
        let collapsed = self.in_use.filter(|in_use| in_use.perplexity < in_use.least);
        let is_constant = self.most_of_slot.is_some_and(|perplexity| perplexity < MIN_SLOT_PERPLEXITY);
        let of_codes = collapsed.is_some() || is_constant;
        let mut signs = Vec::new();
        if let Some(CodesInUse { perplexity, num_codes, least }) = collapsed {
            signs.push(format!(
                "the codebook has collapsed: as many as {perplexity:.2} of {num_codes} codes are in use (perplexity; the limit is {least:.2})"
            ));
        }
        if is_constant {
            signs.push("every slot has the same code for all pairs".to_owned());
        }
        // How near codes are to the changes says nothing of codes that are not in use.
        if let Some(ratio) = noise.filter(|_| !of_codes) {
            signs.push(format!("the codes say nothing about the changes: signal/noise is {ratio:.2}"));
        }
        if let Some(gain) = hardly_used.filter(|_| of_codes || signs.is_empty()) {
            signs.push(format!(
                "the decoders hardly use the codes: with another pair's codes their loss rises by {gain:.3} of what predicting no \
                 change costs"
            ));
        }
        let is_certain = !signs.is_empty() || self.partial_r2.is_some_and(|partial_r2| partial_r2.is_at_random());
        if let Some(PartialR2 { codes, random, .. }) = self.partial_r2 {
            let what = match is_certain {
                true => "the codes say no more about the actions than codes of random weights do",
                false => "the probes cannot tell the codes from those of random weights",
            };
            signs.push(format!("{what}: {codes:.2} of what frame t leaves open, {random:.2} for random weights"));
        }
        let remedy = if !is_certain {
            "hold out more episodes (data.sources.<name>.num_val_episodes)".to_owned()
        } else if remedies.is_ablated {
            "set model.latent_ablation=none: the decoders see other pairs' codes in training".to_owned()
        } else if of_codes {
            remedies.of_collapse()
        } else if noise.is_some() {
            remedies.of_noise()
        } else if hardly_used.is_some() {
            remedies.of_gain()
        } else {
            format!("train for longer, raise model.decoders.<name>.motion_weight, or {SPACING}")
        };
        (!signs.is_empty()).then(|| format!("{}\nhint: {remedy}", signs.join("; ")))
    }
}

/// Something that always helps.
const SPACING: &str = "raise the change per pair (data.request.image_deltas)";

/// What to do, by a model's own settings.
struct Remedies {
    /// Against codes that are not in use.
    of_codes: &'static str,
    /// Whether changes are normalised as a batch, and codes follow them.
    follows_changes: bool,
    /// Whether a decoder that trains the codes predicts what changes between the frames.
    predicts_change: bool,
    /// Whether the decoders see other codes than their own.
    is_ablated: bool,
}

impl Remedies {
    fn of(model: &LaqModel) -> Option<Self> {
        let quantizer = &model.config().quantizer;
        Some(Self {
            of_codes: model.quantizer.codes()?.remedy(),
            follows_changes: quantizer.normalization == Normalization::BatchNorm && quantizer.ema_vq.is_some(),
            predicts_change: model.decoders.training().any(|decoder| ["difference", "flow"].contains(&decoder.name())),
            is_ablated: model.config().latent_ablation != LatentAblation::None,
        })
    }

    fn of_collapse(&self) -> String {
        format!("{}, lower training.optimizer.lr, or {SPACING}", self.of_codes)
    }

    fn of_noise(&self) -> String {
        if self.follows_changes {
            return format!("train for longer, or {SPACING}");
        }
        "set model.quantizer.normalization=batch_norm and choose model/quantizer=ema_vq: the changes are far smaller than the codes are apart"
            .to_owned()
    }

    fn of_gain(&self) -> String {
        if self.predicts_change {
            return format!("train for longer, raise training.optimizer.lr, or {SPACING}");
        }
        format!("let a decoder predict the change and not the frame (model.decoders.difference or flow), or {SPACING}")
    }
}

/// Whether a metric is what a decoder gains from a pair's own codes.
fn is_code_gain(metric: &str) -> bool {
    metric.starts_with("val/") && metric.ends_with("_code_gain")
}

/// One sentence with a remedy if the codes carry no more than those of random weights do, by the metrics of a validation: where there are
/// actions by their partial R², elsewhere, and where that leaves it open, by how many codes are in use, how near they are to the changes, and
/// what the decoders gain from them.
pub(crate) fn verdict(metrics: &BTreeMap<String, f64>, model: &LaqModel) -> Option<String> {
    Signs::of(metrics, model).finding(&Remedies::of(model)?)
}

/// Applies the rule to batches of the training, without probes.
pub(crate) struct Watch {
    /// The first step at which unused codes are a sign: the first refreshes happen before.
    start_of_use: u64,
    /// The first step at which gain and noise say something: the learning rate was high for a while.
    start: u64,
    /// Whether validations probe the codes.
    has_probes: bool,
    /// Whether the last validation found actions in the codes that frame t leaves open; none before the first.
    carries_actions: Option<bool>,
    /// The first step of this process.
    first_step: Option<u64>,
    has_warned: bool,
}

impl Watch {
    /// Steps between checks, each of which waits for the device and costs a forward pass.
    const INTERVAL: u64 = 50;
    /// Quantized steps before unused codes are a sign.
    const BEFORE_USE: u64 = 100;
    /// Steps after the warm-up and the steps without quantization before gain and noise say something.
    const AFTER_WARMUP: u64 = 150;

    /// For a training whose learning rate rises over `warmup_steps`, and whose first `unquantized_steps` have no codes.
    pub(crate) fn new(warmup_steps: u64, unquantized_steps: u64) -> Self {
        Self {
            start_of_use: unquantized_steps + Self::BEFORE_USE,
            start: warmup_steps.max(unquantized_steps) + Self::AFTER_WARMUP,
            has_probes: false,
            carries_actions: None,
            first_step: None,
            has_warned: false,
        }
    }

    /// The same beside probes of every validation.
    pub(crate) fn with_probes(self, has_probes: bool) -> Self {
        Self { has_probes, ..self }
    }

    /// Notes what a validation found. Codes that carry actions are not empty, whatever a batch says: where decoders gain little from them, frame
    /// t alone predicts most of the change.
    pub(crate) fn learn(&mut self, validation: &BTreeMap<String, f64>) {
        self.carries_actions = Some(PartialR2::of(validation).is_some_and(|partial_r2| partial_r2.carries()));
    }

    /// Whether probes have the word: they found actions in the codes, or the run was resumed and what they found before is not known.
    fn is_silent(&self) -> bool {
        let is_resumed = self.has_probes && self.first_step.is_some_and(|first| first > 1);
        self.carries_actions.unwrap_or(is_resumed)
    }

    /// Whether [`Watch::check`] looks at a batch of step `step`.
    pub(crate) fn looks_at(&self, step: u64) -> bool {
        step >= self.start_of_use && step.is_multiple_of(Self::INTERVAL)
    }

    /// Reports codes that carry nothing once, and again after they recovered. `frames_BTCHW` is this process's part of the batch at `step`; all
    /// processes look, and the first speaks.
    ///
    /// # Errors
    /// Whatever libtorch refuses, or another process is gone.
    pub(crate) fn check(
        &mut self,
        model: &LaqModel,
        frames_BTCHW: &Tensor,
        step: u64,
        world: &World,
    ) -> anyhow::Result<()> {
        self.first_step.get_or_insert(step);
        if !self.looks_at(step) {
            return Ok(());
        }
        // Rank 0 decides, so that all processes take part in the same exchanges.
        let is_silent = Tensor::from(i64::from(self.is_silent()));
        world.broadcast(&is_silent)?;
        if is_silent.int64_value(&[]) != 0 {
            self.has_warned = false;
            return Ok(());
        }
        let Some(codes) = model.quantizer.codes() else { return Ok(()) };
        let in_use = perplexity(codes.usage().recent()).double_value(&[]);
        let mut signs = BTreeMap::from([(PERPLEXITY.to_owned(), in_use)]);
        if step >= self.start && frames_BTCHW.size()[0] > 1 {
            let evaluated = eval_step(model, frames_BTCHW);
            signs.extend(dependence(model, frames_BTCHW, &evaluated, world)?);
            if let Some(ids_BS) = &evaluated.latent.ids_BS {
                let counts_SK = count_codes_by_slot(ids_BS, codes.num_codes());
                world.all_reduce(&counts_SK)?;
                let perplexity_S = perplexity(&counts_SK);
                let slots = Vec::<f64>::try_from(perplexity_S.to_kind(tch::Kind::Double))?;
                signs.extend(slots.into_iter().enumerate().map(|(slot, value)| (slot_perplexity(slot), value)));
            }
        }
        let found = verdict(&signs, model);
        if let Some(text) = found.as_ref().filter(|_| !self.has_warned && world.is_main()) {
            tracing::warn!("step {step}: {text}");
        }
        self.has_warned = found.is_some();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{CodesInUse, Remedies, Signs, Watch};
    use crate::probes::PartialR2;
    use std::collections::BTreeMap;

    const fn in_use(perplexity: f64) -> CodesInUse {
        CodesInUse { perplexity, num_codes: 8.0, least: 1.6 }
    }

    const HEALTHY: Signs = Signs {
        in_use: Some(in_use(7.5)),
        most_of_slot: Some(5.0),
        code_gain: Some(0.15),
        signal_to_noise: Some(2.5),
        partial_r2: None,
    };

    fn finding(signs: &Signs) -> Option<String> {
        signs.finding(&REMEDIES)
    }

    const REMEDIES: Remedies = Remedies {
        of_codes: "enable model.quantizer.nsvq.refresh",
        follows_changes: false,
        predicts_change: false,
        is_ablated: false,
    };

    fn hint(signs: &Signs, remedies: &Remedies) -> String {
        let text = signs.finding(remedies).unwrap_or_default();
        text.rsplit_once("hint: ").map(|(_, hint)| hint.to_owned()).unwrap_or_default()
    }

    fn names(signs: &Signs, words: [&str; 2]) {
        let text = finding(signs).unwrap_or_default();
        assert!(words.iter().all(|word| text.contains(word)), "{words:?} in {text:?}");
    }

    #[test]
    fn each_cause_is_named_with_its_remedy() {
        assert_eq!(finding(&HEALTHY), None);
        names(&Signs { in_use: Some(in_use(1.2)), ..HEALTHY }, ["1.20 of 8 codes", "nsvq.refresh"]);
        names(&Signs { most_of_slot: Some(1.0), ..HEALTHY }, ["the same code for all pairs", "nsvq.refresh"]);
        names(&Signs { signal_to_noise: Some(0.9), ..HEALTHY }, ["signal/noise is 0.90", "batch_norm"]);
        names(&Signs { code_gain: Some(0.001), ..HEALTHY }, ["hardly use the codes", "model.decoders.difference"]);
        let empty = Signs { in_use: Some(in_use(1.0)), most_of_slot: Some(1.0), code_gain: Some(0.0), ..HEALTHY };
        names(&empty, ["1.00 of 8 codes", "every slot has the same code for all pairs"]);
        names(&empty, ["hardly use the codes: with another pair's codes their loss rises by 0.000", "nsvq.refresh"]);
        let noisy = Signs { signal_to_noise: Some(0.9), ..HEALTHY };
        let remedy = hint(&noisy, &Remedies { follows_changes: true, ..REMEDIES });
        assert!(remedy.starts_with("train for longer"), "what is set already is no advice: {remedy}");
        let unused = Signs { code_gain: Some(0.001), ..HEALTHY };
        let remedy = hint(&unused, &Remedies { predicts_change: true, ..REMEDIES });
        assert!(remedy.starts_with("train for longer, raise training.optimizer.lr"), "{remedy}");
        let remedy = hint(&unused, &Remedies { is_ablated: true, ..REMEDIES });
        assert!(remedy.starts_with("set model.latent_ablation=none"), "{remedy}");
        let continuous =
            Signs { in_use: None, most_of_slot: None, code_gain: None, signal_to_noise: None, partial_r2: None };
        assert_eq!(finding(&continuous), None, "nothing to judge");
    }

    #[test]
    fn where_there_are_actions_the_partial_r2_beside_that_of_random_weights_decides() {
        let with = |codes, least_difference, signs| {
            let partial_r2 = Some(PartialR2 { codes, random: 0.12, least_difference });
            Signs { partial_r2, ..signs }
        };
        let unused = || Signs { code_gain: Some(0.0), ..HEALTHY };
        assert_eq!(finding(&with(0.3, 0.05, unused())), None, "no gain, but codes that carry actions");
        names(
            &with(0.14, -0.01, HEALTHY),
            ["0.14 of what frame t leaves open, 0.12 for random weights", "motion_weight"],
        );
        names(&with(0.3, -0.01, unused()), ["no more about the actions", "model.decoders.difference"]);
        names(
            &with(0.3, -0.01, Signs { signal_to_noise: Some(0.9), ..HEALTHY }),
            ["no more about the actions", "batch_norm"],
        );
        names(
            &with(0.3, -0.01, Signs { in_use: Some(in_use(1.0)), ..HEALTHY }),
            ["no more about the actions", "nsvq.refresh"],
        );
    }

    #[test]
    fn codes_that_are_well_above_random_on_few_episodes_are_not_called_empty() {
        let partial_r2 = Some(PartialR2 { codes: 0.3, random: 0.12, least_difference: -0.01 });
        let open = Signs { partial_r2, ..HEALTHY };
        names(&open, ["cannot tell the codes from those of random weights: 0.30", "num_val_episodes"]);
    }

    /// What is fitted to random codes may do harm on held-out episodes, so that one code for everything is better than they are.
    #[test]
    fn a_collapse_is_named_where_random_codes_are_worse_than_nothing() {
        let of = |codes| Some(PartialR2 { codes, random: -0.36, least_difference: codes + 0.18 });
        let collapsed = Signs { in_use: Some(in_use(1.0)), most_of_slot: Some(1.0), partial_r2: of(0.0), ..HEALTHY };
        names(&collapsed, ["1.00 of 8 codes", "no more about the actions"]);
        assert_eq!(finding(&Signs { partial_r2: of(0.4), ..HEALTHY }), None, "well above nothing");
    }

    #[test]
    fn batches_say_nothing_while_the_last_validation_found_actions_in_the_codes() {
        let probed = |least_difference| {
            let partial = [("val/probe_codes_partial_r2", 0.4), ("val/probe_random_codes_partial_r2", 0.0)];
            let metrics = [&partial[..], &[("val/probe_codes_above_random", least_difference)]].concat();
            metrics.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<BTreeMap<_, _>>()
        };
        let mut watch = Watch::new(0, 0).with_probes(true);
        assert!(!watch.is_silent(), "nothing was probed yet");
        for (validation, is_silent) in [(probed(0.3), true), (probed(-0.1), false), (BTreeMap::new(), false)] {
            watch.learn(&validation);
            assert_eq!(watch.is_silent(), is_silent);
        }
        let mut resumed = Watch { first_step: Some(301), ..Watch::new(0, 0).with_probes(true) };
        assert!(resumed.is_silent(), "what the probes found before is not known");
        resumed.learn(&probed(-0.1));
        assert!(!resumed.is_silent());
        assert!(!Watch { first_step: Some(301), ..Watch::new(0, 0) }.is_silent(), "without probes batches decide");
    }
}
