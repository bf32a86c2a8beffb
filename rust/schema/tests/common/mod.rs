//! The repository's own tree.
#![allow(dead_code, missing_docs, unreachable_pub)] // each test file uses a part of it

use std::path::{Path, PathBuf};

pub fn owned(overrides: &[&str]) -> Vec<String> {
    overrides.iter().map(|argument| (*argument).to_string()).collect()
}

pub fn our_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config")
}
