//! The repository's own tree composes and extracts, and says where its values come from.
#![allow(clippy::unwrap_used)]

use hlrp_config::{Composed, compose, from_resolved, with_hint};
use hlrp_schema::{LaqConfig, PROJECT, StageConfig};
use std::path::Path;

fn composed(overrides: &[&str]) -> Composed {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    let overrides: Vec<String> = overrides.iter().map(|argument| argument.to_string()).collect();
    compose(&PROJECT, &root, "config", &overrides).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_default_experiment_extracts() {
    let config: LaqConfig = composed(&[]).extract().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.experiment.name, "laq_tiny");
    assert_eq!(config.model.image_size, 64);
    // laq_tiny sets the depth of the difference decoder alone; its other keys are those of laq_difference, and of laq_pixel below.
    let difference = config.model.decoders.difference.unwrap();
    assert_eq!((difference.depth, difference.motion_weight, difference.loss_weight), (2, 3.0, 1.0));
    assert!(difference.enabled);
}

#[test]
fn the_quantizer_is_chosen_by_its_group() {
    let refreshes = |overrides: &[&str]| {
        let config: LaqConfig = composed(overrides).extract().unwrap_or_else(|error| panic!("{error}"));
        config.model.quantizer.nsvq.unwrap().refresh_schedule.len()
    };
    assert_eq!(refreshes(&["model/quantizer=nsvq_short"]), 2);
    assert_eq!(refreshes(&["model/quantizer=nsvq"]), 6);
    assert_eq!(refreshes(&["experiment=laq_pixel"]), 6);
}

#[test]
fn the_run_directory_carries_time_and_name() {
    let config: LaqConfig = composed(&["paths.root=/tmp/x"]).extract().unwrap();
    let run_dir = config.logging.run_dir.to_str().unwrap().to_string();
    assert!(run_dir.starts_with("/tmp/x/runs/2"), "{run_dir}");
    assert!(run_dir.ends_with("_laq_tiny"), "{run_dir}");
}

#[test]
fn explain_names_the_override_and_the_file_that_it_overrode() {
    let text = composed(&["experiment=laq_pixel", "training.optimizer.lr=3e-4"])
        .explain("training.optimizer.lr")
        .unwrap()
        .to_string();
    assert!(text.contains("training.optimizer.lr = 0.0003"), "{text}");
    assert!(text.contains("command line: training.optimizer.lr=3e-4"), "{text}");
    assert!(text.contains("training/laq.yaml:5"), "{text}");
}

#[test]
fn a_resolved_configuration_reads_back_and_takes_overrides() {
    let before = composed(&["experiment.description=a \\${literal} text"]);
    let file = std::env::temp_dir().join(format!("hlrp-resolved-{}.yaml", std::process::id()));
    std::fs::write(&file, before.to_yaml()).unwrap();
    let after = from_resolved(&PROJECT, &file, &[]).unwrap();
    assert_eq!(before.extract::<LaqConfig>().unwrap(), after.extract::<LaqConfig>().unwrap());
    let changed =
        from_resolved(&PROJECT, &file, &["training.max_steps=7".into(), "training.scheduler.warmup_steps=0".into()])
            .unwrap();
    assert_eq!(changed.extract::<LaqConfig>().unwrap().training.max_steps, 7);
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn a_program_that_does_one_run_refuses_a_sweep() {
    let swept = composed(&["experiment=laq_lr_sweep"]);
    assert!(swept.extract::<LaqConfig>().is_ok());
    let text = with_hint(&LaqConfig::of_run(&swept).unwrap_err());
    assert!(text.contains("sweep.params: 6 runs") && text.contains("hint: `hlrp config sweep`"), "{text}");
    assert!(text.contains("config/experiment/laq_lr_sweep.yaml:"), "{text}");
    let one = composed(&["experiment=laq_lr_sweep", "sweep.params=null"]);
    assert!(LaqConfig::of_run(&one).is_ok());
}
