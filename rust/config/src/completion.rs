//! What a half-typed override can become.

use crate::compose::compose_raw;
use crate::node::{Node, join};
use crate::project::Project;
use crate::repository::Repository;
use std::path::Path;

/// What is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completed {
    /// `group=`, `group=option`, `key.path=`
    Overrides,
    /// `key.path`
    Keys,
}

/// What `word` can be completed to, sorted; sections as `key.`. Nothing where the tree below `root` cannot be read,
/// because a shell has no place for an error while it completes.
pub fn complete(project: &Project, root: &Path, config_name: &str, argument: &str, what: Completed) -> Vec<String> {
    let Ok(repository) = Repository::open(root) else { return Vec::new() };
    let bare = argument.trim_start_matches(['+', '~']);
    let prefix = &argument[..argument.len() - bare.len()];
    let mut candidates = match bare.split_once('=') {
        Some(_) if what == Completed::Keys => Vec::new(),
        Some((group, _)) => {
            let group_path = group.split('@').next().unwrap_or(group);
            let options =
                if repository.is_group(group_path) { repository.nested_options(group_path) } else { Vec::new() };
            options.into_iter().map(|option| format!("{group}={option}")).collect()
        }
        None => {
            let tree = compose_raw(project, root, config_name, &[]).map(|composition| composition.tree().clone());
            let keys = tree.map(|tree| keys(&tree, bare)).unwrap_or_default().into_iter();
            match what {
                Completed::Keys => keys.map(|key| key.trim_end_matches('=').to_string()).collect(),
                Completed::Overrides => {
                    let groups = repository.groups().into_iter().map(|group| format!("{group}="));
                    groups.chain(keys).collect::<Vec<String>>()
                }
            }
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
    use crate::project::OF_TESTS;

    fn completed(argument: &str, what: Completed) -> Vec<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
        complete(&OF_TESTS, &root, "config", argument, what)
    }

    #[test]
    fn groups_options_and_keys_complete() {
        let overrides = |argument| completed(argument, Completed::Overrides);
        assert!(overrides("exp").contains(&"experiment=".to_string()));
        assert!(overrides("experiment=laq_t").contains(&"experiment=laq_tiny".to_string()));
        assert_eq!(overrides("training.optimizer.l"), ["training.optimizer.lr="]);
        assert_eq!(overrides("++training.opt"), ["++training.optimizer."]);
        assert!(overrides("nothing_like_this").is_empty());
        assert_eq!(completed("training.optimizer.l", Completed::Keys), ["training.optimizer.lr"]);
        assert_eq!(completed("experimen", Completed::Keys), ["experiment."]);
    }
}
