//! The class `Policy`.

use crate::backbone;
use crate::failure::Failure;
use crate::inputs::{RawGuidance, RawNoise, RawObservation, RawTargets, tasks};
use crate::losses::Reduction;
use crate::tensors::{self, PyTensor};
use crate::wall::{self, compute};
use hlrp_nn::smolvlm::SmolVlmFolder;
use hlrp_nn::{Pass, Store};
use hlrp_schema::policy::{
    Mode, ModelSpec, ObjectiveSpec, ProcessorSpec, SmolVlaFields, from_version_1, migrate_policy,
};
use hlrp_vla::{ChunkGraphs, Prediction, Processor, Replayed, VlaModel, is_named};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tch::{Device, Tensor};

/// A policy without weights: its sizes, its tokenizer and its mathematics.
///
/// The weights are the caller's. They come in as `{name: tensor}` at every call and are forgotten after it, so `.to()`,
/// `load_state_dict`, averaged weights and `deepcopy` need no care. Names, shapes and `float32` must fit exactly; those of `castable()` may be
/// `bfloat16` too. Which parameters get a gradient is decided by their own `requires_grad`. The object can be pickled and deep-copied.
///
/// `model` and `processor` are those of an artifact's `artifact.json` (section `policy`), as mappings or JSON texts; `tokenizer_folder` holds
/// `tokenizer.json` and `tokenizer_config.json`. States and actions are normalised on both sides: the statistics in `processor` are for the
/// caller (`normalization`).
#[pyclass(frozen, module = "hlrp_rs")]
pub(crate) struct Policy {
    parts: Arc<PolicyParts>,
    /// Not shared with copies: they may have other weights.
    graphs: Arc<Mutex<ChunkGraphs>>,
}

/// What a policy is, shared by its copies and by running computations. It holds no tensor.
struct PolicyParts {
    model: ModelSpec,
    processor: ProcessorSpec,
    prepare: Processor,
    tokenizer_folder: PathBuf,
    parameters: Vec<Parameter>,
}

/// One parameter.
struct Parameter {
    name: String,
    shape: Vec<i64>,
    /// Whether some loss depends on it.
    is_reachable: bool,
    /// Whether it may also be bfloat16.
    is_castable: bool,
    /// Whether the description keeps it as it is.
    is_frozen: bool,
    /// The modes in which it takes no part.
    unused_in: Vec<Mode>,
}

impl Policy {
    pub(crate) fn build(
        py: Python<'_>,
        model: ModelSpec,
        processor: &ProcessorSpec,
        tokenizer_folder: PathBuf,
    ) -> PyResult<Self> {
        processor.check_resolved().map_err(|problem| Failure::from(problem.inside("processor")))?;
        let parts = compute(py, || {
            Ok(PolicyParts {
                parameters: parameters(&model)?,
                prepare: Processor::new(&model, processor, &tokenizer_folder)?,
                processor: processor.clone(),
                model,
                tokenizer_folder,
            })
        })?;
        Ok(Self::over(Arc::new(parts)))
    }

    fn over(parts: Arc<PolicyParts>) -> Self {
        Self { parts, graphs: Arc::default() }
    }

    fn select(&self, matches: impl Fn(&Parameter) -> bool) -> HashSet<String> {
        self.parts
            .parameters
            .iter()
            .filter(|parameter| matches(parameter))
            .map(|parameter| parameter.name.clone())
            .collect()
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
        let (model, processor) = (wall::read("model", model)?, wall::read("processor", processor)?);
        Self::build(py, model, &processor, tokenizer_folder)
    }

    /// A policy around a SmolVLM in a folder, as transformers saves it.
    ///
    /// What `model` leaves to its backbone (`backbone.sizes`, ids of special tokens, …) is `None` and read from the folder. The folder's weights
    /// are not touched: `init(backbone=…)` loads them. The tokenizer is in the same folder unless `tokenizer_folder` is given.
    #[staticmethod]
    #[pyo3(signature = (backbone, model, processor, *, tokenizer_folder=None))]
    fn from_backbone(
        py: Python<'_>,
        backbone: PathBuf,
        model: &Bound<'_, PyAny>,
        processor: &Bound<'_, PyAny>,
        tokenizer_folder: Option<PathBuf>,
    ) -> PyResult<Self> {
        let (mut model, processor): (ModelSpec, _) = (wall::read("model", model)?, wall::read("processor", processor)?);
        let tokenizer_folder = tokenizer_folder.unwrap_or_else(|| backbone.clone());
        backbone::resolve(&mut model, &backbone, &tokenizer_folder)?;
        Self::build(py, model, &processor, tokenizer_folder)
    }

    /// The model's description, as in `artifact.json`.
    #[getter]
    fn model<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        wall::write(py, &self.parts.model)
    }

    /// How inputs are prepared, as in `artifact.json`.
    #[getter]
    fn processor<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        wall::write(py, &self.parts.processor)
    }

    /// Folder of the tokenizer.
    #[getter]
    fn tokenizer_folder(&self) -> String {
        self.parts.tokenizer_folder.display().to_string()
    }

    /// Camera roles in the model's order.
    #[getter]
    fn cameras(&self) -> Vec<String> {
        self.parts.model.cameras.clone()
    }

    /// Height and width in pixels of prepared images.
    #[getter]
    fn image_size(&self) -> (i64, i64) {
        self.parts.model.image_size().into()
    }

    /// Steps T of an action chunk; `None` for a model without action head.
    #[getter]
    fn chunk_size(&self) -> Option<i64> {
        let model = &self.parts.model;
        model.action_dim.map(|_| model.arch.get().chunk_size())
    }

    /// Dimensions A of an action; `None` for a model without action head.
    #[getter]
    fn action_dim(&self) -> Option<i64> {
        self.parts.model.action_dim
    }

    /// Code slots S and dimensions D of a code vector; `None` for a model without latent head.
    #[getter]
    fn latent_shape(&self) -> Option<(i64, i64)> {
        self.parts.model.latent.map(|latent| (latent.code_seq_len, latent.code_dim))
    }

    /// Name, shape and whether training can reach it, for every parameter in the model's order.
    ///
    /// What training can never reach (language-model head, final norm of the text model, its last layers) should have
    /// `requires_grad=False`.
    fn parameter_specs<'py>(&self, py: Python<'py>) -> PyResult<Vec<(String, Bound<'py, PyTuple>, bool)>> {
        let one = |parameter: &Parameter| {
            Ok((parameter.name.clone(), PyTuple::new(py, &parameter.shape)?, parameter.is_reachable))
        };
        self.parts.parameters.iter().map(one).collect()
    }

    /// Names of the parameters that may be `bfloat16` instead of `float32` where the caller computes under autocast: the matrices and biases of
    /// backbone and expert, which autocast would cast at every call. Results are the same; such a parameter should not be trained.
    fn castable(&self) -> HashSet<String> {
        self.select(|parameter| parameter.is_castable)
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
                model.load_backbone(&SmolVlmFolder::open(&folder)?)?;
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
        let (weights, report) = compute(py, move || {
            let model = VlaModel::new(&parts.model, Device::Cpu)?;
            let report = model.init_from_smolvla(&checkpoint)?;
            Ok((model.store().state(), report))
        })?;
        let hlrp_vla::Initialised { num_loaded, fresh, ignored } = report;
        Ok((Self::weights(py, weights)?, Initialised { num_loaded, fresh, ignored }))
    }

    /// Names of the parameters that the description keeps as they are (`train_expert_only`, `freeze_vision_encoder`, `train_state_proj`), those
    /// that no loss can reach included.
    fn frozen(&self) -> HashSet<String> {
        self.select(|parameter| parameter.is_frozen)
    }

    /// Names of the parameters that take no part in `mode`: heads of the other kind, and what no loss reaches in any mode.
    fn unused_in(&self, mode: &Bound<'_, PyAny>) -> PyResult<HashSet<String>> {
        let mode = read_mode(mode)?;
        Ok(self.select(|parameter| parameter.unused_in.contains(&mode)))
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
    /// `num_latent_samples`, `num_action_samples`: float32 scalars, samples with at least one supervised value.
    ///
    /// A mean runs over the supervised values of the batch (real action dimensions of steps that are not padding, latents of real pairs) and
    /// is 0 where there are none; per sample it runs over the sample's supervised values.
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
        let reduction = Reduction::read(reduction)?;
        let objective: ObjectiveSpec = wall::read("objective", objective)?;
        let parameters = tensors::named("parameters", parameters)?;
        let (observation, targets) = (RawObservation::read(observation)?, RawTargets::read(targets)?);
        let noise = RawNoise::read(noise, time)?;
        let parts = Arc::clone(&self.parts);
        let losses = compute(py, move || {
            let num_samples = observation.task.len() as i64;
            let model = Self::bind(&parts, parameters)?;
            let observation = observation.prepare(&parts.prepare)?;
            let device = observation.language.ids_BL.device();
            let targets = targets.prepare(num_samples)?;
            let mut noise = noise.prepare(&model, objective.mode, num_samples, device)?;
            let loss = model.loss(&observation, &targets, &objective, &mut noise, &Pass::plain(true))?;
            Ok(reduction.of(&loss, &objective, num_samples))
        })?;
        tensors::dict(py, losses)
    }

    /// What the policy predicts, without gradient: `actions` `float32 [B,T,A]` (normalised) and `latents` `float32 [B,S,D]`, as `mode` says. A
    /// policy whose latent head predicts codes has `latent_codes` `int64 [B,S]` instead of `latents`.
    ///
    /// The observation runs through the backbone once; the denoising steps read its keys and values from a static cache.
    /// With `guidance` the actions begin where `left_over` of the chunk before goes on: LeRobot's real-time chunking, under its names.
    ///
    /// With `cuda_graph` a prediction on a GPU is recorded the third time that its shapes (samples, cameras, tokens, guidance) come,
    /// and replayed by one call from then on; a recording keeps the weights that it reads alive, and is made anew where they have moved.
    /// While it is made, no other thread may draw random numbers on the GPU. The logger `hlrp_rs` has a line for each new shape.
    #[pyo3(signature = (parameters, observation, mode, *, noise=None, guidance=None, cuda_graph=false))]
    #[allow(clippy::too_many_arguments)] // keywords in Python
    fn sample<'py>(
        &self,
        py: Python<'py>,
        parameters: &Bound<'py, PyAny>,
        observation: &Bound<'py, PyAny>,
        mode: &Bound<'py, PyAny>,
        noise: Option<&Bound<'py, PyAny>>,
        guidance: Option<&Bound<'py, PyAny>>,
        cuda_graph: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        let mode = read_mode(mode)?;
        let parameters = tensors::named("parameters", parameters)?;
        let observation = RawObservation::read(observation)?;
        let (noise, guidance) = (RawNoise::read(noise, None)?, guidance.map(RawGuidance::read).transpose()?);
        let (parts, graphs) = (Arc::clone(&self.parts), Arc::clone(&self.graphs));
        let (prediction, note) = compute(py, move || {
            tch::no_grad(|| {
                let num_samples = observation.task.len() as i64;
                let model = Self::bind(&parts, parameters)?;
                let observation = observation.prepare(&parts.prepare)?;
                let device = observation.language.ids_BL.device();
                let mut noise = noise.prepare(&model, mode, num_samples, device)?;
                let guidance = guidance.map(|given| given.prepare(&model, mode, num_samples, device)).transpose()?;
                let Replayed { prediction, note } = if cuda_graph {
                    let mut graphs = graphs.lock().unwrap_or_else(PoisonError::into_inner);
                    graphs.sample(&model, observation, mode, guidance, &mut noise)?
                } else {
                    let pass = Pass::plain(false);
                    let prediction = model.sample(&observation, mode, guidance.as_ref(), &mut noise, &pass)?;
                    Replayed { prediction, note: None }
                };
                let Prediction { actions_BTA, latents_BSD, codes_BS } = prediction;
                let float = |tensor: Option<Tensor>| tensor.map(|tensor| tensor.to_kind(tch::Kind::Float));
                let named =
                    [("actions", float(actions_BTA)), ("latents", float(latents_BSD)), ("latent_codes", codes_BS)];
                let named = named.into_iter().filter_map(|(name, tensor)| Some((name, tensor?))).collect::<Vec<_>>();
                Ok((named, note))
            })
        })?;
        if let Some(note) = note {
            py.import("logging")?.call_method1("getLogger", ("hlrp_rs",))?.call_method1("info", (note,))?;
        }
        tensors::dict(py, prediction)
    }

    /// Ids `int64 [B,L]` and mask `bool [B,L]` (true = real token) of instructions, prompt included, on the CPU.
    fn tokenize(&self, py: Python<'_>, task: &Bound<'_, PyAny>) -> PyResult<(PyTensor, PyTensor)> {
        let (task, parts) = (tasks(task)?, Arc::clone(&self.parts));
        let language = compute(py, move || Ok(parts.prepare.language(&task, Device::Cpu)?))?;
        Ok((PyTensor(language.ids_BL), PyTensor(language.is_valid_BL)))
    }

    /// Images `uint8 [B,3,H,W]`, or float in [0, 1], for the vision tower: `float32 [B,3,h,w]` in [-1, 1].
    fn prepare_images(&self, py: Python<'_>, images: &Bound<'_, PyAny>) -> PyResult<PyTensor> {
        let (images, parts) = (tensors::tensor("images", images)?, Arc::clone(&self.parts));
        compute(py, move || Ok(parts.prepare.images(&images))).map(PyTensor)
    }

    /// Scaling of a feature as the artifact states it: `mode`, `dim`, `statistics` (LeRobot's names); `None` if the policy lacks it.
    fn normalization<'py>(&self, py: Python<'py>, feature: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        let config = &self.parts.processor;
        let normalization = match feature {
            "state" => &config.state,
            "action" => &config.action,
            other => {
                let text = format!("unknown feature `{other}`\nhint: choose state or action");
                return Err(Failure::value(text).into());
            }
        };
        normalization.as_ref().map(|normalization| wall::write(py, normalization)).transpose()
    }

    fn __copy__(&self) -> Self {
        Self::over(Arc::clone(&self.parts))
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> Self {
        self.__copy__()
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (String, String, String))> {
        let model = wall::text(&self.parts.model)?;
        let processor = wall::text(&self.parts.processor)?;
        Ok((py.get_type::<Self>().into_any(), (model, processor, self.tokenizer_folder())))
    }

    fn __repr__(&self) -> String {
        let count = self.parts.parameters.iter().map(|parameter| parameter.shape.iter().product::<i64>()).sum::<i64>();
        format!("Policy(arch={}, cameras={:?}, {count} parameters)", self.parts.model.arch.name(), self.cameras())
    }
}

/// The parameters of a model, in its order.
///
/// # Errors
/// A description that is not complete.
fn parameters(spec: &ModelSpec) -> Result<Vec<Parameter>, Failure> {
    const MODES: [Mode; 3] = [Mode::Latent, Mode::Actions, Mode::Multitask];
    let model = VlaModel::over(spec, Store::sketch())?;
    let castable: HashSet<String> = model.store().castable().into_iter().collect();
    let (frozen, unreachable) = (model.frozen(), model.unreachable());
    let unused = MODES.map(|mode| (mode, model.unused_in(mode)));
    let one = |(name, tensor): (String, Tensor)| Parameter {
        is_reachable: !is_named(&name, &unreachable),
        is_castable: castable.contains(&name),
        is_frozen: is_named(&name, &frozen),
        unused_in: unused.iter().filter(|(_, names)| is_named(&name, names)).map(|(mode, _)| *mode).collect(),
        shape: tensor.size(),
        name,
    };
    Ok(model.store().parameters().into_iter().map(one).collect())
}

/// `model` and `processor` of the policy that LeRobot's `smolvla` is with these fields (and `system_prompt`, `latent_head`, `latent_dropout`), for
/// cameras of these roles; what they leave to the backbone is `None`: for `Policy.from_backbone`. `latent` is
/// `{"code_seq_len": S, "code_dim": D, "codebook_size": K}` for a latent head.
#[pyfunction]
pub(crate) fn smolvla_description<'py>(
    py: Python<'py>,
    fields: &Bound<'_, PyAny>,
    cameras: Vec<String>,
    action_dim: i64,
    latent: Option<&Bound<'_, PyAny>>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let fields: SmolVlaFields = wall::typed("fields", wall::value("fields", fields)?)?;
    let latent = latent.map(|latent| wall::typed("latent", wall::value("latent", latent)?)).transpose()?;
    let (model, processor) = fields.describe(cameras, action_dim, latent);
    Ok((wall::write(py, &model)?, wall::write(py, &processor)?))
}

/// `model` and `processor` of a description of any version, as this version has them.
#[pyfunction]
pub(crate) fn policy_description<'py>(
    py: Python<'py>,
    model: &Bound<'_, PyAny>,
    processor: &Bound<'_, PyAny>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let (mut model, mut processor) = (wall::value("model", model)?, wall::value("processor", processor)?);
    // Version 1 named the architecture where this version has its section.
    if model.get("arch").is_some_and(Value::is_string) {
        let objective = json!({ "mode": "actions", "latent_weight": 0.0, "action_weight": 1.0 });
        let all = json!({ "model": model, "processor": processor, "objective": objective, "teacher": null });
        let mut all = from_version_1(&all, None).map_err(Failure::value)?;
        (model, processor) = (all["model"].take(), all["processor"].take());
    }
    let mut description = json!({ "model": model, "teacher": null });
    migrate_policy(&mut description);
    let model = description["model"].take();
    Ok((wall::write(py, &model)?, wall::write(py, &processor)?))
}

/// What an initialisation from a LeRobot checkpoint did.
#[pyclass(frozen, get_all, module = "hlrp_rs")]
pub(crate) struct Initialised {
    /// Tensors that were loaded.
    num_loaded: usize,
    /// Parameters that the checkpoint does not have: they keep fresh values.
    fresh: Vec<String>,
    /// Tensors of the checkpoint that are not weights of the network.
    ignored: Vec<String>,
}

fn read_mode(mode: &Bound<'_, PyAny>) -> PyResult<Mode> {
    let refuse =
        |found: String| Failure::value(format!("unknown mode {found}\nhint: choose latent, actions or multitask"));
    let name: String = mode.extract().map_err(|_| PyErr::from(refuse(format!("`{mode}`"))))?;
    serde_json::from_value(name.clone().into()).map_err(|_| refuse(format!("`{name}`")).into())
}
