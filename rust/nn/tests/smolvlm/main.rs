//! The SmolVLM backbone through its public API.
#![allow(clippy::unwrap_used, non_snake_case)] // a test may panic; shape suffixes

mod attention;
mod folder;
mod images;
mod tiny;
mod tokenizer;
