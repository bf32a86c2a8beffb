//! `hlrp-data`: looks into datasets. Users type `hlrp data …`, which runs this program.

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand};
use hlrp_config::{Check, HintOf, Problem, hint_of};
use hlrp_data::{
    DataError, Dataset, DiskRules, Filter, VerdictCounts,
    check::{self, Depth},
    formats::{self, FeatureKind, OpenOptions},
    show::{SheetLayout, contact_sheet, filter_sheet, spread, summary},
};
use hlrp_schema::{ConfigArgs, DeltaUnit, FilterBy, FilterConfig, RequestConfig, parse_command_line};
use hlrp_track::{TrackError, console, exit_code};
use serde::Deserialize;
use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

/// The errors of this program whose hints are printed.
const HINTS: &[HintOf] = &[hint_of::<Problem>, hint_of::<DataError>, hint_of::<TrackError>];

/// Memory for parts of tables while a dataset is read, bytes.
const TABLE_CACHE_BYTES: usize = 64 << 20;

/// Looks into datasets.
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
        /// Folder of the dataset; for LeRobot v3 and v2.1 the one with meta/, data/ and videos/, for RLDS <name>/<version>.
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
    /// Counts, indices, timestamps (also past the end of a video), tasks, values that are not finite, statistics
    /// against the data, size, rate and codec of videos, missing and damaged files; and decodes every image, some of
    /// them also at random.
    ///
    /// Example: `hlrp data check tests/data/metaworld_mt5`
    Check {
        /// Folder of the dataset; for LeRobot v3 and v2.1 the one with meta/, data/ and videos/, for RLDS <name>/<version>.
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
    Filter {
        /// Folder of the dataset, as for `show`.
        path: PathBuf,
        /// What decides.
        #[arg(long, value_enum, default_value_t = FilterBy::Motion)]
        by: FilterBy,
        /// Feature keys of the cameras whose motion counts. [default: the first camera]
        #[arg(long, value_name = "KEY")]
        camera: Vec<String>,
        /// Feature key of the action.
        #[arg(long, value_name = "KEY", default_value = "action")]
        action: String,
        /// File of the drawing. [default: hlrp/filters/<name of the dataset>.png in $XDG_CACHE_HOME, or in ~/.cache]
        #[arg(long, value_name = "PNG")]
        out: Option<PathBuf>,
        /// Episodes in the drawing, spread evenly over the dataset.
        #[arg(long, default_value_t = 8, value_name = "N")]
        episodes: usize,
        #[command(flatten)]
        config: ConfigArgs,
    },
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
    match command {
        Command::Show { path, out, no_sheet, episodes, times } => {
            let dataset = formats::open(&path, &options(&path)?)?;
            console::print(summary(&path, &*dataset)?.trim_end());
            if !no_sheet {
                let name = path.file_name().map_or("dataset".into(), |name| name.to_string_lossy());
                let out = match out {
                    Some(out) if out.exists() => return Err(TrackError::Exists { path: out }.into()),
                    Some(out) => out,
                    None => image_in_cache("contact_sheets", &name)?,
                };
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
            if !report.findings.is_empty() {
                return Ok(ExitCode::FAILURE);
            }
            console::print("ok");
            report.verified.iter().for_each(|what| console::print(&format!("verified      {what}")));
            report.not_verified.iter().for_each(|what| console::print(&format!("not verified  {what}")));
            Ok(ExitCode::SUCCESS)
        }
        Command::Filter { path, by, camera, action, out, episodes, config } => {
            let config = FilterTree::of(config)?;
            let dataset = formats::open(&path, &options(&path)?)?;
            let name = path.file_name().map_or("dataset".into(), |name| name.to_string_lossy());
            let out = match out {
                Some(out) if out.exists() => return Err(TrackError::Exists { path: out }.into()),
                Some(out) => out,
                None => image_in_cache("filters", &name)?,
            };
            let image = filter(&dataset, &name, by, &camera, &action, &config.data, episodes)?;
            save_png(&image, &out)?;
            console::print(&format!("drawing: {}", out.display()));
            Ok(ExitCode::SUCCESS)
        }
        Command::FfmpegInfo => {
            console::print(&ffmpeg_info()?.to_string());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What a configuration says of filters.
#[derive(Deserialize)]
struct FilterTree {
    data: FilterSections,
}

#[derive(Deserialize)]
struct FilterSections {
    filter: FilterConfig,
    request: RequestConfig,
}

impl Check for FilterTree {
    fn check(&self) -> Result<(), Problem> {
        let Self { data: FilterSections { filter, request } } = self;
        let of =
            |name: &str, checked: Result<(), Problem>| checked.map_err(|problem| problem.inside(name).inside("data"));
        of("filter", filter.check())?;
        of("request", request.check())
    }
}

impl FilterTree {
    /// The data section without a dataset, changed by the overrides.
    fn of(mut config: ConfigArgs) -> Result<Self> {
        let base = [
            "~experiment",
            "+data=lerobot",
            "experiment.name=filter",
            "experiment.stage=laq",
            "experiment.description=filter",
        ]
        .map(str::to_owned);
        config.overrides.splice(0..0, base);
        Ok(config.compose()?.extract()?)
    }
}

/// Prints what a filter drops and draws some episodes.
fn filter(
    dataset: &Arc<dyn Dataset>,
    name: &str,
    by: FilterBy,
    cameras: &[String],
    action: &str,
    config: &FilterSections,
    num_drawn: usize,
) -> Result<image::RgbImage> {
    let found = dataset.describe();
    let first = found.keys(FeatureKind::Camera).next().context("the dataset has no camera")?;
    let cameras: Vec<&str> =
        if cameras.is_empty() { vec![first] } else { cameras.iter().map(String::as_str).collect() };
    let missing =
        |keys: &[&str], kind| keys.iter().find(|key| found.feature(key, kind).is_none()).map(|key| (*key).to_owned());
    let actions: &[&str] = if by.uses_action() { &[action] } else { &[] };
    for (option, missing, kind) in [
        ("--camera", missing(&cameras, FeatureKind::Camera), FeatureKind::Camera),
        ("--action", missing(actions, FeatureKind::Vector), FeatureKind::Vector),
    ] {
        if let Some(missing) = missing {
            let hint = format!("there are {}", found.keys(kind).collect::<Vec<_>>().join(", "));
            return Err(Problem::new(option, format!("the dataset has no feature `{missing}`"), hint).into());
        }
    }
    let spans = dataset.episodes();
    let deltas = config.request.image_deltas.iter().copied();
    let reach = deltas.clone().fold(0.0, f64::max) - deltas.fold(0.0, f64::min);
    let rate = if config.request.unit == DeltaUnit::Seconds { found.fps } else { 1.0 };
    let filter = Filter {
        name,
        dataset,
        cameras,
        action_key: Some(action),
        spans: &spans,
        by,
        config: &config.filter,
        image_gap: (reach * rate).round() as u64,
    };
    let scores = filter.scores(&user_cache()?, &DiskRules::unlimited())?;
    let drawn: Vec<usize> = spread(spans.len(), num_drawn).collect();
    let (mut verdicts, mut counts) = (Vec::new(), VerdictCounts::default());
    for (number, verdict) in scores.verdicts().enumerate() {
        counts.add(&verdict.counts);
        let dropped: Vec<String> =
            verdict.dropped().iter().map(|range| format!("{}-{}", range.start, range.end - 1)).collect();
        let dropped = if dropped.is_empty() { "nothing".to_owned() } else { dropped.join(", ") };
        let (episode, num_kept, num_anchors) =
            (verdict.span.episode, verdict.counts.num_kept, verdict.counts.num_anchors);
        console::print(&format!("episode {episode}: {num_kept} of {num_anchors} anchors kept; drops frames {dropped}"));
        if drawn.contains(&number) {
            verdicts.push(verdict);
        }
    }
    console::print(&counts.to_string());
    let title = format!("{name}: {} of {} anchors kept", counts.num_kept, counts.num_anchors);
    Ok(filter_sheet(dataset, filter.cameras[0], &title, &verdicts, &config.filter)?)
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

/// Path of a dataset's image of a kind in the user's cache. Creates its folder.
fn image_in_cache(kind: &str, name: &str) -> Result<PathBuf> {
    let folder = user_cache()?.join(kind);
    std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be created", folder.display()))?;
    Ok(folder.join(format!("{name}.png")))
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
