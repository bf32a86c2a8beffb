//! A tiny model and batches for it.

use hlrp_schema::policy::{
    ArchSpec, BackboneSizes, BackboneSpec, ExpertSpec, FlowSpec, ImagePreparation, ImageSpecialTokens, LatentHead,
    LatentShape, ModelSpec, Padding, PooledSpec, ProcessorSpec, Scaling, ScalingMode, Side, TextSizes, VisionSizes,
};
use hlrp_train::{DeviceBatch, DeviceImages, DeviceVectors};
use hlrp_vla::{ActionTarget, CameraImages, FlowNoise, Language, LatentTarget, Observation, Targets};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use tch::{Device, Kind, Tensor};

pub(crate) const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);
pub(crate) const BOOL: (Kind, Device) = (Kind::Bool, Device::Cpu);
pub(crate) const NUM_SAMPLES: i64 = 2;

fn sizes() -> BackboneSizes {
    BackboneSizes {
        vision: VisionSizes {
            hidden_size: 16,
            intermediate_size: 32,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            image_size: 32,
            patch_size: 8,
            layer_norm_eps: 1e-6,
        },
        text: TextSizes {
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

pub(crate) fn flow() -> FlowSpec {
    FlowSpec { num_steps: 4, min_period: 4e-3, max_period: 4.0, time_beta_alpha: 1.5, time_beta_beta: 1.0 }
}

/// Two cameras of which one may be missing, both heads.
pub(crate) fn expert() -> ModelSpec {
    ModelSpec {
        backbone: BackboneSpec {
            vlm_model_name: None,
            hub_cache: None,
            load_vlm_weights: false,
            num_vlm_layers: None,
            train_expert_only: false,
            freeze_vision_encoder: false,
            sizes: Some(sizes()),
        },
        cameras: vec!["front".to_owned(), "wrist".to_owned()],
        empty_cameras: 1,
        resize_imgs_with_padding: [32, 32],
        action_dim: Some(3),
        latent: Some(LatentShape { code_seq_len: 4, code_dim: 2, codebook_size: Some(8) }),
        flow: flow(),
        arch: ArchSpec::Expert(expert_section()),
    }
}

/// A fixed prefix length and image markers.
pub(crate) fn expert_section() -> ExpertSpec {
    ExpertSpec {
        smolvla_checkpoint: None,
        num_expert_layers: None,
        expert_width_multiplier: 0.75,
        self_attn_every_n_layers: 2,
        prefix_length: Some(24),
        add_image_special_tokens: true,
        image_special_tokens: Some(ImageSpecialTokens { fake_id: 335, global_id: 330 }),
        max_state_dim: 6,
        max_action_dim: 7,
        chunk_size: 5,
        train_state_proj: true,
        latent_head: LatentHead::VectorFlow,
        latent_dropout: 0.0,
    }
}

/// [`expert`] with another section.
pub(crate) fn expert_with(section: ExpertSpec) -> ModelSpec {
    ModelSpec { arch: ArchSpec::Expert(section), ..expert() }
}

pub(crate) fn pooled() -> ModelSpec {
    ModelSpec { cameras: vec!["front".to_owned()], empty_cameras: 0, arch: ArchSpec::Pooled(PooledSpec {}), ..expert() }
}

/// Images, an instruction with padding and a state; the second sample lacks its wrist camera.
pub(crate) fn observation() -> Observation {
    let image = |is_real: [bool; 2]| {
        Some(CameraImages {
            pixels_BCHW: Tensor::rand([NUM_SAMPLES, 3, 32, 32], FLOAT) * 2.0 - 1.0,
            is_real_B: Tensor::from_slice(&is_real),
        })
    };
    Observation {
        cameras: vec![image([true, true]), image([true, false])],
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
            is_pad_dim_BA: None,
        }),
        latent: Some(LatentTarget {
            vectors_BSD: Some(Tensor::randn([NUM_SAMPLES, 4, 2], FLOAT)),
            codes_BS: Some(Tensor::randint(8, [NUM_SAMPLES, 4], (Kind::Int64, Device::Cpu))),
            is_valid_B: Tensor::ones([NUM_SAMPLES], BOOL),
        }),
    }
}

/// Returns the same noise and times again and again, by shape.
pub(crate) struct FixedNoise {
    seed: i64,
}

impl FixedNoise {
    pub(crate) fn new(seed: i64) -> Self {
        Self { seed }
    }
}

impl FlowNoise for FixedNoise {
    fn normal(&mut self, shape: &[i64], _device: Device) -> Tensor {
        let numel: i64 = shape.iter().product();
        ((Tensor::arange(numel, FLOAT) + self.seed as f64) * 12.9898).sin().view(shape)
    }

    fn time(&mut self, num_samples: i64, _flow: &FlowSpec, _device: Device) -> Tensor {
        (Tensor::arange(num_samples, FLOAT) + 1.0) / (num_samples as f64 + 1.0)
    }
}

/// Returns the given noise once.
pub(crate) struct GivenNoise(pub(crate) VecDeque<Tensor>);

impl FlowNoise for GivenNoise {
    fn normal(&mut self, _shape: &[i64], _device: Device) -> Tensor {
        self.0.pop_front().unwrap()
    }

    fn time(&mut self, _num_samples: i64, _flow: &FlowSpec, _device: Device) -> Tensor {
        unreachable!("sampling draws no time")
    }
}

/// The small tokenizer of the repository.
pub(crate) fn tokenizer_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tokenizer")
}

fn mean_std(dim: usize) -> Scaling {
    let statistics = BTreeMap::from([("mean".to_owned(), vec![0.5; dim]), ("std".to_owned(), vec![2.0; dim])]);
    Scaling { mode: ScalingMode::MeanStd, dim: Some(dim), statistics: Some(statistics) }
}

/// Prepares [`batch`]es for [`expert`].
pub(crate) fn processor_spec() -> ProcessorSpec {
    ProcessorSpec {
        image_preparation: ImagePreparation::PadResizeBilinearLeftTop,
        frame_size: None,
        tokenizer: None,
        tokenizer_max_length: 8,
        pad_language_to: Padding::Longest,
        padding_side: Side::Right,
        truncation_side: Side::Right,
        system_prompt: String::new(),
        newline: true,
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
        is_pad_dim_BN: Tensor::zeros([NUM_SAMPLES, dim], BOOL),
    };
    DeviceBatch {
        images: BTreeMap::from([("front".to_owned(), images()), ("wrist".to_owned(), images())]),
        task: vec!["push the block".to_owned(), "open".to_owned()],
        state: Some(vectors(2, 4)),
        action: Some(vectors(5, 3)),
        labels: BTreeMap::new(),
        meta: Vec::new(),
    }
}

/// Largest absolute difference.
pub(crate) fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}
