//! Sources whose images have a spacing of their own, and the actions that lead from one image of a pair to the other.
#![allow(clippy::unwrap_used, non_snake_case)]

mod fake;

use fake::{FRAME_BYTES, FakeDataset, SIZE, loader_config, pixel, request, source, source_config};
use hlrp_data::{Batch, LabelRequest, Loader, Mixture, Position, Shard, Split};
use hlrp_schema::{DeltaUnit, RequestConfig, SourceConfig, SpanConfig};
use std::collections::BTreeMap;
use std::sync::Arc;

/// By source: frames per second, its span, and what a pair of two frames of `data.request` then spans, in frames.
const SOURCES: [(&str, f64, Option<SpanConfig>, u64); 4] = [
    ("as_requested", 10.0, None, 2),
    ("five_frames", 10.0, Some(SpanConfig { unit: DeltaUnit::Frames, length: 5.0 }), 5),
    ("one_second", 3.75, Some(SpanConfig { unit: DeltaUnit::Seconds, length: 1.0 }), 4),
    ("less_than_a_frame", 1.0, Some(SpanConfig { unit: DeltaUnit::Seconds, length: 0.2 }), 1),
];
const LENGTHS: [u64; 2] = [12, 9];

fn mixture() -> Mixture {
    let sources = SOURCES.map(|(name, fps, span, _)| {
        let mut dataset = FakeDataset::new(&LENGTHS);
        dataset.description.fps = fps;
        source(name, dataset, &SourceConfig { span, ..source_config(0) }).unwrap()
    });
    Mixture::new(sources.into(), SIZE, loader_config(1)).unwrap()
}

fn batches(mixture: Mixture) -> Vec<Batch> {
    let mixture = Arc::new(mixture);
    let mut loader = Loader::train(&mixture, 1, Shard::SINGLE, Position::default()).unwrap();
    (0..20).map(|_| loader.next_batch().unwrap()).collect()
}

/// The row of a sample's anchor.
fn row(meta: &hlrp_data::SampleMeta) -> u64 {
    meta.frame + if meta.episode == 0 { 0 } else { LENGTHS[0] }
}

#[test]
fn each_source_has_the_images_of_its_span() {
    let of = BTreeMap::from(SOURCES.map(|(name, fps, _, num_frames)| (name, (fps, num_frames))));
    let mixture = mixture();
    let num_anchors: u64 =
        of.values().map(|(_, frames)| LENGTHS.map(|length| length - frames).iter().sum::<u64>()).sum();
    assert_eq!(mixture.anchors(Split::Train).len(), num_anchors);
    let mut num_seen = BTreeMap::new();
    for batch in batches(mixture) {
        let images = &batch.images["primary"];
        for (meta, pair) in batch.meta.iter().zip(images.pixels_BTCHW.chunks(2 * FRAME_BYTES)) {
            let (fps, num_frames) = of[meta.source.as_str()];
            let first = row(meta);
            let shown = [&pair[..FRAME_BYTES], &pair[FRAME_BYTES..]];
            for (frame, row) in shown.into_iter().zip([first, first + num_frames]) {
                assert_eq!(frame[0], pixel(0, row, 0), "{meta:?}");
            }
            assert!((meta.dt_s - num_frames as f64 / fps).abs() < 1e-9, "the true time: {meta:?}");
            *num_seen.entry(meta.source.clone()).or_insert(0) += 1;
        }
    }
    assert_eq!(num_seen.len(), SOURCES.len());
}

#[test]
fn other_offsets_keep_their_proportion_to_the_pair() {
    let deltas = |mixture: &Mixture| -> Vec<(String, f64)> {
        let batch = Loader::validation(&Arc::new(held_out(mixture)), None, Shard::SINGLE).unwrap();
        let metas: Vec<_> = batch.flat_map(|batch| batch.unwrap().meta).collect();
        let of_source = |name: &str| metas.iter().find(|meta| meta.source == name).unwrap().dt_s;
        SOURCES.map(|(name, ..)| (name.to_owned(), of_source(name))).into()
    };
    fn held_out(mixture: &Mixture) -> Mixture {
        mixture.with_held_out(&SOURCES.map(|(name, ..)| (name.to_owned(), vec![0])).into()).unwrap()
    }
    // Twice as far, and evenly between: rounded to whole frames.
    for (image_deltas, factor) in [(vec![0.0, 2.0, 4.0], 2.0), (vec![0.0, 1.0, 2.0], 1.0), (vec![-2.0, 0.0], 1.0)] {
        let request = RequestConfig { image_deltas: image_deltas.clone(), ..request() };
        let found = mixture().with_request(&request, &[0.0], &LabelRequest::default()).unwrap();
        for ((name, dt_s), (_, fps, _, num_frames)) in deltas(&found).into_iter().zip(SOURCES) {
            // The first sample of an episode has nothing before it.
            let expected = if image_deltas[0] < 0.0 { 0.0 } else { factor * num_frames as f64 / fps };
            assert!((dt_s - expected).abs() < 1e-9, "{name} {image_deltas:?}: {dt_s}, not {expected}");
        }
    }
}

#[test]
fn a_pair_has_the_actions_of_every_step_whatever_its_span() {
    let mixture = mixture().with_whole_pairs(&request()).unwrap();
    assert_eq!((mixture.layout().action, mixture.layout().state), (Some([5, 2]), Some([2, 3])), "of the longest");
    let of = BTreeMap::from(SOURCES.map(|(name, .., num_frames)| (name, num_frames)));
    for batch in batches(mixture) {
        let (action, state) = (batch.action.unwrap(), batch.state.unwrap());
        let samples = action.values_BTN.chunks(10).zip(action.is_pad_BT.chunks(5)).zip(state.values_BTN.chunks(6));
        for (meta, ((values, is_pad), states)) in batch.meta.iter().zip(samples) {
            let (num_steps, first) = (of[meta.source.as_str()], row(meta));
            let real: Vec<f32> =
                values.chunks(2).zip(is_pad).filter(|(_, is_pad)| !**is_pad).map(|(step, _)| step[0]).collect();
            let recorded: Vec<f32> = (first..first + num_steps).map(|row| row as f32).collect();
            assert_eq!(real, recorded, "{meta:?}");
            assert!(values[2 * num_steps as usize..].iter().all(|value| *value == 0.0));
            assert_eq!([states[0], states[3]], [first as f32, (first + num_steps) as f32]);
        }
    }
}
