//! Images as PNG files in the folder of their validation.

use super::{NamedImage, Sink};
use crate::{Result, plot, run::validation_dir};
use std::path::{Path, PathBuf};

/// Writes `<run>/validation/step-000080/<name>.png`.
#[derive(Debug)]
pub struct PngSink {
    run_dir: PathBuf,
}

impl PngSink {
    /// Images of the run in `run_dir`.
    pub fn new(run_dir: &Path) -> Self {
        Self { run_dir: run_dir.to_path_buf() }
    }
}

impl Sink for PngSink {
    fn images(&mut self, step: u64, images: &[NamedImage]) -> Result<()> {
        if images.is_empty() {
            return Ok(());
        }
        let dir = validation_dir(&self.run_dir, step)?;
        images.iter().try_for_each(|image| plot::save(&dir.join(format!("{}.png", image.name)), &image.image))
    }
}
