//! Which parameters stay as they were loaded.

use crate::{ExpertConfig, ModelConfig, PooledConfig, VlaError, expert, pooled};
use hlrp_nn::Store;
use serde::{Deserialize, Serialize};

/// Frozen parts of an expert model, in LeRobot's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreezeConfig {
    /// The whole backbone is frozen (`train_expert_only`).
    pub backbone: bool,
    /// The vision tower is frozen (`freeze_vision_encoder`).
    pub vision_encoder: bool,
    /// The projection of states is frozen (not `train_state_proj`).
    pub state_proj: bool,
}

impl FreezeConfig {
    /// No part is frozen, but what no loss can reach.
    pub const NOTHING: Self = Self { backbone: false, vision_encoder: false, state_proj: false };

    /// Patterns for [`freeze`], of either architecture.
    ///
    /// Of a backbone that trains, what the loss cannot reach is frozen too.
    pub fn patterns_of(&self, config: &ModelConfig) -> Vec<String> {
        match config {
            ModelConfig::Expert(config) => self.patterns(config),
            ModelConfig::Pooled(config) => self.pooled_patterns(config),
        }
    }

    /// The patterns of the expert architecture.
    ///
    /// Of a backbone that trains, what the loss cannot reach is frozen too: the language-model head, the final norm and the text layers from
    /// the last one on that the expert reads.
    pub fn patterns(&self, config: &ExpertConfig) -> Vec<String> {
        const BACKBONE: &str = expert::BACKBONE;
        let mut patterns = Vec::new();
        if self.backbone {
            patterns.push(BACKBONE.to_owned());
        } else {
            patterns.extend(unread_parts(BACKBONE, config.backbone.tie_word_embeddings));
            let num_layers = config.num_backbone_layers();
            let last_read = num_layers - num_layers / config.num_expert_layers;
            patterns.extend((last_read..num_layers).map(|layer| format!("{BACKBONE}.model.text_model.layers.{layer}")));
            if self.vision_encoder {
                patterns.push(format!("{BACKBONE}.model.vision_model"));
            }
        }
        if self.state_proj {
            patterns.push("model.state_proj".to_owned());
        }
        patterns
    }

    /// The patterns of the pooled architecture, which has no projection of states.
    fn pooled_patterns(&self, config: &PooledConfig) -> Vec<String> {
        const BACKBONE: &str = pooled::BACKBONE;
        if self.backbone {
            return vec![BACKBONE.to_owned()];
        }
        let vision = self.vision_encoder.then(|| format!("{BACKBONE}.model.vision_model"));
        unread_parts(BACKBONE, config.backbone.tie_word_embeddings).into_iter().chain(vision).collect()
    }
}

/// Parts of a backbone that features before its final norm never use.
fn unread_parts(backbone: &str, tie_word_embeddings: bool) -> Vec<String> {
    let own_head = (!tie_word_embeddings).then(|| format!("{backbone}.lm_head"));
    own_head.into_iter().chain([format!("{backbone}.model.text_model.norm")]).collect()
}

/// Freezes every parameter that one of `patterns` names: itself, or the module that it lies in. Gives the number of frozen parameters.
///
/// A frozen parameter gets no gradient and no update; it is one of the store's buffers from then on.
///
/// # Errors
/// A pattern that matches nothing; nothing is frozen then.
pub fn freeze(store: &Store, patterns: &[String]) -> Result<usize, VlaError> {
    let names: Vec<String> = store.state().into_iter().map(|(name, _)| name).collect();
    for pattern in patterns {
        if !names.iter().any(|name| lies_in(name, pattern)) {
            let example = names.last().cloned().unwrap_or_default();
            return Err(VlaError::FreezesNothing { pattern: pattern.clone(), example });
        }
    }
    Ok(store.freeze_where(|name| is_named(name, patterns)))
}

/// Whether one of `patterns` names the parameter `name`: itself, or the module that it lies in.
pub fn is_named(name: &str, patterns: &[String]) -> bool {
    patterns.iter().any(|pattern| lies_in(name, pattern))
}

/// Whether `name` is `module` or lies in it.
fn lies_in(name: &str, module: &str) -> bool {
    name.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
