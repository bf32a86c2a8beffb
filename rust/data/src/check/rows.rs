//! Every row of the data files: indices, times, tasks, values.

use super::{Findings, statistics::Statistics};
use crate::{
    DataError,
    lerobot::{Dataset, Table, append_f64},
};
use std::{collections::BTreeMap, path::Path};

/// How far the steps between timestamps may be from 1/fps, seconds: LeRobot's `tolerance_s`.
const STEP_TOLERANCE_S: f64 = 1e-4;

/// Columns that LeRobot gives every dataset: its `DEFAULT_FEATURES`.
const DEFAULT_COLUMNS: [&str; 5] = ["timestamp", "frame_index", "episode_index", "index", "task_index"];

pub(super) fn check(dataset: &Dataset, findings: &mut Findings) {
    let mut statistics: BTreeMap<&str, Statistics> = BTreeMap::new();
    for column in DEFAULT_COLUMNS.iter().filter(|column| !dataset.features().contains_key(**column)) {
        let path = dataset.root().join("meta/info.json");
        findings.add(&path, &format!("features lacks `{column}`, which every LeRobot dataset has"));
    }
    let firsts: Vec<_> = dataset.data_files().collect();
    let mut is_whole = true;
    for (nth, (path, first_row)) in firsts.iter().enumerate() {
        let end_row = firsts.get(nth + 1).map_or(dataset.num_frames(), |(_, row)| *row);
        let checked = Table::open(path).and_then(|table| {
            if table.num_rows() != end_row - first_row {
                let what = format!("has {} rows, but its episodes have {}", table.num_rows(), end_row - first_row);
                findings.add(path, &what);
            }
            for column in DEFAULT_COLUMNS {
                if let Err(error) = table.root_of(column) {
                    findings.error(&error);
                }
            }
            (0..table.num_groups())
                .try_for_each(|group| check_group(dataset, &table, group, *first_row, &mut statistics, findings))
        });
        if let Err(error) = checked {
            findings.error(&error);
            is_whole = false;
        }
    }
    if is_whole {
        super::statistics::compare(dataset, &statistics, findings);
    }
}

/// Checks one row group. The first failure to read a file is its last finding.
fn check_group<'a>(
    dataset: &'a Dataset,
    table: &Table,
    group: usize,
    first_row: u64,
    statistics: &mut BTreeMap<&'a str, Statistics>,
    findings: &mut Findings,
) -> Result<(), DataError> {
    let rows: Vec<u64> = table.group_rows(group).map(|local| first_row + local).collect();
    for key in dataset.vector_keys() {
        let width = dataset.vector_width(key)?;
        let mut values = Vec::with_capacity(rows.len() * width);
        for array in table.read_group(key, group)? {
            append_f64(&array, &mut values)
                .map_err(|what| DataError::file(table.path(), format!("column `{key}` {what}"), "record it again"))?;
        }
        if values.len() != rows.len() * width {
            let what = format!("column `{key}` does not hold {width} values per row");
            return Err(DataError::file(table.path(), what, "compare it with meta/info.json"));
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            findings.add(table.path(), &format!("column `{key}` is {} at row {}", values[at], rows[at / width]));
        }
        check_column(dataset, table.path(), key, &rows, &values, findings);
        statistics.entry(key).or_insert_with(|| Statistics::new(width)).add(&values);
    }
    Ok(())
}

/// Columns whose values follow from the row.
fn check_column(dataset: &Dataset, path: &Path, key: &str, rows: &[u64], values: &[f64], findings: &mut Findings) {
    let mut wrong = |row: u64, what: String| findings.add(path, &format!("row {row}: {what}"));
    for (&row, &value) in rows.iter().zip(values) {
        let Ok(episode) = dataset.episode_of(row) else {
            wrong(row, "belongs to no episode".into());
            return;
        };
        let frame = row - episode.from_row;
        let expected = match key {
            "index" => row,
            "episode_index" => episode.index,
            "frame_index" => frame,
            "task_index" => {
                let num_tasks = dataset.tasks().len();
                if !(0.0..num_tasks as f64).contains(&value) {
                    wrong(row, format!("task_index is {value}, but meta/tasks.parquet has {num_tasks} tasks"));
                    return;
                }
                continue;
            }
            "timestamp" => {
                let regular = frame as f64 / dataset.fps();
                // float32 seconds: long episodes are coarser than the tolerance.
                if (value - regular).abs() > STEP_TOLERANCE_S + regular * f64::from(f32::EPSILON) {
                    wrong(
                        row,
                        format!("timestamp is {value:.6} s, not {regular:.6} s ({} frames per second)", dataset.fps()),
                    );
                    return;
                }
                continue;
            }
            _ => return,
        };
        if value != expected as f64 {
            wrong(row, format!("{key} is {value}, not {expected}"));
            return;
        }
    }
}
