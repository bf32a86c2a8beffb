//! What is checked of a dataset whatever its format.
#![allow(clippy::unwrap_used)]

mod fake;

use fake::{Behaviour, FakeDataset};
use hlrp_data::check::{Depth, Findings};
use hlrp_data::formats::{Feature, FeatureKind, FeatureStats};
use hlrp_data::{Dataset, FrameSize};
use std::sync::Arc;

fn findings(dataset: FakeDataset, depth: Depth) -> Vec<String> {
    let mut findings = Findings::default();
    Arc::new(dataset).check(depth, &mut findings);
    findings.finish().findings
}

/// Ten rows: the first action value is the row, the second a tenth more.
fn dataset() -> FakeDataset {
    let mut dataset = FakeDataset::new(&[6, 4]);
    let values = [("count", vec![10.0]), ("mean", vec![4.5, 4.6]), ("max", vec![9.0, 9.1])];
    let values = values.into_iter().map(|(name, values)| (name.to_owned(), values)).collect();
    dataset.description.statistics = [("action".to_owned(), FeatureStats { values })].into();
    let FrameSize { height, width } = fake::SIZE;
    let shape = vec![height, width, 3];
    let camera = Feature { kind: FeatureKind::Camera, shape, dtype: "uint8".to_owned(), names: Vec::new() };
    dataset.description.features.insert("cam0".to_owned(), camera);
    dataset
}

#[test]
fn a_whole_dataset_has_no_findings() {
    assert_eq!(findings(dataset(), Depth::Images), Vec::<String>::new());
}

#[test]
fn sizes_and_statistics_that_are_not_those_of_the_data() {
    let mut wrong = dataset();
    wrong.description.num_frames = 11;
    wrong.description.statistics.get_mut("action").unwrap().values.insert("mean".to_owned(), vec![4.5, 7.5]);
    let found = findings(wrong, Depth::Headers);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0], "the dataset says that it has 11 frames, but there are 10");
    assert!(found[1].starts_with("action[1]: mean is 7.5, but that of the data is 4.6"), "{found:?}");
}

#[test]
fn an_image_that_cannot_be_decoded() {
    let mut broken = dataset();
    broken.behaviour = Behaviour { broken_rows: [7].into(), ..Behaviour::default() };
    let found = findings(broken, Depth::Images);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("row 7 is broken"), "{found:?}");
}
