//! `hlrp config completion` and what its script calls.

use super::TreeArgs;
use clap::Args;
use hlrp_config::{Completed, Problem, complete};
use hlrp_schema::PROJECT;
use hlrp_slurm::shell::quoted;

/// The override that is being typed, and for which tree.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompleteArgs {
    /// Complete keys alone, without '='.
    #[arg(long)]
    keys: bool,
    #[arg(allow_hyphen_values = true, value_name = "OVERRIDE")]
    argument: String,
    #[command(flatten)]
    tree: TreeArgs,
}

/// What the script has where the options that name the tree go.
const TREE: &str = "@TREE@";

/// The script that completes for this tree; for the one found while completing where none is named.
pub(super) fn script(tree: &TreeArgs) -> Result<String, Problem> {
    let mut options = vec!["--config-name".to_string(), tree.config_name.clone()];
    if tree.config_dir.is_some() {
        let root = tree.root()?;
        let root = std::path::absolute(&root).unwrap_or(root);
        options.extend(["--config-dir".to_string(), root.display().to_string()]);
    }
    let options: Vec<String> = options.iter().map(|option| quoted(option)).collect();
    Ok(include_str!("completion.bash").replace(TREE, &options.join(" ")))
}

/// One candidate a line. Nothing where the tree cannot be read, because a shell cannot show an error.
pub(super) fn candidates(arguments: &CompleteArgs) -> String {
    let Ok(root) = arguments.tree.root() else { return String::new() };
    let what = if arguments.keys { Completed::Keys } else { Completed::Overrides };
    let candidates = complete(&PROJECT, &root, &arguments.tree.config_name, &arguments.argument, what);
    candidates.into_iter().map(|line| line + "\n").collect()
}
