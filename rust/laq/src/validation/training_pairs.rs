//! Pairs of the training episodes for images: the same at every validation, whatever batches the training has seen.

use crate::data::with_training_validated;
use hlrp_data::{Loader, Mixture, Shard};
use hlrp_schema::LaqConfig;
use hlrp_torch::HostToDevice;
use hlrp_train::DeviceBatch;
use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;
use tch::Device;

/// A few pairs, spread evenly over the training episodes. They are read when they are first asked for, and stay in memory.
pub(crate) struct TrainingPairs {
    /// Its validation set is the training set of the run.
    mixture: Arc<Mixture>,
    num_batches: usize,
    device: Device,
    batches: OnceCell<Vec<DeviceBatch>>,
}

impl TrainingPairs {
    /// As many as the strategies of `config` show, for a model on `device`; none where they show none.
    ///
    /// # Errors
    /// Sources that cannot be split.
    pub(crate) fn new(config: &LaqConfig, mixture: &Mixture, device: Device) -> anyhow::Result<Option<Rc<Self>>> {
        let shown = config.validation.strategies.values().filter(|strategy| strategy.enabled);
        let wanted = shown.filter_map(|strategy| Some(strategy.reconstructions.as_ref()?.num_train_samples)).max();
        let Some(num_pairs) = wanted.filter(|num_pairs| *num_pairs > 0) else { return Ok(None) };
        let mixture = Arc::new(with_training_validated(mixture, &config.data.request)?);
        let num_batches = num_pairs.div_ceil(config.data.loader.batch_size);
        Ok(Some(Rc::new(Self { mixture, num_batches, device, batches: OnceCell::new() })))
    }

    /// At least as many pairs as were asked for, if there are.
    ///
    /// # Errors
    /// Data that cannot be read.
    pub(super) fn batches(&self) -> anyhow::Result<&[DeviceBatch]> {
        if let Some(batches) = self.batches.get() {
            return Ok(batches);
        }
        let transfer = HostToDevice::new(self.device)?;
        let loader = Loader::validation(&self.mixture, Some(self.num_batches), Shard::SINGLE)?;
        let batches: Vec<DeviceBatch> =
            loader.map(|batch| Ok(DeviceBatch::from_host(batch?, &transfer)?)).collect::<anyhow::Result<_>>()?;
        Ok(self.batches.get_or_init(|| batches))
    }
}
