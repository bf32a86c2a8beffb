//! What a loader hands to a trainer: one struct for every stage, bytes only.

use crate::frames::FrameSize;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Where a sample comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleMeta {
    /// Name of the source in the configuration.
    pub source: String,
    /// Episode index in its dataset.
    pub episode: u64,
    /// Anchor frame within the episode.
    pub frame: u64,
    /// Seconds between the first and the last image that the sample really shows.
    pub dt_s: f64,
}

/// Images of one role.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageStream {
    /// `uint8 [B,T,C,H,W]`, row-major.
    pub pixels_BTCHW: Bytes,
    /// Sizes `[B,T,C,H,W]`.
    pub shape: [usize; 5],
    /// Size that was asked for: whoever brings them to the device resizes images of another one.
    pub size: FrameSize,
    /// `[B,T]`: true where the frame is real, false where it repeats an episode's first or last frame.
    pub is_real_BT: Vec<bool>,
}

/// A block of vectors over time.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorStream {
    /// `float32 [B,T,N]`, row-major.
    pub values_BTN: Vec<f32>,
    /// Sizes `[B,T,N]`.
    pub shape: [usize; 3],
    /// `[B,T]`: true where the step is outside the episode (LeRobot's `*_is_pad`).
    pub is_pad_BT: Vec<bool>,
    /// `[B,N]`: true where the source of the sample has no such dimension. Its values are 0.
    pub is_pad_dim_BN: Vec<bool>,
}

/// B samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Role to images.
    pub images: BTreeMap<String, ImageStream>,
    /// `[B]` instruction of each sample.
    pub task: Vec<String>,
    /// States, where a source of the mixture has them; those of other sources are padding.
    pub state: Option<VectorStream>,
    /// Actions, where a source of the mixture has them; those of other sources are padding.
    pub action: Option<VectorStream>,
    /// By key the labels that were asked for.
    pub labels: BTreeMap<String, VectorStream>,
    /// `[B]` origin of each sample.
    pub meta: Vec<SampleMeta>,
}
