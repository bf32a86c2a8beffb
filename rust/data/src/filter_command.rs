//! `hlrp data filter`: what a filter would leave out of a dataset.

use crate::{image_path, name_of, save_png, user_cache};
use anyhow::{Context, Result};
use clap::Args;
use hlrp_config::{Check, Problem};
use hlrp_data::{
    Description, DiskRules, Filter, VerdictCounts,
    formats::{self, FeatureKind},
    show::{filter_sheet, spread},
};
use hlrp_schema::{ConfigArgs, DeltaUnit, FilterBy, FilterConfig, RequestConfig};
use hlrp_track::console;
use serde::Deserialize;
use std::path::PathBuf;

/// Options of `hlrp data filter`.
#[derive(Args)]
pub(crate) struct FilterOptions {
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
    /// Frames per second, for offsets in seconds (data.request.unit=seconds) and formats that do not say it: RLDS and scenes.
    #[arg(long, value_name = "N")]
    fps: Option<f64>,
    /// File of the drawing. [default: hlrp/filters/<name of the dataset>.png in $XDG_CACHE_HOME, or in ~/.cache]
    #[arg(long, value_name = "PNG")]
    out: Option<PathBuf>,
    /// Episodes in the drawing, spread evenly over the dataset.
    #[arg(long, default_value_t = 8, value_name = "N")]
    episodes: usize,
    #[command(flatten)]
    config: ConfigArgs,
}

impl FilterOptions {
    /// Frames per second of a dataset.
    fn rate(&self, found: &Description) -> Result<f64, Problem> {
        match self.fps {
            Some(fps) if found.is_fps_known && fps != found.fps => {
                let message = format!("{fps}, but the dataset has {} frames per second", found.fps);
                Err(Problem::new("--fps", message, "leave it out"))
            }
            Some(fps) if !(fps.is_finite() && fps > 0.0) => {
                Err(Problem::new("--fps", format!("{fps} is out of range"), "give a number above 0"))
            }
            Some(fps) => Ok(fps),
            None if found.is_fps_known => Ok(found.fps),
            None => {
                let message = "the dataset does not say how many frames a second has, and the offsets are in seconds";
                Err(Problem::new("--fps", message, "give the fps of its source, or data.request.unit=frames"))
            }
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
pub(crate) fn run(options: &FilterOptions) -> Result<()> {
    let config = FilterTree::of(options.config.clone())?.data;
    let dataset = formats::open(&options.path, &crate::options(&options.path)?)?;
    let name = name_of(&options.path);
    let out = image_path(options.out.clone(), "filters", &name)?;
    let found = dataset.describe();
    let first = found.keys(FeatureKind::Camera).next().context("the dataset has no camera")?;
    let cameras: Vec<&str> =
        if options.camera.is_empty() { vec![first] } else { options.camera.iter().map(String::as_str).collect() };
    let missing =
        |keys: &[&str], kind| keys.iter().find(|key| found.feature(key, kind).is_none()).map(|key| (*key).to_owned());
    let actions: &[&str] = if options.by.uses_action() { &[&options.action] } else { &[] };
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
    let rate = if config.request.unit == DeltaUnit::Seconds { options.rate(found)? } else { 1.0 };
    let filter = Filter {
        name: &name,
        dataset: &dataset,
        cameras,
        action_key: Some(&options.action),
        spans: &spans,
        by: options.by,
        config: &config.filter,
        image_gap: (reach * rate).round() as u64,
    };
    let scores = filter.scores(&user_cache()?, &DiskRules::unlimited())?;
    let drawn: Vec<usize> = spread(spans.len(), options.episodes).collect();
    let (mut verdicts, mut counts) = (Vec::new(), VerdictCounts::default());
    for (number, verdict) in scores.verdicts().enumerate() {
        counts.add(&verdict.counts);
        let dropped: Vec<String> =
            verdict.dropped().iter().map(|range| format!("{}-{}", range.start, range.end - 1)).collect();
        let dropped =
            if dropped.is_empty() { String::new() } else { format!("; dropped: frames {}", dropped.join(", ")) };
        let (episode, num_kept, num_anchors) =
            (verdict.span.episode, verdict.counts.num_kept, verdict.counts.num_anchors);
        console::print(&format!("episode {episode}: {num_kept} of {num_anchors} anchors kept{dropped}"));
        if drawn.contains(&number) {
            verdicts.push(verdict);
        }
    }
    console::print(&counts.to_string());
    let title = format!("{name}: {} of {} anchors kept", counts.num_kept, counts.num_anchors);
    save_png(&filter_sheet(&dataset, filter.cameras[0], &title, &verdicts, &config.filter)?, &out)?;
    console::print(&format!("drawing: {}", out.display()));
    Ok(())
}
