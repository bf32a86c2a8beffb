//! What estimates the optical flow of a frame pair: the target of the flow decoder, and the motion that analyses compare codes with.
//!
//! Shape suffixes: B samples, T = 2 frames, C channels, H×W pixels.

mod cache;
mod lucas_kanade;
mod raft;

pub use cache::FlowCache;
pub(crate) use cache::known_flow;
pub use lucas_kanade::LucasKanade;
pub use raft::RaftTeacher;

use crate::error::LaqError;
use hlrp_nn::raft::RaftSize;
use hlrp_schema::FlowTeacherKind;
use std::path::Path;
use tch::{Device, Tensor};

/// Estimates optical flow.
pub trait FlowTeacher: Send {
    /// Flow from the first to the second frame in pixels (dx, dy), `[B,2,H,W]` float32 without gradient. Frames are
    /// `[B,2,3,H,W]` in [0, 1].
    fn flow(&self, frames_BTCHW: &Tensor) -> Tensor;
}

/// The teacher of this kind: a RAFT reads its weights from the safetensors file `weights`, refines a flow `num_updates` times and sees
/// `chunk_size` pairs at once. The configuration names that file in `section` (`model.decoders.flow`, `analysis.flow`).
///
/// # Errors
/// A file that is missing, damaged or of another network.
pub(crate) fn load(
    kind: FlowTeacherKind,
    weights: Option<&Path>,
    [num_updates, chunk_size]: [i64; 2],
    device: Device,
    section: &'static str,
) -> Result<Box<dyn FlowTeacher>, LaqError> {
    let Some(size) = raft_size(kind) else { return Ok(Box::new(LucasKanade)) };
    let path = weights.unwrap_or(Path::new(""));
    match RaftTeacher::load(size, path, num_updates, chunk_size, device) {
        Ok(teacher) => Ok(Box::new(teacher)),
        Err(LaqError::Weights(cause)) => Err(LaqError::FlowTeacher { section, cause }),
        Err(error) => Err(error),
    }
}

/// The size of a RAFT; none of another teacher.
pub fn raft_size(kind: FlowTeacherKind) -> Option<RaftSize> {
    match kind {
        FlowTeacherKind::RaftSmall => Some(RaftSize::Small),
        FlowTeacherKind::RaftLarge => Some(RaftSize::Large),
        FlowTeacherKind::LucasKanade => None,
    }
}
