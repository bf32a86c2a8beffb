//! Data that a formula makes: every sample is a function of its place in the epoch.

use hlrp_data::{Batch, Position, SampleMeta, VectorStream};
use hlrp_torch::World;
use hlrp_train::{BatchStream, TrainingData, ValidationBatches};
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
    /// Epoch and frame of every sample that was handed out for training.
    pub order: Arc<Mutex<Vec<(u64, u64)>>>,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { batch_size: 4, poisoned: None, order: Arc::default() }
    }
}

impl TrainingData for Numbers {
    fn train(&mut self, position: Position, _: &World) -> anyhow::Result<Box<dyn BatchStream>> {
        let (batch_size, poisoned) = (self.batch_size, self.poisoned);
        Ok(Box::new(Stream { position, batch_size, poisoned, order: Arc::clone(&self.order) }))
    }

    fn validation(&mut self, limit_batches: Option<usize>, _: &World) -> anyhow::Result<ValidationBatches> {
        let batches = (0..3).map(|number| Ok(batch_at(1000, number * 4, 4, None)));
        Ok(Box::new(batches.take(limit_batches.unwrap_or(usize::MAX))))
    }
}

struct Stream {
    position: Position,
    batch_size: u64,
    poisoned: Option<Position>,
    order: Arc<Mutex<Vec<(u64, u64)>>>,
}

impl BatchStream for Stream {
    fn next_batch(&mut self) -> anyhow::Result<Batch> {
        let Position { epoch, sample, num_bad_samples } = self.position;
        let batch = batch_at(epoch, sample, self.batch_size, self.poisoned);
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
fn batch_at(epoch: u64, sample: u64, batch_size: u64, poisoned: Option<Position>) -> Batch {
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
    let vectors =
        |values, width| VectorStream { values_BTN: values, shape: [count, 1, width], is_pad_BT: vec![false; count] };
    Batch {
        images: BTreeMap::new(),
        task: vec!["imitate a formula".to_owned(); count],
        state: Some(vectors(states, 4)),
        action: Some(vectors(actions, 2)),
        meta,
    }
}
