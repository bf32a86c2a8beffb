//! Sizes of the policy and how its inputs are prepared.

use super::backbone;
use super::scaling::{Vector, scaling};
use crate::{
    ActionConfig, ExpertConfig, FlowConfig, ImageSpecialTokens, LatentConfig, ModelConfig, Normalization, PooledConfig,
    ProcessorConfig, PromptConfig, Teacher, VlaError,
};
use hlrp_data::{Description, SampleLayout};
use hlrp_nn::smolvlm::{IMAGE_PREPARATION, Padding, Side, SmolVlmConfig, TextLayout, TextTokenizer};
use hlrp_schema::{VlaArch, VlaConfig, VlaModelConfig};
use std::{collections::BTreeMap, path::Path};

/// Tokens around an image in SmolVLM's vocabulary.
const FAKE_TOKEN: &str = "<fake_token_around_image>";
const GLOBAL_TOKEN: &str = "<global-img>";

/// What is built.
pub(crate) struct Plan {
    /// Sizes of the policy.
    pub(crate) model: ModelConfig,
    /// How its inputs are prepared.
    pub(crate) processor: ProcessorConfig,
}

impl Plan {
    /// Puts together what configuration, data, backbone and teacher say.
    ///
    /// # Errors
    /// Parts that contradict each other, or that cannot be read.
    pub(super) fn new(
        config: &VlaConfig,
        layout: &SampleLayout,
        datasets: &BTreeMap<String, Description>,
        teacher: Option<&Teacher>,
        tokenizer_folder: &Path,
    ) -> anyhow::Result<Self> {
        let model = &config.model;
        let backbone = backbone::sizes(&model.backbone)?;
        let text_layout = text_layout(model);
        let tokenizer = TextTokenizer::from_folder(tokenizer_folder, text_layout)?;
        check_vocabulary(&tokenizer, &backbone)?;
        let special_tokens = || -> anyhow::Result<ImageSpecialTokens> {
            Ok(ImageSpecialTokens {
                fake_id: tokenizer.token_id(FAKE_TOKEN)?,
                global_id: tokenizer.token_id(GLOBAL_TOKEN)?,
            })
        };
        let special_tokens = model.expert.image_special_tokens.then(special_tokens).transpose()?;
        let latent = teacher.map(Teacher::latent);
        let action_dim = action_dim(config, layout)?;
        let sources = &config.data.sources;
        let action = action_dim
            .map(|dim| scaling(Vector::Action, model.normalization.action, dim as usize, sources, datasets))
            .transpose()?;
        let state = layout.state.filter(|_| model.arch == VlaArch::Expert);
        let state = state
            .map(|[_, dim]| scaling(Vector::State, model.normalization.state, dim, sources, datasets))
            .transpose()?;
        Ok(Self {
            processor: ProcessorConfig {
                cameras: model.cameras.clone(),
                image_size: model.image_size,
                image_preparation: IMAGE_PREPARATION.to_owned(),
                prompt: PromptConfig {
                    system_prompt: model.prompt.system_prompt.clone(),
                    newline: model.prompt.newline,
                    layout: text_layout,
                },
                state: check_state(state, model)?,
                action,
            },
            model: match model.arch {
                VlaArch::Expert => {
                    check_prefix_length(model, &backbone)?;
                    ModelConfig::Expert(expert(model, backbone, special_tokens, latent, action_dim.unwrap_or(1)))
                }
                VlaArch::Pooled => ModelConfig::Pooled(pooled(model, backbone, latent, action_dim)),
            },
        })
    }
}

fn expert(
    config: &VlaModelConfig,
    backbone: SmolVlmConfig,
    image_special_tokens: Option<ImageSpecialTokens>,
    latent: Option<LatentConfig>,
    action_dim: i64,
) -> ExpertConfig {
    ExpertConfig {
        cameras: config.cameras.clone(),
        num_empty_cameras: config.num_empty_cameras,
        image_size: config.image_size,
        image_special_tokens,
        prefix_length: config.expert.prefix_length,
        num_expert_layers: config.expert.num_layers.unwrap_or(backbone.text.num_hidden_layers),
        expert_width_multiplier: config.expert.width_multiplier,
        self_attn_every_n_layers: config.expert.self_attn_every_n_layers,
        max_state_dim: config.state.max_dim,
        action: ActionConfig {
            chunk_size: config.action.chunk_size,
            action_dim,
            max_action_dim: config.action.max_dim,
        },
        latent,
        flow: flow(config),
        backbone,
    }
}

fn pooled(
    config: &VlaModelConfig,
    backbone: SmolVlmConfig,
    latent: Option<LatentConfig>,
    action_dim: Option<i64>,
) -> PooledConfig {
    PooledConfig {
        backbone,
        camera: config.cameras.first().cloned().unwrap_or_default(),
        image_size: config.image_size,
        // Without a teacher the head is the smallest there is, and frozen.
        latent: latent.unwrap_or(LatentConfig { code_seq_len: 1, code_dim: 1 }),
        action_dim: action_dim.filter(|_| config.mode.with_actions()),
        flow: flow(config),
    }
}

fn flow(config: &VlaModelConfig) -> FlowConfig {
    let options = &config.flow;
    FlowConfig {
        num_steps: options.num_steps,
        min_period: options.min_period,
        max_period: options.max_period,
        time_beta_alpha: options.time_beta_alpha,
        time_beta_beta: options.time_beta_beta,
    }
}

fn text_layout(config: &VlaModelConfig) -> TextLayout {
    TextLayout {
        padding: if config.prompt.pad_to_max_length { Padding::MaxLength } else { Padding::Longest },
        padding_side: Side::Right,
        truncation_side: Side::Left,
        max_length: config.prompt.max_length,
    }
}

/// A prefix of fixed length has room for every camera, the longest instruction and the state.
fn check_prefix_length(config: &VlaModelConfig, backbone: &SmolVlmConfig) -> Result<(), VlaError> {
    /// Tokens around a picture.
    const MARKERS: i64 = 3;
    let Some(length) = config.expert.prefix_length else { return Ok(()) };
    let [height, width] = config.image_size;
    let of_picture = backbone.num_image_tokens(height, width)?;
    let of_camera = of_picture + if config.expert.image_special_tokens { MARKERS } else { 0 };
    let longest = config.cameras.len() as i64 * of_camera + config.prompt.max_length as i64 + 1;
    if longest <= length {
        return Ok(());
    }
    let problem =
        format!("{length} tokens, images, an instruction of model.prompt.max_length and the state are {longest}");
    Err(VlaError::config("prefix_length", problem, format!("set it to {longest} or more, or to null")))
}

/// Every token has a row in the embedding table.
fn check_vocabulary(tokenizer: &TextTokenizer, backbone: &SmolVlmConfig) -> Result<(), VlaError> {
    let (num_tokens, num_rows) = (tokenizer.vocab_size(), backbone.text.vocab_size);
    if num_tokens as i64 <= num_rows {
        return Ok(());
    }
    let problem = format!("it has {num_tokens} tokens, the backbone's embedding table {num_rows} rows");
    Err(VlaError::config("tokenizer", problem, "take the backbone's own tokenizer, or raise the vocabulary's size"))
}

/// Numbers of one action: the data's, which the configuration may confirm. None when there are no actions to learn.
fn action_dim(config: &VlaConfig, layout: &SampleLayout) -> Result<Option<i64>, VlaError> {
    let options = &config.model.action;
    let of_data = layout.action.map(|[_, dim]| dim as i64);
    if of_data.is_none() && config.model.mode.with_actions() {
        let hint = "set data.sources.<name>.action_key, or model.mode=latent";
        return Err(VlaError::config("mode", "the data has no actions to learn", hint));
    }
    let Some(dim) = of_data else { return Ok(options.dim) };
    if options.dim.is_some_and(|configured| configured != dim) {
        return Err(VlaError::config("action.dim", format!("the data's actions have {dim} numbers"), "set it to null"));
    }
    if dim > options.max_dim {
        let problem = format!("the data's actions have {dim} numbers, which is more");
        return Err(VlaError::config("action.max_dim", problem, format!("raise it to at least {dim}")));
    }
    Ok(Some(dim))
}

/// The state fits into the room that the policy has for it.
fn check_state(state: Option<Normalization>, config: &VlaModelConfig) -> Result<Option<Normalization>, VlaError> {
    match state {
        Some(state) if state.dim as i64 > config.state.max_dim => {
            let problem = format!("the data's states have {} numbers, which is more", state.dim);
            Err(VlaError::config("state.max_dim", problem, format!("raise it to at least {}", state.dim)))
        }
        fitting => Ok(fitting),
    }
}
