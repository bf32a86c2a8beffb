//! RAFT with torchvision's weights.
//!
//! Shape suffixes: B samples, T = 2 frames, C channels, H×W pixels.

use super::FlowTeacher;
use crate::error::LaqError;
use hlrp_nn::raft::{Raft, RaftSize};
use hlrp_nn::{NnError, Pass, Store, read_tensors};
use hlrp_torch::Autocast;
use std::path::Path;
use tch::{Device, Kind, Tensor, no_grad};

/// A frozen RAFT. It computes in float32 whatever the precision of the training.
pub struct RaftTeacher {
    /// Keeps the tensors.
    _store: Store,
    network: Raft,
    num_updates: i64,
    chunk_size: i64,
    device: Device,
}

impl RaftTeacher {
    /// Reads the weights of a RAFT of this size from the safetensors file `path`; it refines a flow `num_updates` times and sees
    /// `chunk_size` pairs at once.
    ///
    /// # Errors
    /// A file that is missing, damaged or of another network.
    pub fn load(
        size: RaftSize,
        path: &Path,
        num_updates: i64,
        chunk_size: i64,
        device: Device,
    ) -> Result<Self, LaqError> {
        let store = Store::new(device);
        let network = Raft::new(&store.root(), size);
        let as_float = |x: Tensor| if x.is_floating_point() { x.to_kind(Kind::Float) } else { x };
        let tensors: Vec<(String, Tensor)> =
            read_tensors(path)?.into_iter().map(|(name, tensor)| (name, as_float(tensor))).collect();
        let misfit = |cause| NnError::Weights { path: path.to_owned(), cause: Box::new(cause) };
        store.load_strict(&tensors).map_err(misfit)?;
        store.freeze();
        Ok(Self { _store: store, network, num_updates, chunk_size, device })
    }
}

impl FlowTeacher for RaftTeacher {
    fn flow(&self, frames_BTCHW: &Tensor) -> Tensor {
        let _float32 =
            Autocast::disable(self.device).expect("autocast can be turned off on a device that holds tensors");
        no_grad(|| {
            let frames_BTCHW = frames_BTCHW.to_kind(Kind::Float) * 2.0 - 1.0;
            let of_chunk = |chunk: Tensor| {
                let (first, second) = (chunk.select(1, 0), chunk.select(1, 1));
                self.network.forward(&first, &second, self.num_updates, &Pass::plain(false))
            };
            let flows: Vec<Tensor> = frames_BTCHW.split(self.chunk_size, 0).into_iter().map(of_chunk).collect();
            Tensor::cat(&flows, 0)
        })
    }
}
