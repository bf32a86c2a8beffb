//! Secrets in a tree of values.

use super::name::{is_digest_name, is_secret_name};
use super::{REDACTED, is_harmless, known, redact_argument};
use crate::node::{Node, Value, join};

impl Node {
    /// The values below this one, whose key is `name`, with `***` in place of every secret.
    pub fn redacted(&self, name: &str) -> Self {
        let value = match &self.value {
            Value::Map(map) => {
                Value::Map(map.iter().map(|(key, child)| (key.clone(), child.redacted(&join(name, key)))).collect())
            }
            Value::List(items) => Value::List(items.iter().map(|item| item.redacted(name)).collect()),
            Value::Null | Value::Bool(_) => self.value.clone(),
            Value::Str(text) if is_secret_name(name) && !is_harmless(text) => Value::Str(REDACTED.to_owned()),
            Value::Str(text) if is_digest_name(name) => Value::Str(text.clone()),
            Value::Str(text) => Value::Str(redact_argument(text)),
            Value::Int(_) | Value::Float(_) if is_secret_name(name) => Value::Str(REDACTED.to_owned()),
            Value::Int(_) | Value::Float(_) => self.value.clone(),
        };
        Self { value, ..self.clone() }
    }

    /// From now on the secrets of this tree are secrets in every text.
    pub(crate) fn remember_secrets(&self) {
        self.for_each_leaf(&mut |path, node| {
            if let (true, Some(text)) = (is_secret_name(path), node.as_str()) {
                known::remember(text);
            }
        });
    }
}
