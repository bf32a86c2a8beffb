//! States and actions are normalised by the training episodes in use, of all sources, row by row.
#![allow(clippy::unwrap_used, non_snake_case)]

mod fake;

use fake::{FakeDataset, SIZE, loader_config, source, source_config};
use hlrp_config::with_hint;
use hlrp_data::{LabelRequest, Mixture, Source, Split};
use hlrp_schema::{SourceConfig, SourceWeight};
use std::collections::BTreeMap;

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
    let wanted = "data.sources.wide.state_key: `state`[3] has no finite value in any training episode\nhint:";
    assert!(error.starts_with(wanted), "{error}");
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
