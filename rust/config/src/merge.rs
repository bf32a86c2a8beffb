//! One tree over another: sections unite, everything else is replaced.

use crate::{Node, Value};

/// Merges `newer` over `older`. A missing value (`???`) does not override one that is set.
pub(crate) fn merge(older: &mut Node, newer: Node) {
    if newer.is_missing() {
        return;
    }
    let Node { value, origin, overrode } = newer;
    match (&mut older.value, value) {
        (Value::Map(old), Value::Map(new)) => {
            for (key, node) in new {
                match old.get_mut(&key) {
                    Some(existing) => merge(existing, node),
                    None => {
                        old.insert(key, node);
                    }
                }
            }
        }
        (_, value) => *older = Node { value, origin, overrode }.replacing(older),
    }
}
