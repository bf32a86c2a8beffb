//! Exponential moving average of the weights.

use crate::{Result, RowReset, TrainError};
use hlrp_schema::EmaConfig;
use tch::Tensor;

/// Float32 averages of the parameters: `average += (1 - decay) * (weight - average)`, as in `torch.optim.swa_utils`. The first
/// update takes the weights as they are.
pub struct Ema {
    config: EmaConfig,
    names: Vec<String>,
    weights: Vec<Tensor>,
    averages: Vec<Tensor>,
    num_updates: u64,
}

impl Ema {
    /// Averages that start as copies of `parameters`.
    ///
    /// # Errors
    /// A setting out of range.
    pub fn new(parameters: &[(String, Tensor)], config: &EmaConfig) -> Result<Self> {
        let wrong = |key, reason: String| Err(TrainError::Setting { key, reason });
        if !(0.0..1.0).contains(&config.decay) {
            return wrong("training.ema.decay", format!("{} does not lie in [0, 1)", config.decay));
        }
        if config.update_every_n_steps == 0 {
            return wrong("training.ema.update_every_n_steps", "0 is not a number of steps".to_owned());
        }
        Ok(Self {
            config: config.clone(),
            names: parameters.iter().map(|(name, _)| name.clone()).collect(),
            weights: parameters.iter().map(|(_, weight)| weight.shallow_clone()).collect(),
            averages: parameters.iter().map(|(_, weight)| weight.detach().copy()).collect(),
            num_updates: 0,
        })
    }

    /// Takes the weights of finished step `step` in, if that step counts: it lies behind `update_after_step` and is a multiple
    /// of `update_every_n_steps`.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn update(&mut self, step: u64) -> Result<()> {
        if step <= self.config.update_after_step || !step.is_multiple_of(self.config.update_every_n_steps) {
            return Ok(());
        }
        // A weight of one copies: torch's lerp gives the end itself there.
        let share = if self.num_updates == 0 { 1.0 } else { 1.0 - self.config.decay };
        hlrp_torch::lerp(&self.averages, &self.weights, share)?;
        self.num_updates += 1;
        Ok(())
    }

    /// Takes over rows that the model rewrote: their average describes vectors that are gone.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn reset_rows(&self, reset: &RowReset) -> Result<()> {
        let Some(index) = self.names.iter().position(|name| *name == reset.parameter) else { return Ok(()) };
        let rows = self.weights[index].detach().f_index_select(0, &reset.rows)?;
        let _ = self.averages[index].shallow_clone().f_index_copy_(0, &reset.rows, &rows)?;
        Ok(())
    }

    /// Runs `body` while the model's parameters hold the averages, then gives them their own values back, bit for bit. Before the
    /// first update the parameters keep their own values.
    pub fn with_averages<R>(&self, body: impl FnOnce() -> R) -> R {
        if self.num_updates == 0 {
            return body();
        }
        self.exchange();
        let result = body();
        self.exchange();
        result
    }

    /// Names and averages.
    pub fn averages(&self) -> Vec<(String, Tensor)> {
        self.names.iter().cloned().zip(self.averages.iter().map(Tensor::shallow_clone)).collect()
    }

    /// Updates so far.
    pub fn num_updates(&self) -> u64 {
        self.num_updates
    }

    /// Continues after `num_updates` updates; the averages themselves are loaded through [`Ema::averages`].
    pub fn set_num_updates(&mut self, num_updates: u64) {
        self.num_updates = num_updates;
    }

    /// Swaps the contents of weights and averages; one parameter's worth of extra memory.
    fn exchange(&self) {
        tch::no_grad(|| {
            for (weight, average) in self.weights.iter().zip(&self.averages) {
                let held = weight.detach().copy();
                weight.shallow_clone().copy_(average);
                average.shallow_clone().copy_(&held);
            }
        });
    }
}
