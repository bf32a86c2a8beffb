//! Observations, targets and noise of a call: read from dictionaries, checked against the model's sizes.

use crate::failure::Failure;
use crate::tensors::{named, tensor};
use crate::wall;
use hlrp_schema::policy::{FlowSpec, Mode};
use hlrp_vla::{
    ActionTarget, CameraImages, Chunking, FlowNoise, Guidance, HeadKind, LatentTarget, Observation, Processor, Targets,
    TorchNoise, VlaModel,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::collections::{HashMap, VecDeque};
use tch::{Device, Kind, Tensor};

/// Names of the heads in dictionaries.
const HEADS: [&str; 2] = ["latent", "action"];

/// What a policy sees, from the caller.
pub(crate) struct RawObservation {
    images: HashMap<String, Tensor>,
    is_real: HashMap<String, Tensor>,
    pub(crate) task: Vec<String>,
    state: Option<Tensor>,
}

/// The targets of a batch, from the caller.
#[derive(Default)]
pub(crate) struct RawTargets {
    actions: Option<Tensor>,
    action_is_pad: Option<Tensor>,
    action_dim_is_pad: Option<Tensor>,
    latents: Option<Tensor>,
    latent_codes: Option<Tensor>,
    latent_is_valid: Option<Tensor>,
}

/// Real-time chunking, from the caller.
pub(crate) struct RawGuidance {
    left_over: Tensor,
    chunking: Chunking,
}

/// Noise or times by head, from the caller.
#[derive(Default)]
pub(crate) struct RawNoise {
    pub(crate) noise: HashMap<String, Tensor>,
    pub(crate) time: HashMap<String, Tensor>,
}

/// Entries of a dictionary, of which no other is allowed.
struct Entries<'py> {
    what: &'static str,
    dict: Bound<'py, PyDict>,
}

impl<'py> Entries<'py> {
    fn of(what: &'static str, value: &Bound<'py, PyAny>, known: &[&str]) -> PyResult<Self> {
        let dict = value.downcast::<PyDict>().map_err(|_| {
            let text = format!("{what}: a dict is needed, this is {}", value.get_type());
            Failure::value(format!("{text}\nhint: its keys are {}", known.join(", ")))
        })?;
        for key in dict.keys() {
            let key: String = key.extract()?;
            if !known.contains(&key.as_str()) {
                let text = format!("{what}: unknown key `{key}`");
                return Err(Failure::value(format!("{text}\nhint: its keys are {}", known.join(", "))).into());
            }
        }
        Ok(Self { what, dict: dict.clone() })
    }

    /// The entry of that name, if there is one that is not None.
    fn get(&self, key: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(self.dict.get_item(key)?.filter(|value| !value.is_none()))
    }

    fn needed(&self, key: &str) -> PyResult<Bound<'py, PyAny>> {
        let text = format!("{}: `{key}` is missing\nhint: see help(hlrp_rs.Policy)", self.what);
        self.get(key)?.ok_or_else(|| Failure::value(text).into())
    }

    fn tensor(&self, key: &str) -> PyResult<Option<Tensor>> {
        self.get(key)?.map(|value| tensor(&format!("{}[\"{key}\"]", self.what), &value)).transpose()
    }
}

impl RawObservation {
    /// Reads the dictionary that `Observation` in `_core.pyi` describes.
    pub(crate) fn read(observation: &Bound<'_, PyAny>) -> PyResult<Self> {
        let entries = Entries::of("observation", observation, &["images", "is_real", "task", "state"])?;
        let task = entries.needed("task")?;
        Ok(Self {
            images: named("observation[\"images\"]", &entries.needed("images")?)?,
            is_real: entries.get("is_real")?.map_or(Ok(HashMap::new()), |it| named("observation[\"is_real\"]", &it))?,
            task: tasks(&task)?,
            state: entries.tensor("state")?,
        })
    }

    /// The inputs of the model: images at its size, tokens on the images' device.
    pub(crate) fn prepare(mut self, processor: &Processor) -> Result<Observation, Failure> {
        let roles = processor.cameras();
        let num_samples = self.task.len() as i64;
        let unknown = |given: &HashMap<String, Tensor>| given.keys().find(|role| !roles.contains(role)).cloned();
        if let Some(role) = unknown(&self.images).or_else(|| unknown(&self.is_real)) {
            let text = format!("observation: the policy has no camera `{role}`\nhint: its cameras are {roles:?}");
            return Err(Failure::value(text));
        }
        let mut cameras = Vec::new();
        for role in roles {
            let camera = match self.images.remove(role) {
                None => None,
                Some(images_BCHW) => {
                    check_images(role, &images_BCHW, num_samples)?;
                    let is_real_B = self.is_real.remove(role).unwrap_or_else(|| all_true(&[num_samples], &images_BCHW));
                    check_mask(&format!("observation[\"is_real\"][\"{role}\"]"), &is_real_B, &[num_samples])?;
                    Some(CameraImages { pixels_BCHW: processor.images(&images_BCHW), is_real_B })
                }
            };
            cameras.push(camera);
        }
        let Some(device) = cameras.iter().flatten().next().map(|camera| camera.pixels_BCHW.device()) else {
            let text = format!("observation: it has no image of any camera\nhint: give one for each of {roles:?}");
            return Err(Failure::value(text));
        };
        Ok(Observation { cameras, language: processor.language(&self.task, device)?, state_BN: self.state })
    }
}

/// B instructions. A single text would be a list of characters.
pub(crate) fn tasks(task: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    task.extract::<Vec<String>>().map_err(|_| {
        Failure::value(format!(
            "task: a list of texts is needed, this is {}\nhint: give one text per sample",
            task.get_type()
        ))
        .into()
    })
}

fn check_images(role: &str, images_BCHW: &Tensor, num_samples: i64) -> Result<(), Failure> {
    let size = images_BCHW.size();
    let is_image = size.len() == 4 && size[1] == 3 && size[2] > 0 && size[3] > 0;
    let is_number = matches!(images_BCHW.kind(), Kind::Uint8 | Kind::Float | Kind::Half | Kind::BFloat16);
    if is_image && is_number && size[0] == num_samples {
        return Ok(());
    }
    let found = format!("{:?} {size:?}", images_BCHW.kind());
    Err(Failure::value(format!(
        "camera `{role}`: images are {found} where uint8 or float [{num_samples}, 3, height, width] is needed\n\
         hint: give images of time t alone, one for each instruction"
    )))
}

fn check_mask(what: &str, mask: &Tensor, shape: &[i64]) -> Result<(), Failure> {
    if mask.kind() == Kind::Bool && mask.size() == shape {
        return Ok(());
    }
    let found = format!("{:?} {:?}", mask.kind(), mask.size());
    Err(Failure::value(format!(
        "{what}: a mask is {found} where bool {shape:?} is needed\nhint: see help(hlrp_rs.Policy)"
    )))
}

fn all_true(shape: &[i64], like: &Tensor) -> Tensor {
    Tensor::ones(shape, (Kind::Bool, like.device()))
}

impl RawTargets {
    /// Reads the dictionary that `Targets` in `_core.pyi` describes.
    pub(crate) fn read(targets: &Bound<'_, PyAny>) -> PyResult<Self> {
        let keys = ["actions", "action_is_pad", "action_dim_is_pad", "latents", "latent_codes", "latent_is_valid"];
        let entries = Entries::of("targets", targets, &keys)?;
        let [actions, action_is_pad, action_dim_is_pad, latents, latent_codes, latent_is_valid] =
            keys.map(|key| entries.tensor(key));
        Ok(Self {
            actions: actions?,
            action_is_pad: action_is_pad?,
            action_dim_is_pad: action_dim_is_pad?,
            latents: latents?,
            latent_codes: latent_codes?,
            latent_is_valid: latent_is_valid?,
        })
    }

    /// The targets of the model, which checks their sizes.
    pub(crate) fn prepare(self, num_samples: i64) -> Result<Targets, Failure> {
        let action = match self.actions {
            None => None,
            Some(chunk_BTA) => {
                check_samples("actions", &chunk_BTA, num_samples, 3)?;
                let shape = &chunk_BTA.size()[..2];
                let is_pad_BT =
                    self.action_is_pad.unwrap_or_else(|| Tensor::zeros(shape, (Kind::Bool, chunk_BTA.device())));
                check_mask("targets[\"action_is_pad\"]", &is_pad_BT, shape)?;
                if let Some(is_pad_dim_BA) = &self.action_dim_is_pad {
                    let size = chunk_BTA.size();
                    check_mask("targets[\"action_dim_is_pad\"]", is_pad_dim_BA, &[size[0], size[2]])?;
                }
                let chunk_BTA = chunk_BTA.to_kind(Kind::Float);
                Some(ActionTarget { chunk_BTA, is_pad_BT, is_pad_dim_BA: self.action_dim_is_pad })
            }
        };
        if let Some(vectors_BSD) = &self.latents {
            check_samples("latents", vectors_BSD, num_samples, 3)?;
        }
        if let Some(codes_BS) = &self.latent_codes {
            check_samples("latent_codes", codes_BS, num_samples, 2)?;
            if codes_BS.kind() != Kind::Int64 {
                let text = format!("targets[\"latent_codes\"]: this is {:?} where Int64 is needed", codes_BS.kind());
                return Err(Failure::value(format!("{text}\nhint: give what Teacher.codes returned")));
            }
        }
        let latent = match self.latents.as_ref().or(self.latent_codes.as_ref()) {
            None => None,
            Some(given) => {
                let is_valid_B = self.latent_is_valid.unwrap_or_else(|| all_true(&[num_samples], given));
                check_mask("targets[\"latent_is_valid\"]", &is_valid_B, &[num_samples])?;
                let vectors_BSD = self.latents.map(|vectors_BSD| vectors_BSD.to_kind(Kind::Float));
                Some(LatentTarget { vectors_BSD, codes_BS: self.latent_codes, is_valid_B })
            }
        };
        Ok(Targets { action, latent })
    }
}

fn check_samples(what: &str, target: &Tensor, num_samples: i64, num_dims: usize) -> Result<(), Failure> {
    let size = target.size();
    if size.len() == num_dims && size[0] == num_samples {
        return Ok(());
    }
    Err(Failure::value(format!(
        "targets[\"{what}\"]: shape {size:?} where {num_dims} dimensions and {num_samples} samples are needed\n\
         hint: give one target for each instruction"
    )))
}

impl RawGuidance {
    /// Reads the dictionary that `Guidance` in `_core.pyi` describes.
    pub(crate) fn read(guidance: &Bound<'_, PyAny>) -> PyResult<Self> {
        let keys =
            ["left_over", "inference_delay", "execution_horizon", "prefix_attention_schedule", "max_guidance_weight"];
        let entries = Entries::of("guidance", guidance, &keys)?;
        let left_over = tensor("guidance[\"left_over\"]", &entries.needed("left_over")?)?;
        let settings = entries.dict.copy()?;
        settings.del_item("left_over")?;
        Ok(Self { left_over, chunking: wall::typed("guidance", wall::value("guidance", &settings)?)? })
    }

    /// What draws a chunk of `model` in `mode` towards the actions that are left over.
    pub(crate) fn prepare(
        &self,
        model: &VlaModel,
        mode: Mode,
        num_samples: i64,
        device: Device,
    ) -> Result<Guidance, Failure> {
        let shapes = model.noise_shapes(mode, num_samples);
        let chunk = shapes.into_iter().find_map(|(kind, shape)| match (kind, &shape[..]) {
            (HeadKind::Action, [num_samples, num_steps, dim]) => Some([*num_samples, *num_steps, *dim]),
            _ => None,
        });
        let refuse = || {
            Failure::value(
                "guidance: this policy denoises no actions\nhint: choose the mode actions of a policy with chunks",
            )
        };
        Ok(Guidance::new(&self.chunking, &self.left_over, chunk.ok_or_else(refuse)?, device)?)
    }
}

impl RawNoise {
    /// Reads the dictionaries that `FlowTensors` in `_core.pyi` describes.
    pub(crate) fn read(noise: Option<&Bound<'_, PyAny>>, time: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let read = |what, value: Option<&Bound<'_, PyAny>>| -> PyResult<HashMap<String, Tensor>> {
            let Some(value) = value else { return Ok(HashMap::new()) };
            let entries = Entries::of(what, value, &HEADS)?;
            let found = HEADS.into_iter().map(|head| Ok((head.to_owned(), entries.tensor(head)?)));
            let found: Vec<(String, Option<Tensor>)> = found.collect::<PyResult<_>>()?;
            Ok(found.into_iter().filter_map(|(head, tensor)| Some((head, tensor?))).collect())
        };
        Ok(Self { noise: read("noise", noise)?, time: read("time", time)? })
    }

    /// The noise of a call in `mode`, checked against the shapes that `model` needs.
    pub(crate) fn prepare(
        mut self,
        model: &VlaModel,
        mode: Mode,
        num_samples: i64,
        device: Device,
    ) -> Result<GivenNoise, Failure> {
        let mut given = GivenNoise { normal: VecDeque::new(), time: VecDeque::new() };
        for (kind, shape) in model.noise_shapes(mode, num_samples) {
            let head = HEADS[usize::from(kind == HeadKind::Action)];
            given.normal.push_back(checked("noise", head, self.noise.remove(head), &shape, device)?);
            given.time.push_back(checked("time", head, self.time.remove(head), &shape[..1], device)?);
        }
        Ok(given)
    }
}

/// The caller's tensors in the order in which the heads ask for them; a missing one comes from torch's generator.
pub(crate) struct GivenNoise {
    normal: VecDeque<Option<Tensor>>,
    time: VecDeque<Option<Tensor>>,
}

impl FlowNoise for GivenNoise {
    fn normal(&mut self, shape: &[i64], device: Device) -> Tensor {
        match self.normal.pop_front().flatten() {
            // An architecture may ask for slots and dimensions as one flat vector.
            Some(normal) => normal.reshape(shape),
            None => TorchNoise.normal(shape, device),
        }
    }

    fn time(&mut self, num_samples: i64, flow: &FlowSpec, device: Device) -> Tensor {
        match self.time.pop_front().flatten() {
            Some(time_B) => time_B,
            None => TorchNoise.time(num_samples, flow, device),
        }
    }
}

fn checked(
    what: &str,
    head: &str,
    tensor: Option<Tensor>,
    shape: &[i64],
    device: Device,
) -> Result<Option<Tensor>, Failure> {
    let Some(tensor) = tensor else { return Ok(None) };
    if tensor.size() == shape && tensor.kind() == Kind::Float && tensor.device() == device {
        return Ok(Some(tensor));
    }
    let found = format!("{:?} {:?} on {:?}", tensor.kind(), tensor.size(), tensor.device());
    Err(Failure::value(format!(
        "{what}[\"{head}\"]: this is {found} where Float {shape:?} on {device:?} is needed\nhint: see help(hlrp_rs.Policy)"
    )))
}
