//! Two sources in one mixture, of 4 and of 2 or no state and action dimensions: what a batch has, and the statistics that normalise it.
#![cfg(feature = "ffmpeg")]
#![allow(clippy::unwrap_used, non_snake_case)]

mod opened;

use hlrp_data::formats::lerobot::{LeRobotDataset, TableCache};
use hlrp_data::{FrameSize, Loader, Mixture, Position, Shard, Source, Split};
use hlrp_schema::{CacheConfig, DataConfig, DeltaUnit, RequestConfig, Resize, SourceConfig, SourceWeight};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const ACTION_DELTAS: [i64; 3] = [0, 1, 40];
/// Dimensions of states and actions of each source.
const DIMS: [(&str, usize); 2] = [("metaworld_mt5", 4), ("pusht_scripted", 2)];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(name)
}

fn robots(weights: [f64; 2]) -> Arc<Mixture> {
    mixture(DIMS.map(|(name, _)| name).into_iter().zip(weights), |_| true)
}

/// Sources by name and weight; those that `has_vectors` chooses have states and actions.
fn mixture<'a>(sources: impl IntoIterator<Item = (&'a str, f64)>, has_vectors: impl Fn(&str) -> bool) -> Arc<Mixture> {
    let source = |(name, weight): (&str, f64)| {
        let key = |key: &str| has_vectors(name).then(|| key.to_owned());
        let source = SourceConfig {
            state_key: key("observation.state"),
            action_key: key("action"),
            weight: Some(SourceWeight::Share(weight)),
            num_val_episodes: 2,
            ..opened::source(&folder(name), "observation.image")
        };
        (name.to_owned(), source)
    };
    let config = DataConfig {
        sources: sources.into_iter().map(source).collect(),
        request: RequestConfig {
            unit: DeltaUnit::Frames,
            image_deltas: vec![0.0],
            state_deltas: vec![0.0],
            action_deltas: ACTION_DELTAS.map(|delta| delta as f64).into(),
        },
        loader: opened::loader(8),
        filter: None,
        resize: Resize::Host,
        cache: CacheConfig { enabled: false, dir: PathBuf::new(), verify: false },
    };
    opened::open(&config, FrameSize { height: 8, width: 8 }).unwrap()
}

/// Rows of a vector of a source, as its dataset has them.
fn rows(source: &Source, key: &str, rows: &[u64], dims: usize) -> Vec<f32> {
    let dataset = LeRobotDataset::open(&folder(source.name()), &TableCache::new(1 << 20)).unwrap();
    let mut values = vec![f32::NAN; rows.len() * dims];
    dataset.read_vectors(key, rows, &mut values).unwrap();
    values
}

#[test]
fn a_batch_pads_with_zeros_and_says_where() {
    let mixture = robots([0.5, 0.5]);
    assert_eq!((mixture.layout().state, mixture.layout().action), (Some([1, 4]), Some([3, 4])));
    let mut loader = Loader::train(&mixture, 1, Shard::SINGLE, Position::default()).unwrap();
    let mut seen = BTreeSet::new();
    for _ in 0..6 {
        let batch = loader.next_batch().unwrap();
        let streams =
            [("observation.state", batch.state.unwrap(), &[0][..]), ("action", batch.action.unwrap(), &ACTION_DELTAS)];
        for (key, stream, deltas) in streams {
            assert_eq!(stream.shape, [8, deltas.len(), 4]);
            let samples = stream.values_BTN.chunks(deltas.len() * 4).zip(stream.is_pad_dim_BN.chunks(4));
            for (meta, (values_TN, is_pad_dim_N)) in batch.meta.iter().zip(samples) {
                let source = mixture.sources().iter().find(|source| source.name() == meta.source).unwrap();
                let dims = BTreeMap::from(DIMS)[source.name()];
                seen.insert(dims);
                assert_eq!(is_pad_dim_N, [false, false, dims == 2, dims == 2], "{}", meta.source);
                let span = source.episodes(Split::Train).iter().find(|span| span.episode == meta.episode).unwrap();
                let recorded = rows(source, key, &span.window(span.from_row + meta.frame, deltas).0, dims);
                for (values_N, recorded_N) in values_TN.chunks(4).zip(recorded.chunks(dims)) {
                    assert_eq!(values_N[..dims], *recorded_N);
                    assert!(values_N[dims..].iter().all(|value| *value == 0.0));
                }
            }
        }
    }
    assert_eq!(seen, BTreeSet::from([2, 4]));
}

#[test]
fn a_dimension_has_the_statistics_of_the_sources_that_have_it_weighted_as_sampled() {
    let weights = [1.0, 3.0];
    let mixture = robots(weights);
    for (key, found) in [("action", mixture.action_statistics()), ("observation.state", mixture.state_statistics())] {
        let found = found.unwrap().unwrap();
        assert_eq!(found.dim, 4);
        // By dimension the values of training rows, and the weight of each.
        let mut columns: [Vec<(f64, f64)>; 4] = Default::default();
        for ((source, (_, dims)), weight) in mixture.sources().iter().zip(DIMS).zip(weights) {
            let spans = source.episodes(Split::Train);
            let of_training: Vec<u64> = spans.iter().flat_map(|span| span.from_row..span.to_row).collect();
            let values = rows(source, key, &of_training, dims);
            for (at, value) in values.iter().enumerate() {
                columns[at % dims].push((f64::from(*value), weight / of_training.len() as f64));
            }
        }
        for (dim, column) in columns.iter().enumerate() {
            let total: f64 = column.iter().map(|(_, weight)| weight).sum();
            let mean = column.iter().map(|(value, weight)| value * weight).sum::<f64>() / total;
            let variance = column.iter().map(|(value, weight)| (value - mean).powi(2) * weight).sum::<f64>() / total;
            let ends = column.iter().fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], (value, _)| {
                [low.min(*value), high.max(*value)]
            });
            for (name, expected) in [("mean", mean), ("std", variance.sqrt()), ("min", ends[0]), ("max", ends[1])] {
                let value = found.values[name][dim];
                assert!(
                    (value - expected).abs() <= 1e-6 * expected.abs().max(1.0),
                    "{key} {name}[{dim}]: {value}, not {expected}"
                );
            }
            // As much of the weight is up to a quantile as its name says.
            let q99 = found.values["q99"][dim];
            let below: f64 = column.iter().filter(|(value, _)| *value <= q99).map(|(_, weight)| weight).sum();
            assert!(
                (below / total - 0.99).abs() < 0.01 || q99 >= ends[1] - 1e-6,
                "{key} q99[{dim}] is {q99}, above {below} of {total}"
            );
        }
        let ranges = |source: usize| &found.ranges[source].1;
        assert!(ranges(0).iter().all(|[low, high]| low <= high), "the wide source has every dimension");
        assert!(ranges(1)[2..].iter().all(|[low, high]| low > high), "the narrow one does not");
    }
}

#[test]
fn a_source_without_states_and_actions_is_all_padding_and_changes_no_statistics() {
    let robot = "metaworld_mt5";
    let beside_videos = mixture([(robot, 1.0), ("pusht_scripted", 3.0)], |name| name == robot);
    assert_eq!((beside_videos.layout().state, beside_videos.layout().action), (Some([1, 4]), Some([3, 4])));
    let mut loader = Loader::train(&beside_videos, 1, Shard::SINGLE, Position::default()).unwrap();
    let batch = loader.next_batch().unwrap();
    assert_eq!(batch.meta.iter().filter(|meta| meta.source == robot).count(), 2, "a quarter of eight");
    for stream in [batch.state.unwrap(), batch.action.unwrap()] {
        let [num_samples, num_steps, dim] = stream.shape;
        assert_eq!((num_samples, dim), (8, 4));
        let values = stream.values_BTN.chunks(num_steps * dim);
        let is_pad = stream.is_pad_BT.chunks(num_steps).zip(stream.is_pad_dim_BN.chunks(dim));
        for (meta, (values_TN, (is_pad_T, is_pad_dim_N))) in batch.meta.iter().zip(values.zip(is_pad)) {
            let is_video = meta.source != robot;
            assert!(is_pad_dim_N.iter().all(|is_pad| *is_pad == is_video), "{}", meta.source);
            assert_eq!(is_pad_T[0], is_video, "{}", meta.source);
            assert_eq!(values_TN.iter().all(|value| *value == 0.0), is_video, "{}", meta.source);
        }
    }
    let alone = mixture([(robot, 1.0)], |_| true);
    let both = [&beside_videos, &alone];
    let [actions, states] =
        [both.map(|mixture| mixture.action_statistics()), both.map(|mixture| mixture.state_statistics())];
    for [found, expected] in [actions, states].map(|pair| pair.map(|found| found.unwrap().unwrap())) {
        assert_eq!((found.dim, found.ranges.len(), found.ranges[1].1.len()), (4, 2, 4));
        for name in ["mean", "std", "min", "max", "q01", "q99"] {
            for (x, y) in found.values[name].iter().zip(&expected.values[name]) {
                assert!((x - y).abs() <= 1e-9 * y.abs().max(1.0), "{name}: {x}, not {y}");
            }
        }
    }
}
