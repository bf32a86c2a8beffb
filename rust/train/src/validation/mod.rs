//! Helpers for what a [`crate::Task`] measures.

mod even_samples;
mod sums;

pub use even_samples::EvenSamples;
pub use sums::Sums;
