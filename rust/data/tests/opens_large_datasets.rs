//! Opening costs a few bytes per episode: 25 datasets with 24 million frames in 640,000 episodes.
#![allow(clippy::unwrap_used)]

use arrow_array::{
    ArrayRef, Int64Array, RecordBatch, StringArray,
    builder::{ListBuilder, StringBuilder},
};
use hlrp_data::formats::lerobot::{LeRobotDataset, TableCache};
use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};
use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
};

const NUM_DATASETS: usize = 25;
const NUM_EPISODES: i64 = 25_600;
const EPISODE_LENGTH: i64 = 38;
const EPISODES_PER_FILE: i64 = 1000;

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(1000)).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// The metadata of a dataset whose data are elsewhere.
fn write_metadata(root: &Path) {
    let info = format!(
        r#"{{"codebase_version": "v3.0", "fps": 10, "features": {{}}, "total_episodes": {NUM_EPISODES},
        "total_frames": {}, "total_tasks": 2, "video_path": null, "robot_type": null,
        "data_path": "data/chunk-{{chunk_index:03d}}/file-{{file_index:03d}}.parquet"}}"#,
        NUM_EPISODES * EPISODE_LENGTH
    );
    fs::create_dir_all(root.join("meta/episodes/chunk-000")).unwrap();
    fs::write(root.join("meta/info.json"), info).unwrap();
    let names = ["pick up the cup and put it on the shelf", "open the drawer"];
    let tasks: Vec<(&str, ArrayRef)> = vec![
        ("task_index", Arc::new(Int64Array::from(vec![0, 1]))),
        ("task", Arc::new(StringArray::from(names.to_vec()))),
    ];
    write(&root.join("meta/tasks.parquet"), tasks);
    let mut lists = ListBuilder::new(StringBuilder::new());
    for episode in 0..NUM_EPISODES {
        lists.values().append_value(names[(episode % 2) as usize]);
        lists.append(true);
    }
    let of = |value: fn(i64) -> i64| -> ArrayRef { Arc::new((0..NUM_EPISODES).map(value).collect::<Int64Array>()) };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("episode_index", of(|episode| episode)),
        ("tasks", Arc::new(lists.finish())),
        ("dataset_from_index", of(|episode| episode * EPISODE_LENGTH)),
        ("dataset_to_index", of(|episode| (episode + 1) * EPISODE_LENGTH)),
        ("data/chunk_index", of(|_| 0)),
        ("data/file_index", of(|episode| episode / EPISODES_PER_FILE)),
    ];
    write(&root.join("meta/episodes/chunk-000/file-000.parquet"), columns);
}

#[test]
fn twenty_five_datasets_with_24_million_frames_take_less_than_100_megabytes() {
    let folder = tempfile::tempdir().unwrap();
    write_metadata(folder.path());
    let cache = TableCache::new(1 << 20);
    let (before, start) = (resident(), std::time::Instant::now());
    let datasets: Vec<_> = (0..NUM_DATASETS).map(|_| LeRobotDataset::open(folder.path(), &cache).unwrap()).collect();
    let (seconds, bytes) = (start.elapsed().as_secs_f64(), resident().saturating_sub(before));
    let num_frames: u64 = datasets.iter().map(LeRobotDataset::num_frames).sum();
    assert_eq!(num_frames, 24_320_000);
    assert_eq!(datasets[7].episode_of(EPISODE_LENGTH as u64 * 5 + 3).unwrap().index, 5);
    assert!(bytes < 100_000_000, "{bytes} bytes");
    assert!(seconds < 10.0, "{seconds} s"); // far above what an idle machine takes
}
