//! Section `model.decoders`: what each predicts of the later frame, and how its loss counts.

use crate::rules::{Checked, at_least, fraction, not_negative, positive, require, section, within};
use hlrp_config::Check;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Most steps of a forward model: every one is a frame of each training sample.
const MAX_STEPS: i128 = 64;

/// The keys that all decoders share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecoderConfig {
    /// Whether it exists.
    pub enabled: bool,
    /// Layers of its network.
    pub depth: i64,
    /// Factor on its loss.
    pub loss_weight: f64,
    /// Steps over which the factor rises linearly from 0.
    pub warmup_steps: u64,
    /// How much more what moves counts in the loss than what does not.
    pub motion_weight: f64,
    /// Change of a pixel, of a range of 1, above which it counts as moving; none = in proportion to the change.
    pub motion_threshold: Option<f64>,
    /// Whether it sees the action tokens alone, and nothing of frame t.
    pub from_latent_only: bool,
    /// Whether its loss reaches the codes and the encoder.
    pub trains_codes: bool,
}

/// Defines the decoders: section `model.decoders`, and one struct for each with the keys of [`DecoderConfig`] (which serde cannot flatten into
/// a section that refuses unknown keys) and its own.
macro_rules! decoders {
    ($($(#[$doc:meta])* $section:ident: $name:ident, {
        $($(#[$key_doc:meta])* $key:ident: $type:ty),*
    })*) => {
        /// Section `model.decoders`: every decoder, in use or not. What was described before a decoder existed has no section of it.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct DecodersConfig {
            $(
                $(#[$doc])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $section: Option<$name>,
            )*
        }

        impl DecodersConfig {
            /// The shared keys of every decoder that has a section, by the section's name.
            pub fn all(&self) -> Vec<(&'static str, DecoderConfig)> {
                let all = [$((stringify!($section), self.$section.as_ref().map($name::shared))),*];
                all.into_iter().filter_map(|(name, shared)| Some((name, shared?))).collect()
            }
        }

        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            #[serde(deny_unknown_fields)]
            #[allow(missing_docs)] // the first keys are those of DecoderConfig
            pub struct $name {
                pub enabled: bool,
                pub depth: i64,
                pub loss_weight: f64,
                pub warmup_steps: u64,
                pub motion_weight: f64,
                pub motion_threshold: Option<f64>,
                pub from_latent_only: bool,
                /// Whether no gradient leaves it: its images are for people to look at.
                pub detached: bool,
                $($(#[$key_doc])* pub $key: $type,)*
            }

            impl $name {
                /// The keys that all decoders share.
                pub fn shared(&self) -> DecoderConfig {
                    DecoderConfig {
                        enabled: self.enabled,
                        depth: self.depth,
                        loss_weight: self.loss_weight,
                        warmup_steps: self.warmup_steps,
                        motion_weight: self.motion_weight,
                        motion_threshold: self.motion_threshold,
                        from_latent_only: self.from_latent_only,
                        trains_codes: !self.detached,
                    }
                }
            }
        )*
    };
}

decoders! {
    /// Predicts the later frame's encoder tokens.
    token: TokenDecoderConfig, {
        /// Which features of the later frame.
        target: TokenTarget
    }
    /// Predicts the later frame's pixels.
    pixel: PixelDecoderConfig, {}
    /// Predicts the difference between the frames.
    difference: DifferenceDecoderConfig, {}
    /// Predicts the optical flow from frame t to the later frame.
    flow: FlowDecoderConfig, {
        /// Whose flow is the target.
        teacher: FlowTeacherKind,
        /// The weights of a RAFT: a safetensors file with torchvision's names.
        teacher_weights: Option<PathBuf>,
        /// Refinements of the teacher's flow.
        teacher_num_updates: i64,
        /// Pairs that the teacher sees at once.
        teacher_chunk_size: i64,
        /// How an error counts.
        loss: FlowLoss,
        /// The unit of flows in the loss.
        unit: FlowUnit,
        /// Factor, beside `loss_weight`, on the squared error of the mean flow of the image; none = it is not looked at.
        summary_loss_weight: Option<f64>,
        /// Flows of the teacher on the disk. It changes no flow, and what describes a model leaves it out.
        cache: Option<FlowCacheConfig>
    }
    /// Predicts the features of the frame one step after frame t.
    forward: ForwardDecoderConfig, {
        /// Equal steps from frame t to frame t+k, n: in training the codes are of the pair (t, t + j steps), with j drawn from 1 to n.
        num_steps: i64,
        /// Fraction of the old average per step in the encoder whose features it predicts.
        average_decay: f64
    }
    /// Predicts the later frame's pixels, for images only.
    aux: AuxDecoderConfig, {}
}

/// Which features of the later frame the token decoder predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenTarget {
    /// The encoder's tokens: of a DINOv3, after the learned projection.
    Projected,
    /// The frozen backbone's features.
    Backbone,
}

/// What estimates optical flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowTeacherKind {
    /// torchvision's small RAFT.
    RaftSmall,
    /// torchvision's large RAFT.
    RaftLarge,
    /// The classical method of Lucas and Kanade, which needs no weights.
    LucasKanade,
}

impl FlowTeacherKind {
    /// Whether it is a network with weights.
    #[must_use]
    pub fn is_raft(self) -> bool {
        self != Self::LucasKanade
    }
}

/// Section `model.decoders.flow.cache`: flows that the teacher has computed, on the disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowCacheConfig {
    /// Whether flows are kept.
    pub enabled: bool,
    /// Folder of the files.
    pub dir: PathBuf,
    /// Most GB (10^9 bytes) that the flows of a run may have.
    pub max_gb: f64,
}

/// How an error of a flow counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowLoss {
    /// Squared.
    Squared,
    /// √(error² + ε²) − ε of each vector: large errors count less.
    Charbonnier,
}

/// The unit of flows in the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowUnit {
    /// The width and the height of the image.
    Image,
    /// The root mean square of the flows in training.
    Rms,
}

impl DecodersConfig {
    /// Where flows of a teacher are kept, if they are.
    #[must_use]
    pub fn flow_cache(&self) -> Option<&FlowCacheConfig> {
        self.flow.as_ref().filter(|flow| flow.enabled)?.cache.as_ref().filter(|cache| cache.enabled)
    }

    /// The forward model, if there is one.
    #[must_use]
    pub fn forward_model(&self) -> Option<&ForwardDecoderConfig> {
        self.forward.as_ref().filter(|forward| forward.enabled)
    }
}

impl Check for DecodersConfig {
    fn check(&self) -> Checked {
        let all = self.all();
        all.iter().try_for_each(|(name, decoder)| section(name, decoder.check()))?;
        if let Some(flow) = &self.flow {
            at_least("flow.teacher_num_updates", flow.teacher_num_updates, 1)?;
            at_least("flow.teacher_chunk_size", flow.teacher_chunk_size, 1)?;
            not_negative("flow.summary_loss_weight", flow.summary_loss_weight.unwrap_or(0.0))?;
        }
        if let Some(cache) = self.flow.as_ref().and_then(|flow| flow.cache.as_ref()) {
            positive("flow.cache.max_gb", cache.max_gb)?;
        }
        if let Some(flow) = self.flow.as_ref().filter(|flow| flow.enabled) {
            let hint = "give a safetensors file with torchvision's weights (docs/laq.md says how to make one), or choose \
                        model.decoders.flow.teacher=lucas_kanade, which needs none";
            let has_all = !flow.teacher.is_raft() || flow.teacher_weights.is_some();
            require(has_all, "flow.teacher_weights", "the teacher has no weights", hint)?;
        }
        if let Some(forward) = &self.forward {
            within("forward.num_steps", forward.num_steps, 1, MAX_STEPS)?;
            fraction("forward.average_decay", forward.average_decay, true)?;
        }
        if let Some(aux) = &self.aux {
            let hint = "set it to true, or use the decoder `pixel`";
            require(aux.detached, "aux.detached", "the decoder `aux` is always detached", hint)?;
        }
        let hint = "enable one of model.decoders, detached if nothing of it is to reach the codes";
        require(all.iter().any(|(_, decoder)| decoder.enabled), "pixel.enabled", "no decoder is enabled", hint)
    }
}

impl Check for DecoderConfig {
    fn check(&self) -> Checked {
        at_least("depth", self.depth, 1)?;
        not_negative("loss_weight", self.loss_weight)?;
        not_negative("motion_weight", self.motion_weight)?;
        let Some(threshold) = self.motion_threshold else { return Ok(()) };
        fraction("motion_threshold", threshold, true)?;
        require(
            self.motion_weight > 0.0,
            "motion_threshold",
            "motion_weight is 0: no pixel counts more than another",
            "raise motion_weight, or set it to null",
        )
    }
}
