//! Helpers for what a [`crate::Task`] measures.

mod even_samples;
mod gather;
mod sums;

pub use even_samples::EvenSamples;
pub use gather::{gather_rows, shape_of_all};
pub use sums::Sums;
