//! The record of a run: run directory, `run.json`, metrics, sinks, console, plots, tables.
//!
//! | question | module |
//! |---|---|
//! | How does a file or folder appear whole or not at all? | [`fs`] |
//! | Where does a run keep its things, and what does it record about itself? | [`run`] |
//! | Which scalars did it record at which step? | [`metrics`] |
//! | Where do metrics and images go? | [`sinks`] |
//! | What does a person watching it see? | [`console`] |
//! | How are its plots and image grids drawn? | [`plot`] |
//! | How does it sum itself up? | [`table`], [`page`] |
//! | Which machine is this? | [`host`] |
//! | How is it asked to stop? | [`signals`] |
//! | How is another program asked something? | [`command`] |
//! | What is the exit code of a program? | [`exit_code`] |
//! | What time is it? | [`time`] |

#![allow(non_snake_case)] // names of image buffers carry their shape, such as rgb_HWC

pub mod command;
pub mod console;
pub mod env;
mod error;
pub mod exit_code;
pub mod fs;
pub mod host;
pub mod metrics;
pub mod page;
pub mod plot;
pub mod run;
pub mod signals;
pub mod sinks;
pub mod table;
pub mod time;

pub use error::TrackError;
pub use run::RunDir;

/// Result of this crate.
pub type Result<T, E = TrackError> = std::result::Result<T, E>;
