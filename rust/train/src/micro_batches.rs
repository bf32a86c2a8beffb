//! Sums over the micro-batches of one optimizer step.

use crate::{LossOutput, Result};
use tch::{Device, Kind, Tensor};

/// Loss and metrics of one step as means over its micro-batches, left on the device.
#[derive(Default)]
pub(crate) struct StepMeans {
    loss: Option<Tensor>,
    metrics: Vec<(&'static str, Tensor)>,
    num_batches: i64,
}

impl StepMeans {
    /// Takes one micro-batch in. A metric that only some micro-batches give is a mean over all of them.
    pub(crate) fn add(&mut self, output: &LossOutput) -> Result<()> {
        tch::no_grad(|| {
            let loss = scalar(&output.loss)?;
            self.loss = Some(match self.loss.take() {
                Some(sum) => sum.f_add(&loss)?,
                None => loss,
            });
            for (name, value) in &output.metrics {
                let value = scalar(value)?;
                match self.metrics.iter_mut().find(|(known, _)| known == name) {
                    Some((_, sum)) => *sum = sum.f_add(&value)?,
                    None => self.metrics.push((name, value)),
                }
            }
            self.num_batches += 1;
            Ok(())
        })
    }

    /// Fetches `train/loss`, `train/<metric>` and the scalars in `others` in one transfer; waits for the device.
    pub(crate) fn fetch(&self, others: &[(&str, &Tensor)]) -> Result<Vec<(String, f64)>> {
        let loss = self.loss.iter().map(|loss| ("loss", loss));
        let own = loss.chain(self.metrics.iter().map(|(name, sum)| (*name, sum)));
        let mut names = Vec::new();
        let mut scalars = Vec::new();
        for (name, sum) in own {
            names.push(format!("train/{name}"));
            scalars.push(sum.f_div_scalar(self.num_batches as f64)?);
        }
        for (name, value) in others {
            names.push((*name).to_owned());
            scalars.push(scalar(value)?);
        }
        if scalars.is_empty() {
            return Ok(Vec::new());
        }
        let values = Vec::<f32>::try_from(Tensor::f_stack(&scalars, 0)?.to_device(Device::Cpu))?;
        Ok(names.into_iter().zip(values.into_iter().map(f64::from)).collect())
    }
}

fn scalar(value: &Tensor) -> Result<Tensor> {
    const SCALAR: [i64; 0] = [];
    Ok(value.detach().to_kind(Kind::Float).f_reshape(SCALAR)?)
}
