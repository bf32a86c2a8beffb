//! What a half-typed override can become.

use crate::{compose_raw, find_root, node::Node, node::join, repository::Repository};
use std::path::Path;

/// The overrides that `word` can be completed to, sorted: `group=`, `group=option`, `key.path=`. Nothing where the tree
/// cannot be read, because a shell has no place for an error while it completes.
pub fn complete(word: &str) -> Vec<String> {
    match find_root(None) {
        Ok(root) => complete_in(&root, "config", word),
        Err(_) => Vec::new(),
    }
}

fn complete_in(root: &Path, config_name: &str, word: &str) -> Vec<String> {
    let Ok(repository) = Repository::open(root) else { return Vec::new() };
    let bare = word.trim_start_matches(['+', '~']);
    let prefix = &word[..word.len() - bare.len()];
    let mut candidates = match bare.split_once('=') {
        Some((group, _)) => {
            let group_path = group.split('@').next().unwrap_or(group);
            let options =
                if repository.is_group(group_path) { repository.nested_options(group_path) } else { Vec::new() };
            options.into_iter().map(|option| format!("{group}={option}")).collect()
        }
        None => {
            let tree = compose_raw(root, config_name, &[]).map(|composition| composition.tree().clone());
            let groups = repository.groups().into_iter().map(|group| format!("{group}="));
            groups.chain(tree.map(|tree| keys(&tree, bare)).unwrap_or_default()).collect::<Vec<String>>()
        }
    };
    candidates.retain(|candidate| candidate.starts_with(bare));
    candidates.sort();
    candidates.dedup();
    candidates.into_iter().map(|candidate| format!("{prefix}{candidate}")).collect()
}

/// The keys of the section that is being typed: `section.` for sections, `key=` for values.
fn keys(tree: &Node, typed: &str) -> Vec<String> {
    let section = typed.rsplit_once('.').map_or("", |(section, _)| section);
    let map = tree.get(section).and_then(Node::as_map);
    let name = |(key, child): (&String, &Node)| {
        let path = join(section, key);
        if child.as_map().is_some_and(|map| !map.is_empty()) { format!("{path}.") } else { format!("{path}=") }
    };
    map.into_iter().flatten().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(word: &str) -> Vec<String> {
        complete_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config"), "config", word)
    }

    #[test]
    fn groups_options_and_keys_complete() {
        assert!(completed("exp").contains(&"experiment=".to_string()));
        assert!(completed("experiment=laq_t").contains(&"experiment=laq_tiny".to_string()));
        assert_eq!(completed("training.optimizer.l"), ["training.optimizer.lr="]);
        assert_eq!(completed("++training.opt"), ["++training.optimizer."]);
        assert!(completed("nothing_like_this").is_empty());
    }
}
