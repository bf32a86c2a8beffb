//! `hlrp-train-laq`: trains stage 1.

use clap::Parser;
use hlrp_config::HintOf;
use hlrp_laq::{
    Backbone, FlowCache, LabelHead, LabelOptions, LaqModel, LaqTask, Parts, Probes, load_teachers, open_pairs,
};
use hlrp_schema::policy::LabelSource;
use hlrp_schema::{ConfigArgs, LaqConfig, refuse_named_output};
use hlrp_torch::Allocator;
use hlrp_track::exit_code;
use hlrp_train::LoaderData;
use hlrp_train::program::{Program, Setup};
use std::{path::PathBuf, process::ExitCode};

/// Running out of memory ends the program with an exit code of its own.
#[global_allocator]
static MEMORY: Allocator = Allocator::new(exit_code::OUT_OF_MEMORY);

fn main() -> ExitCode {
    let command = std::env::args_os().nth(1).unwrap_or_default();
    match command.to_str() {
        Some(ANALYZE) => run::<AnalyzeArguments>(|arguments| hlrp_laq::analyze(&arguments.config.compose()?)),
        Some(IMPORT) => run::<ImportArguments>(|arguments| {
            refuse_named_output(OUT, &arguments.out)?;
            hlrp_laq::import(&arguments.config.compose()?, &arguments.path, &arguments.out)
        }),
        Some(EXPORT) => run::<ExportArguments>(|arguments| {
            refuse_named_output(OUT, &arguments.out)?;
            hlrp_laq::export(&arguments.checkpoint, &arguments.out)
        }),
        Some(LABEL) => run::<LabelArguments>(|arguments| {
            refuse_named_output(OUT, &arguments.out)?;
            arguments.cache_dir.as_deref().map_or(Ok(()), |dir| refuse_named_output(CACHE_DIR, dir))?;
            hlrp_laq::label(&arguments.into())
        }),
        _ => hlrp_train::program::main::<Laq>(),
    }
}

/// First arguments of what the program does besides training; `hlrp` has commands of the same names.
const ANALYZE: &str = "analyze-laq";
const IMPORT: &str = "import-laq";
const EXPORT: &str = "export-laq";
const LABEL: &str = "label";
/// The option of these commands that names what they write.
const OUT: &str = "--out";
/// The option of `label` that names the folder of frame caches.
const CACHE_DIR: &str = "--cache-dir";

/// Report what the codes of a latent action model say about motion, actions and datasets.
#[derive(Debug, Parser)]
#[command(
    name = "hlrp-train-laq analyze-laq",
    version,
    after_help = "Example:\n  hlrp analyze-laq checkpoint=runs/2026-01-31_12-00-00_laq_tiny experiment=laq_token_analysis"
)]
struct AnalyzeArguments {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Read weights of the Python predecessor into the model of an experiment, and write a checkpoint folder.
#[derive(Debug, Parser)]
#[command(
    name = "hlrp-train-laq import-laq",
    version,
    after_help = "Example:\n  hlrp import-laq laq.safetensors --out imported experiment=laq model.quantizer.codebook_size=16"
)]
struct ImportArguments {
    /// Safetensors file with the predecessor's names; scripts/weights_to_safetensors.py makes one of a .ckpt or .pt file.
    #[arg(value_name = "FILE")]
    path: PathBuf,
    /// The new checkpoint folder.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Write the encoder and the quantizer of a checkpoint alone, safetensors and a JSON description: enough for `label` and for a teacher of
/// the later stages.
#[derive(Debug, Parser)]
#[command(
    name = "hlrp-train-laq export-laq",
    version,
    after_help = "Example:\n  hlrp export-laq runs/2026-01-31_12-00-00_laq_tiny --out encoder"
)]
struct ExportArguments {
    /// Checkpoint folder or run directory.
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: PathBuf,
    /// The new folder.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Write the latent action of every frame as columns of a new dataset beside the one that is read. A command that was stopped goes on where
/// it was.
#[derive(Debug, Parser)]
#[command(
    name = "hlrp-train-laq label",
    version,
    after_help = "Example:\n  hlrp label runs/2026-01-31_12-00-00_laq_tiny data/metaworld_mt5 --out data/metaworld_mt5_labelled"
)]
struct LabelArguments {
    /// Checkpoint folder or run directory of stage 1, or a folder of `hlrp export-laq`.
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: PathBuf,
    /// Folder of a LeRobot v3 dataset.
    #[arg(value_name = "DATASET")]
    dataset: PathBuf,
    /// The new dataset folder.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where labels come from.
    #[arg(long, value_enum, default_value_t = LabelSource::Teacher)]
    source: LabelSource,
    /// Folder of frame caches (`data.cache.dir` of a training): frames are read from the cache of all episodes there, which is built first where
    /// it is missing. By default they are decoded from the dataset.
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Camera that the checkpoint sees; by default the only one. For a model of several cameras once for each, in its order.
    #[arg(long, value_name = "KEY")]
    camera: Vec<String>,
    /// What the keys of the columns begin with.
    #[arg(long, value_name = "NAME", default_value = "latent_labels")]
    prefix: String,
    /// Frame pairs per forward pass.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..))]
    batch_size: u64,
    /// Of synthetic labels.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

impl From<LabelArguments> for LabelOptions {
    fn from(from: LabelArguments) -> Self {
        let LabelArguments { checkpoint, dataset, out, source, cache_dir, camera, prefix, batch_size, seed } = from;
        let (cameras, batch_size) = (camera, batch_size as usize);
        Self { checkpoint, dataset, out, source, cache_dir, cameras, prefix, batch_size, seed }
    }
}

/// Runs a command whose name is the first argument.
fn run<A: Parser>(command: impl FnOnce(A) -> anyhow::Result<()>) -> ExitCode {
    hlrp_train::program::command(hlrp_laq::HINTS, command)
}

struct Laq;

impl Program for Laq {
    type Config = LaqConfig;
    type Task = LaqTask;
    type Data = LoaderData;

    const NAME: &'static str = "hlrp-train-laq";
    const COMMAND: &'static str = "hlrp train-laq";
    const ABOUT: &'static str = "Train the latent action model (stage 1): discrete codes that say what changed between \
                                 two frames of robot video.";
    const COMMIT: Option<&'static str> = hlrp_build::COMMIT;
    const EXAMPLES: &'static str = "  \
  hlrp train-laq experiment=laq_tiny                       minutes on two CPU cores, on the data in the repository
  hlrp train-laq experiment=laq_tiny training.optimizer.lr=3e-4 seed=7
  hlrp train-laq experiment=laq_pixel data.sources.metaworld_mt5.root=/data/mine
  hlrp train-laq --resume runs/2026-01-31_12-00-00_laq_tiny";

    const HINTS: &'static [HintOf] = hlrp_laq::HINTS;

    fn prepare(config: &LaqConfig, setup: &Setup) -> anyhow::Result<(LaqTask, LoaderData)> {
        let data = open_pairs(config, setup.resumed.as_ref(), &hlrp_data::log_cache_progress)?;
        let mut model_config = config.model.clone();
        if let Some(flow) = &mut model_config.decoders.flow {
            // Not of the model: a run may resume with another cache.
            flow.cache = None;
        }
        let backbone = Backbone::resolve(&mut model_config)?;
        let mut model = LaqModel::new(&model_config, Parts::All, setup.device);
        if let Some(backbone) = backbone.filter(|_| !setup.overwrites_weights) {
            backbone.load(&model)?;
        }
        load_teachers(&mut model)?;
        let probes = Probes::new(config, data.mixture())?;
        let label_head = LabelHead::new(config, &model, data.mixture(), &setup.world)?;
        let task = LaqTask::new(model, config, setup.world.clone()).with_probes(probes);
        let flow_cache = FlowCache::open(config, data.mixture(), setup.device)?;
        let task = task.with_label_head(label_head).with_flow_cache(flow_cache);
        let task = task.with_training_pairs(config, data.mixture())?;
        Ok((task, data))
    }

    fn preflight(config: &LaqConfig) -> anyhow::Result<()> {
        Backbone::resolve(&mut config.model.clone()).map(|_| ())
    }

    fn inputs(config: &LaqConfig) -> Vec<(&'static str, PathBuf)> {
        let flow = config.model.decoders.flow.as_ref().filter(|flow| flow.enabled && flow.teacher.is_raft());
        flow.and_then(|flow| flow.teacher_weights.clone()).map(|path| ("flow teacher", path)).into_iter().collect()
    }
}
