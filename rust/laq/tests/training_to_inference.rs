//! A model trained by the engine works from its checkpoint alone.
#![allow(clippy::unwrap_used, non_snake_case)] // a test may panic

#[path = "common/engine.rs"]
mod engine;

use engine::{batch, compose_mini};
use hlrp_laq::{LaqInference, LaqModel, LaqTask, Parts, eval_step, unit_frames};
use hlrp_torch::World;
use hlrp_train::Outcome;
use std::path::PathBuf;
use tch::{Device, Kind, Tensor};

struct Trained {
    _dir: tempfile::TempDir,
    run_dir: PathBuf,
    task: LaqTask,
    outcome: Outcome,
}

fn train() -> Trained {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let (composed, config) = compose_mini(&run_dir);
    tch::manual_seed(1);
    let mut task = LaqTask::new(LaqModel::new(&config.model, Parts::All, Device::Cpu), &config, World::single());
    let outcome = engine::train(&composed, &config, &mut task).unwrap();
    Trained { _dir: dir, run_dir, task, outcome }
}

fn frames() -> Tensor {
    let batch = batch(100);
    let stream = &batch.images["primary"];
    let shape: Vec<i64> = stream.shape.iter().map(|size| *size as i64).collect();
    Tensor::from_data_size(&stream.pixels_BTCHW, &shape, Kind::Uint8)
}

#[test]
fn a_checkpoint_gives_the_codes_and_predictions_of_the_trained_model() {
    let trained = train();
    let frames = frames();
    let expected = eval_step(trained.task.model(), &unit_frames(&frames));

    let whole = LaqInference::load(&trained.run_dir, Parts::All, Device::Cpu).unwrap();
    let (ids_BS, pixels_BCHW) = whole.reconstruct(&frames).unwrap();
    assert!(ids_BS.equal(&expected.latent.ids_BS.unwrap()));
    assert!(pixels_BCHW.equal(expected.predictions.get("pixel").unwrap()));
    let predicted = whole.predict(&frames.select(1, 0), &ids_BS).unwrap();
    assert!(predicted.allclose(&pixels_BCHW, 1e-6, 1e-6, false));
    assert_eq!(whole.code_vectors(&ids_BS).unwrap().size(), [4, whole.dims().code_seq_len, whole.dims().code_dim]);

    let encoder = LaqInference::load(&trained.run_dir, Parts::Encoder, Device::Cpu).unwrap();
    assert!(encoder.codes(&frames).unwrap().equal(&ids_BS));
    let error = encoder.predict(&frames.select(1, 0), &ids_BS).unwrap_err().to_string();
    assert!(error.contains("no pixel decoder"), "{error}");
}

#[test]
fn validation_measures_the_baseline_and_returns_images() {
    let trained = train();
    let metrics = trained.outcome.summary().validation.clone().unwrap();
    for name in [
        "val/loss",
        "val/pixel_loss",
        "val/aux_loss",
        "val/copy_frame_loss",
        "val/permuted_latent_ratio",
        "val/codebook_utilization",
        "val/sequence_entropy",
    ] {
        assert!(metrics.get(name).is_some_and(|value| value.is_finite()), "{name} in {metrics:?}");
    }
    assert_eq!(metrics["val/total_val_samples"], 12.0);

    let (mut sum, mut num) = (0.0, 0.0);
    for index in 100..103 {
        let batch = batch(index);
        let pixels: Vec<f64> = batch.images["primary"].pixels_BTCHW.iter().map(|p| f64::from(*p) / 255.0).collect();
        for pair in pixels.chunks(2 * 3 * 32 * 32) {
            let (earlier, later) = pair.split_at(3 * 32 * 32);
            sum += earlier.iter().zip(later).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
            num += earlier.len() as f64;
        }
    }
    assert!((metrics["val/copy_frame_loss"] - sum / num).abs() < 1e-6 * sum / num + 1e-9);
    for file in ["reconstructions.png", "code_histogram.png"] {
        let bytes = std::fs::read(trained.run_dir.join("validation/step-000004").join(file)).unwrap();
        assert_eq!(&bytes[1..4], b"PNG", "{file}");
    }
}

#[test]
fn a_folder_that_is_no_checkpoint_is_refused_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let error = LaqInference::load(dir.path(), Parts::All, Device::Cpu).err().unwrap();
    let text = hlrp_track::console::error_text(error.as_ref(), hlrp_laq::HINTS);
    assert!(text.contains("hint:"), "{text}");
}
