//! Parquet files: a footer is parsed once, columns and row groups are read on demand, and arrays become plain values.

use super::files;
use crate::error::DataError;
use arrow_array::{
    Array, ArrayRef, RecordBatch,
    cast::AsArray,
    types::{
        ArrowPrimitiveType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
        UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use arrow_schema::DataType;
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

/// Opens a parquet file of the dataset at `root`.
///
/// # Errors
/// As [`Table::open`], and a file that is not one of the dataset.
pub(super) fn open_table(root: &Path, path: &Path) -> Result<Table, DataError> {
    files::inspect(root, path)?;
    Table::open(path)
}

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
        // Without the writer's own schema, columns have the few types of parquet: no dictionaries, views or large lists.
        let options = ArrowReaderOptions::new()
            .with_skip_arrow_metadata(true)
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

    /// Path of the file.
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

    /// The row group of a row.
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

    /// The values of one column of one row group, as `append` has them, row-major. `first_row` is the dataset's row of the file's first.
    ///
    /// # Errors
    /// As [`Table::read`], a column that is not numeric, and the first row that has another number of values than `width`.
    pub(crate) fn read_values<T>(
        &self,
        column: &str,
        group: usize,
        width: usize,
        first_row: u64,
        append: impl Fn(&dyn Array, &mut Vec<T>) -> Result<(), String>,
    ) -> Result<Vec<T>, DataError> {
        let rows = self.group_rows(group);
        let mut values = Vec::with_capacity((rows.end - rows.start) as usize * width);
        for array in self.read_group(column, group)? {
            let row = first_row + rows.start + (values.len() / width.max(1)) as u64;
            append(&array, &mut values).map_err(|what| {
                let what = format!("column `{column}` {what}");
                DataError::file(&self.path, what, "compare it with meta/info.json, or record the dataset again")
            })?;
            if let Some((at, found)) = other_width(&array, width) {
                let what = format!(
                    "column `{column}` has {found} values in row {}, but meta/info.json says {width} per row",
                    row + at as u64
                );
                return Err(DataError::file(&self.path, what, "fetch or record the dataset again"));
            }
        }
        Ok(values)
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

/// Reads from a position onwards.
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

/// Appends every number of `array` to `out`, row-major, lists flattened, truth values as 0 and 1.
///
/// # Errors
/// The type of a column that is not numeric, or that some rows have no value.
pub(crate) fn append_f32(array: &dyn Array, out: &mut Vec<f32>) -> Result<(), String> {
    append(array, out, |value| value as f32)
}

/// As [`append_f32`], in double precision.
pub(crate) fn append_f64(array: &dyn Array, out: &mut Vec<f64>) -> Result<(), String> {
    append(array, out, |value| value)
}

fn append<T>(array: &dyn Array, out: &mut Vec<T>, of: impl Fn(f64) -> T + Copy) -> Result<(), String> {
    if array.null_count() > 0 {
        return Err("has rows without a value".into());
    }
    match array.data_type() {
        DataType::Float16 => primitive::<Float16Type, T>(array, out, |value| of(value.to_f64())),
        DataType::Float32 => primitive::<Float32Type, T>(array, out, |value| of(f64::from(value))),
        DataType::Float64 => primitive::<Float64Type, T>(array, out, of),
        DataType::Int8 => primitive::<Int8Type, T>(array, out, |value| of(f64::from(value))),
        DataType::Int16 => primitive::<Int16Type, T>(array, out, |value| of(f64::from(value))),
        DataType::Int32 => primitive::<Int32Type, T>(array, out, |value| of(f64::from(value))),
        DataType::Int64 => primitive::<Int64Type, T>(array, out, |value| of(value as f64)),
        DataType::UInt8 => primitive::<UInt8Type, T>(array, out, |value| of(f64::from(value))),
        DataType::UInt16 => primitive::<UInt16Type, T>(array, out, |value| of(f64::from(value))),
        DataType::UInt32 => primitive::<UInt32Type, T>(array, out, |value| of(f64::from(value))),
        DataType::UInt64 => primitive::<UInt64Type, T>(array, out, |value| of(value as f64)),
        DataType::Boolean => out.extend(array.as_boolean().values().iter().map(|value| of(u8::from(value).into()))),
        DataType::List(_) => {
            let offsets = array.as_list::<i32>().value_offsets();
            let (start, end) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
            return append(&array.as_list::<i32>().values().slice(start, end - start), out, of);
        }
        other => return Err(format!("has the type {other}, not numbers")),
    }
    Ok(())
}

/// The first row with another number of values than `width`, and how many it has.
fn other_width(array: &dyn Array, width: usize) -> Option<(usize, usize)> {
    match starts(array) {
        Some(starts) => {
            let mut widths = starts.array_windows().map(|[start, end]| end - start).enumerate();
            widths.find(|(_, found)| *found != width)
        }
        None => (width != 1 && !array.is_empty()).then_some((0, 1)),
    }
}

/// Where the values of each row of lists start, all lists flattened, and their end; none where rows are single values.
fn starts(array: &dyn Array) -> Option<Vec<usize>> {
    let DataType::List(_) = array.data_type() else { return None };
    let lists = array.as_list::<i32>();
    let inner = starts(lists.values());
    let start = |&offset: &i32| inner.as_ref().map_or(offset as usize, |inner| inner[offset as usize]);
    Some(lists.value_offsets().iter().map(start).collect())
}

fn primitive<P: ArrowPrimitiveType, T>(array: &dyn Array, out: &mut Vec<T>, of: impl Fn(P::Native) -> T) {
    let array = array.as_primitive::<P>();
    out.extend(array.values().iter().map(|value| of(*value)));
}

/// The integers of a column.
///
/// # Errors
/// The type of a column that is not of integers, or the row of a null.
pub(crate) fn ints(array: &ArrayRef) -> Result<Vec<i64>, String> {
    if array.null_count() > 0 {
        return Err("has rows without a value".into());
    }
    fn all<P: ArrowPrimitiveType<Native: Into<i64>>>(array: &dyn Array) -> Vec<i64> {
        array.as_primitive::<P>().values().iter().map(|&value| value.into()).collect()
    }
    match array.data_type() {
        DataType::Int64 => Ok(all::<Int64Type>(array)),
        DataType::Int32 => Ok(all::<Int32Type>(array)),
        DataType::Int16 => Ok(all::<Int16Type>(array)),
        DataType::Int8 => Ok(all::<Int8Type>(array)),
        DataType::UInt32 => Ok(all::<UInt32Type>(array)),
        DataType::UInt16 => Ok(all::<UInt16Type>(array)),
        DataType::UInt8 => Ok(all::<UInt8Type>(array)),
        DataType::UInt64 => {
            let values = array.as_primitive::<UInt64Type>().values();
            values.iter().map(|&value| i64::try_from(value).map_err(|_| format!("has the index {value}"))).collect()
        }
        other => Err(format!("has the type {other}, not integers")),
    }
}

/// The texts of a column; a null is an empty text.
///
/// # Errors
/// The type of a column that is not text.
pub(crate) fn texts(array: &dyn Array) -> Result<Vec<String>, String> {
    let own = |text: Option<&str>| text.unwrap_or_default().to_owned();
    match array.data_type() {
        DataType::Utf8 => Ok(array.as_string::<i32>().iter().map(own).collect()),
        other => Err(format!("has the type {other}, not text")),
    }
}
