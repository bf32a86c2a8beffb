//! Pictures embedded in parquet: a column `struct<bytes, path>` with PNG or JPEG data, or the path of a file.

use crate::{
    DataError, FrameReader, FrameSize, FrameStore,
    lerobot::Dataset,
    resize::{Resizer, split_planes},
};
use arrow_array::{Array, ArrayRef, cast::AsArray};
use arrow_schema::DataType;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// The frames of a camera whose pictures lie in the data files.
pub(crate) struct ImageStore {
    dataset: Arc<Dataset>,
    camera: String,
    size: FrameSize,
}

impl ImageStore {
    /// The frames of `camera`, delivered in `size`.
    pub(crate) fn new(dataset: Arc<Dataset>, camera: &str, size: FrameSize) -> Self {
        Self { dataset, camera: camera.to_owned(), size }
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
            let (path, picture) = self.store.picture(row)?;
            let native = FrameSize { height: picture.height() as usize, width: picture.width() as usize };
            if native == size {
                split_planes(picture.as_raw(), out_CHW);
                continue;
            }
            self.planes_CHW.resize(picture.as_raw().len(), 0);
            split_planes(picture.as_raw(), &mut self.planes_CHW);
            self.resizer.resize(&path, native, &self.planes_CHW, size, out_CHW)?;
        }
        Ok(())
    }
}

impl ImageStore {
    /// The picture of a row at its own size, and the file that it comes from.
    fn picture(&self, row: u64) -> Result<(PathBuf, image::RgbImage), DataError> {
        let (table, cell) = self.dataset.cell(&self.camera, row)?;
        let (path, bytes) = match contents(&cell) {
            Ok(Contents::Bytes(bytes)) => (table.path().to_owned(), bytes),
            Ok(Contents::Path(path)) => {
                let path = self.dataset.root().join(path);
                let bytes = std::fs::read(&path).map_err(|error| self.failure(&path, row, error.to_string()))?;
                (path, bytes)
            }
            Err(what) => return Err(self.failure(table.path(), row, what)),
        };
        let picture = image::load_from_memory(&bytes);
        let picture = picture.map_err(|error| self.failure(&path, row, format!("cannot be decoded ({error})")))?;
        Ok((path, picture.into_rgb8()))
    }

    fn failure(&self, path: &Path, row: u64, what: String) -> DataError {
        let (episode, first) = self.dataset.episode_of(row).map_or((0, row), |found| (found.index, found.from_row));
        DataError::Frame {
            path: path.to_owned(),
            episode,
            wanted_s: (row - first) as f64 / self.dataset.fps(),
            what: format!("row {row} of `{}`: {what}", self.camera),
            hint: "the file is damaged: fetch or record it again".into(),
        }
    }
}

/// What a cell of an image column holds.
enum Contents {
    /// A PNG or JPEG file.
    Bytes(Vec<u8>),
    /// Where the file lies, relative to the dataset's folder.
    Path(String),
}

fn contents(cell: &ArrayRef) -> Result<Contents, String> {
    let DataType::Struct(_) = cell.data_type() else {
        return Err(format!("holds {}, not pictures", cell.data_type()));
    };
    let fields = cell.as_struct();
    let bytes = fields.column_by_name("bytes").filter(|column| !column.is_null(0));
    if let Some(bytes) = bytes {
        return match bytes.data_type() {
            DataType::Binary => Ok(Contents::Bytes(bytes.as_binary::<i32>().value(0).to_vec())),
            DataType::LargeBinary => Ok(Contents::Bytes(bytes.as_binary::<i64>().value(0).to_vec())),
            other => Err(format!("holds pictures as {other}, not as bytes")),
        };
    }
    match fields.column_by_name("path").filter(|column| !column.is_null(0)) {
        Some(path) if path.data_type() == &DataType::Utf8 => {
            Ok(Contents::Path(path.as_string::<i32>().value(0).into()))
        }
        _ => Err("holds neither a picture nor the path of one".into()),
    }
}
