//! What is in flight is bounded, and a budget that is too small is refused.
#![allow(clippy::unwrap_used)]

mod fake;

use fake::{Behaviour, FakeDataset, SIZE, loader_config, mixture, source, source_config};
use hlrp_config::with_hint;
use hlrp_data::{FrameSize, Loader, Mixture, Position, Shard};
use hlrp_schema::{LoaderConfig, SourceConfig};
use std::{sync::Arc, thread, time::Duration};

/// An episode of fifty frames.
fn fifty_frames(size: FrameSize) -> FakeDataset {
    FakeDataset { behaviour: Behaviour { size: Some(size), ..Behaviour::default() }, ..FakeDataset::new(&[50]) }
}

/// Waits until the threads of a loader do nothing any more.
fn settle(loader: &Loader) {
    let mut before = u64::MAX;
    while loader.stats().num_samples != before {
        before = loader.stats().num_samples;
        thread::sleep(Duration::from_millis(30));
    }
}

#[test]
fn threads_wait_once_enough_batches_are_made() {
    let mixture = mixture(&[50, 50], Behaviour::default(), loader_config(4));
    let mut loader = Loader::train(&mixture, 1, Shard::SINGLE, Position::default()).unwrap();
    for num_taken in 0..5 {
        settle(&loader);
        let stats = loader.stats();
        assert_eq!(stats.num_samples, (3 + num_taken) * 4, "three batches of four ahead");
        assert_eq!(stats.bytes_in_flight, stats.max_bytes_in_flight);
        loader.next_batch().unwrap();
    }
    assert!(loader.stats().worker_idle > Duration::ZERO);
}

#[test]
fn the_byte_budget_limits_the_batches_ahead() {
    // Two cameras, two images of 200 KiB: 800 KiB of pixels a sample, 3.2 MiB a batch. 7 MiB hold two.
    let size = FrameSize { height: 256, width: 267 };
    let source = source("fake", fifty_frames(size), &source_config(0)).unwrap();
    let config = LoaderConfig { prefetch_batches: 100, memory_budget_mb: 7, ..loader_config(3) };
    let mixture = Arc::new(Mixture::new(vec![source], size, config).unwrap());
    let loader = Loader::train(&mixture, 1, Shard::SINGLE, Position::default()).unwrap();
    settle(&loader);
    let stats = loader.stats();
    assert_eq!(stats.num_samples, 8);
    assert!(stats.bytes_in_flight > 6 << 20 && stats.bytes_in_flight <= 7 << 20, "{}", stats.bytes_in_flight);
}

#[test]
fn a_batch_that_exceeds_the_budget_is_refused() {
    let size = FrameSize { height: 1024, width: 1024 };
    let source = source("fake", fifty_frames(size), &source_config(0)).unwrap();
    let config = LoaderConfig { memory_budget_mb: 8, ..loader_config(1) };
    let mixture = Arc::new(Mixture::new(vec![source], size, config).unwrap());
    let error = Loader::train(&mixture, 1, Shard::SINGLE, Position::default()).err().unwrap();
    assert_eq!(
        with_hint(&error),
        "data.loader.memory_budget_mb: one batch takes 49 MiB\nhint: raise it, or lower data.loader.batch_size"
    );
}

#[test]
fn clips_count_against_the_budget() {
    // Two cameras of 200 KiB images. A clip of two anchors with two images two frames apart holds four of each: 1.6 MiB.
    // A batch of four samples and one thread keep five clips: 7.8 MiB, and each batch takes 3.1 MiB.
    let size = FrameSize { height: 256, width: 267 };
    let with = |memory_budget_mb| {
        let source = source("fake", fifty_frames(size), &source_config(0)).unwrap();
        let config = LoaderConfig { anchors_per_clip: 2, memory_budget_mb, ..loader_config(1) };
        let mixture = Arc::new(Mixture::new(vec![source], size, config).unwrap());
        Loader::train(&mixture, 1, Shard::SINGLE, Position::default())
    };
    let stats = with(12).unwrap().stats();
    let frame_bytes = 3 * 256 * 267;
    let least = (5 * 4 + 4 * 2) * 2 * frame_bytes;
    assert!((least..=12 << 20).contains(&stats.max_bytes_in_flight), "{}", stats.max_bytes_in_flight);
    assert_eq!(
        with_hint(&with(10).err().unwrap()),
        "data.loader.memory_budget_mb: one batch takes 4 MiB and its clips 8 MiB\n\
         hint: raise it, or lower data.loader.anchors_per_clip or batch_size"
    );
}

#[test]
fn sources_with_different_roles_are_refused() {
    let mut config: SourceConfig = source_config(0);
    config.cameras.remove("wrist");
    let sources = vec![
        source("two", FakeDataset::new(&[50]), &source_config(0)).unwrap(),
        source("one", FakeDataset::new(&[50]), &config).unwrap(),
    ];
    let error = Mixture::new(sources, SIZE, loader_config(1)).err().unwrap().to_string();
    assert!(error.starts_with("data.sources.one.cameras: roles differ from source `two`: `wrist`"), "{error}");
}
