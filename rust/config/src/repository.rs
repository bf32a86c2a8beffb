//! The tree of YAML files: its groups (folders) and options (files), each file read once.

use crate::interpolation::parse::check as check_references;
use crate::problem::{Problem, ProblemKind, Result};
use crate::yaml::Document;
use crate::{suggest, yaml};
use std::{
    cell::RefCell,
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

/// A folder of YAML files.
pub struct Repository {
    root: PathBuf,
    documents: RefCell<HashMap<String, Option<Rc<Document>>>>,
}

impl Repository {
    /// Opens the tree below `root`.
    ///
    /// # Errors
    /// `root` is not a folder.
    pub fn open(root: &Path) -> Result<Self> {
        if !root.is_dir() {
            let message = format!("the configuration folder {} does not exist", root.display());
            return Err(Problem::of(ProblemKind::File, message).hint("name it with --config-dir"));
        }
        Ok(Self { root: root.to_path_buf(), documents: RefCell::default() })
    }

    /// The file of an option, for example of `model/laq_tiny`.
    pub(crate) fn file(&self, option: &str) -> PathBuf {
        self.root.join(format!("{option}.yaml"))
    }

    /// The contents of an option; none when the file does not exist.
    ///
    /// # Errors
    /// A file that cannot be read, is not YAML, or does not hold a section.
    pub(crate) fn load(&self, option: &str) -> Result<Option<Rc<Document>>> {
        if let Some(known) = self.documents.borrow().get(option) {
            return Ok(known.clone());
        }
        let path = Arc::new(self.file(option));
        let document = match fs::read_to_string(path.as_path()) {
            Ok(text) => {
                let document = yaml::parse(&text, &path)?;
                if document.root.as_map().is_none() {
                    let message = format!("{} contains one value instead of keys", path.display());
                    let error = Problem::of(ProblemKind::Syntax, message).at(&document.root.origin);
                    return Err(error.hint("write key: value lines"));
                }
                check_references(&document.root)?;
                Some(Rc::new(document))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => None,
            Err(error) => {
                let message = format!("cannot read {}: {error}", path.display());
                return Err(Problem::of(ProblemKind::File, message).hint("check its permissions"));
            }
        };
        self.documents.borrow_mut().insert(option.to_string(), document.clone());
        Ok(document)
    }

    /// Whether a key names a group: a folder of the tree.
    pub(crate) fn is_group(&self, key: &str) -> bool {
        !key.is_empty() && !key.contains("..") && self.root.join(key).is_dir()
    }

    /// The options of a group, sorted; of the whole tree's top folder for an empty name. A file whose name begins with
    /// `_` is a part of others and no option.
    pub(crate) fn options(&self, group: &str) -> Vec<String> {
        self.files(group).into_iter().filter(|name| !name.starts_with('_')).collect()
    }

    /// The files of a group, sorted: its options, and the parts of them.
    pub(crate) fn files(&self, group: &str) -> Vec<String> {
        self.entries(group, |path| {
            let name = path.file_name()?.to_str()?.strip_suffix(".yaml")?;
            path.is_file().then(|| name.to_string())
        })
    }

    /// The groups inside a group, sorted.
    pub(crate) fn subgroups(&self, group: &str) -> Vec<String> {
        self.entries(group, |path| {
            let name = path.file_name()?.to_str()?;
            (path.is_dir() && !name.starts_with(['.', '_'])).then(|| name.to_string())
        })
    }

    /// All groups by their full names, sorted.
    pub(crate) fn groups(&self) -> Vec<String> {
        let mut groups = Vec::new();
        let mut waiting = vec![String::new()];
        while let Some(parent) = waiting.pop() {
            for name in self.subgroups(&parent) {
                let group = if parent.is_empty() { name } else { format!("{parent}/{name}") };
                waiting.push(group.clone());
                groups.push(group);
            }
        }
        groups.sort();
        groups
    }

    /// Options of a group and of the folders inside it, as `folder/option`.
    pub fn nested_options(&self, parent: &str) -> Vec<String> {
        let mut found = Vec::new();
        for group in self.groups().into_iter().filter(|group| is_below(group, parent)) {
            let folder = group[parent.len()..].trim_start_matches('/');
            let name = |option: String| if folder.is_empty() { option } else { format!("{folder}/{option}") };
            found.extend(self.options(&group).into_iter().map(name));
        }
        found
    }

    fn entries(&self, group: &str, name: impl Fn(&Path) -> Option<String>) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(group)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| name(&entry.path())).collect();
        names.sort();
        names
    }

    /// "did you mean ...?" or the groups there are, for a group that does not exist.
    pub fn groups_hint(&self, group: &str) -> String {
        let groups = self.groups();
        match suggest::closest(group, groups.iter().map(String::as_str)) {
            Some(best) => format!("did you mean the group '{best}'?"),
            None => format!("groups: {}", groups.join(", ")),
        }
    }

    /// "did you mean ...?" and the options there are.
    pub(crate) fn options_hint(&self, option: &str) -> String {
        let (group, name) = option.rsplit_once('/').unwrap_or(("", option));
        if !group.is_empty() && !self.is_group(group) {
            return self.groups_hint(group);
        }
        let options = self.options(group);
        let place = if group.is_empty() { self.root.display().to_string() } else { format!("group '{group}'") };
        match suggest::closest(name, options.iter().map(String::as_str)) {
            Some(best) => format!("did you mean '{best}'?"),
            None if options.is_empty() => format!("{place} has no options"),
            None => format!("options of {place}: {}", options.join(", ")),
        }
    }
}

/// Whether a group is `parent` or inside it.
pub(crate) fn is_below(group: &str, parent: &str) -> bool {
    group == parent || group.strip_prefix(parent).is_some_and(|rest| rest.starts_with('/'))
}
