//! The gradient of a step: over one or several batches of every process, or from a recording.

use crate::{
    device::autocast,
    error::{Result, TrainError},
    prefetch::{DevicePrefetcher, Prefetched},
    signals::StopRequest,
    task::{LossOutput, MaskedMean, RowReset},
    trainer::{Settings, Trainer},
    update::norm_and_clip,
    watch::{MicroBatch, StepRecord, scalar},
};
use std::collections::VecDeque;
use tch::{Kind, Tensor};

/// What a step computes before the weights change.
pub(crate) struct Gradient {
    pub(crate) output: LossOutput,
    /// Norm of the gradient before clipping, a scalar.
    pub(crate) norm: Tensor,
}

impl Trainer<'_> {
    /// The gradient of one step, over one or several batches of every process, clipped; the rows that the model rewrote meanwhile take
    /// no part in it. A masked mean divides by the supervised values of all these batches. None if a signal arrives before the first batch.
    pub(crate) fn compute_gradient(
        &mut self,
        batches: &mut DevicePrefetcher,
        stop: &StopRequest,
    ) -> Result<Option<(StepRecord, Vec<RowReset>)>> {
        let step = self.step + 1;
        if self.graph.is_some() && self.task.repeats(step) {
            return self.replay_gradient(batches, stop);
        }
        let gradient = self.settings.training.gradient.clone();
        self.optimizer.clear_gradients()?;
        let mut micro_batches = Vec::new();
        let Some(mut portions) = self.portions(batches, stop)? else { return Ok(None) };
        for index in 0..gradient.accumulate_steps {
            // A step that has begun is finished: its random numbers cannot be drawn again.
            let may_stop = || index == 0 && stop.is_requested_alone(&self.settings.world);
            let Portion { prefetched, factors } = match portions.pop_front() {
                Some(portion) => portion,
                None => match batches.next(may_stop)? {
                    Some(prefetched) => Portion { prefetched, factors: Vec::new() },
                    None => return Ok(None),
                },
            };
            let output = {
                let _autocast = autocast(self.settings.precision, self.settings.device)?;
                self.task.loss(&prefetched.batch, step).map_err(TrainError::Task)?
            };
            let output = weighted(output, &factors)?;
            if index + 1 == gradient.accumulate_steps {
                self.reducer.begin();
            }
            output.loss.f_div_scalar(gradient.accumulate_steps as f64)?.f_backward()?;
            micro_batches.push(MicroBatch::new(&output, prefetched.batch.meta)?);
            self.position = prefetched.position;
        }
        self.reducer.finish()?;
        let resets = self.task.take_row_resets();
        for reset in &resets {
            self.optimizer.reset_rows(reset)?;
        }
        let grads = self.optimizer.gradients();
        let grad_norm = scalar(&norm_and_clip(&grads, gradient.clip_norm, self.settings.device)?)?;
        Ok(Some((StepRecord { step, micro_batches, grad_norm }, resets)))
    }

    /// As [`Trainer::compute_gradient`], for a step that is recorded or replayed.
    fn replay_gradient(
        &mut self,
        batches: &mut DevicePrefetcher,
        stop: &StopRequest,
    ) -> Result<Option<(StepRecord, Vec<RowReset>)>> {
        let Self { graph: Some(graph), task, optimizer, settings, step, .. } = self else { return Ok(None) };
        let Some(prefetched) = batches.next(|| stop.is_requested_alone(&settings.world))? else { return Ok(None) };
        let Prefetched { batch, position, .. } = prefetched;
        let (step, samples) = (*step + 1, batch.meta.clone());
        let Settings { precision, device, .. } = *settings;
        let clip_norm = settings.training.gradient.clip_norm;
        let Gradient { output, norm } = graph.gradient(step, batch, &optimizer.params(), |batch| {
            let output = {
                let _autocast = autocast(precision, device)?;
                task.loss(batch, step).map_err(TrainError::Task)?
            };
            output.loss.f_backward()?;
            let norm = norm_and_clip(&optimizer.gradients(), clip_norm, device)?;
            Ok(Gradient { output, norm })
        })?;
        self.position = position;
        let micro_batches = vec![MicroBatch::new(&output, samples)?];
        Ok(Some((StepRecord { step, micro_batches, grad_norm: scalar(&norm)? }, Vec::new())))
    }

    /// Fetches the batches of a step whose loss consists of masked means, with a factor for each mean: its fraction of the supervised
    /// values in the batches of all processes, times the number of these batches. All of them are on the device at once, because the counts
    /// must be known before the first backward pass.
    ///
    /// Fetches nothing where the step is a single batch, and only the first batch where the loss has no masks. None if a signal arrives
    /// before all are fetched.
    fn portions(&mut self, batches: &mut DevicePrefetcher, stop: &StopRequest) -> Result<Option<VecDeque<Portion>>> {
        let world = self.settings.world.clone();
        let num_batches = self.settings.training.gradient.accumulate_steps;
        let mut portions = VecDeque::new();
        if num_batches == 1 && world.size() == 1 {
            return Ok(Some(portions));
        }
        for _ in 0..num_batches {
            let Some(prefetched) = batches.next(|| stop.is_requested_alone(&world))? else { return Ok(None) };
            let factors = self.task.num_supervised(&prefetched.batch).map_err(TrainError::Task)?;
            let is_masked = !factors.is_empty();
            portions.push_back(Portion { prefetched, factors });
            if !is_masked {
                return Ok(Some(portions));
            }
        }
        for term in 0..portions.front().map_or(0, |portion| portion.factors.len()) {
            let counts = portions.iter().map(|portion| portion.factors[term].to_kind(Kind::Double));
            let total = counts.reduce(|sum, count| sum + count).unwrap_or_else(|| Tensor::from(0.0));
            world.all_reduce(&total)?;
            let scale = (num_batches * world.size() as u64) as f64 / total.clamp_min(1.0);
            for portion in &mut portions {
                portion.factors[term] = (portion.factors[term].to_kind(Kind::Double) * &scale).to_kind(Kind::Float);
            }
        }
        Ok(Some(portions))
    }
}

/// One batch of a step.
struct Portion {
    prefetched: Prefetched,
    /// A scalar for each of its masked means.
    factors: Vec<Tensor>,
}

/// The output of a batch with its masked means multiplied by `factors`; unchanged without factors.
fn weighted(output: LossOutput, factors: &[Tensor]) -> Result<LossOutput> {
    if factors.is_empty() {
        return Ok(output);
    }
    let LossOutput { loss, masked, mut metrics } = output;
    let mut total = loss.zeros_like().detach();
    for (MaskedMean { metric, mean, weight }, factor) in masked.iter().zip(factors) {
        let mean = mean.f_mul(factor)?;
        total = total.f_add(&mean.f_mul_scalar(*weight)?)?;
        if let Some((_, value)) = metrics.iter_mut().find(|(name, _)| name == metric) {
            *value = mean.detach();
        }
    }
    Ok(LossOutput { loss: total, masked, metrics })
}
