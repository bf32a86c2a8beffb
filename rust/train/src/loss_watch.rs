//! Finds the step and the samples of a loss that is not finite, without waiting for the device at every step.

use crate::{Result, TrainError};
use hlrp_data::SampleMeta;
use std::{collections::BTreeMap, fmt::Write, sync::Arc};
use tch::{Device, Kind, Tensor};

/// A number on the device that must be finite, and what it was computed from.
struct Watched {
    step: u64,
    quantity: &'static str,
    value: Tensor,
    samples: Arc<Vec<SampleMeta>>,
}

/// Scalars since the last check.
#[derive(Default)]
pub(crate) struct LossWatch {
    pending: Vec<Watched>,
}

impl LossWatch {
    /// Remembers the scalar `value` of `step`.
    pub(crate) fn watch(&mut self, step: u64, quantity: &'static str, value: &Tensor, samples: &Arc<Vec<SampleMeta>>) {
        let value = value.detach().to_kind(Kind::Float);
        self.pending.push(Watched { step, quantity, value, samples: Arc::clone(samples) });
    }

    /// Fetches what is pending in one transfer and forgets it.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] for the first number that is not finite, with `checkpoint` as the way back.
    pub(crate) fn check(&mut self, checkpoint: impl FnOnce() -> String) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        let scalars: Vec<&Tensor> = pending.iter().map(|watched| &watched.value).collect();
        let values = Vec::<f32>::try_from(Tensor::f_stack(&scalars, 0)?.to_device(Device::Cpu))?;
        for (watched, value) in pending.iter().zip(values) {
            if !value.is_finite() {
                return Err(TrainError::NotFinite {
                    step: watched.step,
                    quantity: watched.quantity,
                    value: f64::from(value),
                    samples: describe(&watched.samples),
                    checkpoint: checkpoint(),
                });
            }
        }
        Ok(())
    }
}

/// `source: episode 3 frames 12, 40; episode 5 frame 7; …`
fn describe(samples: &[SampleMeta]) -> String {
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
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn samples(frames: &[(&str, u64, u64)]) -> Arc<Vec<SampleMeta>> {
        let meta = |(source, episode, frame): &(&str, u64, u64)| SampleMeta {
            source: (*source).to_owned(),
            episode: *episode,
            frame: *frame,
            dt_s: 0.5,
        };
        Arc::new(frames.iter().map(meta).collect())
    }

    #[test]
    fn a_check_after_many_steps_names_the_first_bad_one() {
        let mut watch = LossWatch::default();
        let good = samples(&[("a", 0, 1)]);
        watch.watch(1, "loss", &Tensor::from(0.5f32), &good);
        watch.watch(
            2,
            "loss",
            &Tensor::from(f32::INFINITY),
            &samples(&[("b", 7, 3), ("a", 1, 2), ("a", 0, 9), ("a", 0, 4)]),
        );
        watch.watch(3, "loss", &Tensor::from(f32::NAN), &good);
        let error = watch.check(|| "step-000001".to_owned()).unwrap_err().to_string();
        assert!(error.starts_with("step 2: the loss is inf\n"), "{error}");
        assert!(
            error.contains("samples: a: episode 0 frame 9, 4; episode 1 frame 2; b: episode 7 frame 3\n"),
            "{error}"
        );
        assert!(error.contains("last good checkpoint: step-000001"), "{error}");
    }

    #[test]
    fn what_was_checked_is_forgotten() {
        let mut watch = LossWatch::default();
        watch.watch(1, "gradient norm", &Tensor::from(f32::NAN), &samples(&[]));
        assert!(watch.check(String::new).is_err());
        watch.check(String::new).unwrap();
    }
}
