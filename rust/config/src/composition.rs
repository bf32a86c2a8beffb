//! The values of a composition with their references still in place.

use crate::node::Node;
use crate::overrides::override_key;
use crate::project::Project;
use crate::yaml;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// A composition before its references are resolved.
#[derive(Debug, Clone)]
pub struct Composition {
    pub(crate) project: Project,
    pub(crate) tree: Node,
    pub(crate) overrides: Vec<String>,
    pub(crate) choices: BTreeMap<String, Option<String>>,
    /// The folder of the tree; none for a finished configuration.
    pub(crate) root: Option<PathBuf>,
    /// The file that holds what no other file declares: named in errors about missing keys.
    pub(crate) primary: PathBuf,
    /// Files in merge order, with the package of each.
    pub(crate) files: Vec<(PathBuf, String)>,
    /// What has changed in a finished configuration of an older version, one line per key.
    pub(crate) migrated: Vec<String>,
}

impl Composition {
    /// The values with their references, as YAML; secrets are written as `***`.
    pub fn to_yaml(&self) -> String {
        yaml::emit(&self.tree.redacted(""))
    }

    /// Which option each group has: `group` or `group@package` to the option's name, none for `null`.
    pub fn choices(&self) -> &BTreeMap<String, Option<String>> {
        &self.choices
    }

    /// The files in the order in which they were merged, each with the dotted place of its values.
    pub fn files(&self) -> &[(PathBuf, String)] {
        &self.files
    }

    /// Whether a file of the tree is an option of a group, or of a group inside it.
    pub fn is_option_of(&self, file: &Path, group: &str) -> bool {
        let below = self.root.as_deref().and_then(|root| file.strip_prefix(root).ok());
        below.is_some_and(|below| below.starts_with(group))
    }

    /// The values with their references.
    pub fn tree(&self) -> &Node {
        &self.tree
    }

    /// The override that removed a key, or a section around it.
    pub(crate) fn removed_by(&self, key: &str) -> Option<&str> {
        let removes = |argument: &&String| {
            let rest = key.strip_prefix(override_key(argument)).filter(|_| argument.starts_with('~'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.overrides.iter().rev().find(removes).map(String::as_str)
    }
}
