//! Strategies against what is computed here one sample at a time.
#![allow(clippy::unwrap_used)] // a test may panic

use super::samples::key;
use super::*;
use crate::model::Parts;
use crate::patches::unit_frames;
use hlrp_config::compose;
use hlrp_data::{Batch, FrameSize, ImageStream, SampleMeta, VectorStream};
use hlrp_nn::Pass;
use hlrp_schema::PROJECT;
use hlrp_torch::HostToDevice;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, no_grad};

const NUM_SAMPLES: usize = 6;
const SIDE: usize = 32;

fn config(further: &[&str]) -> LaqConfig {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    let words = [
        "experiment=laq_tiny",
        "validation=laq_rich",
        "model.image_size=32",
        "model.patch_size=4",
        "model.dim=32",
        "model.heads=2",
        "model.dim_head=16",
        "validation.fail_on_error=true",
        "validation.check_interval=10",
    ];
    let words: Vec<String> = words.iter().chain(further).map(|word| (*word).to_owned()).collect();
    compose(&PROJECT, &root, "config", &words).unwrap().extract().unwrap()
}

fn model(config: &LaqConfig) -> LaqModel {
    tch::manual_seed(4);
    LaqModel::new(&config.model, Parts::All, Device::Cpu)
}

/// Pairs of noise; the action of each is its number, three times.
fn batch(episode: u64) -> Batch {
    let first = episode as usize * NUM_SAMPLES;
    tch::manual_seed(episode as i64);
    let pixels = Tensor::randint(256, [(NUM_SAMPLES * 2 * 3 * SIDE * SIDE) as i64], (Kind::Uint8, Device::Cpu));
    let meta = |frame| SampleMeta { source: "noise".into(), episode, frame: frame as u64, dt_s: 0.1 };
    let vectors = |num_steps: usize| VectorStream {
        values_BTN: (0..NUM_SAMPLES * num_steps * 2).map(|index| (first + index / num_steps / 2) as f32).collect(),
        shape: [NUM_SAMPLES, num_steps, 2],
        is_pad_BT: vec![false; NUM_SAMPLES * num_steps],
        is_pad_dim_BN: vec![false; NUM_SAMPLES * 2],
    };
    Batch {
        images: BTreeMap::from([(
            "primary".to_owned(),
            ImageStream {
                pixels_BTCHW: Vec::<u8>::try_from(pixels).unwrap().into(),
                shape: [NUM_SAMPLES, 2, 3, SIDE, SIDE],
                size: FrameSize { height: SIDE, width: SIDE },
                is_real_BT: vec![true; NUM_SAMPLES * 2],
            },
        )]),
        task: vec!["look".to_owned(); NUM_SAMPLES],
        state: Some(vectors(1)),
        action: Some(vectors(3)),
        labels: BTreeMap::new(),
        meta: (0..NUM_SAMPLES).map(meta).collect(),
    }
}

fn batches() -> impl Iterator<Item = anyhow::Result<DeviceBatch>> {
    let transfer = HostToDevice::new(Device::Cpu).unwrap();
    (0..3).map(move |episode| Ok(DeviceBatch::from_host(batch(episode), &transfer).unwrap()))
}

fn validate(config: &LaqConfig, step: u64) -> anyhow::Result<Validation> {
    let world = World::single();
    Validations::new(config).run(
        &model(config),
        Beside::default(),
        &mut batches(),
        &ValidationContext { step, world: &world },
    )
}

fn names(validation: &Validation) -> Vec<&str> {
    validation.images.iter().map(|image| image.name.as_str()).collect()
}

#[test]
fn every_strategy_draws_what_it_is_named_for() {
    let found = validate(&config(&["validation.strategies.reconstructions.reconstructions.num_random_samples=2"]), 1);
    let found = found.unwrap();
    let wanted = [
        "action_sequence_scatter",
        "action_token_scatter",
        "all_sequences_histogram",
        "code_histogram",
        "codebook_embedding",
        "latent_transfer",
        "reconstructions",
        "reconstructions_random",
        "sequence_examples",
        "sequence_histogram",
        "state_sequence_scatter",
        "top_sequences_scatter",
    ];
    assert_eq!(names(&found), wanted, "the flow strategy needs a flow decoder");
    for image in &found.images {
        let first = image.image.get_pixel(0, 0);
        let num_others = image.image.pixels().filter(|pixel| *pixel != first).count();
        assert!(num_others > 2000, "{} has only {num_others} pixels that differ", image.name);
    }
}

#[test]
fn a_transferred_latent_is_decoded_on_the_other_pairs_first_frame() {
    let config = config(&["validation.strategies.latent_transfer.latent_transfer.num_pairs=4", "model/quantizer=none"]);
    let found = validate(&config, 1).unwrap();
    let model = model(&config);
    // All samples one by one, the four sources and then their targets by the order of their keys.
    let mut samples: Vec<_> = (0..3)
        .flat_map(|episode| {
            let batch = batch(episode);
            let pixels = &batch.images["primary"].pixels_BTCHW;
            let frames = Tensor::from_slice(pixels).view([NUM_SAMPLES as i64, 2, 3, SIDE as i64, SIDE as i64]);
            (0..NUM_SAMPLES)
                .map(move |index| (key(&batch.meta[index], 0), unit_frames(&frames.narrow(0, index as i64, 1))))
                .collect::<Vec<_>>()
        })
        .collect();
    samples.sort_by_key(|(key, _)| *key);
    let error = |source: &Tensor, target: &Tensor| {
        let tokens = eval_step(&model, source).action_tokens_BSD;
        let frame = no_grad(|| {
            let predictions = model.predict(&target.narrow(1, 0, 1), &tokens, &Pass::plain(false));
            model.decoders.frame(&predictions, &target.select(1, 0)).unwrap()
        });
        (frame - target.select(1, 1)).square().mean(Kind::Double).double_value(&[])
    };
    let mean = |errors: Vec<f64>| errors.iter().sum::<f64>() / errors.len() as f64;
    let pairs = || samples[..4].iter().zip(&samples[4..8]).map(|((_, source), (_, target))| (source, target));
    let transferred = mean(pairs().map(|(source, target)| error(source, target)).collect());
    let own = mean(pairs().map(|(_, target)| error(target, target)).collect());
    let close = |name: &str, wanted: f64| {
        let value = found.metrics[name];
        assert!((value / wanted - 1.0).abs() < 1e-5, "{name}: {value} instead of {wanted}");
    };
    close("val/latent_transfer_mse", transferred);
    close("val/self_recon_mse", own);
    close("val/transfer_ratio", transferred / own);
    assert!((transferred - own).abs() > 1e-9, "the two differ");
}

#[test]
fn a_bucket_has_metrics_and_images_of_its_own() {
    let config = config(&[
        "+validation.buckets.first={filters: {episode: 0}, max_samples: 100, is_holdout: false}",
        "+validation.buckets.late={filters: {episode: ['>=', 1], source: noise}, max_samples: 7, is_holdout: true}",
        "validation.strategies.code_histogram.buckets=[first,late]",
        "validation.strategies.latent_transfer.buckets=[late]",
    ]);
    let found = validate(&config, 1).unwrap();
    assert_eq!(found.metrics["val/total_val_samples"], 18.0);
    assert_eq!(found.metrics["val/total_val_samples_first"], 6.0);
    assert_eq!(found.metrics["val/total_val_samples_late_holdout"], 7.0);
    assert!(found.metrics.contains_key("val/latent_transfer_mse_late_holdout"));
    assert!(!found.metrics.contains_key("val/latent_transfer_mse"));
    for name in ["code_histogram_first", "code_histogram_late_holdout", "latent_transfer_late_holdout"] {
        assert!(names(&found).contains(&name), "{:?} has no {name}", names(&found));
    }
    let model = model(&config);
    let declared: Vec<String> =
        Validations::new(&config).metrics(&model, 4).into_iter().map(|spec| spec.name).collect();
    for name in found.metrics.keys() {
        assert!(declared.contains(name), "{name} is not declared");
    }
}

#[test]
fn a_strategy_is_due_at_every_nth_validation_and_at_the_last() {
    let config = config(&[
        "training.max_steps=95",
        "training.scheduler.warmup_steps=1",
        "validation.strategies.latent_transfer.every_n_validations=4",
    ]);
    let (validations, model) = (Validations::new(&config), model(&config));
    let world = World::single();
    let due = |step: u64| validations.due(&model, Beside::default(), &ValidationContext { step, world: &world });
    let is_due = |step: &u64| due(*step).iter().any(|running| running.name == "latent_transfer");
    let due: Vec<u64> = (10..=90).step_by(10).chain([95]).filter(is_due).collect();
    assert_eq!(due, [10, 50, 90, 95]);
}

#[test]
fn too_few_samples_leave_a_strategy_out() {
    let found = validate(&config(&["validation.strategies.action_token_scatter.min_samples=19"]), 1).unwrap();
    assert!(!names(&found).contains(&"action_token_scatter"));
}

#[test]
fn fixed_samples_are_the_same_at_every_validation_and_random_ones_are_not() {
    let config = config(&[
        "validation.num_fixed_samples=2",
        "validation.strategies.reconstructions.reconstructions.num_random_samples=2",
    ]);
    let [first, second] = [10, 20].map(|step| validate(&config, step).unwrap());
    // Below the title, which names the step.
    let body = |validation: &Validation, name: &str| {
        let image = &validation.images.iter().find(|image| image.name == name).unwrap().image;
        image.rows().skip(48).map(|row| row.copied().collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    assert_eq!(body(&first, "reconstructions"), body(&second, "reconstructions"));
    assert_ne!(body(&first, "reconstructions_random"), body(&second, "reconstructions_random"));
}

#[test]
fn training_pairs_are_of_training_episodes_and_the_same_at_every_validation() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/metaworld_mt5");
    let root = format!("data.sources.metaworld_mt5.root={}", root.display());
    let config = config(&[&root, "validation.num_fixed_samples=3"]);
    let size = hlrp_data::FrameSize { height: SIDE, width: SIDE };
    let disk = hlrp_data::DiskRules::unlimited();
    let mixture = hlrp_data::Mixture::open(&config.data, size, &disk, &|_, _, _, _| {}).unwrap();
    let pairs = TrainingPairs::new(&config, &mixture, Device::Cpu).unwrap().unwrap();
    let episodes = |split| -> Vec<u64> {
        mixture.sources()[0].episodes(split).iter().map(|span: &hlrp_data::EpisodeSpan| span.episode).collect()
    };
    let (training, held_out) = (episodes(hlrp_data::Split::Train), episodes(hlrp_data::Split::Validation));
    let shown: Vec<u64> =
        pairs.batches().unwrap().iter().flat_map(|batch| &batch.meta).map(|meta| meta.episode).collect();
    assert!(shown.len() >= 8 && !held_out.is_empty());
    assert!(shown.iter().all(|episode| training.contains(episode) && !held_out.contains(episode)), "{shown:?}");

    let (model, world) = (model(&config), World::single());
    let beside = Beside { training_pairs: Some(&pairs), ..Beside::default() };
    let found = |step| {
        let context = ValidationContext { step, world: &world };
        Validations::new(&config).run(&model, beside, &mut batches(), &context).unwrap()
    };
    // Below the title, which names the step: eight rows of training pairs under one of titles.
    let [first, second] = [10, 20].map(|step| {
        let images = found(step).images;
        let image = images.iter().find(|image| image.name == "reconstructions_train").unwrap().image.clone();
        let of_validation = images.iter().find(|image| image.name == "reconstructions").unwrap();
        assert!(image.height() > 2 * of_validation.image.height(), "8 pairs beside 3");
        image.rows().skip(48).map(|row| row.copied().collect::<Vec<_>>()).collect::<Vec<_>>()
    });
    assert_eq!(first, second);
    let off = config_without_training_pairs(&root);
    assert!(TrainingPairs::new(&off, &mixture, Device::Cpu).unwrap().is_none());
}

fn config_without_training_pairs(root: &str) -> LaqConfig {
    config(&[root, "validation.strategies.reconstructions.reconstructions.num_train_samples=0"])
}

struct Broken;

impl Strategy for Broken {
    fn observe(&mut self, _: &Observed<'_>, _: &[usize]) -> anyhow::Result<()> {
        anyhow::bail!("it cannot be drawn")
    }

    fn finish(self: Box<Self>, _: &Scene<'_>) -> anyhow::Result<Found> {
        Ok(Found::default())
    }
}

#[test]
fn a_strategy_that_fails_is_counted_or_ends_the_run() {
    let evaluate = |fails: &str| {
        let config = config(&[fails]);
        let (validations, model, world) = (Validations::new(&config), model(&config), World::single());
        let broken = Running {
            strategy: Box::new(Broken),
            name: "broken".into(),
            suffix: String::new(),
            min_samples: 1,
            filter: None,
            num_left: 5,
            failure: None,
        };
        validations.evaluate(
            &model,
            Beside::default(),
            &mut batches(),
            &ValidationContext { step: 10, world: &world },
            vec![broken],
        )
    };
    let found = evaluate("validation.fail_on_error=false").unwrap();
    assert_eq!(found.metrics["val/failed_strategies"], 1.0);
    assert!(found.metrics["val/loss"] > 0.0, "the rest is measured");
    let error = evaluate("validation.fail_on_error=true").err().unwrap();
    assert_eq!(format!("{error:#}"), "validation strategy broken fails: it cannot be drawn");
}
