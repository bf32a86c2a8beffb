//! Policies of another program: `hlrp import-vla`.

mod import;
mod manifest;
mod names;

pub use import::import;
