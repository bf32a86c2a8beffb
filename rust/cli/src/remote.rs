//! `--remote`: the same command on the cluster, over `ssh`.

use crate::error::CommandError;
use anyhow::{Context, Result};
use clap::Args;
use hlrp_config::{Check, Composed, Problem, compose, groups, secret};
use hlrp_schema::{ConfigArgs, PROJECT, RemoteConfig};
use hlrp_slurm::shell::quoted;
use hlrp_track::{console, host::find_program};
use std::{
    convert::Infallible,
    io::{self, IsTerminal},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode},
};

const REMOTE: &str = "--remote";
/// Name of the command on the other side.
const NAME: &str = "hlrp";

/// Options of every command that can also be run on the cluster's side.
#[derive(Debug, Clone, Args)]
pub(crate) struct RemoteArgs {
    /// Print the same command for the cluster (`ssh`; cluster.remote.host and .repository); with --yes run it.
    #[arg(long)]
    pub(crate) remote: bool,
    /// Do not ask; with --remote: run the command that is printed, which does not ask either.
    #[arg(long, short = 'y')]
    pub(crate) yes: bool,
}

impl RemoteArgs {
    /// With `--remote` this prints the command and, with `--yes`, becomes it: standard streams and the exit code are then those of the other
    /// side. None without `--remote`: the command is to be done here.
    ///
    /// # Errors
    /// No cluster to reach, no `ssh`, or a secret in the arguments of a command that would run.
    pub(crate) fn instead(&self, config: &ConfigArgs) -> Result<Option<ExitCode>> {
        if !self.remote {
            return Ok(None);
        }
        let (host, repository) = destination(config)?;
        let arguments: Vec<String> =
            std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
        let arguments = without_remote(arguments);
        let shown = command_line(&repository, &secret::redact_arguments(arguments.iter().cloned()));
        console::print(&format!("ssh {} {}", quoted(&host), quoted(&shown)));
        if !self.yes {
            return Ok(Some(ExitCode::SUCCESS));
        }
        let line = command_line(&repository, &arguments);
        if line != shown {
            let message = "the command contains a secret, which the process lists of both machines would show";
            return Err(CommandError::new(message, format!("export it on {host} and leave it out here")).into());
        }
        let ssh = find_program("ssh").ok_or_else(|| {
            CommandError::new("ssh is not on PATH", format!("install OpenSSH, or log in to {host} and run it there"))
        })?;
        let mut command = Command::new(&ssh);
        if io::stdin().is_terminal() && io::stdout().is_terminal() {
            command.arg("-t"); // Ctrl-C then reaches the other side
        }
        command.args(["--", &host, &line]);
        let failed: Result<Infallible> = Err(command.exec()).with_context(|| format!("cannot start {}", ssh.display()));
        match failed? {}
    }
}

/// Host and repository of `cluster.remote`. Without a choice they are those of the other options of `cluster`, if these agree.
fn destination(config: &ConfigArgs) -> Result<(String, String)> {
    if let Some(chosen) = complete(read(&config.compose()?)?) {
        return Ok(chosen);
    }
    let root = config.root()?;
    let options = groups(&root)?.into_iter().filter(|group| group.name == PROJECT.crossed_with);
    let names = options.flat_map(|group| group.options).map(|option| option.name);
    let mut known: Vec<_> = names.filter_map(|name| of_option(&root, &config.config_name, &name)).collect();
    known.sort();
    known.dedup();
    match <[_; 1]>::try_from(known) {
        Ok([only]) => Ok(only),
        Err(known) => {
            let message = match known.len() {
                0 => "null, and no other cluster option has a host",
                _ => "null, and the other cluster options have different hosts",
            };
            let hint = "set cluster.remote.host and cluster.remote.repository in config/user_config/local.yaml, or choose a cluster \
                        where the command takes one (cluster=lrz_x100)";
            Err(Problem::new("cluster.remote.host", message, hint).into())
        }
    }
}

/// The destination of one option of `cluster`; an error in its file is reported by `hlrp config check`.
fn of_option(root: &Path, config_name: &str, name: &str) -> Option<(String, String)> {
    let composed = compose(&PROJECT, root, config_name, &[format!("{}={name}", PROJECT.crossed_with)]).ok()?;
    complete(read(&composed).ok()?)
}

fn read(composed: &Composed) -> Result<RemoteConfig> {
    let text = |key: &str| {
        let node = composed.tree().get(&format!("cluster.remote.{key}"));
        node.and_then(|node| node.as_str()).map(str::to_owned)
    };
    let remote = RemoteConfig { host: text("host"), repository: text("repository").map(Into::into) };
    remote.check().map_err(|problem| composed.locate(problem.inside("cluster.remote")))?;
    Ok(remote)
}

fn complete(remote: RemoteConfig) -> Option<(String, String)> {
    Some((remote.host?, remote.repository?.to_string_lossy().into_owned()))
}

/// The arguments without `--remote`; `--yes` stays, because nobody is asked on the other side either. What follows `--` is not an option.
fn without_remote(arguments: Vec<String>) -> Vec<String> {
    let end = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
    let numbered = arguments.into_iter().enumerate();
    numbered.filter(|(index, argument)| *index >= end || argument != REMOTE).map(|(_, argument)| argument).collect()
}

/// What the shell of the other side runs.
fn command_line(repository: &str, arguments: &[String]) -> String {
    let folder = match repository.strip_prefix("~/") {
        Some(below_home) => format!("~/{}", quoted(below_home)),
        None => quoted(repository),
    };
    let arguments = arguments.iter().map(|argument| quoted(argument));
    let command: Vec<String> = std::iter::once(NAME.to_owned()).chain(arguments).collect();
    format!("cd {folder} && {}", command.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(arguments: &[&str]) -> Vec<String> {
        arguments.iter().map(|&argument| argument.to_owned()).collect()
    }

    #[test]
    fn only_the_option_that_brings_a_command_there_is_left_out() {
        let arguments = owned(&["jobs", "--remote", "cancel", "-y", "7", "--", "--remote"]);
        assert_eq!(without_remote(arguments), ["jobs", "cancel", "-y", "7", "--", "--remote"]);
    }

    #[test]
    fn the_shell_of_the_other_side_reads_the_same_arguments() {
        let arguments = owned(&["submit", "experiment.description=it's a \"test\" of $HOME", "~sweep.params"]);
        let line = command_line("code/a b", &arguments);
        assert_eq!(
            line,
            r#"cd 'code/a b' && hlrp submit 'experiment.description=it'\''s a "test" of $HOME' '~sweep.params'"#
        );
        assert_eq!(command_line("~/my code", &[]), "cd ~/'my code' && hlrp");
        assert_eq!(command_line("/abs", &[]), "cd /abs && hlrp");
    }
}
