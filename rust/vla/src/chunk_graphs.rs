//! Predictions as CUDA graphs: vision tower, prefix and every step of the sampler, recorded once for each shape and replayed by one call.
//!
//! A recording reads the memory that it was made with: the weights, which stay the caller's, and inputs of its own, into which those of a call
//! are copied. Where the weights are elsewhere than before (another device, weights that replaced them), everything is recorded anew; weights
//! that are changed in place are read as they are.

use crate::archs::VlaModel;
use crate::chunking::Guidance;
use crate::error::VlaError;
use crate::flow::{FlowNoise, TorchNoise};
use crate::observation::{CameraImages, Language, Observation, Prediction};
use hlrp_nn::Pass;
use hlrp_schema::policy::{FlowSpec, Mode};
use hlrp_torch::{Autocast, CudaGraph, TorchError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use tch::{Device, Kind, Tensor};

/// Predictions of a shape before it is recorded: libraries are loaded and their workspaces exist.
const NUM_BEFORE: usize = 2;
/// Shapes that are kept, each with the memory of its activations; the one that was used longest ago goes first.
const MAX_SHAPES: usize = 8;

/// No thread may draw random numbers on a GPU while another records: policies with recordings take turns.
static TURN: Mutex<()> = Mutex::new(());

/// The recordings of a policy.
#[derive(Default)]
pub struct ChunkGraphs {
    /// The weights that they read: where they are, number format and size.
    weights: Vec<(usize, Kind, Vec<i64>)>,
    /// The one that was used last is the last.
    shapes: Vec<(Shape, Known)>,
}

/// What a recording depends on besides the weights.
#[derive(PartialEq)]
struct Shape {
    mode: Mode,
    autocast: Option<i8>,
    /// Whether the call is in torch's inference mode, whose tensors only calls in that mode may change.
    is_inference: bool,
    /// Bound of the guidance, a number in the recording; none without guidance.
    max_guidance_weight: Option<f64>,
    /// Of each input; none where a camera, the state or guidance is missing.
    inputs: Vec<Option<(Vec<i64>, Kind)>>,
}

enum Known {
    /// So many predictions ran without.
    Before(usize),
    Recorded(Box<Recording>),
}

struct Recording {
    graph: CudaGraph,
    /// What it reads; the weights are here so that their memory stays.
    inputs: Inputs,
    _weights: Vec<Tensor>,
    /// What it writes.
    prediction: Prediction,
}

/// A prediction, and a line for the log where something is new.
pub struct Replayed {
    /// What the policy predicts.
    pub prediction: Prediction,
    /// What became of the recording.
    pub note: Option<String>,
}

impl ChunkGraphs {
    /// As [`crate::Architecture::sample`], from a recording where there is one. The noise is drawn before.
    ///
    /// # Errors
    /// As there; an observation that is not on a GPU, a prediction that cannot be recorded.
    pub fn sample(
        &mut self,
        model: &VlaModel,
        observation: Observation,
        mode: Mode,
        guidance: Option<Guidance>,
        noise: &mut dyn FlowNoise,
    ) -> Result<Replayed, VlaError> {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let inputs = Inputs::new(model, observation, mode, guidance, noise);
        let device = inputs.observation.language.ids_BL.device();
        if !device.is_cuda() {
            let hint = "move policy and observation to a GPU, or leave it out";
            return Err(VlaError::input(
                "cuda_graph",
                "only a GPU records graphs, and the observation is on the CPU",
                hint,
            ));
        }
        self.forget_other_weights(model);
        let shape = Shape {
            mode,
            autocast: Autocast::current(device)?,
            is_inference: inputs.observation.language.ids_BL.is_inference(),
            max_guidance_weight: inputs.guidance.as_ref().map(Guidance::max_weight),
            inputs: inputs.shapes(),
        };
        let known = match self.shapes.iter().position(|(other, _)| *other == shape) {
            Some(index) => self.shapes.remove(index).1,
            None => Known::Before(0),
        };
        let (replayed, known) = known.sample(model, &inputs, mode, device)?;
        if self.shapes.len() == MAX_SHAPES {
            self.shapes.remove(0);
        }
        self.shapes.push((shape, known));
        Ok(replayed)
    }

    fn forget_other_weights(&mut self, model: &VlaModel) {
        let place = |tensor: &Tensor| (tensor.data_ptr() as usize, tensor.kind(), tensor.size());
        let weights = model.store().state().iter().map(|(_, tensor)| place(tensor)).collect();
        if self.weights != weights {
            (self.weights, self.shapes) = (weights, Vec::new());
        }
    }
}

impl Known {
    /// A prediction, and what is known of its shape afterwards.
    fn sample(
        self,
        model: &VlaModel,
        inputs: &Inputs,
        mode: Mode,
        device: Device,
    ) -> Result<(Replayed, Self), VlaError> {
        match self {
            Self::Before(count) if count < NUM_BEFORE => {
                let note = (count == 0).then(|| {
                    format!("{} is new: computed without a CUDA graph {NUM_BEFORE} times, then recorded", inputs.name())
                });
                Ok((Replayed { prediction: inputs.sample(model, mode)?, note }, Self::Before(count + 1)))
            }
            Self::Before(_) => {
                let mut recording = Recording::new(model, inputs, mode, device)?;
                let prediction = recording.replay(inputs)?;
                let note = Some(format!("{} is recorded as a CUDA graph", inputs.name()));
                Ok((Replayed { prediction, note }, Self::Recorded(Box::new(recording))))
            }
            Self::Recorded(mut recording) => {
                let prediction = recording.replay(inputs)?;
                Ok((Replayed { prediction, note: None }, Self::Recorded(recording)))
            }
        }
    }
}

impl Recording {
    /// Records a prediction of this shape.
    ///
    /// # Errors
    /// Work that cannot be recorded. Nothing on the GPU is to be trusted then.
    fn new(model: &VlaModel, inputs: &Inputs, mode: Mode, device: Device) -> Result<Self, VlaError> {
        let inputs = inputs.copied();
        let record = || CudaGraph::capture(device, || inputs.sample(model, mode));
        let refused = |text: &str| {
            let reason = text.lines().next().unwrap_or_default();
            let problem = format!("{} cannot be recorded as a CUDA graph: {reason}", inputs.name());
            VlaError::input("cuda_graph", problem, "start again with cuda_graph=false")
        };
        // What libtorch's bindings throw is a panic.
        let recorded = catch_unwind(AssertUnwindSafe(record)).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            refused(&TorchError::from_panic(&text).map_or(text, |error| error.to_string()))
        })?;
        let (graph, prediction) = recorded.map_err(|error| refused(&error.to_string()))?;
        // Without the caller's handles, whose memory may be exchanged.
        let weights = model.store().state().into_iter().map(|(_, tensor)| tensor.detach()).collect();
        Ok(Self { graph, inputs, _weights: weights, prediction })
    }

    /// The prediction for other inputs of the same shape, in memory of its own.
    fn replay(&mut self, inputs: &Inputs) -> Result<Prediction, VlaError> {
        for (own, given) in self.inputs.tensors().into_iter().zip(inputs.tensors()) {
            if let (Some(own), Some(given)) = (own, given) {
                own.shallow_clone().copy_(given);
            }
        }
        self.graph.replay()?;
        let copied = |tensor: &Option<Tensor>| tensor.as_ref().map(Tensor::copy);
        let Prediction { actions_BTA, latents_BSD, codes_BS } = &self.prediction;
        Ok(Prediction {
            actions_BTA: copied(actions_BTA),
            latents_BSD: copied(latents_BSD),
            codes_BS: copied(codes_BS),
        })
    }
}

/// What a prediction is made from.
struct Inputs {
    observation: Observation,
    guidance: Option<Guidance>,
    /// In the order in which the heads ask for it.
    noise: Vec<Tensor>,
}

impl Inputs {
    fn new(
        model: &VlaModel,
        observation: Observation,
        mode: Mode,
        guidance: Option<Guidance>,
        noise: &mut dyn FlowNoise,
    ) -> Self {
        let size = observation.language.ids_BL.size();
        let device = observation.language.ids_BL.device();
        let shapes = model.noise_shapes(mode, size[0]);
        Self { observation, guidance, noise: shapes.iter().map(|(_, shape)| noise.normal(shape, device)).collect() }
    }

    fn sample(&self, model: &VlaModel, mode: Mode) -> Result<Prediction, VlaError> {
        let mut noise = Drawn(self.noise.iter());
        model.sample(&self.observation, mode, self.guidance.as_ref(), &mut noise, &Pass::plain(false))
    }

    /// All of them, in a fixed order.
    fn tensors(&self) -> Vec<Option<&Tensor>> {
        let Observation { cameras, language, state_BN } = &self.observation;
        let of_cameras = cameras.iter().flat_map(|camera| match camera {
            Some(CameraImages { pixels_BCHW, is_real_B }) => [Some(pixels_BCHW), Some(is_real_B)],
            None => [None, None],
        });
        let others = [Some(&language.ids_BL), Some(&language.is_valid_BL), state_BN.as_ref()];
        let of_guidance = self.guidance.as_ref().map_or([None, None], |guidance| guidance.tensors().map(Some));
        of_cameras.chain(others).chain(of_guidance).chain(self.noise.iter().map(Some)).collect()
    }

    fn shapes(&self) -> Vec<Option<(Vec<i64>, Kind)>> {
        self.tensors().into_iter().map(|tensor| tensor.map(|tensor| (tensor.size(), tensor.kind()))).collect()
    }

    /// In memory of its own.
    fn copied(&self) -> Self {
        let Observation { cameras, language, state_BN } = &self.observation;
        let camera = |CameraImages { pixels_BCHW, is_real_B }: &CameraImages| CameraImages {
            pixels_BCHW: pixels_BCHW.copy(),
            is_real_B: is_real_B.copy(),
        };
        Self {
            observation: Observation {
                cameras: cameras.iter().map(|own| own.as_ref().map(camera)).collect(),
                language: Language { ids_BL: language.ids_BL.copy(), is_valid_BL: language.is_valid_BL.copy() },
                state_BN: state_BN.as_ref().map(Tensor::copy),
            },
            guidance: self.guidance.as_ref().map(Guidance::copied),
            noise: self.noise.iter().map(Tensor::copy).collect(),
        }
    }

    /// How the log names the shape.
    fn name(&self) -> String {
        let size = self.observation.language.ids_BL.size();
        let num_cameras = self.observation.cameras.iter().flatten().count();
        let what = if self.guidance.is_some() { "a prediction with guidance" } else { "a prediction" };
        format!("{what} for {} sample(s) with {num_cameras} camera(s) and {} tokens of text", size[0], size[1])
    }
}

/// Noise that has been drawn.
struct Drawn<'a>(std::slice::Iter<'a, Tensor>);

impl FlowNoise for Drawn<'_> {
    fn normal(&mut self, shape: &[i64], device: Device) -> Tensor {
        // An architecture may ask for slots and dimensions as one flat vector.
        self.0.next().map_or_else(|| TorchNoise.normal(shape, device), |noise| noise.reshape(shape))
    }

    fn time(&mut self, num_samples: i64, flow: &FlowSpec, device: Device) -> Tensor {
        TorchNoise.time(num_samples, flow, device)
    }
}
