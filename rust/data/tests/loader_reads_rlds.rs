//! Batches of RLDS datasets: offsets in seconds of sources with different rates, every anchor once per epoch, exact resume, both ways of
//! holding episodes out.
#![allow(clippy::unwrap_used)]

mod opened;

use hlrp_config::with_hint;
use hlrp_data::{
    Batch, DataError, Dataset, FrameSize, Loader, Mixture, Position, Shard, Split,
    formats::{OpenOptions, rlds::RldsDataset},
};
use hlrp_schema::{CacheConfig, DataConfig, DeltaUnit, RequestConfig, Resize, RldsConfig, SourceConfig};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;

const SIZE: FrameSize = FrameSize { height: 32, width: 40 };
const BATCH: usize = 4;

fn source(folder: &str, keys: [&str; 4], fps: f64) -> SourceConfig {
    let [camera, state, action, task] = keys;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/rlds").join(folder).join("0.1.0");
    let task_key = Some(task.to_owned());
    SourceConfig {
        state_key: Some(state.to_owned()),
        action_key: Some(action.to_owned()),
        rlds: Some(RldsConfig { split: "train".into(), val_split: Some("val".into()), fps, task_key }),
        ..opened::source(&root, camera)
    }
}

/// RT-1 at 3 and Language Table at 6 steps per second: a third of a second is one step of the first and two of the second.
fn config(cache: &TempDir) -> DataConfig {
    let text = "observation/natural_language_instruction";
    let rt1 = ["observation/image", "observation/base_pose_tool_reached", "action/world_vector", text];
    let table = ["observation/rgb", "observation/effector_translation", "action", "observation/instruction"];
    DataConfig {
        sources: BTreeMap::from([
            ("rt1".to_owned(), source("fractal20220817_data", rt1, 3.0)),
            ("table".to_owned(), source("language_table", table, 6.0)),
        ]),
        request: RequestConfig {
            unit: DeltaUnit::Seconds,
            image_deltas: vec![0.0, 1.0 / 3.0],
            state_deltas: vec![0.0],
            action_deltas: vec![0.0],
        },
        loader: opened::loader(BATCH),
        filter: None,
        resize: Resize::Host,
        cache: CacheConfig { enabled: false, dir: cache.path().to_owned(), verify: false },
    }
}

fn open(config: &DataConfig) -> Result<Arc<Mixture>, DataError> {
    opened::open(config, SIZE)
}

/// Pixels, states, actions, instructions, and where each sample is from.
type Content = (Vec<u8>, Vec<f32>, Vec<f32>, Vec<String>, Vec<(String, u64, u64)>);

/// Everything that a batch has, in a form that can be compared.
fn content(batch: &Batch) -> Content {
    let values = |stream: &Option<hlrp_data::VectorStream>| stream.as_ref().unwrap().values_BTN.clone();
    let meta = batch.meta.iter().map(|meta| (meta.source.clone(), meta.episode, meta.frame)).collect();
    let pixels = batch.images["primary"].pixels_BTCHW.to_vec();
    (pixels, values(&batch.state), values(&batch.action), batch.task.clone(), meta)
}

#[test]
fn every_anchor_occurs_once_and_a_stream_continues_exactly() {
    let cache = TempDir::new().unwrap();
    let config = config(&cache);
    let mixture = open(&config).unwrap();
    // Steps per episode of `train`: 5, 11, 1, 8, 23, 2, 6, 5, 11 and 5, 11, 1, 8, 23, of which one and two are no anchors.
    let num_anchors = [4_u64, 10, 0, 7, 22, 1, 5, 4, 10].iter().sum::<u64>() + [3_u64, 9, 0, 6, 21].iter().sum::<u64>();
    assert_eq!(mixture.anchors(Split::Train).len(), num_anchors);
    let held_out = |source: usize| mixture.sources()[source].episodes(Split::Validation).len();
    assert_eq!((held_out(0), held_out(1)), (3, 2));

    let mut loader = Loader::train(&mixture, 7, Shard::SINGLE, Position::default()).unwrap();
    let num_batches = num_anchors.div_ceil(BATCH as u64) as usize;
    let mut positions = Vec::new();
    let batches: Vec<Batch> = (0..num_batches)
        .map(|_| {
            positions.push(loader.position());
            loader.next_batch().unwrap()
        })
        .collect();
    let mut seen: Vec<_> = batches.iter().flat_map(|batch| content(batch).4).take(num_anchors as usize).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len() as u64, num_anchors, "uniform over anchors: each once in an epoch");

    // Opened anew, from the index that the first one wrote.
    let again = open(&config).unwrap();
    for start in [3, num_batches / 2] {
        let mut resumed = Loader::train(&again, 7, Shard::SINGLE, positions[start]).unwrap();
        for expected in batches.iter().skip(start).take(4) {
            assert_eq!(content(&resumed.next_batch().unwrap()), content(expected));
        }
    }
}

#[test]
fn a_sample_is_what_the_dataset_has_at_its_steps() {
    let cache = TempDir::new().unwrap();
    let config = config(&cache);
    let mixture = open(&config).unwrap();
    let mut loader = Loader::train(&mixture, 7, Shard::SINGLE, Position::default()).unwrap();
    let mut num_table = 0;
    for _ in 0..12 {
        let batch = loader.next_batch().unwrap();
        let (state, action, images) =
            (batch.state.as_ref().unwrap(), batch.action.as_ref().unwrap(), &batch.images["primary"]);
        assert_eq!((state.shape, action.shape), ([BATCH, 1, 7], [BATCH, 1, 3]), "the widest of both sources");
        for (b, meta) in batch.meta.iter().enumerate() {
            let source = &config.sources[&meta.source];
            let index_dir = Some(cache.path().to_owned());
            let options = OpenOptions { rlds: source.rlds.clone(), index_dir, ..OpenOptions::new(1 << 20) };
            let dataset = Arc::new(RldsDataset::open(source.root.as_ref().unwrap(), &options).unwrap());
            let span = dataset.episodes().into_iter().find(|span| span.episode == meta.episode).unwrap();
            let row = span.from_row + meta.frame;
            let (width, step) = if meta.source == "table" { (2, 2) } else { (7, 1) };
            num_table += usize::from(meta.source == "table");
            let mut values = vec![0.0; width];
            dataset.read_vectors(source.state_key.as_ref().unwrap(), &[row], &mut values).unwrap();
            values.resize(7, 0.0);
            assert_eq!(state.values_BTN[7 * b..][..7], values);
            assert_eq!(batch.task[b], dataset.task(row).unwrap());
            assert!((meta.dt_s - 1.0 / 3.0).abs() < 1e-9, "{}", meta.dt_s);
            let frames = Arc::clone(&dataset).frame_store(&source.cameras["primary"], Some(SIZE)).unwrap();
            let mut pair = vec![0; 2 * SIZE.frame_bytes()];
            frames.reader(1).unwrap().read(&[row, row + step], &mut pair).unwrap();
            assert_eq!(images.pixels_BTCHW[b * pair.len()..][..pair.len()], pair);
        }
    }
    assert!((1..48).contains(&num_table), "both sources occur");
}

#[test]
fn episodes_are_held_out_by_a_split_or_evenly() {
    let cache = TempDir::new().unwrap();
    let mut config = config(&cache);
    config.sources.remove("table");
    let of = |split: &str, val_split: Option<&str>, num_val_episodes: u64| {
        let mut config = config.clone();
        let source = config.sources.get_mut("rt1").unwrap();
        let rlds = source.rlds.as_mut().unwrap();
        (rlds.split, rlds.val_split) = (split.to_owned(), val_split.map(str::to_owned));
        source.num_val_episodes = num_val_episodes;
        let mixture = open(&config)?;
        let episodes = |split| mixture.sources()[0].episodes(split).iter().map(|span| span.episode).collect::<Vec<_>>();
        Ok::<_, DataError>((episodes(Split::Train), episodes(Split::Validation)))
    };
    assert_eq!(of("train[:50%]", Some("train[-2:]"), 0).unwrap(), (vec![0, 1, 2, 3], vec![7, 8]));
    assert_eq!(of("train[1shard]+val", None, 2).unwrap(), (vec![3, 5, 9, 11], vec![4, 10]));
    let refused = |split, val_split| with_hint(&of(split, val_split, 0).unwrap_err());
    assert!(refused("train", Some("train[8:]")).contains("episode 8 occurs twice"));
    assert!(refused("test", None).contains("there is no split `test`"));
    let mut missing = config.clone();
    missing.sources.get_mut("rt1").unwrap().rlds = None;
    let text = with_hint(&open(&missing).err().unwrap());
    assert!(text.contains("data.sources.rt1.rlds") && text.contains("does not record its rate"), "{text}");
}

#[test]
fn the_index_is_below_the_cache() {
    let cache = TempDir::new().unwrap();
    open(&config(&cache)).unwrap();
    let folders: Vec<PathBuf> =
        cache.path().join("rlds").read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    let names: Vec<_> = folders.iter().map(|folder| folder.file_name().unwrap().to_str().unwrap()).collect();
    assert!(names.contains(&"fractal20220817_data-0.1.0") && names.contains(&"language_table-0.1.0"), "{names:?}");
}
