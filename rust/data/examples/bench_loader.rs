//! Random samples per second through the whole loader, as one JSON object.
//!
//! The peer of `tests/bench/peer_loader.py` and of `tests/bench/tfds_loader.py`: the same frames (t, t+5 by default) of the first cameras at
//! their recorded size, the same batch size.
#![allow(non_snake_case, clippy::print_stdout, missing_docs, reason = "a program")]

use anyhow::{Context, Result, ensure};
use clap::Parser;
use hlrp_data::{
    Batch, FrameSize, Loader, Mixture, Position, Shard, Split,
    formats::{self, FeatureKind, OpenOptions},
    measure::{measure, resident_mb},
};
use hlrp_schema::{
    CacheConfig, DataConfig, DeltaUnit, LoaderConfig, RequestConfig, Resize, RldsConfig, SourceConfig, UniformOver,
};
use serde_json::json;
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use xxhash_rust::xxh3::Xxh3;

/// Loads random samples and prints the rates.
#[derive(Parser)]
struct Args {
    /// Folder of a LeRobot or RLDS dataset.
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
    /// Frames of a sample, relative to its anchor.
    #[arg(long, value_delimiter = ',', default_value = "0,5")]
    deltas: Vec<u32>,
    /// How many of the dataset's cameras to read.
    #[arg(long, default_value_t = 1)]
    cameras: usize,
    /// Decode threads.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Batches that are timed.
    #[arg(long, default_value_t = 40)]
    batches: usize,
    /// Samples in a batch.
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
    /// Folder for the index of an RLDS dataset.
    #[arg(long)]
    index_dir: Option<PathBuf>,
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
    let [open_resident_mb, _] = resident_mb()?;
    let mut loader = Loader::train(&mixture, 0, Shard::SINGLE, Position::default())?;
    let mut digest = Xxh3::new();
    let mut add = |batch: &Batch| batch.images.values().for_each(|stream| digest.update(&stream.pixels_BTCHW));
    add(&loader.next_batch()?);
    let first_batch_s = began.elapsed().as_secs_f64();
    let [first_batch_resident_mb, _] = resident_mb()?;
    for _ in 0..PREFETCH_BATCHES {
        add(&loader.next_batch()?);
    }
    let measured = measure(&mut loader, args.batches, Duration::ZERO, |_| {})?;
    let result = json!({
        "samples_per_s": measured.samples_per_s(),
        "cpu_s_per_sample": measured.cpu_s_per_sample(),
        "batches_per_s": measured.batches_per_s(),
        "open_s": open_s,
        "first_batch_s": first_batch_s,
        "open_resident_mb": open_resident_mb,
        "first_batch_resident_mb": first_batch_resident_mb,
        "num_anchors": mixture.anchors(Split::Train).len(),
        "first_pixels": format!("{:032x}", digest.digest128()),
        "workers": args.workers,
        "cache": args.cache.is_some(),
        "size": [size.height, size.width],
        "resident_mb": resident_mb()?[0],
    });
    println!("{result}");
    Ok(())
}

/// Sources with the dataset's first cameras, and its state and action where it has them.
fn config(args: &Args) -> Result<(DataConfig, FrameSize)> {
    let dataset = formats::open(&args.dataset, &OpenOptions::new(1 << 20))?;
    let description = dataset.describe();
    let cameras: Vec<_> = description.keys(FeatureKind::Camera).take(args.cameras).map(str::to_owned).collect();
    ensure!(cameras.len() == args.cameras, "--cameras: the dataset has {}", cameras.len());
    let first = cameras.first().and_then(|key| description.features[key].frame_size());
    let native = first.context("--cameras: at least one, whose size the dataset says")?;
    let size = args.size.map_or(native, |size| FrameSize { height: size, width: size });
    let vector = |keys: &[&str]| {
        let key = keys.iter().copied().find(|key| description.feature(key, FeatureKind::Vector).is_some());
        key.map(str::to_owned)
    };
    let rlds = formats::is_rlds(&args.dataset).then(|| RldsConfig {
        split: "train".to_owned(),
        val_split: None,
        fps: 10.0,
        task_key: None,
    });
    let source = SourceConfig {
        root: args.repo_id.is_none().then(|| args.dataset.clone()),
        repo_id: args.repo_id.clone(),
        revision: None,
        streaming: Some(args.streaming),
        cameras: (0..).map(|number| format!("camera{number}")).zip(cameras).collect(),
        state_key: vector(&["observation.state", "observation/state"]),
        action_key: vector(&["action"]),
        weight: None,
        span: None,
        episodes: None,
        exclude_episodes: None,
        num_val_episodes: 0,
        val_episodes: None,
        tolerance_s: None,
        labelled_episodes: None,
        filter: None,
        rlds,
        scenes: None,
    };
    let config = DataConfig {
        sources: (0..args.sources).map(|number| (format!("bench{number:02}"), source.clone())).collect(),
        request: RequestConfig {
            unit: DeltaUnit::Frames,
            image_deltas: args.deltas.iter().copied().map(f64::from).collect(),
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
        resize: Resize::Host,
        cache: CacheConfig {
            enabled: args.cache.is_some(),
            dir: args.cache.clone().or_else(|| args.index_dir.clone()).unwrap_or_default(),
            verify: false,
        },
    };
    Ok((config, size))
}
