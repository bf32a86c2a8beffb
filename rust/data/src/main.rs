//! `hlrp-data`: looks into datasets, measures how fast they load, and downloads datasets and models. Users type `hlrp data …`, which runs this program.

mod bench_command;
mod download_command;
mod filter_command;

use anyhow::{Context, Result};
use bench_command::BenchOptions;
use clap::{CommandFactory, Parser, Subcommand};
use download_command::DownloadOptions;
use filter_command::FilterOptions;
use hlrp_config::{HintOf, Problem, hint_of};
use hlrp_data::{
    DataError,
    check::{self, Depth},
    formats::{self, OpenOptions},
    show::{SheetLayout, contact_sheet, summary},
};
use hlrp_schema::parse_command_line;
use hlrp_track::{TrackError, console, exit_code};
use std::{
    borrow::Cow,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};
use tracing::level_filters::LevelFilter;

/// The errors of this program whose hints are printed.
const HINTS: &[HintOf] = &[hint_of::<Problem>, hint_of::<DataError>, hint_of::<TrackError>];

/// Memory for parts of tables while a dataset is read, bytes.
const TABLE_CACHE_BYTES: usize = 64 << 20;

/// Looks into datasets, measures how fast they load, and downloads datasets and models.
#[derive(Parser)]
#[command(name = "hlrp-data", bin_name = "hlrp data", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows what is in a dataset (episodes, frames, cameras, features, tasks) and draws a contact sheet of it.
    ///
    /// Example: `hlrp data show tests/data/metaworld_mt5 --out sheet.png`
    Show {
        /// Folder of the dataset; for LeRobot v3 and v2.1 the one with meta/, data/ and videos/, for RLDS <name>/<version>, for scenes the one with scenes.csv
        /// or a raw Bridge v2 tree.
        path: PathBuf,
        /// File of the contact sheet: one line per episode and camera, first frame to last. An older one is
        /// replaced. [default: hlrp/contact_sheets/<name of the dataset>.png in $XDG_CACHE_HOME, or in ~/.cache]
        #[arg(long, value_name = "PNG")]
        out: Option<PathBuf>,
        /// Draws no contact sheet.
        #[arg(long, conflicts_with = "out")]
        no_sheet: bool,
        /// Episodes on the contact sheet, spread evenly over the dataset.
        #[arg(long, default_value_t = 8, value_name = "N")]
        episodes: usize,
        /// Images per episode.
        #[arg(long, default_value_t = 8, value_name = "N")]
        times: usize,
    },
    /// Looks for damage: one line per finding and exit code 1, or `ok`, what that covers, and 0.
    ///
    /// Counts, indices, timestamps (also past the end of a video), episodes listed twice, stretches of videos that overlap or have another length
    /// than their episodes, tasks, values that are not finite, rows of another width, statistics against the data, size, rate and codec of videos,
    /// missing, damaged and unused files; and decodes every image, some of them also at random. Values that never change are a note.
    ///
    /// Example: `hlrp data check tests/data/metaworld_mt5`
    Check {
        /// Folder of the dataset; for LeRobot v3 and v2.1 the one with meta/, data/ and videos/, for RLDS <name>/<version>, for scenes the one with scenes.csv
        /// or a raw Bridge v2 tree.
        path: PathBuf,
        /// Reads only the headers of videos and decodes no image: seconds instead of minutes.
        #[arg(long)]
        quick: bool,
        /// Largest difference between the time of a row and that of its frame; see data.sources.<name>.tolerance_s.
        #[arg(long, value_name = "SECONDS")]
        tolerance_s: Option<f64>,
    },
    /// Prints which anchors a filter of a source would drop (`data.sources.<name>.filter`), and draws scores, thresholds and images.
    ///
    /// Scores are computed once, on all cores. Thresholds and the gap between frames are those of the configuration; overrides change them.
    ///
    /// Example: `hlrp data filter tests/data/metaworld_mt5 --by both data.filter.motion.high=0.02`
    Filter(FilterOptions),
    /// Loads the data of an experiment as its training would, and prints batches per second, waiting, CPU time, memory and the shares of the sources.
    ///
    /// It takes the overrides of `hlrp train-laq` and `hlrp train-vla`, and measures one process. In stage 2 it reads no teacher: where latent actions
    /// are learned, data.request.image_deltas has the teacher's pair.
    ///
    /// Example: `hlrp data bench experiment=laq_tiny data.loader.num_workers=4 --consumer-ms 50`
    Bench(BenchOptions),
    /// Downloads a LeRobot dataset from the Hugging Face Hub into the cache of Hugging Face, or the part of it that some cameras and episodes need;
    /// or a model (`--repo-type model`).
    ///
    /// What is there already is not fetched again; an interrupted download continues when the command is run again. Every file is compared with its
    /// checksum. HF_ENDPOINT, HF_TOKEN (or the token of `hf auth login`), HF_HUB_OFFLINE, HF_HUB_CACHE and HF_HOME have the meanings that they
    /// have for huggingface_hub. A source of a run names the dataset by `data.sources.<name>.repo_id`, an encoder or a backbone the model by its name.
    ///
    /// Examples: `hlrp data download lerobot/pusht --episodes 0-19`,
    /// `hlrp data download facebook/dinov3-vits16-pretrain-lvd1689m --repo-type model`
    Download(DownloadOptions),
    /// Prints which FFmpeg this program uses and the decoders that it has, as JSON.
    FfmpegInfo,
}

fn main() -> ExitCode {
    run(parse_command_line::<Args>(Args::command()).command).unwrap_or_else(|error| {
        console::report_error(error.as_ref(), HINTS);
        ExitCode::from(exit_code::of(error.as_ref(), &[hlrp_data::exit_code_of]))
    })
}

fn run(command: Command) -> Result<ExitCode> {
    let is_long = matches!(command, Command::Bench(_) | Command::Download(_));
    console::init(if is_long { LevelFilter::INFO } else { LevelFilter::WARN }, 0)?;
    match command {
        Command::Show { path, out, no_sheet, episodes, times } => {
            let dataset = formats::open(&path, &options(&path)?)?;
            console::print(summary(&path, &*dataset)?.trim_end());
            if !no_sheet {
                let name = name_of(&path);
                let out = image_path(out, "contact_sheets", &name)?;
                let layout = SheetLayout { num_episodes: episodes, num_times: times, thumb_height: 128 };
                save_png(&contact_sheet(&dataset, &name, layout)?, &out)?;
                console::print(&format!("contact sheet: {}", out.display()));
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { path, quick, tolerance_s } => {
            let depth = if quick { Depth::Headers } else { Depth::Images };
            let options = OpenOptions { tolerance_s, ..options(&path)? };
            let report = check::check(&path, depth, &options);
            report.findings.iter().for_each(|finding| console::print(&finding.to_string()));
            if report.findings.is_empty() {
                console::print("ok");
            }
            report.notes.iter().for_each(|what| console::print(&format!("note          {what}")));
            if !report.findings.is_empty() {
                return Ok(ExitCode::FAILURE);
            }
            report.verified.iter().for_each(|what| console::print(&format!("verified      {what}")));
            report.not_verified.iter().for_each(|what| console::print(&format!("not verified  {what}")));
            Ok(ExitCode::SUCCESS)
        }
        Command::Filter(options) => {
            filter_command::run(&options)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Bench(options) => {
            bench_command::run(&options)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Download(options) => {
            download_command::run(&options)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::FfmpegInfo => {
            console::print(&ffmpeg_info()?.to_string());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Variables with the user's cache folder and, as a fallback, the home folder that contains it.
const CACHE_HOME: [&str; 2] = ["XDG_CACHE_HOME", "HOME"];

/// How a dataset is opened: an RLDS dataset is indexed in the user's cache.
fn options(path: &Path) -> Result<OpenOptions> {
    let index_dir = if formats::is_rlds(path) { Some(user_cache()?) } else { None };
    Ok(OpenOptions { index_dir, ..OpenOptions::new(TABLE_CACHE_BYTES) })
}

/// The folder `hlrp` in the user's cache.
fn user_cache() -> Result<PathBuf> {
    let folder = |variable| std::env::var_os(variable).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let [cache, home] = CACHE_HOME.map(folder);
    let cache = cache.or_else(|| home.map(|home| home.join(".cache")));
    Ok(cache
        .context("XDG_CACHE_HOME and HOME are not set: set one, or name a file for the image with --out")?
        .join("hlrp"))
}

/// Name of a dataset: that of its folder.
fn name_of(path: &Path) -> Cow<'_, str> {
    path.file_name().map_or("dataset".into(), |name| name.to_string_lossy())
}

/// The file of a dataset's image of a kind: `out`, which must not exist, or one in the user's cache, whose folder is created.
fn image_path(out: Option<PathBuf>, kind: &str, name: &str) -> Result<PathBuf> {
    match out {
        Some(out) if out.exists() => Err(TrackError::Exists { path: out }.into()),
        Some(out) => Ok(out),
        None => {
            let folder = user_cache()?.join(kind);
            std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be created", folder.display()))?;
            Ok(folder.join(format!("{name}.png")))
        }
    }
}

/// Writes an image, whole or not at all.
fn save_png(image: &image::RgbImage, path: &Path) -> Result<()> {
    let mut bytes = io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).context("the image cannot be encoded")?;
    Ok(hlrp_track::fs::write_atomic(path, bytes.into_inner())?)
}

/// The version of this program and, where it is built with FFmpeg, of FFmpeg and the names of its decoders.
fn ffmpeg_info() -> Result<String> {
    #[cfg(feature = "ffmpeg")]
    let mut info = serde_json::to_value(hlrp_data::video::ffmpeg_info())?;
    #[cfg(not(feature = "ffmpeg"))]
    let mut info = serde_json::json!({ "ffmpeg": null, "decoders": {} });
    info["version"] = env!("CARGO_PKG_VERSION").into();
    Ok(info.to_string())
}
