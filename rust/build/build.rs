//! Asks git for the commit of the sources. Without git, or in a tarball, there is none; `HLRP_COMMIT` names one there.

#![allow(clippy::print_stdout)] // how a build script answers

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// What the programs are made of, in the workspace.
const SOURCES: [&str; 3] = ["rust", "Cargo.toml", "Cargo.lock"];
/// Digits of a commit.
const DIGITS: &str = "--short=12";

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let workspace = here.ancestors().nth(2).unwrap_or(&here);
    println!("cargo::rerun-if-env-changed=HLRP_COMMIT");
    SOURCES.iter().for_each(|name| println!("cargo::rerun-if-changed={}", workspace.join(name).display()));
    let named = env::var("HLRP_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = named.or_else(|| of_repository(workspace)).unwrap_or_default();
    println!("cargo::rustc-env=HLRP_BUILT_FROM={}", commit.replace(['\n', '\r'], " "));
}

fn of_repository(workspace: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("--no-optional-locks").arg("-C").arg(workspace).args(arguments).output();
        let output = output.ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // Sources may have been unpacked inside a repository of something else.
    let top = Path::new(&git(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()?;
    if top != workspace.canonicalize().ok()? {
        return None;
    }
    let commit = git(&["rev-parse", DIGITS, "HEAD"])?;
    // It gets a line with every commit and checkout.
    let log = workspace.join(git(&["rev-parse", "--git-path", "logs/HEAD"])?);
    if log.is_file() {
        println!("cargo::rerun-if-changed={}", log.display());
    }
    let status = ["status", "--porcelain", "--untracked-files=no", "--"];
    let is_changed = !git(&[&status[..], &SOURCES[..]].concat())?.is_empty();
    Some(if is_changed { format!("{commit} with changes") } else { commit })
}
