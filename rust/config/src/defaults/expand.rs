//! The expansion of `defaults` lists into the files to merge.

use super::{
    choices::Choices,
    entry::{Chosen, Entry, Target},
};
use crate::node::{Node, Value};
use crate::origin::Origin;
use crate::problem::{Problem, ProblemKind, Result};
use crate::repository::Repository;
use std::{collections::BTreeSet, sync::Arc};

/// A file to merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Included {
    /// Its name below the tree's root, without `.yaml`.
    pub(crate) file: String,
    /// The dotted place of its values; empty for the root.
    pub(crate) package: String,
}

/// The files of a composition in merge order.
///
/// # Errors
/// A file or option that does not exist, a cycle, a contradiction between lists, a choice that nothing uses.
pub(crate) fn expand(repository: &Repository, primary: &str, choices: &mut Choices) -> Result<Vec<Included>> {
    let origin = Origin::file(&Arc::new(repository.file(primary)), 1);
    let entry = Entry::new(Target::File(primary.to_string()), origin);
    let mut expansion = Expansion { repository, choices, stack: Vec::new() };
    let mut leaves = Vec::new();
    expansion.entry(entry, true, &mut leaves)?;
    choices.ensure_used()?;
    let mut seen = BTreeSet::new();
    for leaf in &leaves {
        if let Some(key) = leaf.choice_key.as_ref().filter(|key| !seen.insert((*key).clone())) {
            let message = format!("'{key}' is chosen twice in the final list of files");
            return Err(Problem::of(ProblemKind::Defaults, message).at(&leaf.origin).hint("keep one of the entries"));
        }
    }
    Ok(leaves.into_iter().rev().map(|leaf| leaf.included).collect())
}

/// A file in the result, and how it came in.
struct Leaf {
    included: Included,
    /// Of a choice without a defaults list of its own.
    choice_key: Option<String>,
    origin: Origin,
}

struct Expansion<'a> {
    repository: &'a Repository,
    choices: &'a mut Choices,
    /// Files being expanded, to find cycles.
    stack: Vec<String>,
}

impl Expansion<'_> {
    /// Adds the files of an entry to `leaves`, the last one first.
    fn entry(&mut self, entry: Entry, is_primary: bool, leaves: &mut Vec<Leaf>) -> Result<()> {
        if self.choices.deletes(&entry) {
            return Ok(());
        }
        self.choices.remember(&entry)?;
        let Some(file) = entry.file() else { return Ok(()) };
        if file.ends_with("???") {
            return Err(self.must_choose(&entry));
        }
        let Some(document) = self.repository.load(&file)? else {
            return if entry.optional { Ok(()) } else { Err(self.not_found(&entry, &file, is_primary)) };
        };
        if let Some(start) = self.stack.iter().position(|open| *open == file) {
            let chain = [&self.stack[start..], std::slice::from_ref(&file)].concat().join(" -> ");
            let error = Problem::of(ProblemKind::Defaults, format!("defaults lists include each other: {chain}"));
            return Err(error.at(&entry.origin).hint("remove one of these entries"));
        }
        let package = entry.final_package(document.package.as_deref());
        let own = |choice_key| Leaf {
            included: Included { file: file.clone(), package: package.clone() },
            choice_key,
            origin: entry.origin.clone(),
        };
        let mut list = read_list(&document.root)?;
        let appended = if is_primary { self.choices.appended.clone() } else { Vec::new() };
        if list.is_empty() && appended.is_empty() {
            leaves.push(own(matches!(entry.target, Target::Group { .. }).then(|| entry.choice_key())));
            return Ok(());
        }
        complete(&mut list, &file, &entry.origin)?;
        list.extend(appended);
        let group = entry.group_path();
        let mut list: Vec<Entry> = list.into_iter().map(|child| child.inside(&group, &package)).collect();
        self.register_overrides(&list)?;
        if list.iter().all(|child| child.is_override) {
            leaves.push(own(matches!(entry.target, Target::Group { .. }).then(|| entry.choice_key())));
            return Ok(());
        }
        self.stack.push(file.clone());
        while let Some(mut child) = list.pop() {
            match child.target {
                Target::Own => leaves.push(own(None)),
                _ if child.is_override => {}
                _ => {
                    self.choices.replace(&mut child);
                    self.options(child, leaves)?;
                }
            }
        }
        self.stack.pop();
        Ok(())
    }

    /// An entry, or each of the options of an entry with several.
    fn options(&mut self, entry: Entry, leaves: &mut Vec<Leaf>) -> Result<()> {
        let Target::Group { group, options: Chosen::Many(options) } = &entry.target else {
            return self.entry(entry, false, leaves);
        };
        for option in options.iter().rev() {
            let target = Target::File(format!("{group}/{option}"));
            self.entry(Entry { target, ..entry.clone() }, false, leaves)?;
        }
        Ok(())
    }

    fn register_overrides(&mut self, list: &[Entry]) -> Result<()> {
        let mut seen: Option<&Entry> = None;
        for entry in list.iter().filter(|entry| entry.target != Target::Own) {
            if entry.is_override {
                seen = Some(entry);
                if !entry.group_path().starts_with("hydra/") {
                    self.choices.add_override(entry);
                }
            } else if let Some(before) = seen.filter(|_| !entry.is_appended) {
                let message = format!("'override {}' comes before another entry", before.choice_key());
                let error = Problem::of(ProblemKind::Defaults, message).at(&before.origin);
                return Err(error.hint("move the overrides to the end of the list"));
            }
        }
        Ok(())
    }

    fn must_choose(&self, entry: &Entry) -> Problem {
        let key = entry.choice_key();
        let options = self.repository.options(&entry.group_path()).join(" | ");
        let error = Problem::of(ProblemKind::Defaults, format!("no option is chosen for '{key}'")).at(&entry.origin);
        error.hint(format!("add {key}=OPTION with one of: {options}"))
    }

    fn not_found(&self, entry: &Entry, file: &str, is_primary: bool) -> Problem {
        let path = self.repository.file(file);
        let message = match &entry.target {
            _ if is_primary => format!("there is no primary file {}", path.display()),
            Target::Group { .. } => {
                let (group, option) = file.rsplit_once('/').unwrap_or(("", file));
                format!("group '{group}' has no option '{option}'")
            }
            _ => format!("there is no file {}", path.display()),
        };
        let error = Problem::of(ProblemKind::File, message).hint(self.repository.options_hint(file));
        if is_primary { error } else { error.at(&entry.origin) }
    }
}

/// The entries of a file's `defaults` list; none when it has no list.
fn read_list(root: &Node) -> Result<Vec<Entry>> {
    match root.child("defaults").map(|node| (&node.value, &node.origin)) {
        None => Ok(Vec::new()),
        Some((Value::List(items), _)) => items.iter().map(Entry::read).collect(),
        Some((_, origin)) => {
            let error = Problem::of(ProblemKind::Defaults, "'defaults' is not a list").at(origin);
            Err(error.hint("write '- group: option' lines below it"))
        }
    }
}

/// Adds the implied `_self_` at the end.
fn complete(list: &mut Vec<Entry>, file: &str, origin: &Origin) -> Result<()> {
    match list.iter().filter(|entry| entry.target == Target::Own).count() {
        0 if list.is_empty() || list.iter().any(|entry| !entry.is_override) => {
            list.push(Entry::new(Target::Own, origin.clone()));
            Ok(())
        }
        0 | 1 => Ok(()),
        _ => Err(Problem::of(ProblemKind::Defaults, format!("'_self_' appears twice in the defaults list of {file}"))
            .hint("keep one")),
    }
}
