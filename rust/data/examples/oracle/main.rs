//! Compares what this crate reads of a dataset with what LeRobot reads of it, or TensorFlow Datasets of one in RLDS form.
//!
//! `oracle DATASET ORACLE`: ORACLE holds JSON lines of the kinds `header`, `episode`, `frame` and `pair`, of RLDS the first two. Prints one line
//! per kind with the number of lines, of values, and the worst difference; exits with 1 when anything differs.
#![allow(non_snake_case, clippy::print_stdout, clippy::print_stderr, missing_docs, reason = "a program")]

mod rlds;

use anyhow::{Context, Result, bail, ensure};
use hlrp_data::{
    Dataset, EpisodeSpan, FrameSize,
    formats::is_rlds,
    formats::lerobot::{LeRobotDataset, TableCache},
    video::VideoStore,
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

/// RGB whose hash differs may still be this far off in the mean of a channel (of 255): other converters round otherwise.
const RGB_MEAN_TOLERANCE: f64 = 0.25;

/// Keys of a line that are not columns.
const NO_COLUMNS: [&str; 6] = ["kind", "i", "k", "cams", "task", "episode"];

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dataset, oracle] = arguments.as_slice() else { bail!("usage: oracle DATASET ORACLE") };
    let text = std::fs::read_to_string(oracle).with_context(|| oracle.clone())?;
    let root = Path::new(dataset);
    let subject: Box<dyn Compare> =
        if is_rlds(root) { Box::new(rlds::Subject::open(root)?) } else { Box::new(Subject::open(root)?) };
    let mut kinds: BTreeMap<String, Tally> = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line: Value = serde_json::from_str(line).with_context(|| format!("{oracle}:{}", number + 1))?;
        let kind = line["kind"].as_str().context("a line has no kind")?;
        let tally = kinds.entry(kind.to_owned()).or_default();
        tally.num_lines += 1;
        tally.at = format!("line {}", number + 1);
        if let Err(error) = subject.compare(kind, &line, tally) {
            tally.fail(&format!("{error:#}"));
        }
    }
    for (kind, tally) in &kinds {
        println!("{kind:<8} {}", tally.summary());
    }
    let failures: Vec<_> = kinds.values().flat_map(|tally| &tally.failures).collect();
    failures.iter().take(20).for_each(|failure| eprintln!("{failure}"));
    Ok(if failures.is_empty() && !kinds.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A dataset under test.
trait Compare {
    /// Compares what a line of this kind says.
    fn compare(&self, kind: &str, line: &Value, tally: &mut Tally) -> Result<()>;
}

/// What was compared of one kind of line.
#[derive(Default)]
struct Tally {
    num_lines: usize,
    num_values: usize,
    num_images: usize,
    num_exact_rgb: usize,
    worst_value: f64,
    worst_rgb_mean: f64,
    at: String,
    failures: Vec<String>,
}

impl Tally {
    fn fail(&mut self, what: &str) {
        self.failures.push(format!("{}: {what}", self.at));
    }

    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, ours: T, theirs: T) {
        self.num_values += 1;
        if ours != theirs {
            self.fail(&format!("{what} is {ours:?}, the oracle reads {theirs:?}"));
        }
    }

    /// Numbers must agree to the last bit of float32, which is what datasets hold.
    fn numbers(&mut self, what: &str, ours: &[f64], theirs: &[f64]) {
        self.num_values += theirs.len();
        let worst = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        self.worst_value = self.worst_value.max(worst);
        let differ = |(a, b): (&f64, &f64)| *a as f32 != *b as f32;
        if ours.len() != theirs.len() || ours.iter().zip(theirs).any(differ) {
            self.fail(&format!("{what} is {ours:?}, the oracle reads {theirs:?}"));
        }
    }

    fn summary(&self) -> String {
        let images = format!(
            ", {} images ({} with identical RGB, worst channel mean {:.4} of 255 off)",
            self.num_images, self.num_exact_rgb, self.worst_rgb_mean
        );
        format!(
            "{} lines, {} values (worst difference {:e}){}: {}",
            self.num_lines,
            self.num_values,
            self.worst_value,
            if self.num_images > 0 { images } else { String::new() },
            if self.failures.is_empty() { "ok".into() } else { format!("{} DIFFER", self.failures.len()) }
        )
    }
}

/// The dataset under test.
struct Subject {
    dataset: Arc<LeRobotDataset>,
    videos: BTreeMap<String, VideoStore>,
}

impl Compare for Subject {
    fn compare(&self, kind: &str, line: &Value, tally: &mut Tally) -> Result<()> {
        match kind {
            "header" => self.header(line, tally),
            "episode" => self.episode(line, tally),
            "frame" => self.frame(line, tally),
            "pair" => self.pair(line, tally),
            other => bail!("unknown kind {other}"),
        }
    }
}

impl Subject {
    fn open(root: &Path) -> Result<Self> {
        let dataset = Arc::new(LeRobotDataset::open(root, &TableCache::new(64 << 20))?);
        let mut videos = BTreeMap::new();
        for key in dataset.camera_keys() {
            if dataset.camera(key)?.dtype == "video" {
                let any_size = FrameSize { height: 1, width: 1 };
                videos.insert(key.to_owned(), dataset.video_store(key, any_size)?);
            }
        }
        Ok(Self { dataset, videos })
    }

    fn header(&self, line: &Value, tally: &mut Tally) -> Result<()> {
        tally.equal("fps", Some(self.dataset.fps()), line["fps"].as_f64());
        tally.equal("number of episodes", Some(self.dataset.episodes().len() as u64), line["episodes"].as_u64());
        tally.equal("number of frames", Some(self.dataset.num_frames()), line["frames"].as_u64());
        let cameras = line["cameras"].as_array().context("no cameras")?;
        let cameras: BTreeSet<_> = cameras.iter().filter_map(Value::as_str).collect();
        tally.equal("cameras", self.dataset.camera_keys().into_iter().collect(), cameras);
        for (key, theirs) in line["features"].as_object().context("no features")? {
            let ours = self.dataset.features().get(key).with_context(|| format!("no feature {key}"))?;
            tally.equal(key, Some(ours.dtype.as_str()), theirs["dtype"].as_str());
            tally.equal(key, serde_json::to_value(&ours.shape)?, theirs["shape"].clone());
        }
        Ok(())
    }

    fn episode(&self, line: &Value, tally: &mut Tally) -> Result<()> {
        let index = line["episode"].as_u64().context("no episode")?;
        let slot =
            self.dataset.episodes().iter().position(|episode| episode.index == index).context("no such episode")?;
        let episode = self.dataset.episodes()[slot];
        tally.equal("start", Some(episode.from_row), line["start"].as_u64());
        tally.equal("end", Some(episode.to_row), line["end"].as_u64());
        tally.equal("length", Some(episode.num_frames()), line["length"].as_u64());
        let rows = episode.from_row..episode.to_row;
        let ours = rows.map(|row| self.dataset.task_text(row)).collect::<Result<BTreeSet<_>, _>>()?;
        let theirs = line["tasks"].as_array().context("no tasks")?.iter().filter_map(Value::as_str).collect();
        tally.equal("tasks", ours, theirs);
        tally.equal("data file", self.dataset.data_file_of(&episode).to_str(), line["data"].as_str());
        for (camera, theirs) in line["videos"].as_object().into_iter().flatten() {
            let span = self.dataset.video_spans(camera)?[slot];
            let file = self.dataset.info().video_file(camera, span.file.0, span.file.1);
            tally.equal("video file", file.to_str(), theirs["file"].as_str());
            tally.numbers("video span", &[span.from_s, span.to_s], &numbers(&[&theirs["from"], &theirs["to"]]));
        }
        Ok(())
    }

    fn frame(&self, line: &Value, tally: &mut Tally) -> Result<()> {
        let row = line["i"].as_u64().context("no row")?;
        self.columns(line, row, tally)?;
        for (camera, theirs) in line["cams"].as_object().context("no cameras")? {
            self.images(camera, &[row], std::slice::from_ref(theirs), tally)?;
            let Some(videos) = self.videos.get(camera) else { continue };
            let raw = videos.raw_frame(row)?;
            tally.equal("frame number", Some(raw.index as u64), theirs["n"].as_u64());
            let pts = theirs["pts"].as_f64().context("no pts")?;
            ensure!((raw.time_s - pts).abs() < 1e-6, "{camera}: time {} s, LeRobot reads {pts} s", raw.time_s);
            tally.equal("pixel format", Some(raw.pixel_format.as_str()), theirs["pix_fmt"].as_str());
            tally.equal("hash of the planes", Some(sha256(&raw.planes).as_str()), theirs["yuv_sha256"].as_str());
        }
        Ok(())
    }

    fn pair(&self, line: &Value, tally: &mut Tally) -> Result<()> {
        let row = line["i"].as_u64().context("no row")?;
        let k = line["k"].as_i64().context("no k")?;
        let episode = self.dataset.episode_of(row)?;
        let span = EpisodeSpan { episode: episode.index, from_row: episode.from_row, to_row: episode.to_row };
        let mut windows = BTreeMap::new();
        for (key, pads) in line.as_object().into_iter().flatten() {
            let Some(key) = key.strip_suffix("_is_pad") else { continue };
            let pads: Vec<bool> = pads.as_array().context("no mask")?.iter().filter_map(Value::as_bool).collect();
            let deltas = if key == "action" { (0..pads.len() as i64).collect() } else { vec![0, k] };
            let (rows, is_pad) = span.window(row, &deltas);
            tally.equal(&format!("{key}_is_pad"), is_pad, pads);
            windows.insert(key, rows);
        }
        for (camera, theirs) in line["cams"].as_object().context("no cameras")? {
            let rows = windows.get(camera.as_str()).with_context(|| format!("no mask of {camera}"))?;
            self.images(camera, rows, theirs.as_array().context("no images")?, tally)?;
        }
        for (key, rows) in &windows {
            if self.dataset.camera(key).is_err() {
                tally.numbers(key, &self.vectors(key, rows)?, &numbers(&[&line[*key]]));
            }
        }
        let single = |key: &String| !windows.contains_key(key.as_str()) && !key.ends_with("_is_pad");
        let line: serde_json::Map<_, _> = line
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, _)| single(key))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        self.columns(&Value::Object(line), row, tally)
    }

    /// Every column of one row that the line holds, and its task.
    fn columns(&self, line: &Value, row: u64, tally: &mut Tally) -> Result<()> {
        tally.equal("task", Some(self.dataset.task_text(row)?), line["task"].as_str());
        for (key, theirs) in line.as_object().into_iter().flatten() {
            if NO_COLUMNS.contains(&key.as_str()) {
                continue;
            }
            match theirs {
                Value::String(text) => tally.equal(key, &self.dataset.text(key, row)?, text),
                theirs => tally.numbers(key, &self.vectors(key, &[row])?, &numbers(&[theirs])),
            }
        }
        Ok(())
    }

    fn vectors(&self, key: &str, rows: &[u64]) -> Result<Vec<f64>> {
        Ok(self.dataset.vectors(key, rows)?.into_iter().map(f64::from).collect())
    }

    /// The images of one camera at some rows, read at once as a loader does.
    fn images(&self, camera: &str, rows: &[u64], theirs: &[Value], tally: &mut Tally) -> Result<()> {
        let store = Arc::clone(&self.dataset).frame_store(camera, None)?;
        let FrameSize { height, width } = store.size();
        let mut out_TCHW = vec![0; rows.len() * 3 * height * width];
        store.reader(4)?.read(rows, &mut out_TCHW)?;
        for (image_CHW, theirs) in out_TCHW.chunks_exact(3 * height * width).zip(theirs) {
            tally.num_images += 1;
            tally.equal("shape", serde_json::json!([height, width, 3]), theirs["shape"].clone());
            let planes: Vec<&[u8]> = image_CHW.chunks_exact(height * width).collect();
            let pixels_HWC: Vec<u8> =
                (0..height * width).flat_map(|at| [planes[0][at], planes[1][at], planes[2][at]]).collect();
            tally.num_exact_rgb += usize::from(Some(sha256(&pixels_HWC).as_str()) == theirs["sha256"].as_str());
            for (plane, mean) in planes.iter().zip(numbers(&[&theirs["mean"]])) {
                let ours = plane.iter().map(|&value| f64::from(value)).sum::<f64>() / plane.len() as f64;
                let off = (ours - mean).abs();
                tally.worst_rgb_mean = tally.worst_rgb_mean.max(off);
                ensure!(off <= RGB_MEAN_TOLERANCE, "{camera}: channel mean {ours:.4}, LeRobot reads {mean:.4}");
            }
        }
        Ok(())
    }
}

/// All numbers of some values, lists flattened, truth values as 0 and 1.
fn numbers(values: &[&Value]) -> Vec<f64> {
    let of = |value: &Value| match value {
        Value::Array(values) => numbers(&values.iter().collect::<Vec<_>>()),
        Value::Bool(value) => vec![f64::from(u8::from(*value))],
        other => vec![other.as_f64().unwrap_or(f64::NAN)],
    };
    values.iter().flat_map(|value| of(value)).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
