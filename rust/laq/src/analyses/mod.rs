//! What the codes of a trained model say: `hlrp analyze-laq`.
//!
//! One pass over the held-out pairs ([`Collected`]) feeds every analysis; each writes its files into a folder of its own below the run
//! directory and a section of `report.html`. To add one: a file here, a line in [`ANALYSES`], its switch in `hlrp_schema`'s
//! `laq/analysis.rs` and in `config/analysis/laq.yaml`.

mod action_information;
mod collect;
mod compass;
mod consistency;
mod decoder_dependence;
mod examples;
mod flow_scatter;
mod flow_transfer;
mod heatmap;
mod motion;
mod output;
mod probes;
mod token_reports;
mod transfer;

use crate::error::LaqError;
use crate::flow_teachers::{self, FlowTeacher};
use crate::inference::LaqInference;
use crate::model::{LaqModel, Parts};
use crate::validation::sequence_name;
use crate::views::flow_of_views;
use anyhow::Context;
use collect::{Collected, Record};
use hlrp_config::Composed;
use hlrp_data::{Mixture, hub::recorded};
use hlrp_schema::{
    AnalysisConfig, AnalysisFlowConfig, AnalysisRunConfig, LaqAnalysisConfig, RequestConfig, StageConfig,
};
use hlrp_track::page::Page;
use hlrp_track::run::{Artifact, RunInfo, RunStatus};
use hlrp_track::{RunDir, console, host};
use output::{Output, Section};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Tensor};

/// An analysis: whether it is asked for, the name of its folder, its heading, and what it does.
type Entry =
    (fn(&AnalysisRunConfig) -> bool, &'static str, &'static str, fn(&Scene<'_>, &mut Output) -> anyhow::Result<()>);

/// Every analysis, in the order of the report.
const ANALYSES: [Entry; 11] = [
    (|run| run.decoder_dependence, "decoder_dependence", "Do the decoders use the codes?", decoder_dependence::run),
    (|run| run.action_information, "action_information", "What the codes say about actions", action_information::run),
    (|run| run.probes, "probes", "Can actions be read from the latents?", probes::run),
    (|run| run.analysis_1, "analysis_1_flow_scatter", "Motion of the samples by sequence", flow_scatter::run),
    (
        |run| run.analysis_2,
        "analysis_2_consistency",
        "Does a sequence mean the same direction everywhere?",
        consistency::run,
    ),
    (|run| run.analysis_3, "analysis_3_examples", "Frame pairs of each sequence", examples::run),
    (|run| run.analysis_4, "analysis_4_transfer", "A sequence decoded on other images", transfer::run),
    (|run| run.analysis_5, "analysis_5_heatmap", "Which dataset uses which sequence", heatmap::run),
    (|run| run.analysis_6, "analysis_6_compass", "Mean motion of each sequence", compass::run),
    (
        |run| run.analysis_7,
        "analysis_7_flow_transfer",
        "Predicted motion of a sequence on other images",
        flow_transfer::run,
    ),
    (|run| run.analysis_8, "analysis_8_token_reports", "The first sequences one by one", token_reports::run),
];

/// What every analysis sees.
struct Scene<'a> {
    model: &'a LaqModel,
    teacher: &'a dyn FlowTeacher,
    config: &'a AnalysisConfig,
    collected: &'a Collected,
    data: &'a Mixture,
    /// The frame pairs of the model.
    request: RequestConfig,
    batch_size: usize,
    /// Sequences of codes that all analyses look at, in this order.
    inspected: Vec<Inspected>,
}

/// A sequence of codes and its samples.
struct Inspected {
    codes: Vec<i64>,
    /// `3-1-4-1`.
    name: String,
    /// Samples in each dataset that has one.
    counts: BTreeMap<String, usize>,
}

impl Inspected {
    fn total(&self) -> usize {
        self.counts.values().sum()
    }
}

impl Scene<'_> {
    /// The teacher's flow of frame pairs `[N,2,C,H,W]`: `[N,2,H,W]` in pixels.
    fn flow(&self, frames_NTCHW: &Tensor) -> Tensor {
        flow_of_views(self.teacher, frames_NTCHW, self.model.dims().num_views)
    }

    /// The records of a sequence.
    fn records_of<'a>(&'a self, codes: &'a [i64]) -> impl Iterator<Item = &'a Record> {
        self.collected.records.iter().filter(move |record| record.codes == codes)
    }
}

/// Runs the analyses that the composed configuration asks for; everything is in the new run directory `logging.run_dir`.
///
/// # Errors
/// An invalid setting, a checkpoint without codes, data that cannot be read, or a directory that cannot be written.
pub fn analyze(composed: &Composed) -> anyhow::Result<()> {
    let config = LaqAnalysisConfig::of_run(composed)?;
    console::init(config.logging.level.into(), 0)?;
    let device = hlrp_train::select_device(config.device)?;
    let num_threads = config.num_threads.unwrap_or_else(host::num_cores);
    tch::set_num_threads(i32::try_from(num_threads)?);
    hlrp_torch::rng::seed(Device::Cpu, config.seed)?;
    let checkpoint = config.checkpoint.as_deref().context("a checked configuration names a checkpoint")?;
    let laq = LaqInference::load(checkpoint, Parts::All, device)?;
    if laq.model().quantizer.codes().is_none() {
        return Err(LaqError::CheckpointWithoutCodes { path: checkpoint.to_path_buf() }.into());
    }
    config.analysis.flow.check_images(laq.model().config())?;
    let teacher = teacher(&config.analysis.flow, device)?;
    let data = collect::open(&config, checkpoint, &laq)?;
    let yaml = composed.to_yaml();
    let info = RunInfo {
        description: &config.experiment.description,
        overrides: composed.overrides(),
        versions: [("hlrp", env!("CARGO_PKG_VERSION")), ("libtorch", hlrp_torch::LIBTORCH_VERSION)]
            .map(|(name, version)| (name.to_owned(), version.to_owned()))
            .into(),
        inputs: vec![Artifact::of("checkpoint", checkpoint.to_path_buf())],
        data: data
            .sources()
            .iter()
            .map(|source| {
                let (name, described) = (source.name(), source.description());
                let own = config.data.sources.get(name);
                (name.to_owned(), recorded(name, own, described.fingerprint.clone(), described.num_episodes))
            })
            .collect(),
        num_threads,
        ..RunInfo::new("hlrp-train-laq", &config.experiment.name, &yaml)
    };
    let run_dir = RunDir::create(&config.logging.run_dir, &info)?;
    console::log_to(&run_dir.log_file())?;
    let path = run_dir.path().to_owned();
    let result = run_all(&config, &laq, &*teacher, &data, &path);
    match &result {
        Ok(()) => run_dir.finish(RunStatus::Finished)?,
        Err(error) => {
            let reason = console::error_text(error.as_ref(), crate::HINTS);
            run_dir.finish(RunStatus::Failed { reason, exit_code: None })?;
        }
    }
    result?;
    console::print(&format!("report: {}", path.join(REPORT).display()));
    Ok(())
}

/// The page with all results.
const REPORT: &str = "report.html";

fn teacher(config: &AnalysisFlowConfig, device: Device) -> Result<Box<dyn FlowTeacher>, LaqError> {
    let options = [config.teacher_num_updates, config.teacher_chunk_size];
    flow_teachers::load(config.teacher, config.teacher_weights.as_deref(), options, device, "analysis.flow")
}

fn run_all(
    config: &LaqAnalysisConfig,
    laq: &LaqInference,
    teacher: &dyn FlowTeacher,
    data: &Arc<Mixture>,
    run_dir: &Path,
) -> anyhow::Result<()> {
    let model = laq.model();
    let collected = collect::collect(model, teacher, data, &config.analysis)?;
    let inspected = inspected(&collected, config.analysis.inspected_tokens_k);
    let scene = Scene {
        model,
        teacher,
        config: &config.analysis,
        collected: &collected,
        data,
        request: collect::request(config, laq),
        batch_size: config.data.loader.batch_size,
        inspected,
    };
    let name = config.checkpoint.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
    let mut page = Page::new("What the codes of a latent action model say", &name);
    let mut output = Output::new(run_dir)?;
    collect::report(&scene, &mut output)?;
    output.take().add_to(&mut page, "Samples")?;
    for (is_asked, folder, title, analyze) in ANALYSES {
        if !is_asked(&config.analysis.run) {
            continue;
        }
        tracing::info!("{folder}");
        let mut output = Output::new(&run_dir.join(folder))?;
        analyze(&scene, &mut output).with_context(|| format!("{folder} fails"))?;
        let section: Section = output.take();
        section.add_to(&mut page, title)?;
    }
    page.write(&run_dir.join(REPORT))?;
    output::check(run_dir)
}

/// The sequences in the most datasets, then the most frequent, then in the order of their codes.
fn inspected(collected: &Collected, num: usize) -> Vec<Inspected> {
    let mut counts: BTreeMap<&[i64], BTreeMap<String, usize>> = BTreeMap::new();
    for record in &collected.records {
        *counts.entry(&record.codes).or_default().entry(record.source.clone()).or_default() += 1;
    }
    let mut inspected: Vec<_> = counts
        .into_iter()
        .map(|(codes, counts)| Inspected { codes: codes.to_vec(), name: sequence_name(codes), counts })
        .collect();
    inspected.sort_by_key(|sequence| std::cmp::Reverse((sequence.counts.len(), sequence.total())));
    inspected.truncate(num);
    inspected
}

/// The datasets of the samples.
fn sources(collected: &Collected) -> BTreeSet<&str> {
    collected.records.iter().map(|record| record.source.as_str()).collect()
}
