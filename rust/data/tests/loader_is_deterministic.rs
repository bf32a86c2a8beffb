//! Order and content of batches do not depend on the number of threads, and a run continues exactly where it was.
#![allow(clippy::unwrap_used)]

mod fake;

use fake::{Behaviour, FRAME_BYTES, FakeDataset, SIZE, ids, loader_config, mixture, pixel, source, source_config};
use hlrp_data::{Batch, Loader, Mixture, Position, Shard, Split};
use hlrp_schema::LoaderConfig;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Reads take different times, so that threads finish out of order.
fn uneven() -> Behaviour {
    Behaviour { delay: Duration::from_micros(50), ..Behaviour::default() }
}

fn batches(mixture: &Arc<Mixture>, start: Position, num_batches: usize) -> Vec<Batch> {
    let mut loader = Loader::train(mixture, 42, Shard::SINGLE, start).unwrap();
    (0..num_batches).map(|_| loader.next_batch().unwrap()).collect()
}

/// Clips of three anchors.
fn with_clips(num_workers: usize) -> LoaderConfig {
    LoaderConfig { anchors_per_clip: 3, ..loader_config(num_workers) }
}

#[test]
fn one_and_four_threads_give_the_same_batches() {
    for config in [loader_config, with_clips] {
        let with =
            |num_workers| batches(&mixture(&[9, 3, 20, 7, 11], uneven(), config(num_workers)), Position::default(), 40);
        assert_eq!(with(1), with(4));
    }
}

#[test]
fn a_batch_holds_what_its_sample_ids_say() {
    let lengths = [9, 3, 20, 7, 11];
    let spans = FakeDataset::new(&lengths).spans;
    let of = |config| batches(&mixture(&lengths, uneven(), config), Position::default(), 20);
    for batch in [of(loader_config(3)), of(with_clips(3))].into_iter().flatten() {
        let (state, action) = (batch.state.as_ref().unwrap(), batch.action.as_ref().unwrap());
        assert_eq!((state.shape, action.shape), ([4, 1, 3], [4, 3, 2]));
        for (b, meta) in batch.meta.iter().enumerate() {
            let span = spans[meta.episode as usize];
            let row = span.from_row + meta.frame;
            for (camera, role) in ["primary", "wrist"].iter().enumerate() {
                let stream = &batch.images[*role];
                assert_eq!(stream.shape, [4, 2, 3, SIZE.height, SIZE.width]);
                assert_eq!(stream.is_real_BT[2 * b..2 * b + 2], [true, true]);
                for (t, row) in [row, row + 2].into_iter().enumerate() {
                    let wanted: Vec<u8> = (0..FRAME_BYTES).map(|offset| pixel(camera as u64, row, offset)).collect();
                    assert_eq!(stream.pixels_BTCHW[(2 * b + t) * FRAME_BYTES..][..FRAME_BYTES], wanted);
                }
            }
            assert_eq!(state.values_BTN[3 * b..3 * b + 3], [0.0, 0.1, 0.2].map(|n| row as f32 + n));
            let action_rows = [row as i64 - 1, row as i64, row as i64 + 4];
            let is_pad = action_rows.map(|r| r < span.from_row as i64 || r >= span.to_row as i64);
            let clamped = action_rows.map(|r| r.clamp(span.from_row as i64, span.to_row as i64 - 1) as f32);
            assert_eq!(action.is_pad_BT[3 * b..3 * b + 3], is_pad);
            assert_eq!(action.values_BTN[6 * b..6 * b + 6].iter().copied().step_by(2).collect::<Vec<_>>(), clamped);
            assert_eq!(batch.task[b], format!("task of episode {}", meta.episode));
            // Two frames at 10 frames per second.
            assert!((meta.dt_s - 0.2).abs() < 1e-12);
        }
    }
}

#[test]
fn a_loader_started_at_a_position_continues_the_run() {
    for config in [loader_config(2), with_clips(2)] {
        let mixture = mixture(&[9, 3, 20, 7, 11], uneven(), config);
        let whole = batches(&mixture, Position::default(), 30);
        let mut loader = Loader::train(&mixture, 42, Shard::SINGLE, Position::default()).unwrap();
        for num_done in 0..25 {
            let wanted = &whole[num_done..num_done + 3];
            assert_eq!(batches(&mixture, loader.position(), 3), wanted, "after {num_done} batches");
            loader.next_batch().unwrap();
        }
        // 25 batches of 4 are more than four epochs of 22 anchors: batches ran across their ends.
        assert_eq!(mixture.anchors(Split::Train).len(), 22);
        assert_eq!(loader.position(), Position { epoch: 4, sample: 12, num_bad_samples: 0 });
    }
}

#[test]
fn a_position_survives_a_checkpoint() {
    let position = Position { epoch: 3, sample: 1, num_bad_samples: 2 };
    let text = serde_json::to_string(&position).unwrap();
    assert_eq!(serde_json::from_str::<Position>(&text).unwrap(), position);
}

#[test]
fn two_ranks_share_the_global_batch_of_one() {
    let single = mixture(&[9, 3, 20, 7, 11], uneven(), LoaderConfig { batch_size: 8, ..loader_config(2) });
    let half = mixture(&[9, 3, 20, 7, 11], uneven(), loader_config(2));
    let mut ranks: Vec<_> =
        (0..2).map(|rank| Loader::train(&half, 42, Shard { rank, world: 2 }, Position::default()).unwrap()).collect();
    for whole in batches(&single, Position::default(), 12) {
        let mut together: Vec<_> = ranks.iter_mut().flat_map(|loader| ids(&loader.next_batch().unwrap())).collect();
        let mut wanted = ids(&whole);
        together.sort();
        wanted.sort();
        assert_eq!(together, wanted);
    }
    assert_eq!(ranks[0].position(), ranks[1].position());
}

#[test]
fn the_images_of_a_clip_are_decoded_once() {
    let num_read = |anchors_per_clip| {
        let behaviour = Behaviour::default();
        let config = LoaderConfig { anchors_per_clip, ..loader_config(3) };
        batches(&mixture(&[500], behaviour.clone(), config), Position::default(), 240);
        behaviour.num_read.load(Ordering::Relaxed)
    };
    // 960 samples of two images from two cameras, and up to three batches ahead.
    let alone = num_read(1);
    assert!((3840..=3888).contains(&alone), "{alone}");
    // Eight anchors show ten images instead of sixteen; a few clips are split at the ends of the two epochs.
    let in_clips = num_read(8) as f64 / alone as f64;
    assert!((0.62..0.7).contains(&in_clips), "{in_clips}");
}

#[test]
fn validation_is_one_fixed_pass_over_the_held_out_episodes() {
    let mixture = mixture(&[9, 3, 20, 7, 11], uneven(), loader_config(3));
    let pass = || Loader::validation(&mixture, None, Shard::SINGLE).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    let first = pass();
    // Episode 2 is held out: 18 anchors, dealt out over five batches, the last one smaller.
    let frames: Vec<_> = first.iter().flat_map(ids).collect();
    let dealt = [0, 5, 10, 15, 1, 6, 11, 16, 2, 7, 12, 17, 3, 8, 13, 4, 9, 14];
    assert_eq!(frames, dealt.map(|frame| ("fake".to_owned(), 2, frame)));
    assert_eq!(first.last().unwrap().images["primary"].shape[0], 2);
    assert_eq!(Loader::validation(&mixture, None, Shard::SINGLE).unwrap().num_batches(), first.len());
    assert_eq!(pass(), first);
}

#[test]
fn a_limited_validation_takes_an_even_subset() {
    let mixture = mixture(&[9, 3, 20, 7, 11], uneven(), loader_config(3));
    let batches: Vec<_> = Loader::validation(&mixture, Some(1), Shard::SINGLE).unwrap().map(Result::unwrap).collect();
    assert_eq!(batches.iter().flat_map(ids).map(|(_, _, frame)| frame).collect::<Vec<_>>(), [2, 6, 11, 15]);
}

#[test]
fn sources_of_different_widths_are_padded_to_the_widest() {
    let narrow = FakeDataset::new(&[10]);
    let wide = FakeDataset::with_state_dims(&[10], 5);
    let sources =
        vec![source("narrow", narrow, &source_config(0)).unwrap(), source("wide", wide, &source_config(0)).unwrap()];
    let mixture = Arc::new(Mixture::new(sources, SIZE, loader_config(2)).unwrap());
    let mut num_seen = [0, 0];
    for batch in batches(&mixture, Position::default(), 4) {
        let state = batch.state.as_ref().unwrap();
        assert_eq!(state.shape, [4, 1, 5]);
        for (meta, values) in batch.meta.iter().zip(state.values_BTN.chunks(5)) {
            let row = meta.frame as f32;
            let wanted = if meta.source == "wide" {
                [0.0, 0.1, 0.2, 0.3, 0.4].map(|n| row + n)
            } else {
                [row, row + 0.1, row + 0.2, 0.0, 0.0]
            };
            assert_eq!(values, wanted);
            num_seen[usize::from(meta.source == "wide")] += 1;
        }
    }
    assert_eq!(num_seen, [8, 8]);
}
