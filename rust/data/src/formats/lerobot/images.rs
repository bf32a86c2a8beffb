//! Images embedded in parquet: a column `struct<bytes, path>` with the bytes of an image file or its path, or a column of either.

use super::{dataset::LeRobotDataset, files};
use crate::error::DataError;
use crate::images::{DAMAGED, EncodedImage, EncodedImages};
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
                let hint = "give the path of an image in the dataset";
                files::inspect(self.dataset.root(), &path)
                    .map_err(|error| self.failure(&path, row, error.to_string(), hint))?;
                let bytes =
                    std::fs::read(&path).map_err(|error| self.failure(&path, row, error.to_string(), DAMAGED))?;
                Ok(EncodedImage { path, bytes })
            }
            Err(what) => Err(self.failure(table.path(), row, what, DAMAGED)),
        }
    }

    fn failure(&self, path: &Path, row: u64, what: String, hint: &str) -> DataError {
        let (episode, first) = self.dataset.episode_of(row).map_or((0, row), |found| (found.index, found.from_row));
        DataError::Frame {
            path: path.to_owned(),
            episode,
            wanted_s: (row - first) as f64 / self.dataset.fps(),
            what: format!("row {row} of `{}`: {what}", self.camera),
            hint: hint.into(),
        }
    }
}

/// Content of a cell of an image column.
enum Contents {
    /// An image file.
    Bytes(Vec<u8>),
    /// Path of the file, relative to the dataset's folder.
    Path(String),
}

fn contents(cell: &ArrayRef) -> Result<Contents, String> {
    const NEITHER: &str = "has neither an image nor the path of one";
    if cell.is_null(0) {
        return Err(NEITHER.into());
    }
    match cell.data_type() {
        DataType::Struct(_) => {
            let mut fields = ["bytes", "path"].into_iter().filter_map(|name| cell.as_struct().column_by_name(name));
            contents(fields.find(|field| !field.is_null(0)).ok_or(NEITHER)?)
        }
        DataType::Binary => Ok(Contents::Bytes(cell.as_binary::<i32>().value(0).to_vec())),
        DataType::Utf8 => Ok(Contents::Path(cell.as_string::<i32>().value(0).into())),
        other => Err(format!("has the type {other}, not images")),
    }
}
