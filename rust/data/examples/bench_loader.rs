//! Random frame pairs per second through the whole loader, as one JSON object.
//!
//! The peer of `tests/bench/lerobot_loader.py`: same pairs (t, t+5) of the first camera at its recorded size, same batch size.
#![allow(non_snake_case, clippy::print_stdout, missing_docs, reason = "a program")]

use anyhow::{Context, Result, ensure};
use clap::Parser;
use hlrp_data::{
    Batch, FrameSize, Loader, Mixture, Position, Shard, Split,
    formats::lerobot::{LeRobotDataset, TableCache},
};
use hlrp_schema::{CacheConfig, DataConfig, DeltaUnit, LoaderConfig, RequestConfig, SourceConfig, UniformOver};
use serde_json::json;
use std::{fs, path::PathBuf, sync::Arc, time::Instant};
use xxhash_rust::xxh3::Xxh3;

/// Loads random pairs (t, t + delta) of one camera and prints the rates.
#[derive(Parser)]
struct Args {
    /// Folder of a LeRobot v3 dataset.
    dataset: PathBuf,
    /// Name of the same dataset on the Hub, whose snapshot in the cache is read instead.
    #[arg(long)]
    repo_id: Option<String>,
    /// Reads its videos over HTTP.
    #[arg(long, requires = "repo_id")]
    streaming: bool,
    /// MiB of videos read over HTTP that stay in memory.
    #[arg(long, default_value_t = 256)]
    stream_cache_mb: usize,
    /// Frames between the two images of a pair.
    #[arg(long, default_value_t = 5)]
    delta: u32,
    /// Decode threads.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Batches that are timed.
    #[arg(long, default_value_t = 40)]
    batches: usize,
    /// Pairs in a batch.
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
    /// Neighbouring anchors that are decoded together.
    #[arg(long, default_value_t = 1)]
    anchors_per_clip: usize,
    /// Height and width to deliver; the recorded size when absent.
    #[arg(long)]
    size: Option<usize>,
    /// How many times to open the dataset, as so many sources.
    #[arg(long, default_value_t = 1)]
    sources: usize,
    /// Read from a frame cache under this folder, building it first.
    #[arg(long)]
    cache: Option<PathBuf>,
}

/// Batches ahead; the timed window has to be longer, or it measures what was ready before.
const PREFETCH_BATCHES: usize = 4;

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.batches >= 4 * PREFETCH_BATCHES, "--batches: time at least {} batches", 4 * PREFETCH_BATCHES);
    let (config, size) = config(&args)?;
    let began = Instant::now();
    let mixture = Arc::new(Mixture::open(&config, size, &hlrp_data::DiskRules::unlimited(), &|_, _, _, _| {})?);
    let open_s = began.elapsed().as_secs_f64();
    let open_resident_mb = status_kib("VmRSS:")? / 1e3;
    let mut loader = Loader::train(&mixture, 0, Shard::SINGLE, Position::default())?;
    let mut digest = Xxh3::new();
    let mut add = |batch: &Batch| batch.images.values().for_each(|stream| digest.update(&stream.pixels_BTCHW));
    add(&loader.next_batch()?);
    let first_batch_s = began.elapsed().as_secs_f64();
    let first_batch_resident_mb = status_kib("VmRSS:")? / 1e3;
    for _ in 0..PREFETCH_BATCHES {
        add(&loader.next_batch()?);
    }
    let (began, cpu_before) = (Instant::now(), cpu_seconds()?);
    for _ in 0..args.batches {
        loader.next_batch()?;
    }
    let (wall_s, cpu_s) = (began.elapsed().as_secs_f64(), cpu_seconds()? - cpu_before);
    let num_pairs = (args.batches * args.batch_size) as f64;
    let result = json!({
        "pairs_per_s": num_pairs / wall_s,
        "cpu_s_per_pair": cpu_s / num_pairs,
        "batches_per_s": args.batches as f64 / wall_s,
        "open_s": open_s,
        "first_batch_s": first_batch_s,
        "open_resident_mb": open_resident_mb,
        "first_batch_resident_mb": first_batch_resident_mb,
        "num_anchors": mixture.anchors(Split::Train).len(),
        "first_pixels": format!("{:032x}", digest.digest128()),
        "workers": args.workers,
        "cache": args.cache.is_some(),
        "size": [size.height, size.width],
        "resident_mb": status_kib("VmRSS:")? / 1e3,
    });
    println!("{result}");
    Ok(())
}

/// Sources with the dataset's first camera, and its state and action where it has them.
fn config(args: &Args) -> Result<(DataConfig, FrameSize)> {
    let dataset = LeRobotDataset::open(&args.dataset, &TableCache::new(1 << 20))?;
    let camera = (*dataset.camera_keys().first().context("the dataset has no camera")?).to_owned();
    let native = dataset.camera(&camera)?.frame_size().context("the camera has no size")?;
    let size = args.size.map_or(native, |size| FrameSize { height: size, width: size });
    let vector = |key: &str| dataset.vector_keys().contains(&key).then(|| key.to_owned());
    let source = SourceConfig {
        root: args.repo_id.is_none().then(|| args.dataset.clone()),
        repo_id: args.repo_id.clone(),
        revision: None,
        streaming: Some(args.streaming),
        cameras: [("primary".to_owned(), camera)].into(),
        state_key: vector("observation.state"),
        action_key: vector("action"),
        weight: None,
        span: None,
        episodes: None,
        exclude_episodes: None,
        num_val_episodes: 0,
        val_episodes: None,
        tolerance_s: None,
        labelled_episodes: None,
        filter: None,
        rlds: None,
        scenes: None,
    };
    let config = DataConfig {
        sources: (0..args.sources).map(|number| (format!("bench{number:02}"), source.clone())).collect(),
        request: RequestConfig {
            unit: DeltaUnit::Frames,
            image_deltas: vec![0.0, f64::from(args.delta)],
            state_deltas: vec![0.0],
            action_deltas: vec![0.0],
        },
        loader: LoaderConfig {
            batch_size: args.batch_size,
            anchors_per_clip: args.anchors_per_clip,
            labelled_fraction: None,
            uniform_over: UniformOver::Anchors,
            mixing_block: 8,
            num_workers: args.workers,
            prefetch_batches: PREFETCH_BATCHES,
            memory_budget_mb: 4096,
            table_cache_mb: 512,
            stream_cache_mb: args.stream_cache_mb,
            max_open_decoders: 16,
            max_bad_samples: 0,
        },
        filter: None,
        cache: CacheConfig {
            enabled: args.cache.is_some(),
            dir: args.cache.clone().unwrap_or_default(),
            verify: false,
        },
    };
    Ok((config, size))
}

/// CPU seconds of this process so far.
fn cpu_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, after_name) = stat.rsplit_once(") ").context("/proc/self/stat has no process name")?;
    let ticks = |field: usize| -> Result<f64> {
        Ok(after_name.split(' ').nth(field).context("/proc/self/stat is short")?.parse()?)
    };
    // User and system time in hundredths of a second.
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

/// A line of `/proc/self/status` in KiB.
fn status_kib(name: &str) -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(name)).context("/proc/self/status has no such line")?;
    Ok(line.split_whitespace().nth(1).context("the line is empty")?.parse()?)
}
