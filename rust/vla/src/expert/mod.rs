//! `arch: expert`.

mod config;
mod heads;
mod joint;
mod lerobot;
mod model;
mod prefix;
mod stack;

pub use config::{ActionConfig, ExpertConfig, ImageSpecialTokens, LatentConfig};
pub use lerobot::Initialised;
pub use model::{BACKBONE, ExpertModel, HeadKind};
pub use stack::PrefixMemory;
