//! From a batch of the data loader to the inputs of the model.
//!
//! Only frame t enters: of images and states, one time index of the batch is read and the rest is left alone.
//!
//! Shape suffixes: B samples, T time indices of a stream, C channels, H×W pixels, N dimensions.

use crate::VlaError;
use crate::loss::real_dims;
use crate::normalize::{normalize, unnormalize};
use crate::observation::{ActionTarget, CameraImages, Language, Observation};
use hlrp_nn::smolvlm::{TextLayout, TextTokenizer, pad_resize, with_newline, with_system_prompt};
use hlrp_schema::policy::{ModelSpec, ProcessorSpec, Scaling};
use hlrp_torch::queued_copy;
use hlrp_train::{Augmentation, DeviceBatch};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Where a batch holds the present: indices on the time axes of its streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeIndices {
    /// Of the present among the images.
    pub image: i64,
    /// Of the present among the states.
    pub state: i64,
    /// Of the first action of the chunk.
    pub action: i64,
    /// Of the present among the labels.
    pub label: i64,
}

impl TimeIndices {
    /// The same in a validation sample, which has one image, one action and one label more before the others.
    pub(crate) fn in_validation(self) -> Self {
        Self { image: self.image + 1, action: self.action + 1, label: self.label + 1, ..self }
    }
}

/// Prepares batches.
pub struct Processor {
    cameras: Vec<String>,
    image_size: [i64; 2],
    spec: ProcessorSpec,
    tokenizer: TextTokenizer,
}

impl Processor {
    /// The processor of a resolved description, with the tokenizer of `tokenizer_folder`.
    ///
    /// # Errors
    /// A tokenizer that cannot be read.
    pub fn new(model: &ModelSpec, spec: &ProcessorSpec, tokenizer_folder: &Path) -> Result<Self, VlaError> {
        Ok(Self {
            cameras: model.cameras.clone(),
            image_size: model.image_size(),
            spec: spec.clone(),
            tokenizer: TextTokenizer::from_folder(tokenizer_folder, text_layout(spec))?,
        })
    }

    /// Camera roles in the model's order.
    pub fn cameras(&self) -> &[String] {
        &self.cameras
    }

    /// How batches are prepared.
    pub fn spec(&self) -> &ProcessorSpec {
        &self.spec
    }

    /// What the policy sees of `batch` at the present.
    ///
    /// # Errors
    /// No camera of the model in the batch, samples without instruction, or states of another width than the statistics.
    pub fn observe(&self, batch: &DeviceBatch, present: TimeIndices) -> Result<Observation, VlaError> {
        self.observe_changed(batch, present, None)
    }

    /// [`Processor::observe`] of images that `augmentation` changes.
    pub(crate) fn observe_changed(
        &self,
        batch: &DeviceBatch,
        present: TimeIndices,
        augmentation: Option<&Augmentation>,
    ) -> Result<Observation, VlaError> {
        let camera = |role: &String| self.camera(batch, role, present.image, augmentation);
        let cameras: Vec<Option<CameraImages>> = self.cameras.iter().map(camera).collect();
        let device = match cameras.iter().flatten().next() {
            Some(images) => images.pixels_BCHW.device(),
            None => {
                let problem = format!("the batch has {:?}, none of {:?}", batch.images.keys(), self.cameras);
                return Err(VlaError::input(
                    "cameras",
                    problem,
                    "map a camera of every source to each role of policy.model.cameras",
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
        let hint = "give a source an action key, or train with policy.objective.mode = latent";
        let stream = batch.action.as_ref().ok_or_else(|| VlaError::input("actions", "the batch has none", hint))?;
        let scaling = self
            .spec
            .action
            .as_ref()
            .ok_or_else(|| VlaError::input("actions", "there are no statistics for them", hint))?;
        check_width("actions", &stream.values_BTN, scaling)?;
        let is_pad_dim_BA = stream.is_pad_dim_BN.shallow_clone();
        Ok(ActionTarget {
            chunk_BTA: real_dims(&normalize(scaling, &stream.values_BTN), Some(&is_pad_dim_BA)),
            is_pad_BT: stream.is_pad_BT.shallow_clone(),
            is_pad_dim_BA: Some(is_pad_dim_BA),
        })
    }

    /// Predicted actions `[B,T,A]` back at the robot's scale.
    ///
    /// # Errors
    /// No statistics for actions.
    pub fn unnormalize_actions(&self, actions_BTA: &Tensor) -> Result<Tensor, VlaError> {
        let hint = "train with actions before asking for them";
        let scaling = self
            .spec
            .action
            .as_ref()
            .ok_or_else(|| VlaError::input("actions", "there are no statistics for them", hint))?;
        Ok(unnormalize(scaling, actions_BTA))
    }

    fn camera(
        &self,
        batch: &DeviceBatch,
        role: &str,
        present: i64,
        augmentation: Option<&Augmentation>,
    ) -> Option<CameraImages> {
        let stream = batch.images.get(role)?;
        let mut pixels_B1CHW = stream.pixels_BTCHW.narrow(1, present, 1);
        if let Some(augmentation) = augmentation {
            pixels_B1CHW = augmentation.apply(&(pixels_B1CHW.to_kind(Kind::Float) / 255.0));
        }
        let pixels_BCHW = self.images(&pixels_B1CHW.select(1, 0));
        Some(CameraImages { pixels_BCHW, is_real_B: stream.is_real_BT.select(1, present) })
    }

    /// Images `[B,C,H,W]`, uint8 or float in [0, 1], for the model: float32 in [−1, 1], at its image size.
    pub fn images(&self, images_BCHW: &Tensor) -> Tensor {
        let [height, width] = self.image_size;
        pad_resize(images_BCHW, height, width)
    }

    /// Instructions as tokens on `device`, prompt included.
    ///
    /// # Errors
    /// A text that the tokenizer cannot encode.
    pub fn language(&self, tasks: &[String], device: Device) -> Result<Language, VlaError> {
        let text = |task: &String| {
            let text = with_system_prompt(&self.spec.system_prompt, task);
            if self.spec.newline { with_newline(&text) } else { text }
        };
        let texts: Vec<String> = tasks.iter().map(text).collect();
        let tokens = self.tokenizer.encode(&texts)?;
        let [ids_BL, is_valid_BL] = [&tokens.ids_BL, &tokens.mask_BL].map(|tensor| queued_copy(tensor, device));
        Ok(Language { ids_BL, is_valid_BL })
    }

    fn state(&self, batch: &DeviceBatch, present: i64) -> Result<Option<Tensor>, VlaError> {
        let Some(scaling) = &self.spec.state else { return Ok(None) };
        let hint = "give a source a state key, or build the model without states";
        let stream = batch.state.as_ref().ok_or_else(|| VlaError::input("state", "the batch has none", hint))?;
        check_width("state", &stream.values_BTN, scaling)?;
        let state_BN = normalize(scaling, &stream.values_BTN.select(1, present));
        Ok(Some(real_dims(&state_BN, Some(&stream.is_pad_dim_BN))))
    }
}

fn check_width(input: &str, values_BTN: &Tensor, scaling: &Scaling) -> Result<(), VlaError> {
    let (found, expected) = (values_BTN.size()[2], scaling.dim.unwrap_or_default());
    if found == expected as i64 {
        return Ok(());
    }
    let problem = format!("{found} dimensions where the statistics have {expected}");
    Err(VlaError::input(input, problem, "use sources with the same robot, or statistics of these sources"))
}

/// How instructions become a batch of tokens.
fn text_layout(spec: &ProcessorSpec) -> TextLayout {
    TextLayout {
        padding: spec.pad_language_to,
        padding_side: spec.padding_side,
        truncation_side: spec.truncation_side,
        max_length: spec.tokenizer_max_length,
    }
}
