//! Images embedded in parquet: a column `struct<bytes, path>` with PNG or JPEG data, or the path of a file.

use super::dataset::LeRobotDataset;
use crate::error::DataError;
use crate::images::{EncodedImage, EncodedImages};
use arrow_array::{Array, ArrayRef, cast::AsArray};
use arrow_schema::DataType;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// The images of a camera that are in the data files.
pub(super) struct EmbeddedImages {
    pub(super) dataset: Arc<LeRobotDataset>,
    pub(super) camera: String,
}

impl EncodedImages for EmbeddedImages {
    fn image(&self, row: u64) -> Result<EncodedImage, DataError> {
        let (table, cell) = self.dataset.cell(&self.camera, row)?;
        match contents(&cell) {
            Ok(Contents::Bytes(bytes)) => Ok(EncodedImage { path: table.path().to_owned(), bytes }),
            Ok(Contents::Path(path)) => {
                let path: PathBuf = self.dataset.root().join(path);
                let bytes = std::fs::read(&path).map_err(|error| self.failure(&path, row, error.to_string()))?;
                Ok(EncodedImage { path, bytes })
            }
            Err(what) => Err(self.failure(table.path(), row, what)),
        }
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

/// Content of a cell of an image column.
enum Contents {
    /// A PNG or JPEG file.
    Bytes(Vec<u8>),
    /// Path of the file, relative to the dataset's folder.
    Path(String),
}

fn contents(cell: &ArrayRef) -> Result<Contents, String> {
    let DataType::Struct(_) = cell.data_type() else {
        return Err(format!("has the type {}, not images", cell.data_type()));
    };
    let fields = cell.as_struct();
    let bytes = fields.column_by_name("bytes").filter(|column| !column.is_null(0));
    if let Some(bytes) = bytes {
        return match bytes.data_type() {
            DataType::Binary => Ok(Contents::Bytes(bytes.as_binary::<i32>().value(0).to_vec())),
            DataType::LargeBinary => Ok(Contents::Bytes(bytes.as_binary::<i64>().value(0).to_vec())),
            other => Err(format!("has images as {other}, not as bytes")),
        };
    }
    match fields.column_by_name("path").filter(|column| !column.is_null(0)) {
        Some(path) if path.data_type() == &DataType::Utf8 => {
            Ok(Contents::Path(path.as_string::<i32>().value(0).into()))
        }
        _ => Err("has neither an image nor the path of one".into()),
    }
}
