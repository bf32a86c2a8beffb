//! The class `Policy`.

use crate::backbone::insert_backbone;
use crate::compute::compute;
use crate::failure::Failure;
use crate::inputs::{RawDraws, RawObservation, RawTargets, tasks};
use crate::tensors::{self, PyTensor};
use crate::{description, names};
use hlrp_nn::smolvlm::SmolVlmFolder;
use hlrp_nn::{Pass, Store};
use hlrp_vla::{
    BACKBONE, FreezeConfig, Mode, ModelConfig, Objective, Processor, ProcessorConfig, SupervisedLoss, VlaLoss,
    VlaModel, is_named,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use tch::{Device, Tensor};

/// A policy without weights: its sizes, its tokenizer and its mathematics.
///
/// The weights are the caller's. They come in as `{name: tensor}` at every call and are forgotten after it, so `.to()`,
/// `load_state_dict`, averaged weights and `deepcopy` need no care. Names, shapes and `float32` must fit exactly; those of `castable()` may be
/// `bfloat16` too. Which parameters get a gradient is decided by their own `requires_grad`. The object can be pickled and deep-copied.
///
/// `model` and `processor` are those of an artifact's `manifest.json`, as mappings or JSON texts; `tokenizer_folder` holds
/// `tokenizer.json` and `tokenizer_config.json`. States and actions are normalised on both sides: the statistics in `processor` are for the
/// caller (`normalization`).
#[pyclass(frozen, module = "hlrp_rs")]
pub(crate) struct Policy {
    parts: Arc<PolicyParts>,
}

/// What a policy is, shared by its copies and by computations under way. No tensor is among it.
struct PolicyParts {
    model: ModelConfig,
    processor: Processor,
    tokenizer_folder: PathBuf,
    parameters: Vec<names::Parameter>,
}

/// How the losses of a batch are averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reduction {
    Mean,
    PerSample,
}

impl Policy {
    pub(crate) fn build(
        py: Python<'_>,
        model: ModelConfig,
        processor: &ProcessorConfig,
        tokenizer_folder: PathBuf,
    ) -> PyResult<Self> {
        if processor.cameras != model.cameras() || processor.image_size != model.image_size() {
            let text = format!(
                "processor: cameras {:?} at {:?} pixels, the model has {:?} at {:?}",
                processor.cameras,
                processor.image_size,
                model.cameras(),
                model.image_size()
            );
            return Err(Failure::value(format!("{text}\nhint: give both the same")).into());
        }
        let parts = compute(py, || {
            let parameters = names::parameters(&model)?;
            Ok(PolicyParts {
                processor: Processor::new(processor, &tokenizer_folder)?,
                model,
                tokenizer_folder,
                parameters,
            })
        })?;
        Ok(Self { parts: Arc::new(parts) })
    }

    fn select(&self, matches: impl Fn(&str) -> bool) -> HashSet<String> {
        self.parts.parameters.iter().map(|parameter| parameter.name.clone()).filter(|name| matches(name)).collect()
    }

    /// Weights as a dictionary, without gradient.
    fn weights<'py>(py: Python<'py>, weights: Vec<(String, Tensor)>) -> PyResult<Bound<'py, PyDict>> {
        tensors::dict(py, weights.into_iter().map(|(name, tensor)| (name, tensor.detach())))
    }

    /// The model over the tensors of this call.
    fn bind(parts: &PolicyParts, parameters: HashMap<String, Tensor>) -> Result<VlaModel, Failure> {
        Ok(VlaModel::over(&parts.model, Store::over(parameters))?)
    }
}

#[pymethods]
impl Policy {
    #[new]
    fn new(
        py: Python<'_>,
        model: &Bound<'_, PyAny>,
        processor: &Bound<'_, PyAny>,
        tokenizer_folder: PathBuf,
    ) -> PyResult<Self> {
        let (model, processor) = (description::read("model", model)?, description::read("processor", processor)?);
        Self::build(py, model, &processor, tokenizer_folder)
    }

    /// A policy around a SmolVLM in a folder, as transformers saves it.
    ///
    /// `model` is a description without its key `backbone`, which is read from the folder's `config.json` (`num_text_layers` keeps only the
    /// first layers; all when `None`). The folder's weights are not touched: `init(backbone=…)` loads them. The tokenizer lies in the same
    /// folder unless `tokenizer_folder` is given.
    #[staticmethod]
    #[pyo3(signature = (backbone, model, processor, *, num_text_layers=None, tokenizer_folder=None))]
    fn from_backbone(
        py: Python<'_>,
        backbone: PathBuf,
        model: &Bound<'_, PyAny>,
        processor: &Bound<'_, PyAny>,
        num_text_layers: Option<i64>,
        tokenizer_folder: Option<PathBuf>,
    ) -> PyResult<Self> {
        let model = insert_backbone(description::value("model", model)?, &backbone, num_text_layers)?;
        let (model, processor) = (description::typed("model", model)?, description::read("processor", processor)?);
        Self::build(py, model, &processor, tokenizer_folder.unwrap_or(backbone))
    }

    /// The model's description, as in `manifest.json`.
    #[getter]
    fn model<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        description::write(py, &self.parts.model)
    }

    /// How inputs are prepared, as in `manifest.json`.
    #[getter]
    fn processor<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        description::write(py, self.parts.processor.config())
    }

    /// Where the tokenizer lies.
    #[getter]
    fn tokenizer_folder(&self) -> String {
        self.parts.tokenizer_folder.display().to_string()
    }

    /// Camera roles in the model's order.
    #[getter]
    fn cameras(&self) -> Vec<String> {
        self.parts.model.cameras().to_vec()
    }

    /// Height and width in pixels that pictures are brought to.
    #[getter]
    fn image_size(&self) -> (i64, i64) {
        self.parts.model.image_size().into()
    }

    /// Steps T of an action chunk; `None` for a model without action head.
    #[getter]
    fn chunk_size(&self) -> Option<i64> {
        match &self.parts.model {
            ModelConfig::Expert(config) => Some(config.action.chunk_size),
            ModelConfig::Pooled(config) => config.action_dim.map(|_| 1),
        }
    }

    /// Numbers A of an action; `None` for a model without action head.
    #[getter]
    fn action_dim(&self) -> Option<i64> {
        self.parts.model.action_dim()
    }

    /// Code slots S and numbers D of a code vector; `None` for a model without latent head.
    #[getter]
    fn latent_shape(&self) -> Option<(i64, i64)> {
        self.parts.model.latent().map(|latent| (latent.code_seq_len, latent.code_dim))
    }

    /// Name, shape and whether training can reach it, for every parameter in the model's order.
    ///
    /// What training can never reach (language-model head, final norm of the text model, its last layers) should have
    /// `requires_grad=False`.
    fn parameter_specs<'py>(&self, py: Python<'py>) -> PyResult<Vec<(String, Bound<'py, PyTuple>, bool)>> {
        let one = |parameter: &names::Parameter| {
            Ok((parameter.name.clone(), PyTuple::new(py, &parameter.shape)?, parameter.is_reachable))
        };
        self.parts.parameters.iter().map(one).collect()
    }

    /// Names of the parameters that may be `bfloat16` instead of `float32` where the caller computes under autocast: the matrices and biases of
    /// backbone and expert, which autocast would cast at every call. Results are the same; such a parameter should not be trained.
    fn castable(&self) -> HashSet<String> {
        let castable = self.parts.parameters.iter().filter(|parameter| parameter.is_castable);
        castable.map(|parameter| parameter.name.clone()).collect()
    }

    /// Fresh weights on the CPU, `float32` and without gradient, drawn from torch's CPU generator.
    ///
    /// With `backbone`, the folder of a SmolVLM, the backbone's weights are those of that folder (half precision becomes float32).
    #[pyo3(signature = (*, backbone=None))]
    fn init<'py>(&self, py: Python<'py>, backbone: Option<PathBuf>) -> PyResult<Bound<'py, PyDict>> {
        let parts = Arc::clone(&self.parts);
        let weights = compute(py, move || {
            let model = VlaModel::new(&parts.model, Device::Cpu)?;
            if let Some(folder) = backbone {
                let (place, config) = match &parts.model {
                    ModelConfig::Expert(config) => (BACKBONE, &config.backbone),
                    ModelConfig::Pooled(config) => (hlrp_vla::POOLED_BACKBONE, &config.backbone),
                };
                let root = model.store().root();
                SmolVlmFolder::open(&folder)?.load_into(&root.child(place), config)?;
            }
            Ok(model.store().state())
        })?;
        Self::weights(py, weights)
    }

    /// Weights of a LeRobot `smolvla` policy: a folder with `model.safetensors`, or such a file; heads that LeRobot lacks are fresh.
    ///
    /// Strict: a missing or unknown tensor or another shape is an error.
    fn init_from_smolvla<'py>(
        &self,
        py: Python<'py>,
        checkpoint: PathBuf,
    ) -> PyResult<(Bound<'py, PyDict>, Initialised)> {
        let parts = Arc::clone(&self.parts);
        let (weights, report) = compute(py, move || match VlaModel::new(&parts.model, Device::Cpu)? {
            VlaModel::Expert(model) => {
                let report = model.init_from_lerobot(&checkpoint)?;
                Ok((model.store().state(), report))
            }
            VlaModel::Pooled(_) => Err(Failure::value(
                "init_from_smolvla: this model has `arch: pooled`, LeRobot's smolvla policy is an expert\n\
                 hint: describe a model with `arch: expert`",
            )),
        })?;
        let hlrp_vla::Initialised { num_loaded, fresh, ignored } = report;
        Ok((Self::weights(py, weights)?, Initialised { num_loaded, fresh, ignored }))
    }

    /// Names of the parameters that `freeze` keeps as they are, those that no loss can reach included.
    fn frozen(&self, freeze: &Bound<'_, PyAny>) -> PyResult<HashSet<String>> {
        let freeze: FreezeConfig = description::read("freeze", freeze)?;
        let patterns = freeze.patterns_of(&self.parts.model);
        Ok(self.select(|name| is_named(name, &patterns)))
    }

    /// Names of the parameters that take no part in `mode`: heads of the other kind, and what no loss reaches in any mode.
    fn unused_in(&self, py: Python<'_>, mode: &Bound<'_, PyAny>) -> PyResult<HashSet<String>> {
        let (mode, parts) = (read_mode(mode)?, Arc::clone(&self.parts));
        let patterns = compute(py, move || names::unused_in(&parts.model, mode))?;
        Ok(self.select(|name| is_named(name, &patterns)))
    }

    /// Refuses parameters that are not exactly those of this model (names, shapes, number formats).
    fn check(&self, py: Python<'_>, parameters: &Bound<'_, PyAny>) -> PyResult<()> {
        let (parameters, parts) = (tensors::named("parameters", parameters)?, Arc::clone(&self.parts));
        compute(py, move || Self::bind(&parts, parameters).map(drop))
    }

    /// Losses of a batch, the observation seen once. The keys are the same in every mode and at every step:
    ///
    /// `loss`: weighted sum of the parts, float32, differentiable; a scalar, or `[B]` with `reduction="none"`.
    /// `latent_loss`, `action_loss`: parts without weight and without gradient, shaped as `loss`; 0 where the mode has no such part.
    /// `num_latent_samples`, `num_action_samples`: float32 scalars, samples with at least one supervised number.
    ///
    /// A mean runs over the supervised numbers of the batch (real action dimensions of steps that are no padding, latents of real pairs) and
    /// is 0 where there are none; per sample it runs over the sample's supervised numbers.
    #[pyo3(signature = (parameters, observation, targets, objective, *, noise=None, time=None, reduction="mean"))]
    #[allow(clippy::too_many_arguments)] // keywords in Python
    fn loss<'py>(
        &self,
        py: Python<'py>,
        parameters: &Bound<'py, PyAny>,
        observation: &Bound<'py, PyAny>,
        targets: &Bound<'py, PyAny>,
        objective: &Bound<'py, PyAny>,
        noise: Option<&Bound<'py, PyAny>>,
        time: Option<&Bound<'py, PyAny>>,
        reduction: &str,
    ) -> PyResult<Bound<'py, PyDict>> {
        let reduction = match reduction {
            "mean" => Reduction::Mean,
            "none" => Reduction::PerSample,
            other => {
                let text = format!("reduction: there is no `{other}`\nhint: choose mean or none");
                return Err(Failure::value(text).into());
            }
        };
        let objective: Objective = description::read("objective", objective)?;
        let parameters = tensors::named("parameters", parameters)?;
        let (observation, targets) = (RawObservation::read(observation)?, RawTargets::read(targets)?);
        let draws = RawDraws::read(noise, time)?;
        let parts = Arc::clone(&self.parts);
        let losses = compute(py, move || {
            let num_samples = observation.task.len() as i64;
            let model = Self::bind(&parts, parameters)?;
            let observation = observation.prepare(&parts.processor)?;
            let device = observation.language.ids_BL.device();
            let targets = targets.prepare(num_samples)?;
            let mut draws = draws.prepare(&parts.model, objective.mode, num_samples, device)?;
            let loss = model.loss(&observation, &targets, &objective, &mut draws, &Pass::plain(true))?;
            Ok(reduce(&loss, &objective, reduction, num_samples))
        })?;
        tensors::dict(py, losses)
    }

    /// What the policy predicts, without gradient: `actions` `float32 [B,T,A]` (normalised) and `latents` `float32 [B,S,D]`, as `mode` says.
    ///
    /// The observation runs through the backbone once; the denoising steps read its keys and values from a static cache.
    #[pyo3(signature = (parameters, observation, mode, *, noise=None))]
    fn sample<'py>(
        &self,
        py: Python<'py>,
        parameters: &Bound<'py, PyAny>,
        observation: &Bound<'py, PyAny>,
        mode: &Bound<'py, PyAny>,
        noise: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let mode = read_mode(mode)?;
        let parameters = tensors::named("parameters", parameters)?;
        let observation = RawObservation::read(observation)?;
        let draws = RawDraws::read(noise, None)?;
        let parts = Arc::clone(&self.parts);
        let prediction = compute(py, move || {
            tch::no_grad(|| {
                let num_samples = observation.task.len() as i64;
                let model = Self::bind(&parts, parameters)?;
                let observation = observation.prepare(&parts.processor)?;
                let device = observation.language.ids_BL.device();
                let mut draws = draws.prepare(&parts.model, mode, num_samples, device)?;
                let prediction = model.sample(&observation, mode, &mut draws, &Pass::plain(false))?;
                let named = [("actions", prediction.actions_BTA), ("latents", prediction.latents_BSD)];
                let present = named.into_iter().filter_map(|(name, tensor)| Some((name, tensor?)));
                Ok(present.map(|(name, tensor)| (name, tensor.to_kind(tch::Kind::Float))).collect::<Vec<_>>())
            })
        })?;
        tensors::dict(py, prediction)
    }

    /// Ids `int64 [B,L]` and mask `bool [B,L]` (true = real token) of instructions, prompt included, on the CPU.
    fn tokenize(&self, py: Python<'_>, task: &Bound<'_, PyAny>) -> PyResult<(PyTensor, PyTensor)> {
        let (task, parts) = (tasks(task)?, Arc::clone(&self.parts));
        let language = compute(py, move || Ok(parts.processor.language(&task, Device::Cpu)?))?;
        Ok((PyTensor(language.ids_BL), PyTensor(language.is_valid_BL)))
    }

    /// Pictures `uint8 [B,3,H,W]`, or float in [0, 1], as the vision tower takes them: `float32 [B,3,h,w]` in [-1, 1].
    fn prepare_images(&self, py: Python<'_>, images: &Bound<'_, PyAny>) -> PyResult<PyTensor> {
        let (images, parts) = (tensors::tensor("images", images)?, Arc::clone(&self.parts));
        compute(py, move || Ok(parts.processor.pictures(&images))).map(PyTensor)
    }

    /// Scaling of a feature as the artifact states it: `mode`, `dim`, `statistics` (LeRobot's names); `None` if the policy lacks it.
    fn normalization<'py>(&self, py: Python<'py>, feature: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        let config = self.parts.processor.config();
        let normalization = match feature {
            "state" => &config.state,
            "action" => &config.action,
            other => {
                let text = format!("feature: there is no `{other}`\nhint: choose state or action");
                return Err(Failure::value(text).into());
            }
        };
        normalization.as_ref().map(|normalization| description::write(py, normalization)).transpose()
    }

    fn __copy__(&self) -> Self {
        Self { parts: Arc::clone(&self.parts) }
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> Self {
        self.__copy__()
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (String, String, String))> {
        let model = description::text(&self.parts.model)?;
        let processor = description::text(self.parts.processor.config())?;
        Ok((py.get_type::<Self>().into_any(), (model, processor, self.tokenizer_folder())))
    }

    fn __repr__(&self) -> String {
        let count = self.parts.parameters.iter().map(|parameter| parameter.shape.iter().product::<i64>()).sum::<i64>();
        let arch = match self.parts.model {
            ModelConfig::Expert(_) => "expert",
            ModelConfig::Pooled(_) => "pooled",
        };
        format!("Policy(arch={arch}, cameras={:?}, {count} parameters)", self.cameras())
    }
}

/// What an initialisation from a LeRobot checkpoint did.
#[pyclass(frozen, get_all, module = "hlrp_rs")]
pub(crate) struct Initialised {
    /// Tensors taken over.
    num_loaded: usize,
    /// Parameters that the checkpoint does not have: they keep fresh values.
    fresh: Vec<String>,
    /// Tensors of the checkpoint that are no weights of the network.
    ignored: Vec<String>,
}

fn read_mode(mode: &Bound<'_, PyAny>) -> PyResult<Mode> {
    let refuse =
        |found: String| Failure::value(format!("mode: there is no {found}\nhint: choose latent, actions or multitask"));
    let name: String = mode.extract().map_err(|_| PyErr::from(refuse(format!("`{mode}`"))))?;
    serde_json::from_value(name.clone().into()).map_err(|_| refuse(format!("`{name}`")).into())
}

/// The losses as Python gets them, the same names in every mode.
fn reduce(
    loss: &VlaLoss,
    objective: &Objective,
    reduction: Reduction,
    num_samples: i64,
) -> Vec<(&'static str, Tensor)> {
    let part = |part: &SupervisedLoss| match reduction {
        Reduction::Mean => part.mean.shallow_clone(),
        Reduction::PerSample => part.per_sample_B.shallow_clone(),
    };
    let [latent, action] = [&loss.latent, &loss.action].map(|supervised| supervised.as_ref().map(part));
    let total = match reduction {
        Reduction::Mean => loss.total.shallow_clone(),
        Reduction::PerSample => {
            let weighted = [(&latent, objective.latent_weight), (&action, objective.action_weight)];
            let terms = weighted.into_iter().filter_map(|(part, weight)| part.as_ref().map(|part| part * weight));
            terms.reduce(|sum, term| sum + term).unwrap_or_else(|| loss.total.expand([num_samples], false))
        }
    };
    let zero = total.detach().zeros_like();
    let detached = |part: Option<Tensor>| part.map_or_else(|| zero.shallow_clone(), |part| part.detach());
    let count = |part: &Option<SupervisedLoss>| {
        part.as_ref().map_or_else(|| loss.total.detach().zeros_like(), |part| part.num_supervised.detach())
    };
    vec![
        ("latent_loss", detached(latent)),
        ("action_loss", detached(action)),
        ("num_latent_samples", count(&loss.latent)),
        ("num_action_samples", count(&loss.action)),
        ("loss", total),
    ]
}
