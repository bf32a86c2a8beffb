//! Random frame pairs per second from one camera of a dataset, on one thread.
//!
//! `bench_reader DATASET [--camera KEY] [--delta FRAMES] [--seconds S] [--height H --width W]` prints one JSON object.
#![allow(non_snake_case, clippy::print_stdout, missing_docs, reason = "a program")]

use anyhow::{Context, Result};
use clap::Parser;
use hlrp_data::{
    Dataset, FrameSize,
    formats::lerobot::{LeRobotDataset, TableCache},
};
use serde_json::json;
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

/// Reads random pairs (t, t + delta) of one camera and prints the rate.
#[derive(Parser)]
struct Args {
    /// Folder of a LeRobot v3 dataset.
    dataset: PathBuf,
    /// Feature key of the camera; the first when absent.
    #[arg(long)]
    camera: Option<String>,
    /// Frames between the two images of a pair.
    #[arg(long, default_value_t = 5)]
    delta: u64,
    /// How long to measure.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Height to deliver, with --width; the recorded size when absent.
    #[arg(long, requires = "width")]
    height: Option<usize>,
    /// Width to deliver.
    #[arg(long, requires = "height")]
    width: Option<usize>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let start = Instant::now();
    let dataset = Arc::new(LeRobotDataset::open(&args.dataset, &TableCache::new(64 << 20))?);
    let camera = match &args.camera {
        Some(camera) => camera.clone(),
        None => (*dataset.camera_keys().first().context("the dataset has no camera")?).to_owned(),
    };
    let size = args.height.zip(args.width).map(|(height, width)| FrameSize { height, width });
    let store = Arc::clone(&dataset).frame_store(&camera, size)?;
    let mut reader = store.reader(16)?;
    let size = store.size();
    let mut out_TCHW = vec![0; 2 * 3 * size.height * size.width];
    let episodes: Vec<_> = dataset.episodes().iter().filter(|episode| episode.num_frames() > args.delta).collect();
    let mut random = SplitMix(1);
    let mut pair = || {
        let episode = episodes[random.below(episodes.len() as u64) as usize];
        let row = episode.from_row + random.below(episode.num_frames() - args.delta);
        [row, row + args.delta]
    };
    reader.read(&pair(), &mut out_TCHW)?;
    let first_pair = start.elapsed();
    let (start, cpu_start, mut num_pairs) = (Instant::now(), cpu_time()?, 0_u64);
    while start.elapsed() < Duration::from_secs_f64(args.seconds) {
        for _ in 0..16 {
            reader.read(&pair(), &mut out_TCHW)?;
        }
        num_pairs += 16;
    }
    let (wall, cpu) = (start.elapsed().as_secs_f64(), (cpu_time()? - cpu_start).as_secs_f64());
    let result = json!({
        "dataset": args.dataset, "camera": camera, "size": [size.height, size.width], "delta": args.delta,
        "num_pairs": num_pairs, "pairs_per_s": num_pairs as f64 / wall, "pairs_per_cpu_s": num_pairs as f64 / cpu,
        "cpu_s_per_pair": cpu / num_pairs as f64, "first_pair_s": first_pair.as_secs_f64(),
    });
    println!("{result}");
    Ok(())
}

/// CPU time that this process has used.
fn cpu_time() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/self/schedstat").context("the kernel counts no CPU time")?;
    let nanos = text.split_whitespace().next().context("the kernel counts no CPU time")?.parse()?;
    Ok(Duration::from_nanos(nanos))
}

/// A small random number generator (SplitMix64).
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
