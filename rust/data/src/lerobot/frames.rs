//! From a camera's key to the store of its frames.

use super::Dataset;
use crate::{DataError, FrameSize, FrameStore, image::ImageStore};
use std::sync::Arc;

impl Dataset {
    /// The frames of a camera, delivered in `size` (by default as recorded), from videos or embedded pictures.
    ///
    /// # Errors
    /// When there is no such camera, its metadata is damaged, or this build decodes no videos.
    pub fn frame_store(
        self: &Arc<Self>,
        camera: &str,
        size: Option<FrameSize>,
    ) -> Result<Box<dyn FrameStore>, DataError> {
        let feature = self.camera(camera)?;
        let native = feature.frame_size().filter(|size| size.height > 0 && size.width > 0);
        let size = size.or(native).ok_or_else(|| DataError::Feature {
            root: self.root().to_owned(),
            what: format!("camera `{camera}` has the shape {:?}, which is no picture size", feature.shape),
            hint: "correct its `shape` in meta/info.json to [height, width, 3]".into(),
        })?;
        if feature.dtype == "image" {
            return Ok(Box::new(ImageStore::new(Arc::clone(self), camera, size)));
        }
        self.video_store(camera, size)
    }

    #[cfg(feature = "ffmpeg")]
    fn video_store(self: &Arc<Self>, camera: &str, size: FrameSize) -> Result<Box<dyn FrameStore>, DataError> {
        Ok(Box::new(crate::video::VideoStore::new(Arc::clone(self), camera, size)?))
    }

    #[cfg(not(feature = "ffmpeg"))]
    fn video_store(self: &Arc<Self>, camera: &str, _size: FrameSize) -> Result<Box<dyn FrameStore>, DataError> {
        Err(DataError::Feature {
            root: self.root().to_owned(),
            what: format!("camera `{camera}` is a video, and this program was built without FFmpeg"),
            hint: "read it from a frame cache (data.cache.enabled=true), or build with the feature `ffmpeg`".into(),
        })
    }
}
