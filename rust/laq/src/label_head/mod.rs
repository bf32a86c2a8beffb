//! Labelled actions in the loop: a head predicts the relative action of labelled pairs from their vectors before quantization, and its loss
//! trains the encoder, as in CLAM and LAOM.
//!
//! | question | where |
//! |---|---|
//! | Which pairs, in which order? | `pairs` |
//! | What is predicted, and in which unit? | `network` |
//! | How well in a validation? | `score` |
//!
//! The pairs are of labelled episodes alone, in batches of their own. The head belongs to the training: nothing that reads a trained model
//! needs it.
//!
//! Shape suffixes: B samples, S code slots, Q width of a code vector, A dimensions of the action.

mod network;
mod pairs;
mod score;

pub(crate) use network::LabelNetwork;
pub(crate) use score::{Score, specs};

use crate::model::LaqModel;
use hlrp_data::Mixture;
use hlrp_nn::Store;
use hlrp_schema::LaqConfig;
use hlrp_torch::World;
use hlrp_train::DeviceBatch;
use pairs::LabelledPairs;

/// The label head of a run.
pub struct LabelHead {
    store: Store,
    network: LabelNetwork,
    weight: f64,
    pairs: LabelledPairs,
}

impl LabelHead {
    /// First part of the names of its tensors.
    const SCOPE: &'static str = "label_head";

    /// That of a run of `config` that trains `model` on `mixture`, with fresh weights; none where it is off.
    ///
    /// # Errors
    /// Sources without actions, or of different actions; or no labelled pair.
    pub fn new(config: &LaqConfig, model: &LaqModel, mixture: &Mixture, world: &World) -> anyhow::Result<Option<Self>> {
        let own = &config.model.label_head;
        if !own.is_on() {
            return Ok(None);
        }
        let (store, dims) = (Store::new(model.store().device()), model.dims());
        let pairs = LabelledPairs::new(config, mixture, world, store.device())?;
        let vector_dim = dims.code_seq_len * dims.code_dim;
        let network =
            LabelNetwork::new(&store.root().child(Self::SCOPE), vector_dim, &own.hidden_dims, pairs.action_dim());
        Ok(Some(Self { store, network, weight: own.weight, pairs }))
    }

    /// Whether the tensor `name` of a checkpoint belongs to a label head.
    pub(crate) fn owns(name: &str) -> bool {
        name.split('.').next() == Some(Self::SCOPE)
    }

    /// Parameters and buffers.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Factor on its loss.
    pub(crate) fn weight(&self) -> f64 {
        self.weight
    }

    /// From vectors to actions.
    pub(crate) fn network(&self) -> &LabelNetwork {
        &self.network
    }

    /// Whether step `step` has labelled pairs.
    pub(crate) fn has_batch(&self, step: u64) -> bool {
        self.pairs.has_batch(step)
    }

    /// The labelled pairs of the next micro-batch of optimizer step `step`; none where the step has none.
    ///
    /// # Errors
    /// Data that cannot be read.
    pub(crate) fn next_batch(&mut self, step: u64) -> anyhow::Result<Option<DeviceBatch>> {
        self.pairs.next_batch(step)
    }
}
