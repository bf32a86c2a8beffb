//! What estimates the optical flow of a frame pair: the target of the flow decoder, and the motion that analyses compare codes with.
//!
//! Shape suffixes: B samples, T = 2 frames, C channels, H×W pixels.

mod lucas_kanade;
mod raft;

pub use lucas_kanade::LucasKanade;
pub use raft::RaftTeacher;

use tch::Tensor;

/// Estimates optical flow.
pub trait FlowTeacher: Send {
    /// Flow from the first to the second frame in pixels (dx, dy), `[B,2,H,W]` float32 without gradient. Frames are
    /// `[B,2,3,H,W]` in [0, 1].
    fn flow(&self, frames_BTCHW: &Tensor) -> Tensor;
}
