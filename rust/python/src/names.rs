//! What a model says about itself without weights: its parameters, and which of them training can reach.

use crate::failure::Failure;
use hlrp_nn::Store;
use hlrp_vla::{FreezeConfig, Mode, ModelConfig, VlaModel, is_named};
use std::collections::HashSet;

/// One parameter.
#[derive(Debug, Clone)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) shape: Vec<i64>,
    /// Whether some loss depends on it.
    pub(crate) is_reachable: bool,
    /// Whether it may also be bfloat16.
    pub(crate) is_castable: bool,
}

/// The parameters of a model, in its order.
///
/// # Errors
/// A configuration that makes no model.
pub(crate) fn parameters(config: &ModelConfig) -> Result<Vec<Parameter>, Failure> {
    let unreachable = FreezeConfig::NOTHING.patterns_of(config);
    let model = VlaModel::over(config, Store::sketch())?;
    let castable: HashSet<String> = model.store().castable().into_iter().collect();
    let one = |(name, tensor): (String, tch::Tensor)| Parameter {
        is_reachable: !is_named(&name, &unreachable),
        is_castable: castable.contains(&name),
        shape: tensor.size(),
        name,
    };
    Ok(model.store().parameters().into_iter().map(one).collect())
}

/// Patterns of the parameters that take no part in `mode`.
///
/// # Errors
/// A configuration that makes no model.
pub(crate) fn unused_in(config: &ModelConfig, mode: Mode) -> Result<Vec<String>, Failure> {
    let mut patterns = VlaModel::over(config, Store::sketch())?.unused_in(mode);
    patterns.extend(FreezeConfig::NOTHING.patterns_of(config));
    Ok(patterns)
}
