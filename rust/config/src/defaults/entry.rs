//! One entry of a `defaults` list.

use crate::node::{Node, Value};
use crate::origin::Origin;
use crate::problem::{Problem, ProblemKind, Result};

/// What an entry names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Target {
    /// `_self_`: the place of the file's own values.
    Own,
    /// `path/to/file`.
    File(String),
    /// `group: option`, `group: [option, option]`, `group: null`.
    Group { group: String, options: Chosen },
}

/// The options of a group.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Chosen {
    None,
    One(String),
    Many(Vec<String>),
}

/// One entry, and where it is.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) target: Target,
    /// After `@`; the empty text for `_here_`.
    pub(crate) package: Option<String>,
    pub(crate) optional: bool,
    pub(crate) is_override: bool,
    /// Added on the command line with `+group=option`.
    pub(crate) is_appended: bool,
    /// Group of the file whose list holds the entry.
    pub(crate) parent_group: String,
    /// Package of that file.
    pub(crate) parent_package: String,
    pub(crate) origin: Origin,
}

impl Entry {
    pub(crate) fn new(target: Target, origin: Origin) -> Self {
        Self {
            target,
            package: None,
            optional: false,
            is_override: false,
            is_appended: false,
            parent_group: String::new(),
            parent_package: String::new(),
            origin,
        }
    }

    /// Reads an item of a `defaults` list.
    pub(crate) fn read(item: &Node) -> Result<Self> {
        let wrong = |message: String| {
            let error = Problem::of(ProblemKind::Defaults, message).at(&item.origin);
            error.hint("a defaults list contains '_self_', 'file', 'group: option', 'optional group: option' or 'override group: option'")
        };
        let (words, options) = match &item.value {
            Value::Str(text) => (text.clone(), None),
            Value::Map(map) => match map.iter().next() {
                Some((key, value)) if map.len() == 1 => (key.clone(), Some(value)),
                _ => return Err(wrong(format!("a defaults entry has one group, not {}", map.len()))),
            },
            _ => return Err(wrong(format!("'{}' is not a defaults entry", item.summary()))),
        };
        if words.contains("${") || options.is_some_and(|value| value.summary().contains("${")) {
            let message = format!(
                "the defaults entry '{}' contains a reference; the files must be known before values are",
                item.summary()
            );
            return Err(Problem::of(ProblemKind::Defaults, message).at(&item.origin).hint("name the option"));
        }
        if words == "_self_" && options.is_none() {
            return Ok(Self::new(Target::Own, item.origin.clone()));
        }
        let mut words: Vec<&str> = words.split_whitespace().collect();
        let name = words.pop().unwrap_or_default();
        let mut entry = Self::new(Target::Own, item.origin.clone());
        for word in words {
            match word {
                "optional" => entry.optional = true,
                "override" => entry.is_override = true,
                _ => return Err(wrong(format!("unknown keyword '{word}' in the defaults entry '{}'", item.summary()))),
            }
        }
        let (name, package) = match name.split_once('@') {
            Some((name, package)) => (name, Some(package)),
            None => (name, None),
        };
        entry.package = package.map(|package| if package == "_here_" { "" } else { package }.to_string());
        if name.trim_start_matches('/').is_empty() {
            return Err(wrong(format!("the defaults entry '{}' names nothing", item.summary())));
        }
        let name = name.to_string();
        entry.target = match options.map(|node| &node.value) {
            None if entry.is_override || entry.optional => {
                return Err(wrong(format!("'{}' names no option", item.summary())));
            }
            None => Target::File(name),
            Some(Value::Null) => Target::Group { group: name, options: Chosen::None },
            Some(Value::Str(option)) => Target::Group { group: name, options: Chosen::One(option.clone()) },
            Some(Value::List(items)) => {
                let options = items.iter().map(|item| item.as_str().map(str::to_string)).collect::<Option<_>>();
                let options = options.ok_or_else(|| wrong("the options of a group are names".into()))?;
                Target::Group { group: name, options: Chosen::Many(options) }
            }
            Some(_) => return Err(wrong(format!("the option in '{}' is not a name; quote it", item.summary()))),
        };
        Ok(entry)
    }

    /// Puts the entry into the list of a file.
    pub(crate) fn inside(mut self, parent_group: &str, parent_package: &str) -> Self {
        self.parent_group = parent_group.to_string();
        self.parent_package = parent_package.to_string();
        if let Some(package) = &self.package
            && package.contains("_group_")
        {
            let group = self.group_path().replace('/', ".");
            self.package = Some(format!("_global_.{}", package.replace("_group_", &group)));
        }
        self
    }

    /// Full name of the group: of the choice, or of the folder of the file.
    pub(crate) fn group_path(&self) -> String {
        let relative = match &self.target {
            Target::Own => return self.parent_group.clone(),
            Target::File(path) => {
                path.rsplit_once('/').map_or(if path.starts_with('/') { "/" } else { "" }, |(group, _)| {
                    if group.is_empty() { "/" } else { group }
                })
            }
            Target::Group { group, .. } => group.as_str(),
        };
        match relative.strip_prefix('/') {
            Some(absolute) => absolute.to_string(),
            None if self.parent_group.is_empty() => relative.to_string(),
            None if relative.is_empty() => self.parent_group.clone(),
            None => format!("{}/{relative}", self.parent_group),
        }
    }

    /// Full name of the file; none for a group without an option.
    pub(crate) fn file(&self) -> Option<String> {
        let name = match &self.target {
            Target::File(path) => path.rsplit('/').next().unwrap_or(path),
            Target::Group { options: Chosen::One(option), .. } => option,
            _ => return None,
        };
        let name = name.strip_suffix(".yaml").unwrap_or(name);
        let group = self.group_path();
        Some(if group.is_empty() { name.to_string() } else { format!("{group}/{name}") })
    }

    /// The place in the tree of values that the file's values go to, given the file's `# @package` comment.
    pub(crate) fn final_package(&self, header: Option<&str>) -> String {
        let header = header.map(|header| match header {
            "" | "_global_" => "_global_".to_string(),
            "_group_" => format!("_global_.{}", self.group_path().replace('/', ".")),
            _ if header.starts_with("_global_.") => header.to_string(),
            _ => format!("_global_.{header}"),
        });
        let package = self.package.clone().or(header).unwrap_or_else(|| {
            let relative = match &self.target {
                Target::Own => "",
                Target::File(path) => path.trim_start_matches('/').rsplit_once('/').map_or("", |(group, _)| group),
                Target::Group { group, .. } => group.trim_start_matches('/'),
            };
            relative.replace('/', ".")
        });
        let whole = match (self.parent_package.as_str(), package.as_str()) {
            ("", package) => package.to_string(),
            (parent, "") => parent.to_string(),
            (parent, package) => format!("{parent}.{package}"),
        };
        match whole.rfind("_global_") {
            Some(start) => whole[start + "_global_".len()..].trim_start_matches('.').to_string(),
            None => whole,
        }
    }

    /// `group`, or `group@package` where the package is not the group's own: what an override must name to choose here.
    pub(crate) fn choice_key(&self) -> String {
        let group = self.group_path();
        let package = self.final_package(None);
        if package == group.replace('/', ".") {
            return group;
        }
        let package = if package.is_empty() { "_global_" } else { &package };
        format!("{group}@{package}")
    }
}
