//! Frames that are stored as encoded images (PNG, JPEG, WebP), one per row.

use crate::error::{DataError, FrameFailure};
use crate::frames::{FrameReader, FrameSize, FrameStore};
use crate::resize::{Resizer, split_planes};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Rgb, RgbImage, metadata::Orientation};
use std::{
    io::Cursor,
    path::{Path, PathBuf},
};

/// The hint for a damaged image.
pub(crate) const DAMAGED: &str = "the image is damaged: fetch or record it again";

/// Largest decoded image in bytes.
const MAX_IMAGE_BYTES: u64 = 256 << 20;

/// An encoded image and the file that it comes from.
pub(crate) struct EncodedImage {
    pub(crate) path: PathBuf,
    /// PNG, JPEG or WebP.
    pub(crate) bytes: Vec<u8>,
}

/// The encoded images of one camera, by global row.
pub(crate) trait EncodedImages: Send + Sync {
    /// Reads the image of a row.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    fn image(&self, row: u64) -> Result<EncodedImage, DataError>;

    /// The error of a row whose image in the file `path` cannot be used, and what to do.
    fn failure(&self, path: &Path, row: u64, what: String, hint: &str) -> DataError;
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
    fn decode(&self, row: u64) -> Result<(PathBuf, RgbImage), DataError> {
        let EncodedImage { path, bytes } = self.images.image(row)?;
        match decode(&bytes) {
            Ok(image) => Ok((path, image)),
            Err(FrameFailure { what, hint }) => Err(self.images.failure(&path, row, what, hint)),
        }
    }
}

/// The image with its EXIF orientation applied, as Hugging Face's `datasets` does for LeRobot.
fn decode(bytes: &[u8]) -> Result<RgbImage, FrameFailure> {
    let damaged = |error: image::ImageError| failure(format!("cannot be decoded ({error})"), DAMAGED);
    if image::guess_format(bytes).is_ok_and(|format| format == ImageFormat::Jpeg) && !is_whole_jpeg(bytes) {
        return Err(failure("cannot be decoded (it is cut off)", DAMAGED));
    }
    let mut decoder = reader(bytes)?.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    // A header of a few bytes may ask for any amount of memory.
    if decoder.total_bytes() > MAX_IMAGE_BYTES {
        return Err(failure(format!("has {width}x{height} pixels, which is no frame of a camera"), DAMAGED));
    }
    let orientation = decoder.orientation().map_err(damaged)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    image.apply_orientation(orientation);
    match image {
        DynamicImage::ImageRgb8(image) => Ok(image),
        DynamicImage::ImageLuma16(_) | DynamicImage::ImageLumaA16(_) => {
            let what = "is a 16-bit gray image, as depth maps are, not a colour image";
            Err(failure(what, "choose a colour camera"))
        }
        // The upper byte of each value, as Pillow reads 16-bit colours.
        DynamicImage::ImageRgb16(_) | DynamicImage::ImageRgba16(_) => {
            let wide = image.into_rgb16();
            let upper = |x, y| Rgb(wide.get_pixel(x, y).0.map(|value| (value >> 8) as u8));
            Ok(RgbImage::from_fn(wide.width(), wide.height(), upper))
        }
        other => Ok(other.into_rgb8()),
    }
}

/// Whether a JPEG image has its end. Its decoder makes up what is cut off.
fn is_whole_jpeg(bytes: &[u8]) -> bool {
    const END: u8 = 0xd9;
    let mut at = 0;
    while let Some(next) = bytes.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == 0xff)) {
        at += next + 1;
        match bytes.get(at) {
            Some(&END) => return true,
            // What has no content: a stuffed zero within a scan, restarts, the start of the image.
            Some(0x00 | 0x01 | 0xd0..=0xd8) => at += 1,
            Some(0xff) => {}
            _ => {
                let Some(&[high, low]) = bytes.get(at + 1..at + 3) else { return false };
                at += 1 + usize::from(u16::from_be_bytes([high, low]));
            }
        }
    }
    false
}

/// Size of an encoded image as it is shown, from its header.
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn shown_size(bytes: &[u8]) -> Result<FrameSize, String> {
    let failed = |error: image::ImageError| error.to_string();
    let mut decoder = reader(bytes).map_err(|failure| failure.what)?.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    let (height, width) = match decoder.orientation().map_err(failed)? {
        Orientation::NoTransforms
        | Orientation::Rotate180
        | Orientation::FlipHorizontal
        | Orientation::FlipVertical => (height, width),
        _ => (width, height),
    };
    Ok(FrameSize { height: height as usize, width: width as usize })
}

/// A reader of an image in one of the supported formats.
fn reader(bytes: &[u8]) -> Result<ImageReader<Cursor<&[u8]>>, FrameFailure> {
    const CONVERT: &str = "convert it to PNG, JPEG or WebP";
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP)) => {
            Ok(ImageReader::with_format(Cursor::new(bytes), format))
        }
        Ok(ImageFormat::Tiff) => Err(failure("is a TIFF image, as depth maps are", CONVERT)),
        Ok(other) => Err(failure(format!("is an image of the unsupported format {other:?}"), CONVERT)),
        Err(_) => Err(failure("is not an image of a known format", DAMAGED)),
    }
}

fn failure(what: impl Into<String>, hint: &'static str) -> FrameFailure {
    FrameFailure { what: what.into(), hint }
}

impl FrameStore for ImageStore {
    fn reader(&self, _max_open: usize) -> Result<Box<dyn FrameReader + '_>, DataError> {
        Ok(Box::new(StoreReader { store: self, resizer: Resizer::default(), planes_CHW: Vec::new() }))
    }

    fn size(&self) -> FrameSize {
        self.size
    }
}

struct StoreReader<'a> {
    store: &'a ImageStore,
    resizer: Resizer,
    planes_CHW: Vec<u8>,
}

impl FrameReader for StoreReader<'_> {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test may panic

    use super::*;

    #[test]
    fn a_jpeg_image_that_is_cut_off_is_refused() {
        let pixels = RgbImage::from_fn(48, 32, |x, y| Rgb([(x * 5) as u8, (y * 7) as u8, (x * y) as u8]));
        let mut whole = Cursor::new(Vec::new());
        pixels.write_to(&mut whole, ImageFormat::Jpeg).unwrap();
        let whole = whole.into_inner();
        let padded = [whole.as_slice(), &[0; 100]].concat();
        assert_eq!(decode(&padded).unwrap(), decode(&whole).unwrap());
        for end in [whole.len() - 1, whole.len() - 40, whole.len() / 2, 30, 3] {
            assert!(decode(&whole[..end]).is_err(), "{end} of {} bytes", whole.len());
        }
    }
}
