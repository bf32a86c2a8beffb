//! Numbers of frame pairs that are kept: which pairs have a place, what is read back, and which files are refused.
#![allow(clippy::unwrap_used, non_snake_case)]

mod fake;

use fake::{FakeDataset, SIZE, loader_config, source, source_config};
use hlrp_data::{DataError, DiskRules, Mixture, PairCache, PairCacheSpec, SampleMeta};
use hlrp_schema::SourceConfig;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

const NUM_VALUES: usize = 3;
const SLOT: u64 = 8 + 4 * NUM_VALUES as u64;
/// Frames of the episodes of each source: 16 and 20.
const EPISODES: [(&str, [u64; 3]); 2] = [("a", [5, 7, 4]), ("b", [5, 7, 8])];

fn mixture() -> (Mixture, BTreeMap<String, SourceConfig>) {
    let config = SourceConfig { root: Some(env!("CARGO_MANIFEST_DIR").into()), ..source_config(1) };
    let sources = EPISODES.map(|(name, lengths)| source(name, FakeDataset::new(&lengths), &config).unwrap());
    let configs = EPISODES.map(|(name, _)| (name.to_owned(), config.clone()));
    (Mixture::new(sources.into(), SIZE, loader_config(1)).unwrap(), configs.into())
}

fn open(dir: &Path, max_bytes: u64, computation: &str, disk: &DiskRules) -> Result<PairCache, DataError> {
    let (mixture, configs) = mixture();
    let cameras = ["primary".to_owned()];
    let spec =
        PairCacheSpec { dir, max_bytes, cameras: &cameras, computation: json!(computation), num_values: NUM_VALUES };
    PairCache::open(&mixture, &configs, &spec, disk)
}

fn meta(source: &str, episode: u64, frame: u64) -> SampleMeta {
    SampleMeta { source: source.into(), episode, frame, dt_s: 0.1 }
}

fn values(number: u64) -> [f32; NUM_VALUES] {
    [number as f32, -0.5, f32::MIN_POSITIVE]
}

/// Every pair with a number of its own.
fn all() -> Vec<(SampleMeta, [f32; NUM_VALUES])> {
    let of = |(source, lengths): (&'static str, [u64; 3])| {
        let frames = (0..).zip(lengths).flat_map(|(episode, num)| (0..num).map(move |frame| (episode, frame)));
        frames.map(move |(episode, frame)| meta(source, episode, frame))
    };
    EPISODES.into_iter().flat_map(of).zip(0..).map(|(meta, number)| (meta, values(number))).collect()
}

#[test]
fn what_was_written_is_read_by_every_later_run() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path(), u64::MAX, "flow", &DiskRules::unlimited()).unwrap();
    for (meta, values) in all() {
        assert_eq!(first.read(&meta).unwrap(), None);
        first.write(&meta, &values).unwrap();
    }
    for cache in [first, open(dir.path(), u64::MAX, "flow", &DiskRules::unlimited()).unwrap()] {
        for (meta, values) in all() {
            assert_eq!(cache.read(&meta).unwrap().as_deref(), Some(&values[..]), "{meta:?}");
        }
        assert_eq!(cache.read(&meta("c", 0, 0)).unwrap(), None, "another source");
    }
    let other = open(dir.path(), u64::MAX, "depth", &DiskRules::unlimited()).unwrap();
    assert!(all().iter().all(|(meta, _)| other.read(meta).unwrap().is_none()), "another computation");
}

#[test]
fn a_limit_leaves_places_to_the_first_pairs_of_each_source() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), 10 * SLOT + SLOT / 2, "flow", &DiskRules::unlimited()).unwrap();
    all().iter().for_each(|(meta, values)| cache.write(meta, values).unwrap());
    let kept: Vec<SampleMeta> =
        all().into_iter().map(|(meta, _)| meta).filter(|meta| cache.read(meta).unwrap().is_some()).collect();
    let of_a: Vec<SampleMeta> = (0..4).map(|frame| meta("a", 0, frame)).collect();
    let of_b: Vec<SampleMeta> = (0..5).map(|frame| meta("b", 0, frame)).collect();
    assert_eq!(kept, [of_a, of_b].concat(), "10 places of 36 pairs: 16 * 10 / 36 and 20 * 10 / 36");
}

#[test]
fn a_disk_without_room_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let disk = DiskRules { min_free_gb: 1e9, ..DiskRules::unlimited() };
    let error = open(dir.path(), u64::MAX, "flow", &disk).err().unwrap();
    assert!(
        matches!(&error, DataError::Space { hint, .. } if hint.starts_with("lower the limit of the cache")),
        "{error}"
    );
    assert!(hlrp_config::Hint::hint(&error).unwrap().contains("the limit of the cache"));
}
