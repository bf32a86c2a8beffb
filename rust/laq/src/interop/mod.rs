//! Weights of and for other programs: `hlrp import-laq`, `hlrp export-laq`.

mod advice;
mod export;
mod import;
mod predecessor;

pub(crate) use export::ExportedEncoder;
pub use export::export;
pub use import::import;
pub use predecessor::from_lightning_names;
