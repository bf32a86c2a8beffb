//! Where metrics and images of a run go: one destination per file.

mod png;

pub use png::PngSink;

use crate::{Result, run::RunStatus};
use image::RgbImage;

/// A destination of metrics and images.
pub trait Sink: Send {
    /// Records scalars by full name, measured after `step` optimizer steps.
    ///
    /// # Errors
    /// The destination cannot be written.
    fn scalars(&mut self, _step: u64, _scalars: &[(String, f64)]) -> Result<()> {
        Ok(())
    }

    /// Records the images of the validation after `step` optimizer steps.
    ///
    /// # Errors
    /// As [`Sink::scalars`].
    fn images(&mut self, _step: u64, _images: &[NamedImage]) -> Result<()> {
        Ok(())
    }

    /// Brings everything so far to the disk; called before each checkpoint is published.
    ///
    /// # Errors
    /// As [`Sink::scalars`].
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// The run has ended.
    ///
    /// # Errors
    /// As [`Sink::scalars`].
    fn finish(&mut self, _outcome: &RunStatus) -> Result<()> {
        Ok(())
    }
}

/// An image that a validation returns.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedImage {
    /// Name without an extension, such as `reconstructions`.
    pub name: String,
    /// The pixels.
    pub image: RgbImage,
}
