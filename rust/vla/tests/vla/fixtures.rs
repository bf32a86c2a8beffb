//! A tiny model and batches for it.

use hlrp_nn::llama::TextConfig;
use hlrp_nn::siglip::VisionConfig;
use hlrp_nn::smolvlm::{IMAGE_PREPARATION, Padding, Side, SmolVlmConfig, TextLayout};
use hlrp_train::{DeviceBatch, DeviceImages, DeviceVectors};
use hlrp_vla::{
    ActionConfig, ActionTarget, CameraImages, ExpertConfig, FlowConfig, FlowDraws, ImageSpecialTokens, Language,
    LatentConfig, LatentTarget, Normalization, NormalizationMode, Observation, PooledConfig, ProcessorConfig,
    PromptConfig, Targets,
};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use tch::{Device, Kind, Tensor};

pub(crate) const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);
pub(crate) const BOOL: (Kind, Device) = (Kind::Bool, Device::Cpu);
pub(crate) const NUM_SAMPLES: i64 = 2;

pub(crate) fn backbone() -> SmolVlmConfig {
    SmolVlmConfig {
        vision: VisionConfig {
            hidden_size: 16,
            intermediate_size: 32,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            image_size: 32,
            patch_size: 8,
            layer_norm_eps: 1e-6,
        },
        text: TextConfig {
            hidden_size: 32,
            intermediate_size: 48,
            num_hidden_layers: 4,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 8,
            rms_norm_eps: 1e-5,
            rope_theta: 100_000.0,
            vocab_size: 352,
        },
        scale_factor: 4,
        image_token_id: 336,
        tie_word_embeddings: false,
    }
}

pub(crate) fn flow() -> FlowConfig {
    FlowConfig { num_steps: 4, min_period: 4e-3, max_period: 4.0, time_beta_alpha: 1.5, time_beta_beta: 1.0 }
}

/// Two cameras of which one may be lacking, a fixed prefix length, both heads.
pub(crate) fn expert() -> ExpertConfig {
    ExpertConfig {
        backbone: backbone(),
        cameras: vec!["front".to_owned(), "wrist".to_owned()],
        num_empty_cameras: 1,
        image_size: [32, 32],
        image_special_tokens: Some(ImageSpecialTokens { fake_id: 335, global_id: 330 }),
        prefix_length: Some(24),
        num_expert_layers: 4,
        expert_width_multiplier: 0.75,
        self_attn_every_n_layers: 2,
        max_state_dim: 6,
        action: ActionConfig { chunk_size: 5, action_dim: 3, max_action_dim: 7 },
        latent: Some(LatentConfig { code_seq_len: 4, code_dim: 2 }),
        flow: flow(),
    }
}

pub(crate) fn pooled() -> PooledConfig {
    PooledConfig {
        backbone: backbone(),
        camera: "front".to_owned(),
        image_size: [32, 32],
        latent: LatentConfig { code_seq_len: 4, code_dim: 2 },
        action_dim: Some(3),
        flow: flow(),
    }
}

/// Pictures, an instruction with padding and a state; the second sample lacks its wrist camera.
pub(crate) fn observation() -> Observation {
    let picture = |is_real: [bool; 2]| {
        Some(CameraImages {
            pixels_BCHW: Tensor::rand([NUM_SAMPLES, 3, 32, 32], FLOAT) * 2.0 - 1.0,
            is_real_B: Tensor::from_slice(&is_real),
        })
    };
    Observation {
        cameras: vec![picture([true, true]), picture([true, false])],
        language: Language {
            ids_BL: Tensor::randint_low(3, 300, [NUM_SAMPLES, 6], (Kind::Int64, Device::Cpu)),
            is_valid_BL: Tensor::from_slice(&[
                true, true, true, true, true, true, true, true, true, false, false, false,
            ])
            .view([2, 6]),
        },
        state_BN: Some(Tensor::randn([NUM_SAMPLES, 4], FLOAT)),
    }
}

/// Both targets, everything supervised.
pub(crate) fn targets() -> Targets {
    Targets {
        action: Some(ActionTarget {
            chunk_BTA: Tensor::randn([NUM_SAMPLES, 5, 3], FLOAT),
            is_pad_BT: Tensor::zeros([NUM_SAMPLES, 5], BOOL),
        }),
        latent: Some(LatentTarget {
            codes_BSD: Tensor::randn([NUM_SAMPLES, 4, 2], FLOAT),
            is_valid_B: Tensor::ones([NUM_SAMPLES], BOOL),
        }),
    }
}

/// Hands out the same noise and times again and again, by shape.
pub(crate) struct FixedDraws {
    seed: i64,
}

impl FixedDraws {
    pub(crate) fn new(seed: i64) -> Self {
        Self { seed }
    }
}

impl FlowDraws for FixedDraws {
    fn noise(&mut self, shape: &[i64], _device: Device) -> Tensor {
        let numel: i64 = shape.iter().product();
        ((Tensor::arange(numel, FLOAT) + self.seed as f64) * 12.9898).sin().view(shape)
    }

    fn time(&mut self, num_samples: i64, _flow: &FlowConfig, _device: Device) -> Tensor {
        (Tensor::arange(num_samples, FLOAT) + 1.0) / (num_samples as f64 + 1.0)
    }
}

/// Hands out the given noise once.
pub(crate) struct GivenNoise(pub(crate) VecDeque<Tensor>);

impl FlowDraws for GivenNoise {
    fn noise(&mut self, _shape: &[i64], _device: Device) -> Tensor {
        self.0.pop_front().unwrap()
    }

    fn time(&mut self, _num_samples: i64, _flow: &FlowConfig, _device: Device) -> Tensor {
        unreachable!("sampling draws no time")
    }
}

/// The small tokenizer of the repository.
pub(crate) fn tokenizer_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tokenizer")
}

fn mean_std(dim: usize) -> Normalization {
    let statistics = BTreeMap::from([("mean".to_owned(), vec![0.5; dim]), ("std".to_owned(), vec![2.0; dim])]);
    Normalization::new("feature", NormalizationMode::MeanStd, dim, statistics).unwrap()
}

/// Prepares [`batch`]es for [`expert`].
pub(crate) fn processor_config() -> ProcessorConfig {
    ProcessorConfig {
        cameras: vec!["front".to_owned(), "wrist".to_owned()],
        image_size: [32, 32],
        image_preparation: IMAGE_PREPARATION.to_owned(),
        prompt: PromptConfig {
            system_prompt: String::new(),
            newline: true,
            layout: TextLayout {
                padding: Padding::Longest,
                padding_side: Side::Right,
                truncation_side: Side::Right,
                max_length: 8,
            },
        },
        state: Some(mean_std(4)),
        action: Some(mean_std(3)),
    }
}

/// What the loader hands over: two frames of two cameras, states at two moments, a chunk of actions.
pub(crate) fn batch() -> DeviceBatch {
    let images = || DeviceImages {
        pixels_BTCHW: Tensor::randint(256, [NUM_SAMPLES, 2, 3, 24, 40], (Kind::Uint8, Device::Cpu)),
        is_real_BT: Tensor::ones([NUM_SAMPLES, 2], BOOL),
    };
    let vectors = |num_steps, dim| DeviceVectors {
        values_BTN: Tensor::randn([NUM_SAMPLES, num_steps, dim], FLOAT),
        is_pad_BT: Tensor::zeros([NUM_SAMPLES, num_steps], BOOL),
    };
    DeviceBatch {
        images: BTreeMap::from([("front".to_owned(), images()), ("wrist".to_owned(), images())]),
        task: vec!["push the block".to_owned(), "open".to_owned()],
        state: Some(vectors(2, 4)),
        action: Some(vectors(5, 3)),
        meta: Vec::new(),
    }
}

/// Largest absolute difference.
pub(crate) fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}
