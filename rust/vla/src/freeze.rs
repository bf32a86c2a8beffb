//! Which parameters keep their first values.

use crate::VlaError;
use hlrp_nn::Store;

/// Freezes every parameter that one of `patterns` names: itself, or the module that contains it. Returns the number of frozen parameters.
///
/// A frozen parameter gets no gradient and no update; it is one of the store's buffers from then on.
///
/// # Errors
/// A pattern that matches nothing; nothing is frozen then.
pub fn freeze(store: &Store, patterns: &[String]) -> Result<usize, VlaError> {
    let names: Vec<String> = store.state().into_iter().map(|(name, _)| name).collect();
    for pattern in patterns {
        if !names.iter().any(|name| is_in(name, pattern)) {
            let example = names.last().cloned().unwrap_or_default();
            return Err(VlaError::FreezesNothing { pattern: pattern.clone(), example });
        }
    }
    Ok(store.freeze_where(|name| is_named(name, patterns)))
}

/// Whether one of `patterns` names the parameter `name`: itself, or the module that contains it.
pub fn is_named(name: &str, patterns: &[String]) -> bool {
    patterns.iter().any(|pattern| is_in(name, pattern))
}

/// Whether `name` is `module` or in it.
fn is_in(name: &str, module: &str) -> bool {
    name.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
