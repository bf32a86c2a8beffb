//! Frames that are stored as encoded images (PNG, JPEG), one per row.

use crate::error::DataError;
use crate::frames::{FrameReader, FrameSize, FrameStore};
use crate::resize::{Resizer, split_planes};
use std::path::{Path, PathBuf};

/// An encoded image and the file that it comes from.
pub(crate) struct EncodedImage {
    pub(crate) path: PathBuf,
    /// PNG or JPEG.
    pub(crate) bytes: Vec<u8>,
}

/// The encoded images of one camera, by global row.
pub(crate) trait EncodedImages: Send + Sync {
    /// Reads the image of a row.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    fn image(&self, row: u64) -> Result<EncodedImage, DataError>;

    /// The error of a row whose image in the file `path` cannot be used.
    fn failure(&self, path: &Path, row: u64, what: String) -> DataError;
}

/// Decodes encoded images and delivers them in one size.
pub(crate) struct ImageStore {
    images: Box<dyn EncodedImages>,
    size: FrameSize,
}

impl ImageStore {
    /// The frames of `images`, delivered in `size`.
    pub(crate) fn new(images: Box<dyn EncodedImages>, size: FrameSize) -> Self {
        Self { images, size }
    }

    /// The image of a row at its own size, and the file that it comes from.
    fn decode(&self, row: u64) -> Result<(PathBuf, image::RgbImage), DataError> {
        let EncodedImage { path, bytes } = self.images.image(row)?;
        match image::load_from_memory(&bytes) {
            Ok(image) => Ok((path, image.into_rgb8())),
            Err(error) => Err(self.images.failure(&path, row, format!("cannot be decoded ({error})"))),
        }
    }
}

impl FrameStore for ImageStore {
    fn reader(&self, _max_open: usize) -> Result<Box<dyn FrameReader + '_>, DataError> {
        Ok(Box::new(ImageReader { store: self, resizer: Resizer::default(), planes_CHW: Vec::new() }))
    }

    fn size(&self) -> FrameSize {
        self.size
    }
}

struct ImageReader<'a> {
    store: &'a ImageStore,
    resizer: Resizer,
    planes_CHW: Vec<u8>,
}

impl FrameReader for ImageReader<'_> {
    fn read(&mut self, rows: &[u64], out_TCHW: &mut [u8]) -> Result<(), DataError> {
        let size = self.store.size;
        let frame_len = size.frame_bytes();
        for (slot, &row) in rows.iter().enumerate() {
            let (before, out_CHW) = out_TCHW.split_at_mut(slot * frame_len);
            let out_CHW = &mut out_CHW[..frame_len];
            // Frames beyond an episode's end repeat its last.
            if slot > 0 && rows[slot - 1] == row {
                out_CHW.copy_from_slice(&before[(slot - 1) * frame_len..]);
                continue;
            }
            let (path, image) = self.store.decode(row)?;
            let native = FrameSize { height: image.height() as usize, width: image.width() as usize };
            if native == size {
                split_planes(image.as_raw(), out_CHW);
                continue;
            }
            self.planes_CHW.resize(image.as_raw().len(), 0);
            split_planes(image.as_raw(), &mut self.planes_CHW);
            self.resizer.resize(&path, native, &self.planes_CHW, size, out_CHW)?;
        }
        Ok(())
    }
}
