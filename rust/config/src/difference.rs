//! What differs between two configurations.

use crate::composed::Composed;
use crate::node::{Node, join};
use std::collections::BTreeMap;

/// A key that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its dotted path.
    pub key: String,
    /// The first configuration's value; none where it lacks the key.
    pub left: Option<String>,
    /// The second configuration's value; none where it lacks the key.
    pub right: Option<String>,
}

/// The keys whose values differ, sorted. Two secrets do not differ.
pub fn diff(left: &Composed, right: &Composed) -> Vec<Difference> {
    let (left, right) = (leaves(left.tree()), leaves(right.tree()));
    let keys: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let differences = keys.into_iter().filter(|key| left.get(*key) != right.get(*key));
    differences
        .map(|key| Difference { key: key.clone(), left: left.get(key).cloned(), right: right.get(key).cloned() })
        .collect()
}

/// Values by path; a list is one value.
fn leaves(tree: &Node) -> BTreeMap<String, String> {
    fn walk(node: &Node, path: &str, leaves: &mut BTreeMap<String, String>) {
        match node.as_map().filter(|map| !map.is_empty()) {
            Some(map) => map.iter().for_each(|(key, child)| walk(child, &join(path, key), leaves)),
            None => {
                leaves.insert(path.to_string(), node.redacted(path).summary());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(tree, "", &mut found);
    found
}
