//! Group choices: those of the command line, and those of `override` entries.

use super::entry::{Chosen, Entry, Target};
use crate::{
    Origin, Problem, ProblemKind, Source, Value,
    overrides::{Action, Override},
    problem::Result,
    repository::Repository,
    suggest,
};
use std::collections::{BTreeMap, BTreeSet};

struct Choice {
    options: Chosen,
    origin: Origin,
    /// As typed; none for an `override` entry of a file.
    word: Option<String>,
    used: bool,
}

struct Deletion {
    option: Option<String>,
    word: String,
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
    /// Splits words into group choices and, as the second result, value overrides. A key is a group when the tree has a
    /// folder of that name and the value is not a map.
    pub(crate) fn from_words(repository: &Repository, words: Vec<Override>) -> Result<(Self, Vec<Override>)> {
        let mut choices = Self::default();
        let mut values = Vec::new();
        for word in words {
            if matches!(word.value, Some(Value::Map(_))) || !repository.is_group(&word.key) {
                values.push(word);
            } else {
                choices.choose(word)?;
            }
        }
        Ok((choices, values))
    }

    fn choose(&mut self, word: Override) -> Result<()> {
        let options = match &word.value {
            Some(Value::Str(option)) => Some(Chosen::One(option.clone())),
            Some(Value::List(items)) => {
                let options = items.iter().map(|item| item.as_str().map(str::to_string)).collect::<Option<_>>();
                options.map(Chosen::Many)
            }
            _ => None,
        };
        match (word.action, options) {
            (Action::Force, _) => {
                let message = format!("'{}': a group cannot be forced", word.word);
                let hint = format!("+{} adds it, {} changes it", &word.word[2..], &word.word[2..]);
                return Err(Problem::of(ProblemKind::Defaults, message).hint(hint));
            }
            (Action::Delete, options) => {
                let option = match (&word.value, options) {
                    (None | Some(Value::Null), _) => None,
                    (_, Some(Chosen::One(option))) => Some(option),
                    _ => return Err(not_an_option(&word)),
                };
                self.deleted.insert(word.choice_key(), Deletion { option, word: word.word, used: false });
            }
            (_, None) => return Err(not_an_option(&word)),
            (Action::Add, Some(options)) => {
                let mut entry = Entry::new(Target::Group { group: word.key.clone(), options }, word.origin());
                entry.package = word.package.clone();
                entry.is_appended = true;
                self.appended.push(entry);
            }
            (Action::Change, Some(options)) => {
                let choice = Choice { options, origin: word.origin(), word: Some(word.word.clone()), used: false };
                self.chosen.insert(word.choice_key(), choice);
            }
        }
        Ok(())
    }

    /// Registers an `override` entry; a choice made before (on the command line, or nearer to the primary file) stays.
    pub(crate) fn add_override(&mut self, entry: &Entry) {
        if let Target::Group { options, .. } = &entry.target {
            let choice = Choice { options: options.clone(), origin: entry.origin.clone(), word: None, used: false };
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
                    Some(Source::Word(word)) => {
                        format!("write '{}' to change the option", word.trim_start_matches('+'))
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
            let hint = match (&choice.word, same_group.as_slice()) {
                (_, [_, ..]) => format!("did you mean {}?", same_group.join(" or ")),
                (Some(word), []) => match suggest::closest(key, keys) {
                    Some(best) => format!("did you mean '{best}'? +{word} adds the group"),
                    None => format!("+{word} adds the group"),
                },
                (None, []) => "an 'override' entry changes a group that another list chooses".into(),
            };
            let message = format!("no defaults list chooses an option for '{key}', so it cannot be changed");
            return Err(Problem::of(ProblemKind::Defaults, message).at(&choice.origin).hint(hint));
        }
        match self.deleted.values().find(|deletion| !deletion.used) {
            None => Ok(()),
            Some(deletion) => {
                let message = format!("'{}' removes nothing: no defaults list chooses it", deletion.word);
                let keys: Vec<&str> = self.known.keys().map(String::as_str).collect();
                let hint = format!("groups with a choice: {}", keys.join(", "));
                Err(Problem::of(ProblemKind::Defaults, message).hint(hint))
            }
        }
    }
}

fn not_an_option(word: &Override) -> Problem {
    let message = format!("'{}': an option of group '{}' is a word or a list of words", word.word, word.key);
    let hint = match &word.value {
        Some(value) if !matches!(value, Value::List(_) | Value::Null) => {
            format!("if the file really has that name, quote it: {}='\"...\"'", word.key)
        }
        _ => format!("~{} removes the group", word.key),
    };
    Problem::of(ProblemKind::Defaults, message).hint(hint)
}
