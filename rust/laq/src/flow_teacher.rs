//! Networks that estimate the optical flow of a frame pair: the target of the flow decoder.
//!
//! Shape suffixes: B samples, T = 2 frames, C channels, H×W pixels.

use crate::error::LaqError;
use hlrp_nn::raft::{Raft, RaftSize};
use hlrp_nn::{NnError, Pass, Store, read_tensors};
use hlrp_schema::{FlowDecoderConfig, FlowTeacherKind};
use hlrp_torch::Autocast;
use std::path::Path;
use tch::{Device, Kind, Tensor, no_grad};

/// Estimates optical flow.
pub trait FlowTeacher: Send {
    /// Flow from the first to the second frame in pixels (dx, dy), `[B,2,H,W]` float32 without gradient. Frames are
    /// `[B,2,3,H,W]` in [0, 1].
    fn flow(&self, frames_BTCHW: &Tensor) -> Tensor;
}

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
    /// Reads the weights that `config` names.
    ///
    /// # Errors
    /// A file that is missing, damaged or of another network.
    pub fn load(config: &FlowDecoderConfig, device: Device) -> Result<Self, LaqError> {
        let size = match config.teacher {
            FlowTeacherKind::RaftSmall => RaftSize::Small,
            FlowTeacherKind::RaftLarge => RaftSize::Large,
        };
        let path = config.teacher_weights.as_deref().unwrap_or(Path::new(""));
        let store = Store::new(device);
        let network = Raft::new(&store.root(), size);
        let as_float = |x: Tensor| if x.is_floating_point() { x.to_kind(Kind::Float) } else { x };
        let tensors: Vec<(String, Tensor)> =
            read_tensors(path)?.into_iter().map(|(name, tensor)| (name, as_float(tensor))).collect();
        let misfit = |cause| NnError::Weights { path: path.to_owned(), cause: Box::new(cause) };
        store.load_strict(&tensors).map_err(misfit)?;
        store.freeze();
        let (num_updates, chunk_size) = (config.teacher_num_updates, config.teacher_chunk_size);
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
