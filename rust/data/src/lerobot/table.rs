//! One parquet file: its footer is parsed once, columns and row groups are read on demand.

use crate::DataError;
use arrow_array::{ArrayRef, RecordBatch};
use bytes::Bytes;
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
        },
    },
    file::{
        metadata::ParquetStatisticsPolicy,
        reader::{ChunkReader, Length},
    },
};
use std::{
    fs::File,
    io::{BufReader, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// An open parquet file.
pub(crate) struct Table {
    path: PathBuf,
    file: PositionedFile,
    metadata: ArrowReaderMetadata,
    /// First row of each row group, and the number of rows at the end.
    group_starts: Vec<u64>,
}

impl Table {
    /// Opens a parquet file and reads its footer.
    ///
    /// # Errors
    /// When there is no such file, or it is not a whole parquet file.
    pub(crate) fn open(path: &Path) -> Result<Self, DataError> {
        let file = PositionedFile::open(path).map_err(DataError::io(path))?;
        let options = ArrowReaderOptions::new()
            .with_column_stats_policy(ParquetStatisticsPolicy::SkipAll)
            .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
        let metadata = ArrowReaderMetadata::load(&file, options).map_err(|error| {
            let what = format!("is not a whole parquet file ({error})");
            DataError::file(path, what, "the file is damaged or cut off: fetch or record it again")
        })?;
        let mut group_starts = vec![0];
        let mut row = 0;
        for group in metadata.metadata().row_groups() {
            row += u64::try_from(group.num_rows()).unwrap_or(0);
            group_starts.push(row);
        }
        Ok(Self { path: path.to_owned(), file, metadata, group_starts })
    }

    /// Where the file lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Number of rows.
    pub(crate) fn num_rows(&self) -> u64 {
        self.group_starts.last().copied().unwrap_or(0)
    }

    /// Number of row groups.
    pub(crate) fn num_groups(&self) -> usize {
        self.group_starts.len() - 1
    }

    /// First and one-past-last row of a row group.
    pub(crate) fn group_rows(&self, group: usize) -> std::ops::Range<u64> {
        self.group_starts[group]..self.group_starts[group + 1]
    }

    /// The row group that holds a row.
    pub(crate) fn group_of(&self, row: u64) -> usize {
        self.group_starts.partition_point(|&start| start <= row).saturating_sub(1).min(self.num_groups() - 1)
    }

    /// Bytes that the parsed footer takes.
    pub(crate) fn memory_size(&self) -> usize {
        self.metadata.metadata().memory_size() + 8 * self.group_starts.len()
    }

    /// Names of the columns.
    pub(crate) fn column_names(&self) -> Vec<&str> {
        self.metadata.schema().fields().iter().map(|field| field.name().as_str()).collect()
    }

    /// Reads whole columns.
    ///
    /// # Errors
    /// Names the file and the columns that it has when one is missing; the file when it is damaged.
    pub(crate) fn read(&self, columns: &[&str]) -> Result<Vec<RecordBatch>, DataError> {
        self.batches(columns, (0..self.num_groups()).collect(), None)
    }

    /// Reads one column of one row group.
    ///
    /// # Errors
    /// As [`Table::read`].
    pub(crate) fn read_group(&self, column: &str, group: usize) -> Result<Vec<ArrayRef>, DataError> {
        Ok(self.batches(&[column], vec![group], None)?.iter().map(|batch| Arc::clone(batch.column(0))).collect())
    }

    /// Reads one row of a column, skipping the pages before it.
    ///
    /// # Errors
    /// As [`Table::read`].
    pub(crate) fn read_row(&self, column: &str, row: u64) -> Result<ArrayRef, DataError> {
        let group = self.group_of(row);
        let skip = (row - self.group_starts[group]) as usize;
        let selection = RowSelection::from(vec![RowSelector::skip(skip), RowSelector::select(1)]);
        let batches = self.batches(&[column], vec![group], Some(selection))?;
        batches
            .first()
            .filter(|batch| batch.num_rows() == 1)
            .map(|batch| Arc::clone(batch.column(0)))
            .ok_or_else(|| DataError::file(&self.path, format!("has no row {row}"), "fetch or record it again"))
    }

    fn batches(
        &self,
        columns: &[&str],
        groups: Vec<usize>,
        selection: Option<RowSelection>,
    ) -> Result<Vec<RecordBatch>, DataError> {
        let roots = columns.iter().map(|column| self.root_of(column)).collect::<Result<Vec<_>, _>>()?;
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), roots);
        let rows = groups.iter().map(|&group| self.group_starts[group + 1] - self.group_starts[group]).sum::<u64>();
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), self.metadata.clone())
            .with_row_groups(groups)
            .with_batch_size(rows.clamp(1, 65536) as usize)
            .with_projection(mask);
        if let Some(selection) = selection {
            builder = builder.with_row_selection(selection);
        }
        let damaged = |error: &dyn std::fmt::Display| {
            let what = format!("cannot be read ({error})");
            DataError::file(&self.path, what, "the file is damaged: fetch or record it again")
        };
        let batches = builder.build().map_err(|error| damaged(&error))?.collect::<Result<Vec<_>, _>>();
        let batches = batches.map_err(|error| damaged(&error))?;
        // Columns come in the file's order; hand them over in the order asked for.
        let order = |batch: &RecordBatch| {
            let indices = columns.iter().map(|name| batch.schema().index_of(name)).collect::<Result<Vec<_>, _>>()?;
            batch.project(&indices)
        };
        batches.iter().map(order).collect::<Result<_, _>>().map_err(|error| damaged(&error))
    }

    /// Position of a column among the columns.
    ///
    /// # Errors
    /// Names the file and the columns that it has when this one is missing.
    pub(crate) fn root_of(&self, column: &str) -> Result<usize, DataError> {
        let names = self.column_names();
        names.iter().position(|name| *name == column).ok_or_else(|| {
            let named: Vec<_> = names.iter().filter(|name| !name.starts_with("stats/")).copied().collect();
            let hint = format!("its columns are {}", named.join(", "));
            DataError::file(&self.path, format!("has no column `{column}`"), hint)
        })
    }
}

/// A file that any number of threads read at once, each at its own position.
#[derive(Clone)]
struct PositionedFile {
    file: Arc<File>,
    len: u64,
}

impl PositionedFile {
    fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), len })
    }
}

impl Length for PositionedFile {
    fn len(&self) -> u64 {
        self.len
    }
}

impl ChunkReader for PositionedFile {
    type T = BufReader<At>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(BufReader::new(At { file: Arc::clone(&self.file), position: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        if start.saturating_add(length as u64) > self.len {
            return Err(parquet::errors::ParquetError::EOF("the file ends before its data".into()));
        }
        let mut buffer = vec![0; length];
        self.file.read_exact_at(&mut buffer, start)?;
        Ok(buffer.into())
    }
}

/// Reads on from a position.
struct At {
    file: Arc<File>,
    position: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}
