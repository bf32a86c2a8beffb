//! `hlrp-train-laq`: trains stage 1.

use hlrp_config::HintOf;
use hlrp_laq::{Backbone, LaqModel, LaqTask, Parts, load_teachers, open_pairs};
use hlrp_schema::LaqConfig;
use hlrp_torch::Allocator;
use hlrp_track::exit_code;
use hlrp_train::LoaderData;
use hlrp_train::program::{Program, Setup};
use std::{path::PathBuf, process::ExitCode};

/// Running out of memory ends the program with an exit code of its own.
#[global_allocator]
static MEMORY: Allocator = Allocator::new(exit_code::OUT_OF_MEMORY);

fn main() -> ExitCode {
    hlrp_train::program::main::<Laq>()
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
        let backbone = Backbone::resolve(&mut model_config)?;
        let mut model = LaqModel::new(&model_config, Parts::All, setup.device);
        if let Some(backbone) = backbone.filter(|_| !setup.overwrites_weights) {
            backbone.load(&model)?;
        }
        load_teachers(&mut model)?;
        let task = LaqTask::new(model, config, setup.world.clone());
        Ok((task, data))
    }

    fn preflight(config: &LaqConfig) -> anyhow::Result<()> {
        Backbone::resolve(&mut config.model.clone()).map(|_| ())
    }

    fn inputs(config: &LaqConfig) -> Vec<(&'static str, PathBuf)> {
        let flow = config.model.decoders.flow.as_ref().filter(|flow| flow.enabled);
        flow.and_then(|flow| flow.teacher_weights.clone()).map(|path| ("flow teacher", path)).into_iter().collect()
    }
}
