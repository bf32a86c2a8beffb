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
