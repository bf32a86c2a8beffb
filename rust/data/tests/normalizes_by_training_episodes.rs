//! States and actions are normalised by the training episodes in use, of all sources, row by row.
#![allow(clippy::unwrap_used, non_snake_case)]

mod fake;

#[cfg(feature = "ffmpeg")]
use fake::opened;
use fake::{FakeDataset, SIZE, loader_config, source, source_config};
use hlrp_config::with_hint;
#[cfg(feature = "ffmpeg")]
use hlrp_data::formats::{self, OpenOptions};
use hlrp_data::{LabelRequest, Mixture, Source, Split};
#[cfg(feature = "ffmpeg")]
use hlrp_schema::{
    ActionFilterConfig, CacheConfig, DataConfig, FilterBy, FilterConfig, MotionCameras, MotionFilterConfig, OverSteps,
    RequestConfig, Resize,
};
use hlrp_schema::{SourceConfig, SourceWeight};
use std::collections::BTreeMap;
#[cfg(feature = "ffmpeg")]
use std::collections::BTreeSet;

fn mixture(sources: Vec<Source>) -> Mixture {
    Mixture::new(sources, SIZE, loader_config(1)).unwrap()
}

/// Rows of the training episodes; the value of a fake row is its number, plus a tenth of its place in the vector.
fn training_rows(mixture: &Mixture) -> Vec<f64> {
    let spans = mixture.sources().iter().flat_map(|source| source.episodes(Split::Train));
    spans.flat_map(|span| span.from_row..span.to_row).map(|row| row as f64).collect()
}

#[test]
fn held_out_and_excluded_episodes_do_not_count_and_sources_count_by_their_rows() {
    let excluding = SourceConfig { episodes: Some(vec![0, 1, 2]), ..source_config(1) };
    let first = source("first", FakeDataset::new(&[4, 50, 6, 90]), &excluding).unwrap();
    let second = source("second", FakeDataset::new(&[3, 7]), &source_config(0)).unwrap();
    let mixture = mixture(vec![first, second]);
    let rows = training_rows(&mixture);
    assert_eq!(rows.len(), 4 + 6 + 10, "the second episode of the first source is held out, its fourth is not in use");
    let mean = rows.iter().sum::<f64>() / rows.len() as f64;
    let std = (rows.iter().map(|row| (row - mean).powi(2)).sum::<f64>() / rows.len() as f64).sqrt();

    let state = mixture.state_statistics().unwrap().unwrap();
    assert_eq!(state.dim, 3);
    let close = |name: &str, expected: [f64; 3]| {
        for (found, expected) in state.values[name].iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{name}: {found} instead of {expected}");
        }
    };
    close("mean", [mean, mean + 0.1, mean + 0.2]);
    close("std", [std; 3]);
    close("min", [0.0, 0.1, 0.2]);
    close("max", [59.0, 59.1, 59.2]);
    assert_eq!(state.values["count"], [20.0]);
    // numpy.quantile(rows, 0.99): 59 is the largest of twenty, 58 the next.
    close("q99", [58.81, 58.91, 59.01]);
    let ranges: Vec<(&str, [f64; 2])> = state.ranges.iter().map(|(name, dims)| (name.as_str(), dims[0])).collect();
    assert_eq!(ranges, [("first", [0.0, 59.0]), ("second", [0.0, 9.0])], "of both splits");
}

#[test]
fn a_dimension_that_no_training_sample_has_is_named_with_its_source() {
    let unseen = SourceConfig { weight: Some(SourceWeight::Share(0.0)), ..source_config(0) };
    let wide = source("wide", FakeDataset::with_state_dims(&[5, 5], 7), &unseen).unwrap();
    let narrow = source("narrow", FakeDataset::new(&[5, 5]), &source_config(0)).unwrap();
    let mixture = mixture(vec![narrow, wide]);
    assert!(mixture.action_statistics().is_ok());
    let error = with_hint(&mixture.state_statistics().unwrap_err());
    let wanted = "data.sources.wide.weight: `state`[3] is of no source that is drawn for training\nhint:";
    assert!(error.starts_with(wanted), "{error}");
}

#[test]
fn a_small_source_with_a_large_weight_has_all_of_its_rows_in_the_quantiles() {
    let weighted = |weight| SourceConfig { weight: Some(SourceWeight::Share(weight)), ..source_config(0) };
    let large = source("large", FakeDataset::new(&[1_100_000; 2]), &weighted(1.0)).unwrap();
    let small = source("small", FakeDataset::new(&[5]), &weighted(999.0)).unwrap();
    let state = mixture(vec![large, small]).state_statistics().unwrap().unwrap();
    // 99.9 % are the values 0 to 4, in equal parts; from the middle of the last part it is 0.1 to the next value.
    let q99 = state.values["q99"][0];
    assert!((q99 - 4.91).abs() < 0.1, "{q99}");
}

#[cfg(feature = "ffmpeg")]
#[test]
fn rows_that_only_filtered_anchors_have_do_not_count() {
    const DELTAS: [i64; 2] = [0, 3];
    let cache = tempfile::tempdir().unwrap();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/metaworld_mt5");
    let robot = SourceConfig {
        action_key: Some("action".to_owned()),
        filter: Some(FilterBy::Action),
        ..opened::source(&root, "observation.image")
    };
    let open = |filter: Option<FilterConfig>| {
        let config = DataConfig {
            sources: [(
                "robot".to_owned(),
                SourceConfig { filter: filter.as_ref().map(|_| FilterBy::Action), ..robot.clone() },
            )]
            .into(),
            request: RequestConfig { action_deltas: DELTAS.map(|delta| delta as f64).to_vec(), ..fake::request() },
            loader: opened::loader(4),
            filter,
            resize: Resize::Host,
            cache: CacheConfig { enabled: false, dir: cache.path().to_owned(), verify: false },
        };
        opened::open(&config, SIZE).unwrap()
    };
    let action = |over_steps| ActionFilterConfig {
        num_steps: 1,
        delta_dims: vec![],
        exclude_dims: vec![],
        over_steps,
        threshold: 1.5,
        min_nonzero_ratio: 0.0,
    };
    let filtered = open(Some(FilterConfig {
        gap: Some(2),
        motion: MotionFilterConfig {
            cameras: MotionCameras::First,
            short_side: 16,
            blur: 1,
            pixel_threshold: 0.1,
            smooth: 1,
            low: 0.1,
            high: 0.1,
        },
        action: action(OverSteps::Max),
        trim_run: 1,
    }));
    let anchors = filtered.anchors(Split::Train);
    let all = open(None);
    assert!(!anchors.is_empty() && 2 * anchors.len() < all.anchors(Split::Train).len(), "{} anchors", anchors.len());
    let anchors = (0..anchors.len()).map(|at| anchors.get(at).unwrap());
    let rows: BTreeSet<u64> = anchors.flat_map(|anchor| anchor.span.window(anchor.row, &DELTAS).0).collect();
    let rows: Vec<u64> = rows.into_iter().collect();
    let dataset = formats::open(&root, &OpenOptions::new(1 << 20)).unwrap();
    let mut values_TN = vec![0.0; 4 * rows.len()];
    dataset.read_vectors("action", &rows, &mut values_TN).unwrap();
    let mean = values_TN.iter().step_by(4).map(|value| f64::from(*value)).sum::<f64>() / rows.len() as f64;
    let [found, of_all] = [&filtered, &all].map(|mixture| mixture.action_statistics().unwrap().unwrap().values);
    assert_eq!(found["count"], [rows.len() as f64]);
    assert!((found["mean"][0] - mean).abs() < 1e-5 && (found["mean"][0] - of_all["mean"][0]).abs() > 1e-3);
}

#[test]
fn episodes_that_were_held_out_stay_held_out_in_a_dataset_that_grew() {
    let before = source("robot", FakeDataset::new(&[5, 5, 5]), &source_config(1)).unwrap();
    let held_out: Vec<u64> = before.episodes(Split::Validation).iter().map(|span| span.episode).collect();
    assert_eq!(held_out, [1]);
    let grown = mixture(vec![source("robot", FakeDataset::new(&[5, 5, 5, 5, 5]), &source_config(1)).unwrap()]);
    let split = |mixture: &Mixture, split| {
        mixture.sources()[0].episodes(split).iter().map(|span| span.episode).collect::<Vec<_>>()
    };
    assert_eq!(split(&grown, Split::Validation), [2], "spread anew over five episodes");
    let kept = grown.with_held_out(&BTreeMap::from([("robot".to_owned(), held_out)])).unwrap();
    assert_eq!((split(&kept, Split::Validation), split(&kept, Split::Train)), (vec![1], vec![0, 2, 3, 4]));
    assert_eq!(kept.anchors(Split::Train).len(), 4 * 3);
}

#[test]
fn anchors_need_only_the_images_that_must_be_real() {
    let mixture = mixture(vec![source("robot", FakeDataset::new(&[10, 10]), &source_config(1)).unwrap()]);
    assert_eq!(mixture.anchors(Split::Train).len(), 8, "images at 0 and 2");
    let present = mixture.with_request(&fake::request(), &[0.0], &LabelRequest::default()).unwrap();
    assert_eq!(present.anchors(Split::Train).len(), 10, "the last two frames have a padded image");
    let last = present.anchors(Split::Train).get(9).unwrap();
    assert_eq!(last.span.window(last.row, &[0, 2]).1, [false, true]);
}
