//! `hlrp-train-vla`: trains stage 2.

use hlrp_config::HintOf;
use hlrp_schema::VlaConfig;
use hlrp_train::LoaderData;
use hlrp_train::program::{Closing, CurvePicture, Program, RowText, Setup};
use hlrp_vla::{CHUNKS, SAMPLES, VlaTask};
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
        hlrp_vla::prepare(config, setup.device, setup.overwrites_weights, &hlrp_data::log_cache_progress)
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

    fn closing(config: &VlaConfig) -> Closing {
        let mut rows: Vec<(&'static str, RowText)> = Vec::new();
        if config.model.mode.with_latents() {
            rows.extend([
                ("latent error", Closing::metric("val/latent_mse", 4)),
                ("  predicting the mean", Closing::metric("val/latent_mean_baseline_mse", 4)),
                ("  repeating the last pair's", Closing::metric("val/latent_repeat_baseline_mse", 4)),
                ("codes right", Closing::metric("val/latent_code_accuracy", 3)),
                ("  the most frequent code", Closing::metric("val/latent_code_frequent_baseline", 3)),
                ("  the last pair's codes", Closing::metric("val/latent_code_repeat_baseline", 3)),
            ]);
        }
        if config.model.mode.with_actions() {
            rows.extend([
                ("action error", Closing::metric("val/action_mse", 4)),
                ("  predicting the mean", Closing::metric("val/action_mean_baseline_mse", 4)),
                ("  repeating the last action", Closing::metric("val/action_repeat_baseline_mse", 4)),
            ]);
        }
        Closing {
            curves: &CURVES,
            rows,
            files: &[("artifact of the best score", "artifacts/best"), ("artifact of the end", "artifacts/final")],
            pictures: &[SAMPLES, CHUNKS],
        }
    }
}

const CURVES: [CurvePicture; 3] = [
    CurvePicture {
        file: "losses.png",
        metrics: &["train/latent_loss", "val/latent_loss", "train/action_loss", "val/action_loss"],
        title: "Flow-matching losses",
        y_label: "mean squared error of the velocity",
        log_y: true,
    },
    CurvePicture {
        file: "latent_error.png",
        metrics: &["val/latent_mse", "val/latent_mean_baseline_mse", "val/latent_repeat_baseline_mse"],
        title: "Latent actions beside the baselines",
        y_label: "mean squared error",
        log_y: false,
    },
    CurvePicture {
        file: "action_error.png",
        metrics: &["val/action_mse", "val/action_mean_baseline_mse", "val/action_repeat_baseline_mse"],
        title: "Actions beside the baselines",
        y_label: "mean squared error, normalised",
        log_y: false,
    },
];
