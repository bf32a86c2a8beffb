//! From a batch of the data loader to what the model takes.
//!
//! Only frame t enters: of images and states, one moment of the batch is read and the rest is left alone.
//!
//! Shape suffixes: B samples, T moments of a stream, C colours, H×W pixels, N numbers.

use crate::{ActionTarget, CameraImages, Language, Normalization, Observation, VlaError};
use hlrp_nn::smolvlm::{IMAGE_PREPARATION, TextLayout, TextTokenizer, pad_resize, with_newline, with_system_prompt};
use hlrp_train::DeviceBatch;
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::{Device, Tensor};

/// How an instruction becomes tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptConfig {
    /// Stands in front of every instruction, on its own line; nothing when empty.
    pub system_prompt: String,
    /// Whether the text ends in a newline, as LeRobot's SmolVLA expects.
    pub newline: bool,
    /// How texts of different lengths become one batch.
    pub layout: TextLayout,
}

impl PromptConfig {
    /// The text that is tokenised.
    pub fn text(&self, instruction: &str) -> String {
        let text = with_system_prompt(&self.system_prompt, instruction);
        if self.newline { with_newline(&text) } else { text }
    }
}

/// Everything that fixes how a batch is prepared; part of the artifact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessorConfig {
    /// Camera roles in the model's order.
    pub cameras: Vec<String>,
    /// Height and width of prepared images.
    pub image_size: [i64; 2],
    /// Which way pictures are brought to that size: the id of the one way there is.
    pub image_preparation: String,
    /// How an instruction becomes tokens.
    pub prompt: PromptConfig,
    /// Scaling of states; none when the policy sees no state.
    pub state: Option<Normalization>,
    /// Scaling of actions; none when the data has no actions.
    pub action: Option<Normalization>,
}

impl ProcessorConfig {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// Another image preparation, or statistics that are incomplete.
    pub fn check(&self) -> Result<(), VlaError> {
        if self.image_preparation != IMAGE_PREPARATION {
            let problem = format!(
                "pictures were prepared by `{}`, this program has `{IMAGE_PREPARATION}`",
                self.image_preparation
            );
            return Err(VlaError::input(
                "image_preparation",
                problem,
                "use the version of hlrp that wrote the artifact",
            ));
        }
        self.state.as_ref().map_or(Ok(()), |state| state.check("state"))?;
        self.action.as_ref().map_or(Ok(()), |action| action.check("action"))
    }
}

/// Where the present lies in a batch's streams: the positions of offset 0 in the data request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present {
    /// Among the images.
    pub image: i64,
    /// Among the states.
    pub state: i64,
}

/// Prepares batches.
pub struct Processor {
    config: ProcessorConfig,
    tokenizer: TextTokenizer,
}

impl Processor {
    /// A processor with the tokenizer of `tokenizer_folder`.
    ///
    /// # Errors
    /// A configuration that contradicts itself, or a tokenizer that cannot be read.
    pub fn new(config: &ProcessorConfig, tokenizer_folder: &Path) -> Result<Self, VlaError> {
        config.check()?;
        Ok(Self {
            config: config.clone(),
            tokenizer: TextTokenizer::from_folder(tokenizer_folder, config.prompt.layout)?,
        })
    }

    /// How batches are prepared.
    pub fn config(&self) -> &ProcessorConfig {
        &self.config
    }

    /// What the policy sees of `batch` at the present.
    ///
    /// # Errors
    /// No camera of the model in the batch, samples without instruction, or states of another width than the statistics.
    pub fn observe(&self, batch: &DeviceBatch, present: Present) -> Result<Observation, VlaError> {
        let cameras: Vec<Option<CameraImages>> =
            self.config.cameras.iter().map(|role| self.camera(batch, role, present.image)).collect();
        let device = match cameras.iter().flatten().next() {
            Some(images) => images.pixels_BCHW.device(),
            None => {
                let problem = format!("the batch has {:?}, none of {:?}", batch.images.keys(), self.config.cameras);
                return Err(VlaError::input(
                    "cameras",
                    problem,
                    "map a camera of every source to each role of model.cameras",
                ));
            }
        };
        Ok(Observation {
            cameras,
            language: self.language(&batch.task, device)?,
            state_BN: self.state(batch, present.state)?,
        })
    }

    /// Normalised actions of `batch`.
    ///
    /// # Errors
    /// No actions, no statistics for them, or another width.
    pub fn actions(&self, batch: &DeviceBatch) -> Result<ActionTarget, VlaError> {
        let hint = "give every source an action key, or train with model.mode = latent";
        let stream = batch.action.as_ref().ok_or_else(|| VlaError::input("actions", "the batch has none", hint))?;
        let normalization = self
            .config
            .action
            .as_ref()
            .ok_or_else(|| VlaError::input("actions", "there are no statistics for them", hint))?;
        check_width("actions", &stream.values_BTN, normalization)?;
        Ok(ActionTarget {
            chunk_BTA: normalization.normalize(&stream.values_BTN),
            is_pad_BT: stream.is_pad_BT.shallow_clone(),
        })
    }

    /// Predicted actions `[B,T,A]` back at the robot's scale.
    ///
    /// # Errors
    /// No statistics for actions.
    pub fn unnormalize_actions(&self, actions_BTA: &Tensor) -> Result<Tensor, VlaError> {
        let hint = "train with actions before asking for them";
        let normalization = self
            .config
            .action
            .as_ref()
            .ok_or_else(|| VlaError::input("actions", "there are no statistics for them", hint))?;
        Ok(normalization.unnormalize(actions_BTA))
    }

    fn camera(&self, batch: &DeviceBatch, role: &str, present: i64) -> Option<CameraImages> {
        batch.images.get(role).map(|stream| CameraImages {
            pixels_BCHW: self.pictures(&stream.pixels_BTCHW.select(1, present)),
            is_real_B: stream.is_real_BT.select(1, present),
        })
    }

    /// Pictures `[B,C,H,W]`, uint8 or float in [0, 1], as the model takes them: float32 in [−1, 1], at its image size.
    pub fn pictures(&self, images_BCHW: &Tensor) -> Tensor {
        let [height, width] = self.config.image_size;
        pad_resize(images_BCHW, height, width)
    }

    /// Instructions as tokens on `device`, prompt included.
    ///
    /// # Errors
    /// A text that the tokenizer cannot encode.
    pub fn language(&self, tasks: &[String], device: Device) -> Result<Language, VlaError> {
        let texts: Vec<String> = tasks.iter().map(|task| self.config.prompt.text(task)).collect();
        let tokens = self.tokenizer.encode(&texts)?;
        Ok(Language { ids_BL: tokens.ids_BL.to_device(device), is_valid_BL: tokens.mask_BL.to_device(device) })
    }

    fn state(&self, batch: &DeviceBatch, present: i64) -> Result<Option<Tensor>, VlaError> {
        let Some(normalization) = &self.config.state else { return Ok(None) };
        let hint = "give every source a state key, or build the model without states";
        let stream = batch.state.as_ref().ok_or_else(|| VlaError::input("state", "the batch has none", hint))?;
        check_width("state", &stream.values_BTN, normalization)?;
        Ok(Some(normalization.normalize(&stream.values_BTN.select(1, present))))
    }
}

fn check_width(input: &str, values_BTN: &Tensor, normalization: &Normalization) -> Result<(), VlaError> {
    let found = values_BTN.size()[2];
    if found == normalization.dim as i64 {
        return Ok(());
    }
    let problem = format!("{found} numbers where the statistics have {}", normalization.dim);
    Err(VlaError::input(input, problem, "use sources with the same robot, or statistics of these sources"))
}
