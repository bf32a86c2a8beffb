//! What a validation measures: losses, and how far predictions lie from the truth beside baselines that do not look.
//!
//! Noise and times come from one seed, so that validations of one run differ by their weights alone.

mod code_accuracy;
mod errors;
mod pictures;

pub use pictures::{CHUNKS, SAMPLES};

use crate::task::{Lesson, Moments};
use crate::{Prediction, TorchFlowDraws, VlaTask};
use code_accuracy::CodeAccuracy;
use errors::Errors;
use hlrp_nn::Pass;
use hlrp_train::validation::{EvenSamples, Sums};
use hlrp_train::{DeviceBatch, Validation, ValidationContext};
use pictures::PicturedSample;
use tch::Tensor;

/// Seed of the noise and times of every validation.
const SEED: u64 = 0;

/// Predictions for a batch beside the truth, everything on the device.
struct Compared {
    lesson: Lesson,
    predicted: Prediction,
    /// Predicted codes `int64 [B,S]`.
    codes_BS: Option<Tensor>,
}

/// Evaluates the policy on `batches`, whose samples hold the past too, and draws a few of them.
///
/// # Errors
/// Data that cannot be read, or pictures that cannot be written.
pub(crate) fn run(
    task: &VlaTask,
    moments: Moments,
    batches: &mut dyn Iterator<Item = anyhow::Result<DeviceBatch>>,
    context: &ValidationContext<'_>,
) -> anyhow::Result<Validation> {
    hlrp_torch::rng::seed(task.model.store().device(), SEED)?;
    let mut sums = Sums::default();
    let (mut latents, mut actions) = (Errors::default(), Errors::default());
    let mut accuracy = task.teacher.as_ref().map(|teacher| CodeAccuracy::new(teacher.codebook()));
    let mut pictured = EvenSamples::new(task.num_pictured);
    for batch in batches {
        let batch = batch?;
        let lesson = task.lesson(&batch, moments)?;
        add_losses(&mut sums, task, &lesson, batch.meta.len())?;
        let predicted = predict(task, &lesson)?;
        let mut codes_BS = None;
        if let (Some(accuracy), Some(predicted_BSD), Some(target), Some(true_BS)) =
            (&mut accuracy, &predicted.latents_BSD, &lesson.targets.latent, &lesson.codes_BS)
        {
            let (repeated, repeated_BS) = task.codes(&batch, moments.image - 1)?;
            let is_valid_BS = target.is_valid_B.unsqueeze(1).expand([-1, true_BS.size()[1]], false);
            latents.add(predicted_BSD, &repeated.codes_BSD, &target.codes_BSD, &is_valid_BS);
            let predicted_BS = accuracy.nearest(predicted_BSD);
            accuracy.add(&predicted_BS, &repeated_BS, true_BS);
            codes_BS = Some(predicted_BS);
        }
        if let (Some(predicted_BTA), Some(target)) = (&predicted.actions_BTA, &lesson.targets.action) {
            let last_B1A = task.processor.actions(&batch)?.chunk_BTA.narrow(1, moments.action - 1, 1);
            let repeated_BTA = last_B1A.expand_as(&target.chunk_BTA);
            actions.add(predicted_BTA, &repeated_BTA, &target.chunk_BTA, &target.is_pad_BT.logical_not());
        }
        let compared = Compared { lesson, predicted, codes_BS };
        for index in 0..batch.meta.len() {
            pictured.offer(|| PicturedSample::new(task, moments, &batch, &compared, index))?;
        }
    }
    let mut metrics = sums.means()?;
    metrics.extend(latents.metrics("latent"));
    metrics.extend(actions.metrics("action"));
    if let Some(accuracy) = accuracy {
        metrics.extend(accuracy.metrics());
    }
    pictures::draw(context, &pictured.take())?;
    Ok(Validation { metrics })
}

/// Names of the metrics that [`run`] gives for a policy that learns code vectors of `code_dim` numbers, actions of `action_dim`, or both.
pub(crate) fn metric_names(code_dim: Option<i64>, action_dim: Option<i64>) -> Vec<String> {
    let mut names = vec!["val/loss".to_owned()];
    if let Some(code_dim) = code_dim {
        names.push("val/latent_loss".to_owned());
        names.extend(code_accuracy::NAMES.map(str::to_owned));
        names.extend(errors::names("latent", code_dim));
    }
    if let Some(action_dim) = action_dim {
        names.push("val/action_loss".to_owned());
        names.extend(errors::names("action", action_dim));
    }
    names
}

fn add_losses(sums: &mut Sums, task: &VlaTask, lesson: &Lesson, num_samples: usize) -> anyhow::Result<()> {
    let (model, pass) = (&task.model, Pass::plain(false));
    let loss = model.loss(&lesson.observation, &lesson.targets, &task.objective, &mut TorchFlowDraws, &pass)?;
    let num_samples = num_samples as i64;
    sums.add("val/loss", &loss.total, num_samples);
    for (name, part) in [("val/latent_loss", &loss.latent), ("val/action_loss", &loss.action)] {
        if let Some(part) = part {
            sums.add(name, &part.mean, num_samples);
        }
    }
    Ok(())
}

/// The mean over several draws of the flow: an estimate of the expectation, which is what a squared error rewards.
fn predict(task: &VlaTask, lesson: &Lesson) -> anyhow::Result<Prediction> {
    let draw = || {
        let (observation, mode) = (&lesson.observation, task.objective.mode);
        task.model.sample(observation, mode, &mut TorchFlowDraws, &Pass::plain(false))
    };
    let draws = (0..task.num_flow_samples).map(|_| draw()).collect::<Result<Vec<_>, _>>()?;
    let mean = |of: fn(&Prediction) -> Option<&Tensor>| {
        let all: Vec<&Tensor> = draws.iter().filter_map(of).collect();
        (!all.is_empty()).then(|| Tensor::stack(&all, 0).mean_dim([0].as_slice(), false, tch::Kind::Float))
    };
    Ok(Prediction {
        actions_BTA: mean(|draw| draw.actions_BTA.as_ref()),
        latents_BSD: mean(|draw| draw.latents_BSD.as_ref()),
    })
}
