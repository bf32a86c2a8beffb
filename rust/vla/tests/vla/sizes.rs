//! Settings that make no model are refused at construction.

use crate::fixtures::expert;
use hlrp_vla::{ActionConfig, ExpertConfig, ExpertModel};
use tch::Device;

#[test]
fn expert_sizes_follow_from_the_backbone() {
    let published = |text_width: i64, multiplier| {
        let mut config = ExpertConfig { expert_width_multiplier: multiplier, ..expert() };
        config.backbone.text.hidden_size = text_width;
        [config.expert_dim(), config.expert_mlp_dim()]
    };
    assert_eq!(published(960, 0.75), [720, 2048]);
    assert_eq!(published(48, 0.75), [36, 256]);
    assert_eq!(published(48, 0.5), [24, 256]);
}

#[test]
fn settings_that_make_no_model_are_named() {
    let refuse = |change: fn(&mut ExpertConfig), key: &str, what: &str| {
        let mut config = expert();
        change(&mut config);
        let error = ExpertModel::new(&config, Device::Cpu).err().unwrap().to_string();
        assert!(
            error.starts_with(&format!("model.{key}: ")) && error.contains(what) && error.contains("hint:"),
            "{error}"
        );
    };
    refuse(|config| config.num_expert_layers = 3, "num_expert_layers", "does not divide");
    refuse(|config| config.num_expert_layers = 2, "self_attn_every_n_layers", "[0, 2]");
    refuse(|config| config.self_attn_every_n_layers = 0, "self_attn_every_n_layers", "below 1");
    refuse(|config| config.expert_width_multiplier = 0.1, "expert_width_multiplier", "width 3");
    refuse(|config| config.cameras.clear(), "cameras", "no camera");
    refuse(|config| config.cameras = vec!["front".to_owned(); 2], "cameras", "named twice");
    refuse(|config| config.num_empty_cameras = 2, "num_empty_cameras", "2 of 2");
    refuse(
        |config| config.action = ActionConfig { action_dim: 8, ..config.action },
        "action.action_dim",
        "8 numbers exceed max_action_dim = 7",
    );
    refuse(|config| config.image_size = [40, 32], "image_size", "40x32");
    refuse(|config| config.flow.num_steps = 0, "flow.num_steps", "0");
}
