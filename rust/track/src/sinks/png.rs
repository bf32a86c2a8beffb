//! Images as PNG files in the folder of their validation. A file that cannot be written ends the recording of images, not the run.

use super::{NamedImage, Sink, SinkSetup};
use crate::{Result, plot, run::validation_dir};
use serde_json::Value;
use std::path::PathBuf;

/// Writes `<run>/validation/step-000080/<name>.png`.
#[derive(Debug)]
struct PngSink {
    run_dir: PathBuf,
    has_failed: bool,
}

/// The sink of the run that `setup` describes, if `options` is `true`.
pub(super) fn open(setup: &SinkSetup<'_>, options: &Value) -> Result<Option<Box<dyn Sink>>> {
    let sink = || Box::new(PngSink { run_dir: setup.run_dir.to_path_buf(), has_failed: false }) as Box<dyn Sink>;
    Ok((*options == true).then(sink))
}

impl Sink for PngSink {
    fn images(&mut self, step: u64, images: &[NamedImage]) -> Result<()> {
        if !images.is_empty()
            && !self.has_failed
            && let Err(error) = self.save(step, images)
        {
            tracing::error!("{error}; this session saves no more images");
            self.has_failed = true;
        }
        Ok(())
    }
}

impl PngSink {
    fn save(&self, step: u64, images: &[NamedImage]) -> Result<()> {
        let dir = validation_dir(&self.run_dir, step)?;
        images.iter().try_for_each(|image| plot::save(&dir.join(format!("{}.png", image.name)), &image.image))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;
    use crate::plot::RgbImage;

    #[test]
    fn an_image_is_a_file_of_its_validation() {
        let dir = tempfile::tempdir().unwrap();
        let setup = SinkSetup::new(dir.path(), 0, 10);
        assert!(open(&setup, &false.into()).unwrap().is_none());
        let mut sink = open(&setup, &true.into()).unwrap().unwrap();
        let image = RgbImage::from_pixel(2, 3, image::Rgb([1, 2, 3]));
        sink.images(5, &[NamedImage { name: "square".to_owned(), image: image.clone() }]).unwrap();
        let written = image::open(dir.path().join("validation/step-000005/square.png")).unwrap();
        assert_eq!(written.into_rgb8(), image);
    }

    #[test]
    fn an_image_that_cannot_be_written_is_no_error_of_the_run() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("validation"), "a file where the folder belongs").unwrap();
        let mut sink = open(&SinkSetup::new(dir.path(), 0, 10), &true.into()).unwrap().unwrap();
        let image = NamedImage { name: "square".to_owned(), image: RgbImage::new(2, 3) };
        sink.images(5, &[image]).unwrap();
        sink.finish(&crate::run::RunStatus::Finished).unwrap();
    }
}
