//! The engine's properties, one module each, shown on a small model that the real engine trains on made-up data.
#![allow(clippy::unwrap_used)] // a test may panic
#![allow(non_snake_case)] // shape suffixes
#![allow(unreachable_pub)] // shared between the modules of one program

mod accumulation;
mod changed_data;
mod checkpoints;
mod common;
mod conflicts;
mod damaged_checkpoints;
mod ema;
mod kill;
mod memory;
mod not_finite;
mod optimizer;
mod resume;
mod schedule;
mod stops;
mod throughput;
mod version_1;
