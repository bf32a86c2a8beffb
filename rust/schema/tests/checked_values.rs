//! The typed structs refuse unknown keys, missing keys, wrong types and invalid values, and say what set them.
#![allow(clippy::unwrap_used)]

mod common;

use common::{our_root, owned};
use hlrp_config::{Check, ProblemKind, compose, with_hint};
use hlrp_schema::{LaqConfig, LerobotTrainConfig, PROJECT, VlaConfig};
use serde::de::DeserializeOwned;

/// Of stage 1, with NSVQ and a pixel decoder that trains.
fn refusal(overrides: &[&str]) -> (ProblemKind, String) {
    refusal_of::<LaqConfig>(&[&["model=laq_pixel_tiny"], overrides].concat())
}

fn refusal_of<T: DeserializeOwned + Check>(overrides: &[&str]) -> (ProblemKind, String) {
    let composed =
        compose(&PROJECT, &our_root(), "config", &owned(overrides)).unwrap_or_else(|error| panic!("{error}"));
    let Err(error) = composed.extract::<T>() else { panic!("{overrides:?} is accepted") };
    (error.kind(), with_hint(&error))
}

/// Each override alone makes a valid experiment invalid, and is named with its key and a hint.
fn each_is_refused<T: DeserializeOwned + Check>(good: &[&str], overrides: &[&str]) {
    let composed = compose(&PROJECT, &our_root(), "config", &owned(good)).unwrap_or_else(|error| panic!("{error}"));
    composed.extract::<T>().unwrap_or_else(|error| panic!("{error}"));
    for change in overrides {
        let (kind, text) = refusal_of::<T>(&[good, &[change]].concat());
        let key = change.trim_start_matches('+').split('=').next().unwrap();
        assert_eq!(kind, ProblemKind::Value, "{text}");
        assert!(text.starts_with(&format!("{key}: ")) && text.contains("\nhint: "), "{change}: {text}");
        assert!(text.contains(&format!("(command line: {change})")), "{change}: {text}");
    }
}

#[test]
fn a_span_is_above_zero_and_in_frames_a_whole_number() {
    let span = "data.sources.metaworld_mt5.span";
    for wrong in ["unit: frames, length: 0", "unit: frames, length: 2.5", "unit: seconds, length: -1", "unit: seconds"]
    {
        let (_, text) = refusal_of::<LaqConfig>(&["experiment=laq_tiny", &format!("{span}={{{wrong}}}")]);
        assert!(text.contains(&format!("{span}.length")) && text.contains("\nhint: "), "{wrong}: {text}");
    }
}

#[test]
fn processes_are_a_number_or_one_for_each_gpu() {
    let good = ["experiment=laq_tiny"];
    each_is_refused::<LaqConfig>(&good, &["num_processes=0", "num_processes=2000"]);
    for wrong in ["-1", "1.5", "null", "1e3", "many", "-9e20", "true", "[2]"] {
        let (kind, text) = refusal_of::<LaqConfig>(&[good[0], &format!("num_processes={wrong}")]);
        assert_eq!(kind, ProblemKind::Type, "{wrong}: {text}");
        assert!(text.starts_with("num_processes: expected a whole number of at least 1 or auto, "), "{wrong}: {text}");
    }
    for fits in ["1", "8", "auto"] {
        let composed = compose(&PROJECT, &our_root(), "config", &owned(&[good[0], &format!("num_processes={fits}")]));
        composed.unwrap().extract::<LaqConfig>().unwrap_or_else(|error| panic!("{fits}: {error}"));
    }
}

#[test]
fn a_tolerance_is_a_short_time() {
    let source = "data.sources.metaworld_mt5.tolerance_s";
    each_is_refused::<LaqConfig>(
        &["experiment=laq_tiny"],
        &["0", "-1", "1.5"].map(|value| format!("{source}={value}")).each_ref().map(String::as_str),
    );
    let given = compose(&PROJECT, &our_root(), "config", &owned(&["experiment=laq_tiny", &format!("{source}=0.001")]));
    assert_eq!(given.unwrap().extract::<LaqConfig>().unwrap().data.sources["metaworld_mt5"].tolerance_s, Some(0.001));
}

#[test]
fn invalid_values_of_stage_2_are_refused() {
    let good = ["experiment=vla_tiny", "policy.teacher.checkpoint=runs/teacher"];
    let overrides = [
        "policy.model.arch.expert.expert_width_multiplier=0",
        "policy.model.arch.expert.expert_width_multiplier=0.001",
        "policy.model.arch.expert.self_attn_every_n_layers=0",
        "policy.model.arch.expert.num_expert_layers=0",
        "policy.model.arch.expert.num_expert_layers=3",
        "policy.model.arch.expert.chunk_size=0",
        "policy.model.arch.expert.prefix_length=0",
        "policy.model.flow.num_steps=0",
        "policy.model.flow.min_period=0",
        "policy.model.flow.max_period=0.001",
        "policy.model.flow.time_beta_alpha=0",
        "policy.model.resize_imgs_with_padding=[60,64]",
        "policy.processor.tokenizer_max_length=0",
        "policy.processor.frame_size=[0,64]",
        "policy.model.resize_imgs_with_padding=[64,0]",
        "policy.model.backbone.num_vlm_layers=0",
        "policy.model.backbone.num_vlm_layers=5",
        "policy.model.backbone.sizes.vision.hidden_size=0",
        "policy.model.backbone.sizes.vision.num_attention_heads=0",
        "policy.model.backbone.sizes.vision.num_attention_heads=5",
        "policy.model.backbone.sizes.text.num_attention_heads=0",
        "policy.model.backbone.sizes.text.num_key_value_heads=0",
        "policy.model.backbone.sizes.text.num_key_value_heads=3",
        "policy.model.backbone.sizes.text.head_dim=33",
        "policy.model.backbone.sizes.text.rope_theta=0",
        "policy.model.backbone.sizes.scale_factor=0",
        "policy.model.backbone.sizes.image_token_id=352",
        "policy.objective.latent_loss_weight=-1",
        "policy.objective.action_loss_weight=-1",
        "policy.model.cameras=[]",
        "policy.model.cameras=[primary,primary]",
        "policy.model.cameras=['']",
        "policy.model.empty_cameras=1",
        "policy.model.arch.expert.max_action_dim=0",
        "policy.model.arch.expert.max_state_dim=0",
        "policy.teacher.camera=wrist",
        "policy.teacher.code_dim=0",
        "policy.teacher.codebook_size=0",
        "policy.teacher.code_seq_len=0",
        "data.request.image_deltas=[0,1,2]",
        "data.request.image_deltas=[5]",
    ];
    each_is_refused::<VlaConfig>(&good, &overrides);
    let of_mode = |mode: &'static str| [good.as_slice(), &[mode]].concat();
    each_is_refused::<VlaConfig>(&of_mode("policy.objective.mode=actions"), &["policy.objective.action_loss_weight=0"]);
    each_is_refused::<VlaConfig>(&of_mode("policy.objective.mode=latent"), &["policy.objective.latent_loss_weight=0"]);
    each_is_refused::<VlaConfig>(
        &of_mode("policy.objective.latent_loss_weight=0"),
        &["policy.objective.action_loss_weight=0"],
    );
}

#[test]
fn a_description_has_the_section_of_one_architecture() {
    let good = ["experiment=vla_tiny", "policy.teacher.checkpoint=runs/teacher"];
    let refused = |change: &str| refusal_of::<VlaConfig>(&[good.as_slice(), &[change]].concat()).1;
    let text = refused("+policy.model.arch.pooled={}");
    assert!(text.starts_with("policy.model.arch: ") && text.contains("one architecture"), "{text}");
    let text = refused("+policy.model.arch.expert.chunk_sizes=3");
    assert!(text.contains("'policy.model.arch.expert.chunk_sizes'") && text.contains("chunk_size'?"), "{text}");
    let text = refused("~policy.model.arch.expert.chunk_size");
    assert!(text.contains("'policy.model.arch.expert.chunk_size'"), "{text}");
    let text = refused("~policy.model.arch.expert");
    assert!(text.contains("policy.model.arch"), "{text}");
}

#[test]
fn an_old_key_of_stage_2_is_named_as_it_is_now() {
    let good = ["experiment=vla_tiny", "policy.teacher.checkpoint=runs/teacher"];
    for (change, key) in [
        ("+model.laq.checkpoint=runs/teacher", "policy.teacher.checkpoint"),
        ("+model.expert.num_layers=2", "policy.model.arch.expert.num_expert_layers"),
        ("+model.mode=latent", "policy.objective.mode"),
    ] {
        let (_, text) = refusal_of::<VlaConfig>(&[good.as_slice(), &[change]].concat());
        assert!(text.contains(&format!("did you mean '{key}'?")), "{change}: {text}");
    }
}

#[test]
fn invalid_values_of_stage_3_are_refused() {
    let good = [
        "experiment=lerobot_cotrain",
        "lerobot.policy.laq_checkpoint_path=runs/teacher",
        "lerobot.policy.stage2_artifact=runs/vla/artifacts/best",
    ];
    let overrides = [
        "lerobot.policy_device=gpu",
        "lerobot.policy_device=cuda:x",
        "lerobot.policy.init_mode=artefact",
        "lerobot.policy.stage3_training_mode=actions",
        "lerobot.policy.laq_weights=fresh",
        "lerobot.policy.action_loss_weight=-1",
        "lerobot.policy.latent_loss_weight=-0.1",
    ];
    each_is_refused::<LerobotTrainConfig>(&good, &overrides);
    let devices = ["mps", "auto", "cpu", "cuda", "cuda:1"].map(|device| format!("lerobot.policy_device={device}"));
    for device in &devices {
        let composed =
            compose(&PROJECT, &our_root(), "config", &owned(&[good.as_slice(), &[device]].concat())).unwrap();
        assert!(composed.extract::<LerobotTrainConfig>().is_ok(), "{device}");
    }
}

#[test]
fn infinity_goes_to_lerobot_as_text_and_is_not_a_number_of_ours() {
    let overrides = owned(&["experiment=lerobot_tiny", "+lerobot.policy.limits=[inf,{low: -inf}]"]);
    let config: LerobotTrainConfig = compose(&PROJECT, &our_root(), "config", &overrides).unwrap().extract().unwrap();
    assert_eq!(config.lerobot.policy["limits"].to_string(), r#"["Infinity",{"low":"-Infinity"}]"#);
    for change in ["training.optimizer.lr=inf", "model.attn_dropout=nan"] {
        let (kind, text) = refusal(&[change]);
        assert_eq!(kind, ProblemKind::Type, "{text}");
        assert!(text.contains("expected a number, found ") && text.contains("hint: give a finite number"), "{text}");
    }
}

#[test]
fn invalid_values_name_their_key_and_the_override_that_set_it() {
    let overrides = [
        "data.loader.batch_size=0",
        "data.loader.anchors_per_clip=0",
        "data.loader.num_workers=0",
        "data.sources.metaworld_mt5.episodes=[]",
        "data.request.image_deltas=[0]",
        "data.request.action_deltas=[0.5]",
        "data.sources.metaworld_mt5.episodes=[1,2,1]",
        "data.loader.prefetch_batches=0",
        "data.loader.memory_budget_mb=0",
        "data.loader.max_open_decoders=0",
        "data.loader.stream_cache_mb=0",
        "data.sources.metaworld_mt5.root=null",
        "data.sources.metaworld_mt5.repo_id=owner/name",
        "data.sources.metaworld_mt5.revision=v3.0",
        "data.sources.metaworld_mt5.streaming=true",
        "num_threads=0",
        "experiment.name=a/b",
        "logging.min_free_gb=-1",
        "model.dim=-8",
        "model.quantizer.codebook_size=1",
        "model.quantizer.code_seq_len=3",
        "model.image_size=100",
        "model.attn_dropout=1.5",
        "model.quantizer.nsvq.discarding_threshold=2",
        "model.quantizer.nsvq.refresh_schedule=[[0,10]]",
        "model.decoders.pixel.enabled=false",
        "model.decoders.pixel.loss_weight=-1",
        "training.max_steps=0",
        "training.optimizer.lr=0",
        "training.optimizer.betas=[0.9,1.0]",
        "training.scheduler.warmup_steps=100000000",
        "training.gradient.clip_norm=0",
        "training.gradient.accumulate_steps=0",
        "training.ema.decay=1.1",
        "training.checkpoint.every_n_steps=0",
        "training.checkpoint.keep_last=0",
        "validation.check_interval=0",
        "validation.limit_batches=0",
    ];
    for change in overrides {
        let (kind, text) = refusal(&[change]);
        let key = change.split('=').next().unwrap();
        assert_eq!(kind, ProblemKind::Value, "{text}");
        assert!(text.contains(key) && text.contains("hint: "), "{change}: {text}");
        // An invalid combination of two keys is reported for one of them, which the override need not have set.
        let alone = !matches!(key, "model.decoders.pixel.enabled");
        assert!(!alone || text.contains(&format!("(command line: {change})")), "{change}: {text}");
    }
}

#[test]
fn a_step_that_cannot_be_recorded_is_refused() {
    let head = ["model.label_head.weight=0.1", "model.label_head.every_n_steps=1"];
    let cases: [(&[&str], &str); 2] = [
        (&["training.gradient.accumulate_steps=2"], "a graph is one batch"),
        (&head, "model.label_head reads a batch of its own at every step"),
    ];
    for (overrides, what) in cases {
        let (kind, text) = refusal(&[&["training.cuda_graph=true"], overrides].concat());
        assert_eq!(kind, ProblemKind::Value, "{text}");
        assert!(text.starts_with("training.cuda_graph") && text.contains(what) && text.contains("hint: "), "{text}");
    }
    let (_, text) =
        refusal_of::<VlaConfig>(&["experiment=vla_tiny", "policy.objective.mode=actions", "training.cuda_graph=true"]);
    assert!(text.contains("the instructions of stage 2 differ in length"), "{text}");
}

#[test]
fn a_model_has_one_quantizer_whose_keys_are_named_in_full() {
    let (kind, text) = refusal(&["~model.quantizer.nsvq"]);
    assert_eq!(kind, ProblemKind::Value, "{text}");
    assert!(text.starts_with("model.quantizer: no quantizer is chosen"), "{text}");
    assert!(text.contains("hint: choose one with model/quantizer=NAME: nsvq"), "{text}");
    let (kind, text) = refusal(&["+model.quantizer.nsvq.discard_threshold=0.1"]);
    assert_eq!(kind, ProblemKind::UnknownKey, "{text}");
    assert!(text.contains("did you mean 'model.quantizer.nsvq.discarding_threshold'?"), "{text}");
    let (kind, text) = refusal(&["~model.quantizer.nsvq.discarding_threshold"]);
    assert_eq!(kind, ProblemKind::MissingKey, "{text}");
    assert!(text.contains("'model.quantizer.nsvq.discarding_threshold' is missing"), "{text}");
    let (kind, text) = refusal(&["+model.decoders.sound={enabled: true}"]);
    assert_eq!(kind, ProblemKind::UnknownKey, "{text}");
    assert!(text.contains("unknown key 'model.decoders.sound'"), "{text}");
}

#[test]
fn data_without_sources_is_refused() {
    let (kind, text) = refusal(&["~data.sources.metaworld_mt5"]);
    assert_eq!(kind, ProblemKind::Value);
    assert!(text.starts_with("data.sources: no data source (") && text.contains("config/data/lerobot.yaml:"), "{text}");
}

#[test]
fn wrong_types_name_their_key_and_the_override_that_set_it() {
    let overrides = [
        "device=gpu",
        "model.dim=wide",
        "model.dim=1.5",
        "training.max_steps=-1",
        "seed=null",
        "training.checkpoint.mode=best",
    ];
    for change in overrides {
        let (kind, text) = refusal(&[change]);
        assert_eq!(kind, ProblemKind::Type, "{text}");
        assert!(
            text.contains(change.split('=').next().unwrap()) && text.contains(&format!("command line: {change}")),
            "{text}"
        );
    }
}

#[test]
fn a_wrong_type_comes_with_what_to_write() {
    let cases = [
        (
            "training.max_steps=1e3",
            "expected a whole number from 0 upwards, found 1000.0",
            "write training.max_steps=1000",
        ),
        ("experiment.name=2030", "expected text, found 2030", r#"experiment.name='"2030"'"#),
        ("data.loader=node", "expected a section of keys, found node", "did you mean 'data/loader=node'?"),
        ("cluster.login_nodes=login", "expected a list, found login", "hlrp config explain cluster.login_nodes"),
        (
            "logging.level=wran",
            "unknown value 'wran', expected error, warn, info, debug, trace",
            "did you mean 'warn'?",
        ),
        ("data.cache.enabled=2", "expected true or false, found 2", "hlrp config explain data.cache.enabled"),
    ];
    for (change, what, hint) in cases {
        let (_, text) = refusal(&[change]);
        assert!(text.contains(what) && text.contains(hint), "{text}");
    }
}

#[test]
fn unknown_and_missing_keys_are_named_in_full() {
    let (kind, text) = refusal(&["+training.optimizer.lrr=1"]);
    assert_eq!(kind, ProblemKind::UnknownKey);
    assert!(
        text.contains("'training.optimizer.lrr'") && text.contains("did you mean 'training.optimizer.lr'?"),
        "{text}"
    );
    let (kind, text) = refusal(&["~training.optimizer.lr"]);
    assert_eq!(kind, ProblemKind::MissingKey);
    assert!(
        text.contains("'training.optimizer.lr'") && text.contains("leave out this override, which removes the key"),
        "{text}"
    );
    let (kind, text) = refusal(&["experiment.description=???"]);
    assert_eq!(kind, ProblemKind::MissingKey);
    assert!(text.contains("'experiment.description' must be set"), "{text}");
}

#[test]
fn a_warm_up_may_fill_the_run_but_not_exceed_it() {
    let overrides = owned(&["training.max_steps=10", "training.scheduler.warmup_steps=9"]);
    assert!(compose(&PROJECT, &our_root(), "config", &overrides).unwrap().extract::<LaqConfig>().is_ok());
}
