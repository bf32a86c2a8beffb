//! `hlrp config show`

use super::print;
use clap::{Args, ValueEnum};
use hlrp_config::{Problem, compose_raw};
use hlrp_schema::{ConfigArgs, PROJECT};
use std::process::ExitCode;

/// What to show, and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = Format::Yaml)]
    format: Format,
    /// Skip the typed extraction and its checks; for trees of other projects.
    #[arg(long)]
    raw: bool,
    /// Leave references (${...}) in place; implies --raw.
    #[arg(long)]
    unresolved: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

pub(super) fn show(arguments: &ShowArgs) -> Result<ExitCode, Problem> {
    let config = &arguments.config;
    let raw = compose_raw(&PROJECT, &config.root()?, &config.config_name, &config.overrides)?;
    let (tree, yaml) = if arguments.unresolved {
        (raw.tree().clone(), raw.to_yaml())
    } else {
        let composed = raw.resolve()?;
        if !arguments.raw {
            hlrp_schema::check(&composed)?;
        }
        (composed.tree().clone(), composed.to_yaml())
    };
    match arguments.format {
        Format::Yaml => print(&yaml),
        Format::Json => print(&format!("{:#}\n", tree.redacted("").to_json())),
    }
}
