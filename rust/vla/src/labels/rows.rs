//! The labels of one dataset by its rows, without a loader.

use super::columns::{LabelColumns, Labelled};
use crate::VlaError;
use crate::observation::LatentTarget;
use hlrp_data::formats::{self, OpenOptions};
use hlrp_data::{Dataset, LabelRequest};
use hlrp_schema::policy::{LabelVectors, TeacherIdentity};
use hlrp_torch::queued_copy;
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Tensor};

/// Bytes of a dataset's labels that stay in memory.
const TABLE_BYTES: usize = 64 << 20;

/// The labels of one dataset by its rows.
pub struct DatasetLabels {
    columns: LabelColumns,
    dataset: Arc<dyn Dataset>,
    device: Device,
}

impl DatasetLabels {
    /// Opens the labels under `prefix` in the dataset at `root`; `vectors` says which.
    ///
    /// # Errors
    /// There is no such dataset, or it has no such labels.
    pub fn open(root: &Path, prefix: &str, vectors: Option<LabelVectors>, device: Device) -> Result<Self, VlaError> {
        let dataset = formats::open(root, &OpenOptions::new(TABLE_BYTES))?;
        let labelled =
            Labelled { key: root.display().to_string(), root: root.to_owned(), description: dataset.describe() };
        let columns = LabelColumns::open(std::slice::from_ref(&labelled), prefix, vectors, device)?;
        LabelRequest { keys: columns.keys(), ..LabelRequest::default() }.check(labelled.description, &labelled.key)?;
        Ok(Self { columns, dataset, device })
    }

    /// What labelled, and the shape of the labels.
    pub fn identity(&self) -> &TeacherIdentity {
        self.columns.identity()
    }

    /// The labels of rows.
    ///
    /// # Errors
    /// A row that does not exist, or a file that cannot be read.
    pub fn label(&self, rows: &[u64]) -> Result<LatentTarget, VlaError> {
        let num_rows = self.dataset.describe().num_frames;
        if let Some(row) = rows.iter().find(|row| **row >= num_rows) {
            let problem = format!("there is no row {row}, the dataset has {num_rows}");
            return Err(VlaError::input("index", problem, "give rows of the dataset with the labels"));
        }
        let read = |key: &str| {
            let width = self.dataset.describe().features.get(key).map_or(0, |feature| feature.num_values());
            let mut values = vec![0.0_f32; rows.len() * width];
            self.dataset.read_vectors(key, rows, &mut values)?;
            Ok::<_, VlaError>(queued_copy(&Tensor::from_slice(&values).view([rows.len() as i64, -1]), self.device))
        };
        let columns = &self.columns;
        let codes_BS = columns.codes_key.as_deref().map(read).transpose()?;
        let is_valid_B = read(&columns.valid_key)?.squeeze_dim(1).gt(0.5);
        Ok(columns.target(&read(&columns.vectors_key)?, codes_BS, is_valid_B))
    }
}
