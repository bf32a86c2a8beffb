//! The groups of a tree and their options.

use crate::problem::Result;
use crate::repository::Repository;
use std::path::Path;

/// A folder of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its full name, for example `training/validation`.
    pub name: String,
    /// Its files, sorted.
    pub options: Vec<GroupOption>,
}

/// A file of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOption {
    /// Its name, without `.yaml`.
    pub name: String,
    /// The first comment of the file.
    pub description: Option<String>,
}

/// All groups of the tree below `root`, sorted by name.
///
/// # Errors
/// There is no such folder.
pub fn groups(root: &Path) -> Result<Vec<Group>> {
    let repository = Repository::open(root)?;
    let option = |group: &str, name: String| {
        let text = std::fs::read_to_string(repository.file(&format!("{group}/{name}"))).unwrap_or_default();
        GroupOption { name, description: description(&text) }
    };
    let group = |name: String| Group {
        options: repository.options(&name).into_iter().map(|option_name| option(&name, option_name)).collect(),
        name,
    };
    Ok(repository.groups().into_iter().map(group).collect())
}

/// The first comment line at the top of a file that is not an `@package` header.
fn description(text: &str) -> Option<String> {
    let comments = text.lines().map_while(|line| line.trim().strip_prefix('#')).map(str::trim);
    let mut comments = comments.filter(|line| !line.is_empty() && !line.starts_with('@'));
    comments.next().map(str::to_string)
}
