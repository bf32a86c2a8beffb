//! "Did you mean ...?"

use crate::node::{Node, join};
use crate::project::Project;

/// The candidate closest to a mistyped name, capitals aside; none when no candidate is near.
pub fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let distance = |candidate: &str| strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
    let scored = candidates.into_iter().map(|candidate| (distance(candidate), candidate));
    let (distance, best) = scored.min()?;
    (distance <= 1 + name.chars().count() / 4).then_some(best)
}

/// The key that a user who wrote an unknown one may mean: what it is called now, or else the one with the closest name.
pub(crate) fn suggestion(project: &Project, root: &Node, key: &str) -> Option<String> {
    let renamed = (project.renamed)(root, key).map(|new| format!("it was renamed: did you mean '{new}'?"));
    // What a sweep lists are values for keys, not keys.
    renamed.or_else(|| similar_key(&without(root, project.sweep_params), key))
}

/// The tree without a section.
fn without(root: &Node, section: &str) -> Node {
    let mut rest = root.clone();
    let (parent, last) = section.rsplit_once('.').unwrap_or(("", section));
    let parent = if parent.is_empty() { Some(&mut rest) } else { rest.get_mut(parent) };
    parent.and_then(Node::as_map_mut).map(|map| map.shift_remove(last));
    rest
}

/// The existing key that a mistyped one is closest to.
pub(crate) fn similar_key(root: &Node, key: &str) -> Option<String> {
    let mut known = Vec::new();
    let mut path = String::new();
    let mut waiting = vec![(path.clone(), root)];
    while let Some((path, node)) = waiting.pop() {
        for (key, child) in node.as_map().into_iter().flatten() {
            let path = join(&path, key);
            known.push(path.clone());
            waiting.push((path, child));
        }
    }
    // The siblings of the deepest part that exists come first: `a.b.lrr` means `a.b.lr`, not `a.c.lrr`.
    let mut parent = root;
    for part in key.split('.') {
        match parent.child(part) {
            Some(child) => {
                parent = child;
                path = join(&path, part);
            }
            None => {
                let siblings = parent.as_map()?.keys().map(String::as_str);
                if let Some(best) = closest(part, siblings) {
                    let rest = &key[join(&path, part).len()..];
                    return Some(format!("did you mean '{}{rest}'?", join(&path, best)));
                }
                break;
            }
        }
    }
    let elsewhere = known.iter().filter(|path| path.rsplit('.').next() == key.rsplit('.').next());
    if let Some(path) = elsewhere.min_by_key(|path| path.len()) {
        return Some(format!("did you mean '{path}'?"));
    }
    closest(key, known.iter().map(String::as_str)).map(|best| format!("did you mean '{best}'?"))
}
