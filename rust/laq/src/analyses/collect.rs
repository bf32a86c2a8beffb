//! One pass over the held-out pairs: codes, motion, actions and losses of each, frames of some.

use super::decoder_dependence::Dependence;
use super::motion::summaries;
use super::output::Output;
use super::{Scene, sources};
use crate::data::pairs_of;
use crate::flow_teachers::FlowTeacher;
use crate::inference::LaqInference;
use crate::model::LaqModel;
use crate::step::{Samples, eval_step};
use crate::stored::open_checkpoint;
use crate::validation::{KeyedSamples, Observed};
use crate::views::flow_of_views;
use hlrp_data::{FrameSize, Loader, Mixture, Shard};
use hlrp_schema::{AnalysisConfig, DataConfig, LaqAnalysisConfig, RequestConfig};
use hlrp_torch::HostToDevice;
use hlrp_track::table::ResultTable;
use hlrp_train::{DeviceBatch, disk_rules};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// A pair.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) source: String,
    pub(super) episode: u64,
    pub(super) frame: u64,
    pub(super) codes: Vec<i64>,
    /// Magnitude-weighted mean flow in pixels.
    pub(super) motion: (f64, f64),
    pub(super) is_static: bool,
    /// Sum of the actions over the pair, where the dataset has actions.
    pub(super) action: Option<Vec<f64>>,
    /// State at frame t, where the dataset has states.
    pub(super) state: Option<Vec<f64>>,
}

/// A pair whose frames are kept.
pub(super) struct Visual {
    pub(super) record: Record,
    /// `uint8 [2,C,H,W]`.
    pub(super) pixels_TCHW: Tensor,
}

/// What one pass over the data found.
pub(super) struct Collected {
    pub(super) records: Vec<Record>,
    pub(super) visuals: Vec<Visual>,
    pub(super) dependence: Dependence,
    num_batches: usize,
    num_not_finite: usize,
}

/// Opens the held-out episodes of the configured datasets with the pairs of the checkpoint. Episodes that the checkpoint's run held out
/// of a dataset of the same name stay held out.
///
/// # Errors
/// A dataset that cannot be read, or without a held-out episode.
pub(super) fn open(config: &LaqAnalysisConfig, checkpoint: &Path, laq: &LaqInference) -> anyhow::Result<Arc<Mixture>> {
    let data = DataConfig { request: request(config, laq), ..config.data.clone() };
    let side = usize::try_from(laq.dims().image_size)?;
    let size = FrameSize { height: side, width: side };
    let disk = disk_rules(&config.cluster, &config.logging);
    let mixture = Mixture::open(&data, size, &disk, &hlrp_data::log_cache_progress)?;
    let mixture = mixture.with_whole_pairs(&data.request)?;
    let saved = open_checkpoint(checkpoint)?.0.state().sources.clone().unwrap_or_default();
    let held_out = saved.into_iter().map(|(name, record)| (name, record.held_out)).collect();
    Ok(Arc::new(mixture.with_held_out(&held_out)?))
}

/// The configured request with the frame pairs of the checkpoint.
pub(super) fn request(config: &LaqAnalysisConfig, laq: &LaqInference) -> RequestConfig {
    let pair = &laq.description().pair;
    RequestConfig { unit: pair.unit, image_deltas: pair.image_deltas.clone(), ..config.data.request.clone() }
}

/// Reads samples until every dataset has enough or the batches are used up.
///
/// # Errors
/// Data that cannot be read.
pub(super) fn collect(
    model: &LaqModel,
    teacher: &dyn FlowTeacher,
    mixture: &Arc<Mixture>,
    config: &AnalysisConfig,
) -> anyhow::Result<Collected> {
    let transfer = HostToDevice::new(model.store().device())?;
    let mut visuals = KeyedSamples::new(config.visual_subset_size, 0);
    let mut counts: BTreeMap<String, usize> =
        mixture.sources().iter().map(|source| (source.name().to_owned(), 0)).collect();
    let mut found = Collected {
        records: Vec::new(),
        visuals: Vec::new(),
        dependence: Dependence::default(),
        num_batches: 0,
        num_not_finite: 0,
    };
    for batch in Loader::validation(mixture, Some(config.max_batches), Shard::SINGLE)? {
        if counts.values().all(|count| *count >= config.samples_per_dataset) {
            break;
        }
        let batch = DeviceBatch::from_host(batch?, &transfer)?;
        let frames_BTCHW = pairs_of(&batch, model)?;
        let flow_B2HW = flow_of_views(teacher, &frames_BTCHW, model.dims().num_views);
        let step =
            eval_step(model, Samples { frames_BTCHW: &frames_BTCHW, flow_B2HW: Some(flow_B2HW.shallow_clone()) });
        found.num_batches += 1;
        found.dependence.add(model, &frames_BTCHW, &step);
        let motions = summaries(&flow_B2HW, config.static_eps)?;
        let observed = Observed::new(model, &batch, &frames_BTCHW, &step)?;
        for (index, (motion, is_static)) in motions.into_iter().enumerate() {
            let meta = observed.meta(index);
            let count = counts.entry(meta.source.clone()).or_default();
            if *count >= config.samples_per_dataset {
                continue;
            }
            *count += 1;
            if !motion.0.is_finite() || !motion.1.is_finite() {
                found.num_not_finite += 1;
                continue;
            }
            let record = Record {
                source: meta.source.clone(),
                episode: meta.episode,
                frame: meta.frame,
                codes: observed.codes(index).to_vec(),
                motion,
                is_static,
                action: observed.action(index)?,
                state: observed.state(index)?,
            };
            visuals.offer(meta, || Ok(Visual { record: record.clone(), pixels_TCHW: observed.pixels(index)? }))?;
            found.records.push(record);
        }
    }
    if found.records.is_empty() {
        return Err(crate::LaqError::NoValidationData.into());
    }
    found.visuals = visuals.take();
    Ok(found)
}

/// Writes what was collected: `samples.csv`, the inspected sequences, and checks.
///
/// # Errors
/// The system refuses.
pub(super) fn report(scene: &Scene<'_>, output: &mut Output) -> anyhow::Result<()> {
    let Collected { records, num_batches, num_not_finite, visuals, .. } = scene.collected;
    samples(records, output)?;
    inspected(scene, output)?;
    let sources = sources(scene.collected);
    let counts: BTreeMap<&str, usize> =
        sources.iter().map(|source| (*source, of_source(records, source).count())).collect();
    let static_rate = |source: &str| {
        of_source(records, source).filter(|record| record.is_static).count() as f64 / counts[source] as f64
    };
    let static_rates: BTreeMap<&str, f64> = sources.iter().map(|source| (*source, static_rate(source))).collect();
    let mut sequences: BTreeMap<&[i64], usize> = BTreeMap::new();
    records.iter().for_each(|record| *sequences.entry(&record.codes).or_default() += 1);
    let total = records.len();
    output.json(
        "collection_stats",
        &json!({
            "num_samples": total,
            "num_batches": num_batches,
            "num_with_frames": visuals.len(),
            "per_dataset_counts": counts,
        }),
    )?;
    let scarce: Vec<&str> =
        counts.iter().filter(|(_, count)| **count < scene.config.min_dataset_samples).map(|(name, _)| *name).collect();
    output.json(
        "sanity_checks",
        &json!({
            "total_samples": total,
            "nan_or_inf_rate": *num_not_finite as f64 / (total + num_not_finite) as f64,
            "per_dataset_counts": counts,
            "dataset_under_min_samples": scarce,
            "static_rate_per_dataset": static_rates,
            "num_unique_sequences": sequences.len(),
            "num_sequences_below_10_support": sequences.values().filter(|count| **count < 10).count(),
        }),
    )?;
    output.note(format!("{total} held-out pairs, {} sequences of codes", sequences.len()));
    if !scarce.is_empty() {
        output.note(format!("fewer than {} samples: {}", scene.config.min_dataset_samples, scarce.join(", ")));
    }
    let mut table = ResultTable::new(["dataset", "pairs", "static"]);
    for (source, count) in &counts {
        table = table.row([(*source).to_owned(), count.to_string(), format!("{:.1} %", 100.0 * static_rates[source])]);
    }
    output.table(table);
    Ok(())
}

/// The records of a dataset.
fn of_source<'a>(records: &'a [Record], source: &'a str) -> impl Iterator<Item = &'a Record> {
    records.iter().filter(move |record| record.source == source)
}

/// Every sample as a row: the data that the other files can be recomputed from.
fn samples(records: &[Record], output: &mut Output) -> anyhow::Result<()> {
    let width =
        |values: fn(&Record) -> Option<&Vec<f64>>| records.iter().filter_map(values).map(Vec::len).max().unwrap_or(0);
    let (num_actions, num_slots) = (width(|record| record.action.as_ref()), records[0].codes.len());
    let mut columns: Vec<String> =
        ["dataset", "episode", "frame", "mean_dx", "mean_dy", "is_static"].map(str::to_owned).into();
    columns.extend((0..num_slots).map(|slot| format!("code_{slot}")));
    columns.extend((0..num_actions).map(|dim| format!("action_{dim}")));
    let row = |record: &Record| {
        let mut row = vec![
            record.source.clone(),
            record.episode.to_string(),
            record.frame.to_string(),
            record.motion.0.to_string(),
            record.motion.1.to_string(),
            record.is_static.to_string(),
        ];
        row.extend(record.codes.iter().map(i64::to_string));
        let action = record.action.iter().flatten().map(f64::to_string);
        row.extend(action.chain(std::iter::repeat(String::new())).take(num_actions));
        row
    };
    output.csv("samples", &columns, &records.iter().map(row).collect::<Vec<_>>())
}

fn inspected(scene: &Scene<'_>, output: &mut Output) -> anyhow::Result<()> {
    let sources = sources(scene.collected);
    let mut columns: Vec<String> = ["rank", "sequence", "total_n", "num_datasets"].map(str::to_owned).into();
    columns.extend(sources.iter().map(|source| (*source).to_owned()));
    let mut rows = Vec::new();
    let mut entries = Vec::new();
    for (rank, sequence) in scene.inspected.iter().enumerate() {
        let count = |source: &&str| sequence.counts.get(*source).copied().unwrap_or(0).to_string();
        let fixed =
            [rank.to_string(), sequence.name.clone(), sequence.total().to_string(), sequence.counts.len().to_string()];
        rows.push(fixed.into_iter().chain(sources.iter().map(count)).collect());
        entries.push(json!({
            "rank": rank,
            "sequence": sequence.name,
            "codes": sequence.codes,
            "total_n": sequence.total(),
            "num_datasets": sequence.counts.len(),
            "per_dataset_counts": sequence.counts,
        }));
    }
    output.csv("inspected_tokens", &columns, &rows)?;
    output.json("inspected_tokens", &entries)
}

/// Frames `[N,2,C,H,W]` in [0, 1] of some pairs, on the model's device.
pub(super) fn frames_of(model: &LaqModel, visuals: &[&Visual]) -> Tensor {
    let pixels: Vec<_> = visuals.iter().map(|visual| visual.pixels_TCHW.shallow_clone()).collect();
    crate::patches::unit_frames(&Tensor::stack(&pixels, 0).to_device(model.store().device()))
}

/// Tokens `[N,S,D]` of sequences of codes.
pub(super) fn tokens_of(model: &LaqModel, sequences: &[&[i64]]) -> anyhow::Result<Tensor> {
    let ids: Vec<i64> = sequences.concat();
    let ids_NS = Tensor::from_slice(&ids).view([sequences.len() as i64, -1]).to_device(model.store().device());
    let codes = model.quantizer.codes().ok_or(crate::LaqError::NoCodes)?;
    Ok(tch::no_grad(|| model.bottleneck.action_tokens(&codes.vectors(&ids_NS.to_kind(Kind::Int64)))))
}
