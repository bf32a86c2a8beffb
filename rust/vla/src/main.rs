//! `hlrp-train-vla`: trains stage 2.

use clap::Parser;
use hlrp_config::HintOf;
use hlrp_schema::{ConfigArgs, PolicySpec, VlaConfig, refuse_named_output};
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
    match std::env::args_os().nth(1) {
        Some(command) if command == IMPORT => {
            hlrp_train::program::command(hlrp_vla::HINTS, |arguments: ImportArguments| {
                refuse_named_output("--out", &arguments.out)?;
                hlrp_vla::import(&arguments.config.compose()?, &arguments.path, &arguments.out)
            })
        }
        _ => hlrp_train::program::main::<Vla>(),
    }
}

/// First argument of what the program does besides training; `hlrp` has a command of the same name.
const IMPORT: &str = "import-vla";

/// Read a stage 2 artifact of the Python predecessor into the policy of an experiment, and write an artifact.
///
/// Training goes on from it with training.load_weights_from=DIR/model.safetensors, and stage 3 starts with
/// lerobot.policy.stage2_artifact=DIR.
#[derive(Debug, Parser)]
#[command(
    name = "hlrp-train-vla import-vla",
    version,
    after_help = "Examples:\n  \
      python scripts/weights_to_safetensors.py smolvla_shared_stage2_artifact.pt stage2.safetensors\n  \
      hlrp import-vla stage2.safetensors --out imported experiment=vla_pooled policy.teacher.checkpoint=imported_laq\n  \
      hlrp import-vla stage2.safetensors --out imported experiment=vla_smolvla policy.objective.mode=actions \\\n    \
        policy.model.action_dim=7 'policy.model.latent={code_seq_len: 1, code_dim: 32}'      without its teacher"
)]
struct ImportArguments {
    /// Safetensors file with the predecessor's names, its manifest beside it; scripts/weights_to_safetensors.py makes both of a .pt file.
    #[arg(value_name = "FILE")]
    path: PathBuf,
    /// The new artifact folder.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
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
