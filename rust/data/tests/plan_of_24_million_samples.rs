//! A mixture of 25 sources, 639 thousand episodes and 24 million anchors is ready in less than a second and takes less than 200 MB.
#![allow(clippy::unwrap_used, non_snake_case)]

mod fake;

use fake::{FakeDataset, SIZE, loader_config, source, source_config};
use hlrp_data::{Loader, Mixture, Position, Shard, Split};
use std::{fs, sync::Arc, time::Instant};

const NUM_SOURCES: u64 = 25;
const EPISODES_PER_SOURCE: u64 = 25_566;

/// Memory of this process in MB.
fn resident_mb() -> f64 {
    let pages: f64 = fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096.0 / 1e6
}

#[test]
fn the_first_batch_comes_within_a_second_and_200_mb() {
    // Episodes of 20 to 59 frames: about 25.2 million frames, 37.5 anchors each.
    let lengths: Vec<u64> = (0..EPISODES_PER_SOURCE).map(|episode| 20 + episode * 7919 % 40).collect();
    let datasets: Vec<_> = (0..NUM_SOURCES).map(|_| FakeDataset::new(&lengths)).collect();
    let (memory_before, began) = (resident_mb(), Instant::now());

    let sources = datasets.into_iter().enumerate();
    let sources = sources.map(|(n, dataset)| source(&format!("source{n:02}"), dataset, &source_config(16)).unwrap());
    let mixture = Arc::new(Mixture::new(sources.collect(), SIZE, loader_config(2)).unwrap());
    let mut loader = Loader::train(&mixture, 42, Shard::SINGLE, Position::default()).unwrap();
    let batch = loader.next_batch().unwrap();

    let (seconds, memory) = (began.elapsed().as_secs_f64(), resident_mb() - memory_before);
    let num_anchors = mixture.anchors(Split::Train).len();
    assert!((23_900_000..24_100_000).contains(&num_anchors), "{num_anchors}");
    assert_eq!(batch.meta.len(), 4);
    assert!(seconds < 1.0, "{seconds:.2} s");
    assert!(memory < 200.0, "{memory:.0} MB");
}
