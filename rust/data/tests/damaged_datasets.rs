//! What is wrong with a dataset is one clear error that names the file and says what to do; `check` lists all of it.
#![cfg(feature = "ffmpeg")]
#![allow(clippy::unwrap_used)]

use arrow_array::RecordBatch;
use hlrp_config::with_hint;
use hlrp_data::Dataset;
use hlrp_data::formats::lerobot::{LeRobotDataset, TableCache};
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};
use tempfile::TempDir;

const VIDEO: &str = "videos/observation.images.front/chunk-000/file-000.mp4";
const DATA: &str = "data/chunk-000/file-000.parquet";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(name)
}

/// A copy of a small dataset that a test may damage.
struct Copy {
    folder: TempDir,
}

impl Copy {
    fn of(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy_tree(&fixture(name), folder.path());
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn replace(&self, file: &str, from: &str, to: &str) {
        let path = self.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    }

    fn cut(&self, file: &str, keep: f64) {
        let path = self.path().join(file);
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..(bytes.len() as f64 * keep) as usize]).unwrap();
    }

    /// Rewrites a parquet file.
    fn rewrite(&self, file: &str, change: impl Fn(RecordBatch) -> RecordBatch) {
        self.rewrite_all(file, |batch| vec![change(batch)]);
    }

    /// Rewrites a parquet file, each batch as several.
    fn rewrite_all(&self, file: &str, change: impl Fn(RecordBatch) -> Vec<RecordBatch>) {
        let path = self.path().join(file);
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap().build().unwrap();
        let batches: Vec<_> = reader.flat_map(|batch| change(batch.unwrap())).collect();
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batches[0].schema(), None).unwrap();
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        writer.close().unwrap();
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::write(target, fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

/// Runs `hlrp-data`: its exit code, standard output and standard error.
fn run(command: &str, path: &Path) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hlrp-data")).arg(command).arg(path).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// `check` exits with 1 and one of its lines has all of these words.
fn check_finds(path: &Path, words: &[&str]) {
    let (code, stdout, stderr) = run("check", path);
    assert_eq!(code, 1, "{stdout}{stderr}");
    assert!(
        stdout.lines().any(|line| words.iter().all(|word| line.contains(word))),
        "no line has {words:?}:\n{stdout}"
    );
}

#[test]
fn whole_datasets_have_no_findings() {
    for name in
        ["metaworld_mt5", "pusht_scripted", "stress_v3", "h264_bframes", "hevc", "hevc_open_gop", "embedded_images"]
    {
        let (code, stdout, _) = run("check", &fixture(name));
        assert_eq!((code, stdout.lines().next()), (0, Some("ok")), "{name}: {stdout}");
        // `ok` says what it covers and what not.
        assert!(
            stdout.contains("again at random\n") && stdout.contains("not verified  statistics of images\n"),
            "{stdout}"
        );
    }
}

#[test]
fn a_folder_that_is_not_there() {
    let (code, _, stderr) = run("show", Path::new("/nowhere/robots"));
    assert_eq!(code, 65);
    assert!(stderr.starts_with("error: /nowhere/robots: there is no such folder\nhint: "), "{stderr}");
}

#[test]
fn a_dataset_of_version_2_0_says_how_to_convert_it() {
    let copy = Copy::of("hevc");
    copy.replace("meta/info.json", "\"v3.0\"", "\"v2.0\"");
    let (code, _, stderr) = run("show", copy.path());
    assert_eq!(code, 65);
    assert!(stderr.contains("LeRobot v2.0 dataset; v3.0 and v2.1 are read"), "{stderr}");
    assert!(
        stderr.contains("hint: convert it to v2.1 with LeRobot 0.3: python -m lerobot.datasets.v21.convert_dataset_v20_to_v21 --repo-id="),
        "{stderr}"
    );
}

#[test]
fn a_video_that_is_cut_off() {
    let copy = Copy::of("h264_bframes");
    copy.cut(VIDEO, 0.7);
    check_finds(copy.path(), &["file-000.mp4", "cut off"]);
    let (code, _, stderr) = run("show", copy.path());
    assert_eq!(code, 65);
    assert!(stderr.contains("file-000.mp4") && stderr.contains("hint: "), "{stderr}");
}

#[test]
fn a_frame_within_a_video_that_is_overwritten() {
    let copy = Copy::of("h264_bframes");
    let path = copy.path().join(VIDEO);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 600].fill(0xff);
    fs::write(&path, bytes).unwrap();
    check_finds(copy.path(), &["file-000.mp4", "episode", "frame at"]);
}

#[test]
fn what_can_be_read_of_a_damaged_video_is_right() {
    let copy = Copy::of("h264_bframes");
    let path = copy.path().join(VIDEO);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 600].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let open = |root: &Path| Arc::new(LeRobotDataset::open(root, &TableCache::new(1 << 20)).unwrap());
    let (whole, damaged) = (open(&fixture("h264_bframes")), open(copy.path()));
    let stores =
        [&whole, &damaged].map(|dataset| Arc::clone(dataset).frame_store("observation.images.front", None).unwrap());
    let mut readers = [0, 1].map(|nth| stores[nth].reader(1).unwrap());
    let (mut expected, mut found) = (vec![0; 3 * 48 * 64], vec![0; 3 * 48 * 64]);
    let mut num_lost = 0;
    // The same reader goes on after each failure.
    for row in 0..whole.num_frames() {
        readers[0].read(&[row], &mut expected).unwrap();
        match readers[1].read(&[row], &mut found) {
            Ok(()) => assert!(found == expected, "row {row} is wrong and nobody noticed"),
            Err(error) => {
                assert!(error.to_string().contains("file-000.mp4: episode "), "{error}");
                num_lost += 1;
            }
        }
    }
    assert!((1..30).contains(&num_lost), "{num_lost} of {} frames were lost", whole.num_frames());
}

#[test]
fn a_camera_that_is_not_there() {
    let dataset = Arc::new(LeRobotDataset::open(&fixture("stress_v3"), &TableCache::new(1 << 20)).unwrap());
    let error = with_hint(&Arc::clone(&dataset).frame_store("observation.image", None).err().unwrap());
    assert!(error.contains("has no colour camera `observation.image`"), "{error}");
    assert!(error.ends_with("hint: there are observation.images.agent, observation.images.top"), "{error}");
}

#[test]
fn a_feature_that_is_not_there() {
    let dataset = LeRobotDataset::open(&fixture("hevc"), &TableCache::new(1 << 20)).unwrap();
    let error = with_hint(&dataset.vectors("observation.velocity", &[0]).unwrap_err());
    assert!(error.contains("has no numeric feature `observation.velocity`"), "{error}");
    assert!(error.contains("hint: there are action, episode_index,"), "{error}");
}

#[test]
fn a_video_that_is_missing() {
    let copy = Copy::of("hevc");
    fs::remove_file(copy.path().join(VIDEO)).unwrap();
    check_finds(copy.path(), &["file-000.mp4", "No such file"]);
}

#[test]
fn a_video_that_ends_before_its_episodes() {
    let copy = Copy::of("h264_bframes");
    let other = Copy::of("hevc");
    // One frame per second more slowly, the last frames lie past the end of the video.
    copy.replace("meta/info.json", "\"fps\": 20", "\"fps\": 19");
    check_finds(copy.path(), &["timestamp is", "19 frames per second"]);
    let spans = "meta/episodes/chunk-000/file-000.parquet";
    other.rewrite(spans, |batch| shifted(&batch, "videos/observation.images.front/from_timestamp", 1.0));
    check_finds(other.path(), &["file-000.mp4", "episode 2 ends at", "past the last image"]);
}

/// Adds `by` to a column of doubles or integers.
fn shifted(batch: &RecordBatch, column: &str, by: f64) -> RecordBatch {
    use arrow_array::{Float64Array, Int64Array, cast::AsArray, types::Float64Type, types::Int64Type};
    let at = batch.schema().index_of(column).unwrap();
    let mut columns = batch.columns().to_vec();
    columns[at] = match columns[at].as_primitive_opt::<Float64Type>() {
        Some(values) => Arc::new(values.values().iter().map(|value| value + by).collect::<Float64Array>()),
        None => {
            let values = columns[at].as_primitive::<Int64Type>().values().iter();
            Arc::new(values.map(|value| value + by as i64).collect::<Int64Array>())
        }
    };
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}

const EPISODES: &str = "meta/episodes/chunk-000/file-000.parquet";
const FROM_S: &str = "videos/observation.images.front/from_timestamp";
const TO_S: &str = "videos/observation.images.front/to_timestamp";

#[test]
fn an_episode_that_is_listed_twice_alike_is_read_once_with_a_warning() {
    let copy = Copy::of("hevc");
    copy.rewrite_all(EPISODES, |batch| vec![batch.clone(), batch.slice(1, 1)]);
    check_finds(copy.path(), &["meta/episodes", "episode 1 is listed twice, alike"]);
    let (code, stdout, stderr) = run_show(copy.path());
    assert!(code == 0 && stdout.contains("frames      62 at"), "{stdout}{stderr}");
    assert!(stderr.contains("[WARN]") && stderr.contains("1 episodes are listed twice"), "{stderr}");
}

#[test]
fn an_episode_that_is_listed_twice_differently_is_refused() {
    for (column, by, words) in [
        ("data/file_index", 1.0, ["of data file 000/000 and with rows", "of data file 000/001"]),
        ("dataset_to_index", -1.0, ["episode 1 is listed both with rows", "of data file 000/000 and with rows"]),
    ] {
        let copy = Copy::of("hevc");
        copy.rewrite_all(EPISODES, |batch| vec![batch.clone(), shifted(&batch, column, by).slice(1, 1)]);
        let (code, _, stderr) = run("show", copy.path());
        assert!(code == 65 && words.iter().all(|word| stderr.contains(word)), "{column}: {stderr}");
        check_finds(copy.path(), &[EPISODES, "episode 1 is listed both with", "; hint: remove the row that is wrong"]);
    }
    let copy = Copy::of("hevc");
    copy.rewrite_all(EPISODES, |batch| vec![batch.clone(), shifted(&batch, FROM_S, 0.5).slice(1, 1)]);
    let dataset = Arc::new(LeRobotDataset::open(copy.path(), &TableCache::new(1 << 20)).unwrap());
    let error = with_hint(&dataset.frame_store("observation.images.front", None).err().unwrap());
    for word in ["episode 1 is listed both with", "s of video 000/000 and with", "of `observation.images.front`"] {
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn an_episode_with_another_length_than_its_rows() {
    let copy = Copy::of("hevc");
    copy.rewrite(EPISODES, |batch| shifted(&batch, "length", 2.0));
    check_finds(copy.path(), &["meta/episodes", "episode 0 has the length", "but the rows 0.."]);
}

#[test]
fn stretches_of_a_video_that_have_another_length_or_overlap() {
    let copy = Copy::of("hevc");
    copy.rewrite(EPISODES, |batch| shifted(&batch, TO_S, 0.5));
    check_finds(copy.path(), &["file-000.mp4", "episode 0 has", "frames", "s of the video"]);
    check_finds(copy.path(), &["file-000.mp4", "episode 1 begins at", "but episode 0 ends at"]);
    copy.rewrite_all(EPISODES, |batch| {
        let first = shifted(&shifted(&batch, FROM_S, 1.55), TO_S, 1.05);
        vec![first.slice(0, 1), batch.slice(1, batch.num_rows() - 1)]
    });
    check_finds(copy.path(), &["file-000.mp4", "episode 1 begins at", "before episode 0 at 1.5500 s"]);
}

#[test]
fn files_that_no_episode_is_in() {
    let copy = Copy::of("hevc");
    for (file, other) in [(VIDEO, "file-007.mp4"), (DATA, "file-007.parquet")] {
        let path = copy.path().join(file);
        fs::copy(&path, path.with_file_name(other)).unwrap();
        check_finds(copy.path(), &[other, "no episode is in this file"]);
    }
}

#[test]
fn a_row_of_another_width() {
    use arrow_array::{Array, ListArray, cast::AsArray, types::Float32Type};
    use arrow_schema::{Field, Schema};
    let copy = Copy::of("hevc");
    copy.rewrite(DATA, |batch| {
        let at = batch.schema().index_of("action").unwrap();
        let values = batch.column(at).as_fixed_size_list().values().as_primitive::<Float32Type>();
        let mut values = values.values().iter().map(|value| Some(*value));
        // Row 3 has a value more, and row 5 one less: as many in all.
        let width = |row: usize| 2 + usize::from(row == 3) - usize::from(row == 5);
        let rows = (0..batch.num_rows()).map(|row| Some(values.by_ref().take(width(row)).collect::<Vec<_>>()));
        let list = ListArray::from_iter_primitive::<Float32Type, _, _>(rows);
        let mut fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
        fields[at] = Arc::new(Field::new("action", list.data_type().clone(), true));
        let mut columns = batch.columns().to_vec();
        columns[at] = Arc::new(list);
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    });
    let what = "column `action` has 3 values in row 3, but meta/info.json says 2 per row";
    check_finds(copy.path(), &["data/chunk-000/file-000.parquet", what]);
    let dataset = LeRobotDataset::open(copy.path(), &TableCache::new(1 << 20)).unwrap();
    let error = with_hint(&dataset.vectors("action", &[0]).unwrap_err());
    assert!(error.contains(what), "{error}");
}

#[test]
fn a_parquet_file_without_a_column() {
    let copy = Copy::of("hevc");
    copy.rewrite(DATA, |mut batch| {
        batch.remove_column(batch.schema().index_of("action").unwrap());
        batch
    });
    check_finds(
        copy.path(),
        &["data/chunk-000/file-000.parquet", "has no column `action`", "its columns are", "timestamp"],
    );
}

#[test]
fn a_column_of_every_dataset_that_neither_the_data_nor_the_features_have() {
    let copy = Copy::of("hevc");
    copy.rewrite(DATA, |mut batch| {
        batch.remove_column(batch.schema().index_of("task_index").unwrap());
        batch
    });
    check_finds(copy.path(), &["data/chunk-000/file-000.parquet", "has no column `task_index`"]);
    let info = copy.path().join("meta/info.json");
    let mut without: serde_json::Value = serde_json::from_str(&fs::read_to_string(&info).unwrap()).unwrap();
    without["features"].as_object_mut().unwrap().remove("task_index");
    fs::write(&info, without.to_string()).unwrap();
    for words in [["data/chunk-000/file-000.parquet", "has no column `task_index`"], ["meta/info.json", "`task_index`"]]
    {
        check_finds(copy.path(), &words);
    }
}

#[test]
fn a_parquet_file_that_is_cut_off() {
    let copy = Copy::of("hevc");
    copy.cut(DATA, 0.5);
    check_finds(copy.path(), &["data/chunk-000/file-000.parquet", "not a whole parquet file"]);
}

#[test]
fn a_parquet_file_with_fewer_rows_than_its_episodes() {
    let copy = Copy::of("hevc");
    copy.rewrite(DATA, |batch| batch.slice(0, 40.min(batch.num_rows())));
    check_finds(copy.path(), &["data/chunk-000/file-000.parquet", "rows, but its episodes have 62"]);
}

#[test]
fn a_value_that_is_no_number() {
    use arrow_array::{ArrayRef, FixedSizeListArray, Float32Array};
    let copy = Copy::of("hevc");
    copy.rewrite(DATA, |batch| {
        let at = batch.schema().index_of("action").unwrap();
        let mut values = vec![0.5_f32; 2 * batch.num_rows()];
        values[7] = f32::NAN;
        let (field, width) = match batch.schema().field(at).data_type() {
            arrow_schema::DataType::FixedSizeList(field, width) => (Arc::clone(field), *width),
            other => panic!("action is {other}"),
        };
        let list: ArrayRef =
            Arc::new(FixedSizeListArray::new(field, width, Arc::new(Float32Array::from(values)), None));
        let mut columns = batch.columns().to_vec();
        columns[at] = list;
        RecordBatch::try_new(batch.schema(), columns).unwrap()
    });
    check_finds(copy.path(), &["column `action` is NaN at row 3"]);
}

#[test]
fn counts_that_disagree() {
    let copy = Copy::of("hevc");
    copy.replace("meta/info.json", "\"total_frames\": 62", "\"total_frames\": 63");
    check_finds(copy.path(), &["meta/info.json", "total_frames is 63, but there are 62"]);
}

#[test]
fn statistics_that_are_not_those_of_the_data() {
    let copy = Copy::of("hevc");
    let path = copy.path().join("meta/stats.json");
    let mut stats: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    stats["action"]["mean"][1] = 7.5.into();
    fs::write(&path, stats.to_string()).unwrap();
    check_finds(copy.path(), &["meta/stats.json", "action[1]: mean is 7.5, but that of the data is"]);
}

#[test]
fn statistics_that_are_missing_or_cannot_be() {
    let copy = Copy::of("hevc");
    let path = copy.path().join("meta/stats.json");
    let mut stats: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let mut write = |key: &str, value: Option<f64>| {
        let values = stats.as_object_mut().unwrap();
        match value {
            Some(value) => values["action"][key][1] = value.into(),
            None => drop(values.remove(key)),
        }
        fs::write(&path, stats.to_string()).unwrap();
    };
    write("observation.state", None);
    let (code, stdout, _) = run("check", copy.path());
    assert!(code == 0 && stdout.contains("not verified  statistics of observation.state: "), "{stdout}");
    assert!(stdout.contains("not verified  quantiles in the statistics, but for their range and order"), "{stdout}");
    write("q99", Some(1e4));
    check_finds(copy.path(), &["meta/stats.json", "action[1]: q99 is 10000, but the data is within"]);
    let median = serde_json::from_str::<serde_json::Value>(&fs::read_to_string(&path).unwrap()).unwrap();
    let lowest = median["action"]["min"][1].as_f64().unwrap();
    write("q99", Some(lowest));
    check_finds(copy.path(), &["meta/stats.json", "action[1]: q99 is", "but q90 is"]);
}

#[test]
fn values_that_never_change_are_a_note() {
    let (code, stdout, _) = run("check", &fixture("stress_v3"));
    assert_eq!(code, 0);
    assert!(stdout.contains("\nnote          `next.success` is constant over 60 episodes: [0] = 0\n"), "{stdout}");
}

#[test]
fn a_quick_check_says_that_it_saw_no_image() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_hlrp-data")).args(["check", "--quick"]).arg(fixture("hevc")).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("not verified  images of observation.images.front (--quick)\n"), "{stdout}");
    assert!(!stdout.contains("again at random"), "{stdout}");
}

#[test]
fn videos_that_are_not_as_the_metadata_says() {
    let copy = Copy::of("hevc");
    copy.replace("meta/info.json", "\"video.codec\": \"hevc\"", "\"video.codec\": \"libsvtav1\"");
    check_finds(copy.path(), &["file-000.mp4", "the video is hevc, but meta/info.json says libsvtav1"]);
    copy.replace("meta/info.json", "                48,", "                40,");
    check_finds(copy.path(), &["file-000.mp4", "images are 64x48, but meta/info.json says 64x40"]);
    copy.replace("meta/info.json", "\"fps\": 20,", "\"fps\": 10,");
    check_finds(copy.path(), &["file-000.mp4", "the video has 20.000 frames per second, but meta/info.json says 10"]);
    let (_, shown, _) = run_show(copy.path());
    assert!(shown.contains("; the video is hevc, but meta/info.json says libsvtav1"), "{shown}");
}

/// Runs `hlrp-data show` without a contact sheet.
fn run_show(path: &Path) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hlrp-data")).args(["show", "--no-sheet"]).arg(path).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_finding_has_one_hint_at_its_end() {
    let copy = Copy::of("hevc");
    copy.cut(VIDEO, 0.7);
    copy.replace("meta/info.json", "\"total_frames\": 62", "\"total_frames\": 63");
    let (_, stdout, _) = run("check", copy.path());
    assert!(stdout.lines().any(|line| line.contains("; hint: ")), "{stdout}");
    for line in stdout.lines() {
        assert!(line.matches("hint: ").count() <= 1 && !line.contains("(hint"), "{line}");
        assert_eq!(line.matches('(').count(), line.matches(')').count(), "{line}");
    }
}
