//! `hlrp config completion` and what its script calls.

use super::{TreeArgs, shell_quoted};
use clap::Args;
use hlrp_config::{Completed, Problem, complete};
use hlrp_schema::PROJECT;

/// What is half typed, and for which tree.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompleteArgs {
    /// Complete keys alone, without '='.
    #[arg(long)]
    keys: bool,
    #[arg(allow_hyphen_values = true)]
    word: String,
    #[command(flatten)]
    tree: TreeArgs,
}

/// The place in the script of the words that name the tree.
const TREE: &str = "@TREE@";

/// The script that completes for this tree; for the one found while completing where none is named.
pub(super) fn script(tree: &TreeArgs) -> Result<String, Problem> {
    let mut words = vec!["--config-name".to_string(), tree.config_name.clone()];
    if tree.config_dir.is_some() {
        let root = tree.root()?;
        let root = std::path::absolute(&root).unwrap_or(root);
        words.extend(["--config-dir".to_string(), root.display().to_string()]);
    }
    let words: Vec<String> = words.iter().map(|word| shell_quoted(word)).collect();
    Ok(include_str!("completion.bash").replace(TREE, &words.join(" ")))
}

/// One candidate a line. Nothing where the tree cannot be read, because a shell has no place for an error.
pub(super) fn candidates(arguments: &CompleteArgs) -> String {
    let Ok(root) = arguments.tree.root() else { return String::new() };
    let what = if arguments.keys { Completed::Keys } else { Completed::Overrides };
    let candidates = complete(&PROJECT, &root, &arguments.tree.config_name, &arguments.word, what);
    candidates.into_iter().map(|line| line + "\n").collect()
}
