//! A copy of a dataset with further columns, in a new folder; videos are linked.

use super::LeRobotDataset;
use crate::error::DataError;
use crate::formats::{ColumnValues, NewColumn};
use arrow_array::{Array, ArrayRef, FixedSizeListArray, Float32Array, Int64Array, ListArray, RecordBatch};
use arrow_schema::{Field, Schema};
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::Compression,
    file::properties::WriterProperties,
};
use serde_json::{Map, Value, json};
use std::{
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::symlink,
    path::Path,
    sync::Arc,
};

impl NewColumn {
    fn dtype(&self) -> &'static str {
        match self.values {
            ColumnValues::Float(_) => "float32",
            ColumnValues::Int(_) => "int64",
        }
    }

    /// The rows `rows`: one number each where the shape is `[1]`, a list of fixed length for one dimension, lists of lists for more.
    fn array(&self, rows: Range<usize>) -> ArrayRef {
        let width: usize = self.shape.iter().product();
        let numbers = rows.start * width..rows.end * width;
        let mut array: ArrayRef = match &self.values {
            ColumnValues::Float(values) => Arc::new(Float32Array::from(values[numbers].to_vec())),
            ColumnValues::Int(values) => Arc::new(Int64Array::from(values[numbers].to_vec())),
        };
        if self.shape == [1] {
            return array;
        }
        for &size in self.shape.iter().rev() {
            let field = Arc::new(Field::new("element", array.data_type().clone(), true));
            let lists = FixedSizeListArray::new(field, i32::try_from(size).unwrap_or(i32::MAX), array, None);
            array = if self.shape.len() == 1 { Arc::new(lists) } else { Arc::new(ListArray::from(lists)) };
        }
        array
    }
}

/// As [`Dataset::check_extension`](crate::Dataset::check_extension).
pub(super) fn check(dataset: &LeRobotDataset, keys: &[&str]) -> Result<(), DataError> {
    let root = dataset.root();
    if let Some(key) = keys.iter().find(|key| dataset.features().contains_key(**key)) {
        return Err(DataError::Feature {
            root: root.to_owned(),
            what: format!("already has the feature `{key}`"),
            hint: "choose another prefix for the new ones".into(),
        });
    }
    let version = &dataset.info().codebase_version;
    if !version.starts_with("v3.") {
        return Err(DataError::Dataset {
            root: root.to_owned(),
            what: format!("is a LeRobot {version} dataset; columns are added to v3.0"),
            hint: "convert it with LeRobot's convert_dataset_v21_to_v30".into(),
        });
    }
    Ok(())
}

/// As [`Dataset::extend`](crate::Dataset::extend). Videos become hard links, or symbolic ones where the system refuses those.
pub(super) fn extend(dataset: &LeRobotDataset, out: &Path, columns: &[NewColumn]) -> Result<(), DataError> {
    let root = dataset.root();
    check(dataset, &columns.iter().map(|column| column.key.as_str()).collect::<Vec<_>>())?;
    for (path, first_row) in dataset.data_files() {
        let relative = path.strip_prefix(root).unwrap_or(path);
        let target = out.join(relative);
        make_parent(&target)?;
        extend_table(path, &target, usize::try_from(first_row).unwrap_or(usize::MAX), columns)?;
    }
    copy_tree(&root.join("meta"), &out.join("meta"), &["info.json", "stats.json"])?;
    let features = columns.iter().map(|column| {
        (column.key.clone(), json!({"dtype": column.dtype(), "shape": column.shape, "names": Value::Null}))
    });
    add_entries(root, out, "meta/info.json", Some("features"), features.collect())?;
    let statistics = columns.iter().filter_map(|column| Some((column.key.clone(), column.statistics.clone()?)));
    add_entries(root, out, "meta/stats.json", None, statistics.collect())?;
    ["videos", "images"].iter().try_for_each(|folder| link_tree(&root.join(folder), &out.join(folder)))
}

fn extend_table(source: &Path, target: &Path, first_row: usize, columns: &[NewColumn]) -> Result<(), DataError> {
    let damaged = |error: &dyn std::fmt::Display| {
        DataError::file(source, format!("cannot be copied ({error})"), "fetch or record it again")
    };
    let open = || File::open(source).map_err(DataError::io(source));
    let builder = ParquetRecordBatchReaderBuilder::try_new(open()?).map_err(|error| damaged(&error))?;
    let groups: Vec<usize> = builder.metadata().row_groups().iter().map(|group| group.num_rows() as usize).collect();
    let mut fields: Vec<_> = builder.schema().fields().iter().cloned().collect();
    fields.extend(
        columns.iter().map(|column| Arc::new(Field::new(&column.key, column.array(0..0).data_type().clone(), true))),
    );
    let schema = Arc::new(Schema::new_with_metadata(fields, builder.schema().metadata().clone()));
    let file = File::options().write(true).create_new(true).open(target).map_err(DataError::io(target))?;
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer =
        ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties)).map_err(|error| damaged(&error))?;
    let mut row = first_row;
    for (group, num_rows) in groups.into_iter().enumerate() {
        let reader = ParquetRecordBatchReaderBuilder::try_new(open()?)
            .and_then(|builder| builder.with_row_groups(vec![group]).with_batch_size(num_rows.clamp(1, 4096)).build())
            .map_err(|error| damaged(&error))?;
        for batch in reader {
            let batch = batch.map_err(|error| damaged(&error))?;
            let rows = row..row + batch.num_rows();
            row = rows.end;
            let mut arrays = batch.columns().to_vec();
            arrays.extend(columns.iter().map(|column| column.array(rows.clone())));
            let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).map_err(|error| damaged(&error))?;
            writer.write(&batch).map_err(|error| damaged(&error))?;
        }
        writer.flush().map_err(|error| damaged(&error))?;
    }
    writer.close().map_err(|error| damaged(&error))?;
    Ok(())
}

/// Writes the JSON file `name` of `root` into `out`, with more entries in the object at `section` or at the top.
fn add_entries(
    root: &Path,
    out: &Path,
    name: &str,
    section: Option<&str>,
    entries: Map<String, Value>,
) -> Result<(), DataError> {
    let path = root.join(name);
    let broken = |what: &str| DataError::file(&path, what.to_owned(), "fetch the file again");
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => "{}".to_owned(),
        text => text.map_err(DataError::io(&path))?,
    };
    let mut tree: Value =
        serde_json::from_str(&text).map_err(|error| broken(&format!("cannot be extended: {error}")))?;
    let object = match section {
        Some(section) => tree.get_mut(section),
        None => Some(&mut tree),
    };
    object.and_then(Value::as_object_mut).ok_or_else(|| broken("has no object to extend"))?.extend(entries);
    let target = out.join(name);
    let refused = |error: hlrp_track::TrackError| DataError::io(&target)(io::Error::other(error));
    hlrp_track::fs::write_json(&target, &tree).map_err(refused)
}

fn make_parent(path: &Path) -> Result<(), DataError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(DataError::io(parent))
}

/// Calls `each` for every file below `from` with the same place below `to`, whose folders are made; no folder is no file.
fn for_each_file(
    from: &Path,
    to: &Path,
    each: &mut dyn FnMut(&Path, &Path) -> Result<(), DataError>,
) -> Result<(), DataError> {
    if !from.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(to).map_err(DataError::io(to))?;
    for entry in fs::read_dir(from).map_err(DataError::io(from))? {
        let path = entry.map_err(DataError::io(from))?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            for_each_file(&path, &target, each)?;
        } else {
            each(&path, &target)?;
        }
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path, except: &[&str]) -> Result<(), DataError> {
    for_each_file(from, to, &mut |path, target| {
        if except.iter().any(|name| path == from.join(name)) {
            return Ok(());
        }
        let mut source = File::open(path).map_err(DataError::io(path))?;
        let mut copy = File::options().write(true).create_new(true).open(target).map_err(DataError::io(target))?;
        io::copy(&mut source, &mut copy).map(drop).map_err(DataError::io(target))
    })
}

fn link_tree(from: &Path, to: &Path) -> Result<(), DataError> {
    for_each_file(from, to, &mut |path, target| {
        let whole = fs::canonicalize(path).map_err(DataError::io(path))?;
        fs::hard_link(&whole, target).or_else(|_| symlink(&whole, target)).map_err(DataError::io(target))
    })
}
