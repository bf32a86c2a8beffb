//! The programs beside this one, found and started as git and cargo do.

use crate::{env, error::CommandError};
use anyhow::{Context, Result, bail};
use hlrp_track::{host::find_program, run::DataSource};
use std::{
    convert::Infallible,
    ffi::OsString,
    iter,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// A program of this project that is a file of its own.
#[derive(Debug)]
pub(crate) struct Program {
    /// Name of the file.
    pub(crate) name: &'static str,
    /// Crate that builds it.
    pub(crate) package: &'static str,
}

/// Stage 1; linked with libtorch.
pub(crate) const TRAIN_LAQ: Program = Program { name: "hlrp-train-laq", package: "hlrp-laq" };
/// Stage 2; linked with libtorch.
pub(crate) const TRAIN_VLA: Program = Program { name: "hlrp-train-vla", package: "hlrp-vla" };
/// Datasets; linked with FFmpeg.
pub(crate) const DATA: Program = Program { name: "hlrp-data", package: "hlrp-data" };

impl Program {
    /// Looks beside this program, then on `PATH`.
    ///
    /// # Errors
    /// It is not found.
    pub(crate) fn find(&self) -> Result<PathBuf> {
        let own =
            std::env::current_exe().and_then(|path| path.canonicalize()).context("cannot find the path of hlrp")?;
        let beside = own.with_file_name(self.name);
        if beside.is_file() {
            return Ok(beside);
        }
        find_program(self.name).ok_or_else(|| {
            let message = format!("{} is neither in {} nor on PATH", self.name, own.parent().unwrap_or(&own).display());
            CommandError::new(message, format!("build it with `cargo build --release -p {}`", self.package)).into()
        })
    }

    /// What the program prints when asked for facts about itself, as JSON.
    ///
    /// # Errors
    /// Why the program did not answer.
    pub(crate) fn ask(&self, argument: &str) -> Result<serde_json::Value> {
        let path = self.find()?;
        let output =
            Command::new(&path).arg(argument).output().with_context(|| format!("cannot start {}", path.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{} fails: {}", path.display(), said.trim().lines().next().unwrap_or("no message"));
        }
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{} {argument} does not print JSON; is it of another version?", path.display()))
    }
}

/// Versions of this program, as a run records them.
pub(crate) fn own_versions() -> impl Iterator<Item = (String, String)> {
    let version = [("hlrp", env!("CARGO_PKG_VERSION"))];
    let build = hlrp_build::COMMIT.map(|commit| ("build", commit));
    version.into_iter().chain(build).map(|(name, version)| (name.to_owned(), version.to_owned()))
}

/// What a run records about the dataset at `root`: `hlrp data show` says it. None where it cannot be read here.
pub(crate) fn data_source(root: &Path) -> Option<DataSource> {
    let output = Command::new(DATA.find().ok()?).arg("show").arg(root).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    let (fingerprint, num_episodes) = (value("fingerprint ")?.to_owned(), value("episodes ")?.parse().ok()?);
    output.status.success().then(|| DataSource {
        root: root.to_path_buf(),
        repo_id: None,
        commit: None,
        fingerprint,
        num_episodes,
        labels: None,
    })
}

/// How OpenMP's threads wait for each other, which libtorch reads before a program's first line runs; nothing if the user has set one of them.
///
/// They fall asleep soon: the decode threads need the cores, and on a busy machine spinning makes a step several times slower. They do not
/// fall asleep at once (GNU's OpenMP turns that many rounds first): waking up takes longer than a small operation (docs/benchmarks.md).
pub(crate) fn waiting() -> impl Iterator<Item = (&'static str, &'static str)> {
    let variables = [(env::OMP_WAIT_POLICY, "passive"), (env::GOMP_SPINCOUNT, "2000")];
    let is_decided = variables.iter().any(|(name, _)| env::is_set(name));
    variables.into_iter().filter(move |_| !is_decided)
}

/// [`exec`] of what `program` does besides training: `command` is its first argument.
///
/// # Errors
/// As [`exec`].
pub(crate) fn exec_command(program: &Program, command: &str, arguments: Vec<OsString>) -> Result<ExitCode> {
    let arguments: Vec<_> = iter::once(command.into()).chain(arguments).collect();
    exec(program, &arguments)
}

/// Becomes `program`: signals, standard streams and the exit code are then its own.
///
/// # Errors
/// The program is missing or does not start; there is no success to return.
pub(crate) fn exec(program: &Program, arguments: &[OsString]) -> Result<ExitCode> {
    let path = program.find()?;
    let mut command = Command::new(&path);
    command.args(arguments).envs(waiting());
    let failed: Result<Infallible> = Err(command.exec()).with_context(|| format!("cannot start {}", path.display()));
    match failed? {}
}
