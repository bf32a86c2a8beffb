//! `arch: pooled`.

mod config;
mod flow_head;
mod model;

pub use config::PooledConfig;
pub use model::{BACKBONE, PooledModel};
