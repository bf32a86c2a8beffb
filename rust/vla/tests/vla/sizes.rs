//! Sizes that follow from the backbone, and settings that are refused.

use crate::fixtures::{expert, expert_section, expert_with};
use hlrp_config::{Check, Hint};
use hlrp_schema::policy::{ExpertSpec, ModelSpec};
use hlrp_vla::VlaModel;
use tch::Device;

#[test]
fn expert_sizes_follow_from_the_backbone() {
    let published = |text_width: i64, expert_width_multiplier| {
        let section = ExpertSpec { expert_width_multiplier, ..expert_section() };
        let mut sizes = expert().backbone.sizes.unwrap();
        sizes.text.hidden_size = text_width;
        [section.dim(&sizes), section.mlp_dim(&sizes)]
    };
    assert_eq!(published(960, 0.75), [720, 2048]);
    assert_eq!(published(48, 0.75), [36, 256]);
    assert_eq!(published(48, 0.5), [24, 256]);
}

#[test]
fn invalid_settings_of_a_model_are_named() {
    let refuse = |model: ModelSpec, key: &str, what: &str| {
        let error = model.check().unwrap_err();
        assert_eq!(error.key(), Some(key), "{error}");
        assert!(error.to_string().contains(what) && Hint::hint(&error).is_some(), "{error}");
    };
    let section = |change: fn(&mut ExpertSpec)| {
        let mut section = expert_section();
        change(&mut section);
        expert_with(section)
    };
    refuse(section(|own| own.num_expert_layers = Some(3)), "arch.expert.num_expert_layers", "does not divide");
    refuse(section(|own| own.num_expert_layers = Some(2)), "arch.expert.self_attn_every_n_layers", "[0, 2]");
    refuse(section(|own| own.self_attn_every_n_layers = 0), "arch.expert.self_attn_every_n_layers", "below 1");
    refuse(section(|own| own.expert_width_multiplier = 0.1), "arch.expert.expert_width_multiplier", "width 3");
    refuse(section(|own| own.max_action_dim = 2), "arch.expert.max_action_dim", "3 dimensions");
    refuse(ModelSpec { cameras: Vec::new(), ..expert() }, "cameras", "no camera");
    refuse(ModelSpec { cameras: vec!["front".to_owned(); 2], ..expert() }, "cameras", "named twice");
    refuse(ModelSpec { empty_cameras: 2, ..expert() }, "empty_cameras", "2 of 2");
    refuse(ModelSpec { resize_imgs_with_padding: [32, 40], ..expert() }, "resize_imgs_with_padding", "32x40");
}

#[test]
fn a_description_that_is_not_resolved_makes_no_model() {
    let error = VlaModel::new(&ModelSpec { action_dim: None, ..expert() }, Device::Cpu).err().unwrap();
    assert!(error.to_string().starts_with("action_dim: "), "{error}");
}
