//! Data that a formula makes: every sample is a function of its place in the epoch.

use hlrp_data::{Batch, Position, SampleMeta, VectorStream};
use hlrp_torch::World;
use hlrp_train::{BatchStream, SourceRecord, TrainingData, ValidationBatches};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// Samples in one epoch; no multiple of the batch size, so that batches straddle epochs.
const NUM_ANCHORS: u64 = 30;

/// The data set, and a record of the sample order.
pub struct Numbers {
    /// Samples in a batch.
    pub batch_size: u64,
    /// This place's sample has a target of NaN.
    pub poisoned: Option<Position>,
    /// One sample of so many is supervised; all of them when 1.
    pub supervised_every: u64,
    /// What it says of its sources.
    pub sources: BTreeMap<String, SourceRecord>,
    /// Epoch and frame of every sample that was handed out for training.
    pub order: Arc<Mutex<Vec<(u64, u64)>>>,
}

impl Default for Numbers {
    fn default() -> Self {
        let sources = BTreeMap::new();
        Self { batch_size: 4, poisoned: None, supervised_every: 1, sources, order: Arc::default() }
    }
}

impl TrainingData for Numbers {
    fn sources(&self) -> BTreeMap<String, SourceRecord> {
        self.sources.clone()
    }

    fn train(&mut self, position: Position, _: &World) -> anyhow::Result<Box<dyn BatchStream>> {
        let &mut Self { batch_size, poisoned, supervised_every, .. } = self;
        Ok(Box::new(Stream { position, batch_size, poisoned, supervised_every, order: Arc::clone(&self.order) }))
    }

    fn validation(&mut self, limit_batches: Option<usize>, _: &World) -> anyhow::Result<ValidationBatches> {
        let batches = (0..3).map(|number| Ok(batch_at(1000, number * 4, 4, None, 1)));
        Ok(Box::new(batches.take(limit_batches.unwrap_or(usize::MAX))))
    }
}

struct Stream {
    position: Position,
    batch_size: u64,
    poisoned: Option<Position>,
    supervised_every: u64,
    order: Arc<Mutex<Vec<(u64, u64)>>>,
}

impl BatchStream for Stream {
    fn next_batch(&mut self) -> anyhow::Result<Batch> {
        let Position { epoch, sample, num_bad_samples } = self.position;
        let batch = batch_at(epoch, sample, self.batch_size, self.poisoned, self.supervised_every);
        self.order.lock().unwrap().extend(batch.meta.iter().map(|meta| (meta.episode, meta.frame)));
        let place = sample + self.batch_size;
        self.position = Position { epoch: epoch + place / NUM_ANCHORS, sample: place % NUM_ANCHORS, num_bad_samples };
        Ok(batch)
    }

    fn position(&self) -> Position {
        self.position
    }
}

/// The batch of `batch_size` samples from `sample` of `epoch` on; the epoch stands in for the episode.
fn batch_at(epoch: u64, sample: u64, batch_size: u64, poisoned: Option<Position>, supervised_every: u64) -> Batch {
    let (mut meta, mut states, mut actions) = (Vec::new(), Vec::new(), Vec::new());
    for place in sample..sample + batch_size {
        let (epoch, frame) = (epoch + place / NUM_ANCHORS, place % NUM_ANCHORS);
        meta.push(SampleMeta { source: "numbers".to_owned(), episode: epoch, frame, dt_s: 0.1 });
        let state: Vec<f32> = (0..4).map(|i| ((epoch * 31 + frame * 7 + i * 3) as f32 * 0.37).sin()).collect();
        let is_poisoned = poisoned.is_some_and(|at| (at.epoch, at.sample) == (epoch, frame));
        actions.extend([if is_poisoned { f32::NAN } else { state[0] * state[1] }, state[2] - state[3]]);
        states.extend(state);
    }
    let count = batch_size as usize;
    let is_pad_BT: Vec<bool> =
        (sample..sample + batch_size).map(|place| !place.is_multiple_of(supervised_every)).collect();
    let vectors = |values, width| VectorStream {
        values_BTN: values,
        shape: [count, 1, width],
        is_pad_BT: is_pad_BT.clone(),
        is_pad_dim_BN: vec![false; count * width],
    };
    Batch {
        images: BTreeMap::new(),
        task: vec!["imitate a formula".to_owned(); count],
        state: Some(vectors(states, 4)),
        action: Some(vectors(actions, 2)),
        labels: BTreeMap::new(),
        meta,
    }
}
