//! Columns of the data files, by global row.

use super::{
    Dataset, Episode, Table,
    cache::{Block, BlockKey},
    values,
};
use crate::DataError;
use arrow_array::ArrayRef;
use std::{path::Path, sync::Arc};

impl Dataset {
    /// Reads a feature at `rows` into `out` (`float32 [rows, width]`, row-major; truth values as 0 and 1).
    /// Rows next to each other cost one look-up.
    ///
    /// # Errors
    /// When there is no such feature, a row lies outside the dataset, or a file is missing or damaged.
    ///
    /// # Panics
    /// When `out` does not hold `rows.len()` times [`Dataset::vector_width`] values.
    pub fn read_vectors(&self, key: &str, rows: &[u64], out: &mut [f32]) -> Result<(), DataError> {
        let width = self.vector_width(key)?;
        assert_eq!(out.len(), rows.len() * width, "the buffer must hold [rows, width] of `{key}`");
        let mut block: Option<Arc<Block>> = None;
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(width.max(1))) {
            let block = match &mut block {
                Some(block) if block.rows.contains(&row) => block,
                block => block.insert(self.block(key, width, row)?),
            };
            let start = (row - block.rows.start) as usize * width;
            if block.is_regular {
                out[0] = self.regular_timestamp(row)?;
            } else {
                out.copy_from_slice(&block.values[start..start + width]);
            }
        }
        Ok(())
    }

    /// A feature at `rows`, as [`Dataset::read_vectors`].
    ///
    /// # Errors
    /// As [`Dataset::read_vectors`].
    pub fn vectors(&self, key: &str, rows: &[u64]) -> Result<Vec<f32>, DataError> {
        let mut out = vec![0.0; rows.len() * self.vector_width(key)?];
        self.read_vectors(key, rows, &mut out)?;
        Ok(out)
    }

    /// Seconds from the start of the episode to a row's frame, as recorded.
    ///
    /// # Errors
    /// As [`Dataset::read_vectors`].
    pub fn timestamp(&self, row: u64) -> Result<f32, DataError> {
        let mut out = [0.0];
        self.read_vectors("timestamp", &[row], &mut out)?;
        Ok(out[0])
    }

    /// The text of a feature of dtype `string` at a row.
    ///
    /// # Errors
    /// As [`Dataset::read_vectors`].
    pub fn text(&self, key: &str, row: u64) -> Result<String, DataError> {
        let (table, local) = self.table_of(row)?;
        let texts = values::texts(&table.read_row(key, local)?);
        let texts = texts
            .map_err(|what| DataError::file(table.path(), format!("column `{key}` {what}"), "read it as a vector"))?;
        Ok(texts.into_iter().next().unwrap_or_default())
    }

    /// One row of a column as it lies in the file, and the file's path.
    pub(crate) fn cell(&self, key: &str, row: u64) -> Result<(Arc<Table>, ArrayRef), DataError> {
        let (table, local) = self.table_of(row)?;
        let cell = table.read_row(key, local)?;
        Ok((table, cell))
    }

    /// The data file that holds an episode, relative to the dataset's folder.
    #[must_use]
    pub fn data_file_of(&self, episode: &Episode) -> &Path {
        let path = &self.data_files[episode.data_file as usize].path;
        path.strip_prefix(&self.root).unwrap_or(path)
    }

    /// The paths of the data files with their first global row, in order.
    pub(crate) fn data_files(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.data_files.iter().map(|file| (file.path.as_path(), file.first_row))
    }

    /// The file that holds a row, and the row's number within it.
    fn table_of(&self, row: u64) -> Result<(Arc<Table>, u64), DataError> {
        let file = &self.data_files[self.episode_of(row)?.data_file as usize];
        let table = self.cache.table(&file.path)?;
        let local = row - file.first_row;
        if local >= table.num_rows() {
            let what =
                format!("has {} rows, so none for row {row} (its first is row {})", table.num_rows(), file.first_row);
            return Err(DataError::file(
                &file.path,
                what,
                "fetch or record it again; `hlrp data check` lists every such file",
            ));
        }
        Ok((table, local))
    }

    fn block(&self, key: &str, width: usize, row: u64) -> Result<Arc<Block>, DataError> {
        let file = self.episode_of(row)?.data_file;
        let first_row = self.data_files[file as usize].first_row;
        let (table, local) = self.table_of(row)?;
        let group = table.group_of(local);
        let column = self.info.features.keys().position(|name| name == key).unwrap_or(usize::MAX) as u32;
        let key_of_block = BlockKey { dataset: self.cache_id, file, group: group as u32, column };
        self.cache.block(key_of_block, || {
            let local = table.group_rows(group);
            let rows = first_row + local.start..first_row + local.end;
            let mut values = Vec::with_capacity((rows.end - rows.start) as usize * width);
            for array in table.read_group(key, group)? {
                values::append_f32(&array, &mut values).map_err(|what| {
                    DataError::file(table.path(), format!("column `{key}` {what}"), "compare it with meta/info.json")
                })?;
            }
            if values.len() as u64 != (rows.end - rows.start) * width as u64 {
                let what = format!(
                    "column `{key}` holds {} values in {} rows, but meta/info.json says {width} per row",
                    values.len(),
                    rows.end - rows.start
                );
                return Err(DataError::file(table.path(), what, "fetch or record the dataset again"));
            }
            let is_regular = key == "timestamp" && self.are_regular(&rows, &values);
            Ok(Block { rows, values: if is_regular { Vec::new() } else { values }, is_regular })
        })
    }

    /// Whether the timestamps of these rows are all frame number / fps.
    fn are_regular(&self, rows: &std::ops::Range<u64>, values: &[f32]) -> bool {
        rows.clone().zip(values).all(|(row, value)| self.regular_timestamp(row).is_ok_and(|regular| regular == *value))
    }

    fn regular_timestamp(&self, row: u64) -> Result<f32, DataError> {
        Ok(((row - self.episode_of(row)?.from_row) as f64 / self.fps()) as f32)
    }
}
