//! Group choices: those of the command line, and those of `override` entries.

use super::entry::{Chosen, Entry, Target};
use crate::node::Value;
use crate::origin::{Origin, Source};
use crate::overrides::{Action, Override};
use crate::problem::{Problem, ProblemKind, Result};
use crate::repository::Repository;
use crate::suggest;
use std::collections::{BTreeMap, BTreeSet};

struct Choice {
    options: Chosen,
    origin: Origin,
    /// As typed; none for an `override` entry of a file.
    argument: Option<String>,
    used: bool,
}

struct Deletion {
    option: Option<String>,
    argument: String,
    used: bool,
}

/// All group choices of one composition.
#[derive(Default)]
pub(crate) struct Choices {
    chosen: BTreeMap<String, Choice>,
    deleted: BTreeMap<String, Deletion>,
    /// `+group=option`
    pub(crate) appended: Vec<Entry>,
    /// Choices that the tree turned out to have: key to option.
    pub(crate) known: BTreeMap<String, Option<String>>,
}

impl Choices {
    /// Splits overrides into group choices and, as the second result, overrides of values. A key is a group when the tree has a
    /// folder of that name and the value is not a map.
    pub(crate) fn from_overrides(repository: &Repository, overrides: Vec<Override>) -> Result<(Self, Vec<Override>)> {
        let mut choices = Self::default();
        let mut values = Vec::new();
        for change in overrides {
            if matches!(change.value, Some(Value::Map(_))) || !repository.is_group(&change.key) {
                values.push(change);
            } else {
                choices.choose(change)?;
            }
        }
        Ok((choices, values))
    }

    fn choose(&mut self, change: Override) -> Result<()> {
        let options = match &change.value {
            Some(Value::Str(option)) => Some(Chosen::One(option.clone())),
            Some(Value::List(items)) => {
                let options = items.iter().map(|item| item.as_str().map(str::to_string)).collect::<Option<_>>();
                options.map(Chosen::Many)
            }
            _ => None,
        };
        match (change.action, options) {
            (Action::Force, _) => {
                let message = format!("'{}': a group cannot be forced", change.text);
                let hint = format!("+{} adds it, {} changes it", &change.text[2..], &change.text[2..]);
                return Err(Problem::of(ProblemKind::Defaults, message).hint(hint));
            }
            (Action::Delete, options) => {
                let option = match (&change.value, options) {
                    (None | Some(Value::Null), _) => None,
                    (_, Some(Chosen::One(option))) => Some(option),
                    _ => return Err(not_an_option(&change)),
                };
                self.deleted.insert(change.choice_key(), Deletion { option, argument: change.text, used: false });
            }
            (_, None) => return Err(not_an_option(&change)),
            (Action::Add, Some(options)) => {
                let mut entry = Entry::new(Target::Group { group: change.key.clone(), options }, change.origin());
                entry.package = change.package.clone();
                entry.is_appended = true;
                self.appended.push(entry);
            }
            (Action::Change, Some(options)) => {
                let choice =
                    Choice { options, origin: change.origin(), argument: Some(change.text.clone()), used: false };
                self.chosen.insert(change.choice_key(), choice);
            }
        }
        Ok(())
    }

    /// Registers an `override` entry; a choice made before (on the command line, or nearer to the primary file) stays.
    pub(crate) fn add_override(&mut self, entry: &Entry) {
        if let Target::Group { options, .. } = &entry.target {
            let choice = Choice { options: options.clone(), origin: entry.origin.clone(), argument: None, used: false };
            self.chosen.entry(entry.choice_key()).or_insert(choice);
        }
    }

    /// Replaces an entry's option by the one chosen for it.
    pub(crate) fn replace(&mut self, entry: &mut Entry) {
        let key = entry.choice_key();
        if let Target::Group { options, .. } = &mut entry.target
            && let Some(choice) = self.chosen.get_mut(&key)
        {
            *options = choice.options.clone();
            entry.origin = choice.origin.clone();
            choice.used = true;
        }
    }

    /// Whether `~group` or `~group=option` removes the entry.
    pub(crate) fn deletes(&mut self, entry: &Entry) -> bool {
        let Target::Group { options, .. } = &entry.target else { return false };
        let Some(deletion) = self.deleted.get_mut(&entry.choice_key()) else { return false };
        let matches = match (&deletion.option, options) {
            (None, _) => true,
            (Some(option), Chosen::One(chosen)) => option == chosen,
            _ => false,
        };
        deletion.used |= matches;
        matches
    }

    /// Remembers that the tree has this choice.
    ///
    /// # Errors
    /// The tree chooses two different options for one group and package.
    pub(crate) fn remember(&mut self, entry: &Entry) -> Result<()> {
        let Target::Group { options, .. } = &entry.target else { return Ok(()) };
        let option = match options {
            Chosen::One(option) => Some(option.clone()),
            _ => None,
        };
        let key = entry.choice_key();
        match self.known.get(&key) {
            Some(before) if *before != option => {
                let text = |option: &Option<String>| option.clone().unwrap_or_else(|| "null".into());
                let message = format!("two options for '{key}': {} and {}", text(before), text(&option));
                let added = self.appended.iter().find(|appended| appended.choice_key() == key);
                let hint = match added.map(|entry| &entry.origin.source) {
                    Some(Source::Override(argument)) => {
                        format!("write '{}' to change the option", argument.trim_start_matches('+'))
                    }
                    _ => format!("the later entry must read 'override {key}: {}'", text(&option)),
                };
                Err(Problem::of(ProblemKind::Defaults, message).at(&entry.origin).hint(hint))
            }
            _ => {
                self.known.insert(key, option);
                Ok(())
            }
        }
    }

    /// # Errors
    /// A choice or a deletion that matched nothing in the tree.
    pub(crate) fn ensure_used(&self) -> Result<()> {
        if let Some((key, choice)) = self.chosen.iter().find(|(_, choice)| !choice.used) {
            let group = key.split('@').next().unwrap_or(key);
            let keys: BTreeSet<&str> = self.known.keys().map(String::as_str).collect();
            let same_group: Vec<&str> =
                keys.iter().copied().filter(|known| known.split('@').next() == Some(group)).collect();
            let hint = match (&choice.argument, same_group.as_slice()) {
                (_, [_, ..]) => format!("did you mean {}?", same_group.join(" or ")),
                (Some(argument), []) => match suggest::closest(key, keys) {
                    Some(best) => format!("did you mean '{best}'? +{argument} adds the group"),
                    None => format!("+{argument} adds the group"),
                },
                (None, []) => "an 'override' entry changes a group that another list chooses".into(),
            };
            let message = format!("no defaults list chooses an option for '{key}', so it cannot be changed");
            return Err(Problem::of(ProblemKind::Defaults, message).at(&choice.origin).hint(hint));
        }
        match self.deleted.values().find(|deletion| !deletion.used) {
            None => Ok(()),
            Some(deletion) => {
                let message = format!("'{}' removes nothing: no defaults list chooses it", deletion.argument);
                let keys: Vec<&str> = self.known.keys().map(String::as_str).collect();
                let hint = format!("groups with a choice: {}", keys.join(", "));
                Err(Problem::of(ProblemKind::Defaults, message).hint(hint))
            }
        }
    }
}

fn not_an_option(change: &Override) -> Problem {
    let message = format!("'{}': an option of group '{}' is a name or a list of names", change.text, change.key);
    let hint = match &change.value {
        Some(value) if !matches!(value, Value::List(_) | Value::Null) => {
            format!("if the file really has that name, quote it: {}='\"...\"'", change.key)
        }
        _ => format!("~{} removes the group", change.key),
    };
    Problem::of(ProblemKind::Defaults, message).hint(hint)
}
