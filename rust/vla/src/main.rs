//! `hlrp-train-vla`: trains stage 2.

use hlrp_config::HintOf;
use hlrp_schema::VlaConfig;
use hlrp_train::LoaderData;
use hlrp_train::program::{Program, Setup};
use hlrp_vla::VlaTask;
use std::{path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    hlrp_train::program::main::<Vla>()
}

struct Vla;

impl Program for Vla {
    type Config = VlaConfig;
    type Task = VlaTask;
    type Data = LoaderData;

    const NAME: &'static str = "hlrp-train-vla";
    const COMMAND: &'static str = "hlrp train-vla";
    const ABOUT: &'static str = "Train the policy (stage 2): from image, instruction and state to the latent actions of a \
                                 stage 1 teacher, to real actions, or both.";
    const EXAMPLES: &'static str = "  \
  hlrp train-vla experiment=vla_tiny model.laq.checkpoint=runs/LAQ_RUN     minutes on two CPU cores
  hlrp train-vla experiment=vla_tiny model.mode=actions                    real actions alone; no teacher
  hlrp train-vla experiment=vla_smolvla model.laq.checkpoint=runs/LAQ_RUN model.backbone.path=/models/SmolVLM2-500M
  hlrp train-vla --resume runs/2026-01-31_12-00-00_vla_tiny";

    const HINTS: &'static [HintOf] = hlrp_train::HINTS;

    fn prepare(config: &VlaConfig, setup: &Setup) -> anyhow::Result<(VlaTask, LoaderData)> {
        hlrp_vla::prepare(config, setup.device, setup.overwrites_weights, &Setup::report_cache)
    }

    fn inputs(config: &VlaConfig) -> Vec<(&'static str, PathBuf)> {
        let model = &config.model;
        let teacher = model.laq.checkpoint.clone().filter(|_| model.mode.with_latents());
        let backbone = model.backbone.path.as_ref().map(PathBuf::from);
        [("teacher", teacher), ("backbone", backbone), ("init_from", model.init_from.clone())]
            .into_iter()
            .filter_map(|(role, path)| Some((role, path?)))
            .collect()
    }

    fn preflight(config: &VlaConfig) -> anyhow::Result<()> {
        hlrp_vla::preflight(&config.model.backbone)
    }
}
