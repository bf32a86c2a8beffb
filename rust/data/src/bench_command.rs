//! `hlrp data bench`: how fast the data of an experiment comes, as its training would ask for it.

use anyhow::Result;
use clap::Args;
use hlrp_config::{Check, Composed, Problem};
use hlrp_data::{
    FrameSize, LabelRequest, Loader, Mixture, Position, Shard, Split, describe_sources, disk_rules,
    formats::FeatureKind,
    log_cache_progress,
    measure::{Measured, measure, resident_mb},
};
use hlrp_schema::{
    ConfigArgs, DataConfig, DeltaUnit, LaqConfig, RequestConfig, RunBasics, Stage, StageConfig, VlaConfig,
};
use hlrp_track::{
    console::{self, Progress},
    table::ResultTable,
};
use serde_json::json;
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

/// How many times as many batches as are made ahead have to be timed: a shorter window measures what was ready before.
const MIN_DEPTHS: usize = 4;
/// How often a progress line is written where there is no bar.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Longest simulated training step, milliseconds.
const MAX_CONSUMER_MS: f64 = 600_000.0;

/// Options of `hlrp data bench`.
#[derive(Args)]
pub(crate) struct BenchOptions {
    /// Batches that are timed, at least four times data.loader.prefetch_batches. [default: as many]
    #[arg(long, value_name = "N")]
    batches: Option<usize>,
    /// Simulates a training step of this length after each batch, which takes no CPU.
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    consumer_ms: f64,
    /// Height and width in which frames are loaded. [default: model.image_size in stage 1, policy.processor.frame_size or the recorded size in stage 2]
    #[arg(long, num_args = 2, value_names = ["H", "W"])]
    image_size: Option<Vec<usize>>,
    /// Prints one JSON object instead of tables.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// What a training loads.
struct Loaded {
    data: DataConfig,
    /// What its samples hold.
    request: RequestConfig,
    size: FrameSize,
    seed: u64,
    /// Offsets of the images that an anchor must have.
    anchor_images: Vec<f64>,
    /// Steps of an action chunk, where each is a frame from the present on.
    chunk_size: Option<i64>,
}

/// Loads some batches and prints how long they took.
pub(crate) fn run(options: &BenchOptions) -> Result<()> {
    let composed = options.config.compose()?;
    let basics = RunBasics::unchecked(&composed)?;
    let given = options.size()?;
    let loaded = match basics.stage {
        Stage::Laq => of_laq(LaqConfig::of_run(&composed)?, given),
        Stage::Vla => of_vla(&composed, given).map_err(|error| match error.downcast::<Problem>() {
            Ok(problem) => composed.locate(problem).into(),
            Err(error) => error,
        })?,
        stage => {
            let message = format!("'{}' loads no data by itself", stage.name());
            let hint = "choose an experiment of stage 1 or 2; `hlrp config list experiment` shows them";
            return Err(composed.locate(Problem::new("experiment.stage", message, hint)).into());
        }
    };
    let (num_batches, step) = options.window(&loaded.data)?;
    // A missing folder or feature is named by its key.
    describe_sources(&loaded.data.sources, &loaded.data.cache.dir)?;

    let began = Instant::now();
    let mixture = loaded.open(&basics)?;
    let open_s = began.elapsed().as_secs_f64();
    let mut loader = Loader::train(&mixture, loaded.seed, Shard::SINGLE, Position::default())?;
    loader.next_batch()?;
    let first_batch_s = began.elapsed().as_secs_f64();
    for _ in 0..loaded.data.loader.prefetch_batches {
        loader.next_batch()?;
    }
    let (mut progress, mut told) = (Progress::new(num_batches as u64, 0), Instant::now());
    let measured = measure(&mut loader, num_batches, step, |number| {
        progress.advance(number as u64);
        if told.elapsed() >= LINE_EVERY {
            progress.set(number as u64, &[]);
            told = Instant::now();
        }
    })?;
    progress.finish();
    let [_, peak_mb] = resident_mb()?;
    let num_bad = loader.stats().num_bad_samples;
    drop(loader);

    let config = &loaded.data.loader;
    let samples = format!(
        "batches of {} samples, {} images of {}x{} each, {} decode threads, {} batches ahead",
        config.batch_size,
        mixture.layout().num_images * mixture.layout().roles.len(),
        loaded.size.height,
        loaded.size.width,
        config.num_workers,
        config.prefetch_batches,
    );
    let num_anchors = mixture.anchors(Split::Train).len();
    let figures = figures(&measured, [open_s, first_batch_s], peak_mb, num_bad);
    let shares = shares(&mixture, &measured);
    if options.json {
        let mut all = json!({
            "experiment": basics.experiment.name,
            "num_anchors": num_anchors,
            "batch_size": config.batch_size,
            "num_workers": config.num_workers,
            "prefetch_batches": config.prefetch_batches,
            "image_size": [loaded.size.height, loaded.size.width],
            "num_batches": num_batches,
            "consumer_ms": options.consumer_ms,
            "sources": {},
        });
        for (name, target, realised) in &shares {
            all["sources"][*name] = json!({"target": target, "realised": realised});
        }
        figures.iter().for_each(|Figure { key, value, .. }| all[*key] = json!(value));
        console::print(&all.to_string());
        return Ok(());
    }
    console::print(&format!("{}: {num_anchors} training anchors\n{samples}", basics.experiment.name));
    let after =
        if options.consumer_ms > 0.0 { format!(" with steps of {} ms", options.consumer_ms) } else { String::new() };
    let rows = ResultTable::new([format!("{num_batches} batches{after}"), String::new()]);
    let rows = figures.iter().fold(rows, |rows, figure| rows.row([figure.label.to_owned(), figure.shown()]));
    console::print(&format!("\n{}", rows.to_text()));
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let rows = ResultTable::new(["source", "target", "realised"]);
    let row = |rows: ResultTable, (name, target, realised): &(&str, f64, f64)| {
        rows.row([(*name).to_owned(), percent(*target), percent(*realised)])
    };
    console::print(&format!("\n{}", shares.iter().fold(rows, row).to_text()));
    Ok(())
}

impl BenchOptions {
    /// The size that the command line says.
    fn size(&self) -> Result<Option<FrameSize>, Problem> {
        match self.image_size.as_deref() {
            Some(&[height, width]) if height > 0 && width > 0 => Ok(Some(FrameSize { height, width })),
            Some(size) => {
                let message = format!("{size:?} is not a height and a width");
                Err(Problem::new("--image-size", message, "give two numbers above 0"))
            }
            None => Ok(None),
        }
    }

    /// Batches that are timed, and the simulated training step after each.
    fn window(&self, data: &DataConfig) -> Result<(usize, Duration), Problem> {
        let depth = data.loader.prefetch_batches;
        let least = MIN_DEPTHS * depth;
        let num_batches = self.batches.unwrap_or(least);
        if num_batches < least {
            let message = format!("{num_batches} batches, but {depth} are made ahead: they would be ready before");
            return Err(Problem::new(
                "--batches",
                message,
                format!("give at least {least}, or lower data.loader.prefetch_batches"),
            ));
        }
        if !(0.0..=MAX_CONSUMER_MS).contains(&self.consumer_ms) {
            let message = format!("{} is out of range", self.consumer_ms);
            return Err(Problem::new(
                "--consumer-ms",
                message,
                format!("give milliseconds from 0 to {MAX_CONSUMER_MS}"),
            ));
        }
        Ok((num_batches, Duration::from_secs_f64(self.consumer_ms / 1e3)))
    }
}

/// What `hlrp train-laq` loads: pairs, and the frames between or after them that its losses need.
fn of_laq(config: LaqConfig, given: Option<FrameSize>) -> Loaded {
    let side = config.model.image_size.unsigned_abs() as usize;
    let request = config.model.training_request(&config.data.request);
    let size = given.unwrap_or(FrameSize { height: side, width: side });
    let anchor_images = request.image_deltas.clone();
    Loaded { data: config.data, request, size, seed: config.seed, anchor_images, chunk_size: None }
}

/// What `hlrp train-vla` loads, without the labels of a label_prefix. Nothing of a teacher is read.
fn of_vla(composed: &Composed, given: Option<FrameSize>) -> Result<Loaded> {
    let mut config: VlaConfig = composed.extract_unchecked()?;
    // A mixture can be measured before there is a teacher.
    config.policy.teacher.checkpoint.get_or_insert_with(|| "-".into());
    config.check()?;
    let mode = config.policy.objective.mode;
    let has_labels = config.policy.teacher.label_prefix.is_some();
    if mode.with_latents() && !has_labels && config.data.request.image_deltas.len() == 1 {
        let message = "the later frame is that of the teacher, whose checkpoint this command does not read";
        let hint = "give the offsets of its pairs, such as [0,20]: its data.request.image_deltas";
        return Err(Problem::new("data.request.image_deltas", message, hint).into());
    }
    let size = match (given, config.policy.processor.frame_size) {
        (Some(size), _) => size,
        (None, Some([height, width])) => FrameSize { height, width },
        (None, None) => recorded_size(&config.data)?,
    };
    let chunk_size = config.data.request.action_deltas.is_empty().then(|| config.policy.model.arch.get().chunk_size());
    let mut request = config.data.request.clone();
    if has_labels {
        request.image_deltas = vec![0.0];
    }
    let anchor_images = if mode.with_actions() { vec![0.0] } else { request.image_deltas.clone() };
    Ok(Loaded { data: config.data, request, size, seed: config.seed, anchor_images, chunk_size })
}

/// The size of the frames of all cameras in use.
fn recorded_size(data: &DataConfig) -> Result<FrameSize> {
    let datasets = describe_sources(&data.sources, &data.cache.dir)?;
    let cameras = data.sources.iter().flat_map(|(name, source)| source.cameras.values().map(move |key| (name, key)));
    let size = |(name, key): (&String, &String)| datasets[name].feature(key, FeatureKind::Camera)?.frame_size();
    let sizes: BTreeSet<Option<(usize, usize)>> =
        cameras.map(|camera| size(camera).map(|size| (size.height, size.width))).collect();
    match sizes.into_iter().collect::<Vec<_>>()[..] {
        [Some((height, width))] => Ok(FrameSize { height, width }),
        _ => {
            let message = "policy.processor.frame_size is null, and the cameras do not all record one known size";
            Err(Problem::new("--image-size", message, "give the height and width in which frames are loaded").into())
        }
    }
}

impl Loaded {
    /// Opens the mixture, with the samples that the training asks for.
    fn open(&self, basics: &RunBasics) -> Result<Arc<Mixture>> {
        let disk = disk_rules(&basics.cluster, &basics.logging);
        let mixture = Mixture::open(&self.data, self.size, &disk, &log_cache_progress)?;
        let mut request = self.request.clone();
        if let Some(chunk_size) = self.chunk_size {
            let rates: BTreeSet<u64> =
                mixture.sources().iter().map(|source| source.description().fps.to_bits()).collect();
            let step = match (request.unit, &rates.into_iter().collect::<Vec<_>>()[..]) {
                (DeltaUnit::Frames, _) => 1.0,
                (DeltaUnit::Seconds, [rate]) => f64::from_bits(*rate).recip(),
                (DeltaUnit::Seconds, _) => {
                    let message = "[] means frames, but the sources have different numbers of them per second";
                    let hint = "list the seconds of each step of the action chunk";
                    return Err(Problem::new("data.request.action_deltas", message, hint).into());
                }
            };
            request.action_deltas = (0..chunk_size).map(|number| number as f64 * step).collect();
        }
        Ok(Arc::new(mixture.with_request(&request, &self.anchor_images, &LabelRequest::default())?))
    }
}

/// By source its name, target share and realised share.
fn shares<'a>(mixture: &'a Mixture, measured: &Measured) -> Vec<(&'a str, f64, f64)> {
    let total = measured.num_all_samples() as f64;
    let realised = |name: &str| measured.num_samples.get(name).copied().unwrap_or(0) as f64 / total;
    mixture.target_shares().map(|(name, target)| (name, target, realised(name))).collect()
}

/// One measured value.
struct Figure {
    key: &'static str,
    label: &'static str,
    value: f64,
    /// Factor and unit in tables.
    shown: (f64, &'static str),
}

impl Figure {
    /// The value with its unit.
    fn shown(&self) -> String {
        let (factor, unit) = self.shown;
        let value = factor * self.value;
        // Three digits.
        let decimals = if value.fract() == 0.0 { 0.0 } else { (2.0 - value.log10().floor()).clamp(0.0, 6.0) } as usize;
        format!("{value:.decimals$} {unit}").trim_end().to_owned()
    }
}

fn figures(measured: &Measured, [open_s, first_batch_s]: [f64; 2], peak_mb: f64, num_bad: u64) -> Vec<Figure> {
    let figure = |key, label, value, shown| Figure { key, label, value, shown };
    let wait_s = |fraction| measured.wait_quantile(fraction).as_secs_f64();
    vec![
        figure("batches_per_s", "batches per second", measured.batches_per_s(), (1.0, "")),
        figure("samples_per_s", "samples per second", measured.samples_per_s(), (1.0, "")),
        figure("wait_p50_s", "time to the next batch, median", wait_s(0.5), (1e3, "ms")),
        figure("wait_p99_s", "time to the next batch, 99 %", wait_s(0.99), (1e3, "ms")),
        figure("consumer_wait", "time that the consumer waited", measured.consumer_wait(), (100.0, "%")),
        figure("worker_idle", "time that decode threads were idle", measured.worker_idle, (100.0, "%")),
        figure("cpu_s_per_sample", "CPU time per sample", measured.cpu_s_per_sample(), (1e3, "ms")),
        figure("open_s", "opening", open_s, (1.0, "s")),
        figure("first_batch_s", "first batch, with opening", first_batch_s, (1.0, "s")),
        figure("peak_resident_mb", "memory at its peak", peak_mb, (1.0, "MB")),
        figure("num_bad_samples", "samples replaced, undecodable", num_bad as f64, (1.0, "")),
    ]
}
