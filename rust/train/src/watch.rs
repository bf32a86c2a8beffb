//! What a step computed, and the watch that finds the first loss that is not finite without waiting for the device at every step.

use crate::{
    error::{Result, TrainError},
    task::LossOutput,
};
use hlrp_data::SampleMeta;
use hlrp_torch::World;
use std::{collections::BTreeMap, fmt::Write, rc::Rc};
use tch::{Device, Kind, Tensor};

/// Numbers of one forward pass, left on the device.
pub(crate) struct MicroBatch {
    /// Float32 scalar.
    loss: Tensor,
    /// Float32 scalars by name.
    metrics: Vec<(&'static str, Tensor)>,
    samples: Vec<SampleMeta>,
}

impl MicroBatch {
    /// The numbers of `output`, computed from `samples`.
    pub(crate) fn new(output: &LossOutput, samples: Vec<SampleMeta>) -> Result<Self> {
        let metrics = output.metrics.iter().map(|(name, value)| Ok((*name, scalar(value)?)));
        Ok(Self { loss: scalar(&output.loss)?, metrics: metrics.collect::<Result<_>>()?, samples })
    }
}

/// Numbers of one optimizer step, left on the device.
pub(crate) struct StepRecord {
    /// 1-based optimizer step.
    pub(crate) step: u64,
    pub(crate) micro_batches: Vec<MicroBatch>,
    /// Float32 scalar: norm of the gradient before clipping.
    pub(crate) grad_norm: Tensor,
}

impl StepRecord {
    /// Fetches `train/loss`, `train/<metric>` (means over the micro-batches of all processes) and `train/grad_norm` in one transfer; waits
    /// for the device.
    /// A metric that only some micro-batches have is a mean over all of them.
    pub(crate) fn fetch(&self, world: &World) -> Result<Vec<(String, f64)>> {
        let mut sums: Vec<(&str, Tensor)> = Vec::new();
        for MicroBatch { loss, metrics, .. } in &self.micro_batches {
            for (name, value) in std::iter::once(("loss", loss)).chain(metrics.iter().map(|(name, x)| (*name, x))) {
                match sums.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, sum)) => *sum = sum.f_add(value)?,
                    None => sums.push((name, value.shallow_clone())),
                }
            }
        }
        let num_batches = self.micro_batches.len() as f64;
        let names = sums.iter().map(|(name, _)| format!("train/{name}")).chain(["train/grad_norm".to_owned()]);
        let means = sums.iter().map(|(_, sum)| Ok(sum.f_div_scalar(num_batches)?)).collect::<Result<Vec<_>>>()?;
        let scalars: Vec<&Tensor> = means.iter().chain([&self.grad_norm]).collect();
        let scalars = Tensor::f_stack(&scalars, 0)?;
        world.all_reduce(&scalars)?;
        let values = Vec::<f32>::try_from(scalars.to_device(Device::Cpu))?;
        let mean = |sum: f32| f64::from(sum) / world.size() as f64;
        Ok(names.zip(values.into_iter().map(mean)).collect())
    }

    /// Origins of its samples.
    pub(crate) fn samples(&self) -> impl Iterator<Item = &SampleMeta> {
        self.micro_batches.iter().flat_map(|batch| &batch.samples)
    }
}

/// A float32 scalar without a graph.
pub(crate) fn scalar(value: &Tensor) -> Result<Tensor> {
    const SCALAR: [i64; 0] = [];
    Ok(value.detach().to_kind(Kind::Float).f_reshape(SCALAR)?)
}

fn fetch(scalars: &[&Tensor]) -> Result<Vec<f64>> {
    let values = Vec::<f32>::try_from(Tensor::f_stack(scalars, 0)?.to_device(Device::Cpu))?;
    Ok(values.into_iter().map(f64::from).collect())
}

/// Steps since the last check.
#[derive(Default)]
pub(crate) struct LossWatch {
    pending: Vec<Rc<StepRecord>>,
}

impl LossWatch {
    /// Remembers a step.
    pub(crate) fn add(&mut self, record: &Rc<StepRecord>) {
        self.pending.push(Rc::clone(record));
    }

    /// Fetches what is pending in one transfer and forgets it.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] for the first loss or gradient norm that is not finite; `checkpoint` is where to resume.
    pub(crate) fn check(&mut self, checkpoint: impl FnOnce() -> String) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        let of_step = |record: &Rc<StepRecord>| {
            let losses = record.micro_batches.iter().map(|batch| batch.loss.shallow_clone());
            losses.chain([record.grad_norm.shallow_clone()]).collect::<Vec<_>>()
        };
        let scalars: Vec<Tensor> = pending.iter().flat_map(of_step).collect();
        if scalars.is_empty() {
            return Ok(());
        }
        let mut values = fetch(&scalars.iter().collect::<Vec<_>>())?.into_iter();
        for record in &pending {
            let of_batches = record.micro_batches.iter().map(|batch| ("loss", Some(batch)));
            for ((quantity, batch), value) in of_batches.chain([("gradient norm", None)]).zip(values.by_ref()) {
                if !value.is_finite() {
                    let samples = batch.map_or_else(|| describe(record.samples()), |batch| describe(&batch.samples));
                    let (step, checkpoint) = (record.step, checkpoint());
                    return Err(TrainError::NotFinite { step, quantity, value, samples, checkpoint });
                }
            }
        }
        Ok(())
    }
}

/// `source: episode 3 frame 12, 40; episode 5 frame 7; …`
fn describe<'a>(samples: impl IntoIterator<Item = &'a SampleMeta>) -> String {
    let mut frames: BTreeMap<(&str, u64), Vec<u64>> = BTreeMap::new();
    for sample in samples {
        frames.entry((&sample.source, sample.episode)).or_default().push(sample.frame);
    }
    let mut text = String::new();
    let mut last_source = None;
    for ((source, episode), frames) in frames {
        if last_source != Some(source) {
            let _ = write!(text, "{}{source}:", if last_source.is_some() { "; " } else { "" });
            last_source = Some(source);
        } else {
            text.push(';');
        }
        let frames = frames.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let _ = write!(text, " episode {episode} frame {frames}");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;

    fn record(step: u64, loss: f32, grad_norm: f32, frames: &[(&str, u64, u64)]) -> Rc<StepRecord> {
        let meta = |(source, episode, frame): &(&str, u64, u64)| SampleMeta {
            source: (*source).to_owned(),
            episode: *episode,
            frame: *frame,
            dt_s: 0.5,
        };
        let samples = frames.iter().map(meta).collect();
        let output = LossOutput {
            loss: Tensor::from(loss),
            masked: Vec::new(),
            metrics: vec![("mse", Tensor::from(2.0f32 * loss))],
        };
        let micro_batches = vec![MicroBatch::new(&output, samples).unwrap()];
        Rc::new(StepRecord { step, micro_batches, grad_norm: Tensor::from(grad_norm) })
    }

    #[test]
    fn a_check_after_many_steps_names_the_first_bad_one() {
        let mut watch = LossWatch::default();
        watch.add(&record(1, 0.5, 1.0, &[("a", 0, 1)]));
        watch.add(&record(2, f32::INFINITY, 1.0, &[("b", 7, 3), ("a", 1, 2), ("a", 0, 9), ("a", 0, 4)]));
        watch.add(&record(3, f32::NAN, 1.0, &[("a", 0, 1)]));
        let error = watch.check(|| "step-000001".to_owned()).unwrap_err().to_string();
        assert!(error.starts_with("step 2: the loss is inf\n"), "{error}");
        assert!(error.contains("samples: a: episode 0 frame 9, 4; episode 1 frame 2; b: episode 7 frame 3"), "{error}");
        assert!(error.contains("last good checkpoint: step-000001"), "{error}");
    }

    #[test]
    fn what_was_checked_is_forgotten() {
        let mut watch = LossWatch::default();
        watch.add(&record(1, 0.5, f32::NAN, &[]));
        assert!(watch.check(String::new).is_err());
        watch.check(String::new).unwrap();
    }

    #[test]
    fn numbers_of_a_step_are_means_over_its_micro_batches() {
        let [first, second] = [record(1, 1.0, 0.0, &[]), record(1, 2.0, 0.0, &[])].map(|r| Rc::into_inner(r).unwrap());
        let micro_batches = first.micro_batches.into_iter().chain(second.micro_batches).collect();
        let step = StepRecord { step: 1, micro_batches, grad_norm: Tensor::from(4.0f32) };
        let wanted = [("train/loss", 1.5), ("train/mse", 3.0), ("train/grad_norm", 4.0)];
        assert_eq!(step.fetch(&World::single()).unwrap(), wanted.map(|(name, value)| (name.to_owned(), value)));
    }
}
