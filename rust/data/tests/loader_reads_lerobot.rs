//! Batches of a real LeRobot v3 dataset: from its videos, from the frame cache, and with damage in it.
#![cfg(feature = "ffmpeg")]
#![allow(clippy::unwrap_used)]

mod opened;

use hlrp_config::with_hint;
use hlrp_data::{
    Batch, DataError, Dataset, FrameSize, Loader, Mixture, Position, Shard, Split,
    formats::lerobot::{LeRobotDataset, TableCache},
};
use hlrp_schema::{CacheConfig, DataConfig, DeltaUnit, RequestConfig, Resize, SourceConfig};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;

const SIZE: FrameSize = FrameSize { height: 48, width: 64 };

fn metaworld() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/metaworld_mt5")
}

/// Pairs (t, t + 5) with state and five actions.
fn config(root: &Path) -> DataConfig {
    let source = SourceConfig {
        state_key: Some("observation.state".to_owned()),
        action_key: Some("action".to_owned()),
        num_val_episodes: 5,
        ..opened::source(root, "observation.image")
    };
    DataConfig {
        sources: [("metaworld".to_owned(), source)].into(),
        request: RequestConfig {
            unit: DeltaUnit::Frames,
            image_deltas: vec![0.0, 5.0],
            state_deltas: vec![0.0],
            action_deltas: vec![0.0, 1.0, 2.0, 3.0, 4.0],
        },
        loader: opened::loader(16),
        filter: None,
        resize: Resize::Host,
        cache: CacheConfig { enabled: false, dir: PathBuf::new(), verify: false },
    }
}

fn open(config: &DataConfig) -> Result<Arc<Mixture>, DataError> {
    opened::open(config, SIZE)
}

fn batches(mixture: &Arc<Mixture>, num_batches: usize) -> Vec<Batch> {
    let mut loader = Loader::train(mixture, 42, Shard::SINGLE, Position::default()).unwrap();
    (0..num_batches).map(|_| loader.next_batch().unwrap()).collect()
}

/// A copy of the dataset that a test may damage.
fn copy_of_metaworld() -> TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &target);
            } else {
                fs::write(target, fs::read(entry.path()).unwrap()).unwrap();
            }
        }
    }
    let dir = TempDir::new().unwrap();
    copy(&metaworld(), dir.path());
    dir
}

#[test]
fn batches_hold_what_the_dataset_holds() {
    let with = |anchors_per_clip| {
        let mut config = config(&metaworld());
        config.loader.anchors_per_clip = anchors_per_clip;
        batches(&open(&config).unwrap(), 10)
    };
    let dataset = Arc::new(LeRobotDataset::open(&metaworld(), &TableCache::new(1 << 20)).unwrap());
    let frames = Arc::clone(&dataset).frame_store("observation.image", Some(SIZE)).unwrap();
    let mut reader = frames.reader(4).unwrap();
    for batch in [with(1), with(8)].into_iter().flatten() {
        let (state, action, images) = (batch.state.unwrap(), batch.action.unwrap(), &batch.images["primary"]);
        assert_eq!((state.shape, action.shape, images.shape), ([16, 1, 4], [16, 5, 4], [16, 2, 3, 48, 64]));
        let pair_bytes = images.pixels_BTCHW.len() / 16;
        for (b, meta) in batch.meta.iter().enumerate() {
            let episode = &dataset.episodes()[meta.episode as usize];
            let row = episode.from_row + meta.frame;
            let mut pair = vec![0; pair_bytes];
            reader.read(&[row, row + 5], &mut pair).unwrap();
            assert_eq!(images.pixels_BTCHW[b * pair_bytes..][..pair_bytes], pair);
            assert_eq!(state.values_BTN[4 * b..][..4], dataset.vectors("observation.state", &[row]).unwrap());
            let rows: Vec<u64> = (row..row + 5).collect();
            assert_eq!(action.values_BTN[20 * b..][..20], dataset.vectors("action", &rows).unwrap());
            assert_eq!(batch.task[b], dataset.task_text(row).unwrap());
            assert!((meta.dt_s - 5.0 / 80.0).abs() < 1e-12);
        }
    }
}

#[test]
fn frames_that_the_device_resizes_leave_in_their_recorded_size() {
    let with = |anchors_per_clip, resize, size| {
        let mut config = config(&metaworld());
        config.loader.anchors_per_clip = anchors_per_clip;
        config.resize = resize;
        batches(&opened::open(&config, size).unwrap(), 4)
    };
    let recorded = FrameSize { height: 128, width: 128 };
    for anchors_per_clip in [1, 8] {
        let for_the_device = with(anchors_per_clip, Resize::Device, SIZE);
        for (batch, mut whole) in for_the_device.into_iter().zip(with(anchors_per_clip, Resize::Host, recorded)) {
            assert_eq!((batch.images["primary"].shape, batch.images["primary"].size), ([16, 2, 3, 128, 128], SIZE));
            whole.images.values_mut().for_each(|stream| stream.size = SIZE);
            assert_eq!(batch, whole);
        }
    }
}

#[test]
fn the_device_resizes_no_mixture_of_sizes() {
    let mut config = config(&metaworld());
    let other = opened::source(&metaworld().with_file_name("pusht_scripted"), "observation.image");
    config.sources.insert("pusht".to_owned(), other);
    assert!(open(&config).is_ok());
    config.resize = Resize::Device;
    let error = open(&config).err().map(|error| with_hint(&error)).unwrap_or_default();
    assert_eq!(
        error,
        "data.resize: `primary` of source `pusht` has 96x96 pixels, that of source `metaworld` 128x128: a batch has \
         images of one size\nhint: set it to host"
    );
}

#[test]
fn one_and_four_decode_threads_give_the_same_batches() {
    let with = |num_workers| {
        let mut config = config(&metaworld());
        config.loader.num_workers = num_workers;
        batches(&open(&config).unwrap(), 4)
    };
    assert_eq!(with(1), with(4));
}

#[test]
fn the_frame_cache_gives_the_batches_that_the_videos_give() {
    let dir = TempDir::new().unwrap();
    let mut cached = config(&metaworld());
    cached.sources.get_mut("metaworld").unwrap().episodes = Some((0..12).collect());
    let direct = cached.clone();
    cached.cache = CacheConfig { enabled: true, dir: dir.path().join("frames"), verify: true };
    let (direct, cached) = (open(&direct).unwrap(), open(&cached).unwrap());
    assert_eq!(batches(&direct, 8), batches(&cached, 8));
    let pass =
        |mixture| Loader::validation(mixture, None, Shard::SINGLE).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(pass(&direct), pass(&cached));
    assert_eq!(fs::read_dir(dir.path().join("frames")).unwrap().count(), 2, "the frames and the lock");
}

#[test]
fn a_flipped_bit_in_the_frame_cache_is_found_when_it_is_verified() {
    let dir = TempDir::new().unwrap();
    let mut config = config(&metaworld());
    config.sources.get_mut("metaworld").unwrap().episodes = Some((0..6).collect());
    config.cache = CacheConfig { enabled: true, dir: dir.path().to_owned(), verify: true };
    open(&config).unwrap();
    let entries = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let path = entries.into_iter().find(|path| path.extension().unwrap() == "frames").unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = open(&config).err().unwrap().to_string();
    assert!(error.contains(&path.display().to_string()) && error.contains("do not match their checksum"), "{error}");
}

#[test]
fn each_task_has_a_held_out_episode() {
    let mixture = open(&config(&metaworld())).unwrap();
    let episodes: Vec<u64> = mixture.sources()[0].episodes(Split::Validation).iter().map(|span| span.episode).collect();
    assert_eq!(episodes, [5, 15, 25, 35, 45]);
}

#[test]
fn damaged_frames_cost_their_samples_or_stop_the_run() {
    let dir = copy_of_metaworld();
    let video =
        fs::read_dir(dir.path().join("videos/observation.image/chunk-000")).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(&video).unwrap();
    // Frames in the middle, wherever the file keeps its index.
    let mut damaged = bytes.clone();
    let middle = bytes.len() / 2;
    damaged[middle..middle + 20_000].fill(0);
    fs::write(&video, damaged).unwrap();

    let run = |max_bad_samples| {
        let mut config = config(dir.path());
        config.loader.max_bad_samples = max_bad_samples;
        let mut loader = Loader::train(&open(&config).unwrap(), 42, Shard::SINGLE, Position::default()).unwrap();
        let result: Result<Vec<Batch>, DataError> = (0..200).map(|_| loader.next_batch()).collect();
        (result, loader.position().num_bad_samples)
    };
    let error = with_hint(&run(0).0.unwrap_err());
    for part in ["source `metaworld`, episode", &video.display().to_string(), "hint: `hlrp data check`"] {
        assert!(error.contains(part), "{error}");
    }
    // 20 KB are about 15 of the 3539 frames: less than one in a hundred samples shows one of them.
    let (batches, num_bad) = run(100);
    assert_eq!(batches.unwrap().len(), 200);
    assert!((1..=100).contains(&num_bad), "{num_bad}");
}

#[test]
fn a_camera_that_is_not_there_is_named_with_those_that_are() {
    let mut config = config(&metaworld());
    config.sources.get_mut("metaworld").unwrap().cameras =
        [("primary".to_owned(), "observation.wrist".to_owned())].into();
    for enabled in [false, true] {
        config.cache = CacheConfig { enabled, dir: PathBuf::from("never written"), verify: false };
        let error = with_hint(&open(&config).err().unwrap());
        assert!(
            error.contains("data.sources.metaworld.cameras.primary: ")
                && error.contains("`observation.wrist`")
                && error.contains("observation.image"),
            "{error}"
        );
    }
    assert!(!Path::new("never written").exists());
}

#[test]
fn a_state_that_is_not_there_is_named_with_those_that_are() {
    let mut config = config(&metaworld());
    config.sources.get_mut("metaworld").unwrap().state_key = Some("state".to_owned());
    let error = with_hint(&open(&config).err().unwrap());
    assert!(error.contains("`state`") && error.contains("observation.state"), "{error}");
}

#[test]
fn a_missing_dataset_is_an_error_that_names_its_folder() {
    let error = with_hint(&open(&config(Path::new("/no/such/dataset"))).err().unwrap());
    assert!(error.contains("/no/such/dataset") && error.contains("hint: "), "{error}");
}

/// Every row is 0.3 ms late.
fn late_copy() -> TempDir {
    use arrow_array::{Array, Float32Array, RecordBatch, cast::AsArray, types::Float32Type};
    use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};
    let copy = copy_of_metaworld();
    let path = copy.path().join("data/chunk-000/file-000.parquet");
    let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(&path).unwrap()).unwrap().build().unwrap();
    let late = |batch: RecordBatch| {
        let at = batch.schema().index_of("timestamp").unwrap();
        let mut columns = batch.columns().to_vec();
        let times = columns[at].as_primitive::<Float32Type>();
        assert_eq!(times.null_count(), 0);
        columns[at] = Arc::new(times.values().iter().map(|time| time + 3e-4).collect::<Float32Array>());
        RecordBatch::try_new(batch.schema(), columns).unwrap()
    };
    let batches: Vec<_> = reader.map(|batch| late(batch.unwrap())).collect();
    let mut writer = ArrowWriter::try_new(fs::File::create(&path).unwrap(), batches[0].schema(), None).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.close().unwrap();
    copy
}

#[test]
fn rows_that_are_late_are_read_within_the_tolerance_of_their_source() {
    let copy = late_copy();
    let mut config = config(copy.path());
    let mut loader = Loader::train(&open(&config).unwrap(), 42, Shard::SINGLE, Position::default()).unwrap();
    let error = with_hint(&loader.next_batch().unwrap_err());
    assert!(error.contains("more than 0.0001 s away"), "{error}");
    config.sources.get_mut("metaworld").unwrap().tolerance_s = Some(1e-3);
    let late = batches(&open(&config).unwrap(), 3);
    let punctual = batches(&open(&self::config(&metaworld())).unwrap(), 3);
    assert!(late.iter().zip(&punctual).all(|(a, b)| a.images == b.images), "the same frames");
}
