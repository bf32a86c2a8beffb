//! `hlrp config diff`

use super::{TreeArgs, print};
use hlrp_config::{Composed, Problem, ProblemKind, Repository, compose, diff, from_resolved};
use hlrp_schema::PROJECT;
use std::{path::Path, process::ExitCode};

pub(super) fn differences(left: &str, right: &str, tree: &TreeArgs) -> Result<ExitCode, Problem> {
    let mut text = String::new();
    for difference in diff(&side(left, tree)?, &side(right, tree)?) {
        let value = |value: Option<String>| value.unwrap_or_else(|| "(no such key)".into());
        text += &format!("{}: {} -> {}\n", difference.key, value(difference.left), value(difference.right));
    }
    print(&text)
}

/// A run directory, overrides, or the name of an experiment.
fn side(name: &str, tree: &TreeArgs) -> Result<Composed, Problem> {
    let path = Path::new(name);
    if path.join("config.yaml").is_file() {
        return from_resolved(&PROJECT, &path.join("config.yaml"), &[]);
    }
    if path.is_file() {
        return from_resolved(&PROJECT, path, &[]);
    }
    let root = tree.root()?;
    let is_option = Repository::open(&root)?.nested_options(PROJECT.experiments).iter().any(|option| option == name);
    let is_place = name.starts_with(['/', '.']) || path.is_dir();
    let arguments = match name.contains('=') || name.starts_with(['~', '+']) {
        true if !is_place => split_overrides(name),
        false if is_option || !(is_place || name.contains('/')) => vec![format!("{}={name}", PROJECT.experiments)],
        _ => {
            let what = if path.exists() { "contains no config.yaml" } else { "does not exist" };
            let error = Problem::of(ProblemKind::File, format!("the run directory {name} {what}"));
            return Err(
                error.hint("name a run directory, an experiment, or overrides in quotes: 'seed=1 model.dim=64'")
            );
        }
    };
    compose(&PROJECT, &root, &tree.config_name, &arguments)
}

/// Splits overrides at blanks outside of quotes and brackets. A pair of quotes around a whole override is the shell's
/// and removed; quotes inside an override belong to its value.
fn split_overrides(text: &str) -> Vec<String> {
    let mut arguments = vec![String::new()];
    let (mut quote, mut depth) = (None, 0_usize);
    for char in text.chars() {
        let argument = arguments.last_mut().expect("there is always a last override");
        match (quote, char) {
            (Some(open), _) if open == char => quote = None,
            (None, '\'' | '"') => quote = Some(char),
            (None, '[' | '{' | '(') => depth += 1,
            (None, ']' | '}' | ')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if quote.is_none() && depth == 0 && char.is_whitespace() {
            arguments.push(String::new());
        } else {
            argument.push(char);
        }
    }
    let unquoted = |argument: String| {
        let inner = ['\'', '"'].into_iter().find_map(|quote| argument.strip_prefix(quote)?.strip_suffix(quote));
        inner.map(str::to_string).unwrap_or(argument)
    };
    arguments.into_iter().filter(|argument| !argument.is_empty()).map(unquoted).collect()
}

#[cfg(test)]
mod tests {
    use super::split_overrides;

    #[test]
    fn blanks_in_quotes_and_brackets_do_not_cut() {
        assert_eq!(split_overrides("a=1  b=2"), ["a=1", "b=2"]);
        assert_eq!(split_overrides("a=[1, 2] b={c: 1, d: [2, 3]}"), ["a=[1, 2]", "b={c: 1, d: [2, 3]}"]);
        assert_eq!(split_overrides("a='x, y' b=\"it's [\" c=1"), ["a='x, y'", "b=\"it's [\"", "c=1"]);
        assert_eq!(split_overrides("'a=x y' b=1"), ["a=x y", "b=1"]);
    }
}
