//! `hlrp-train-vla`: trains stage 2.

use hlrp_config::HintOf;
use hlrp_schema::{PolicySpec, VlaConfig};
use hlrp_torch::Allocator;
use hlrp_track::exit_code;
use hlrp_train::LoaderData;
use hlrp_train::program::{Program, Setup};
use hlrp_vla::VlaTask;
use std::{path::PathBuf, process::ExitCode};

/// Running out of memory ends the program with an exit code of its own.
#[global_allocator]
static MEMORY: Allocator = Allocator::new(exit_code::OUT_OF_MEMORY);

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
    const COMMIT: Option<&'static str> = hlrp_build::COMMIT;
    const EXAMPLES: &'static str = "  \
  hlrp train-vla experiment=vla_tiny policy.teacher.checkpoint=runs/LAQ_RUN     minutes on two CPU cores
  hlrp train-vla experiment=vla_tiny policy.objective.mode=actions                  real actions alone; no teacher
  hlrp train-vla experiment=vla_smolvla policy.teacher.checkpoint=runs/LAQ_RUN policy.model.backbone.vlm_model_name=/models/SmolVLM2-500M
  hlrp train-vla --resume runs/2026-01-31_12-00-00_vla_tiny";

    const HINTS: &'static [HintOf] = hlrp_vla::HINTS;

    fn prepare(config: &VlaConfig, setup: &Setup) -> anyhow::Result<(VlaTask, LoaderData)> {
        hlrp_vla::prepare(config, setup, &hlrp_data::log_cache_progress)
    }

    fn inputs(config: &VlaConfig) -> Vec<(&'static str, PathBuf)> {
        let PolicySpec { model, objective, teacher, .. } = &config.policy;
        let teacher = teacher.checkpoint.clone().filter(|_| objective.mode.with_latents());
        let backbone = model.backbone.vlm_model_name.as_ref().map(PathBuf::from);
        let smolvla = model.arch.get().smolvla_checkpoint().map(|(_, path)| path.to_path_buf());
        [("teacher", teacher), ("backbone", backbone), ("smolvla_checkpoint", smolvla)]
            .into_iter()
            .filter_map(|(role, path)| Some((role, path?)))
            .collect()
    }

    fn preflight(config: &VlaConfig) -> anyhow::Result<()> {
        hlrp_vla::preflight(&config.policy)
    }
}
