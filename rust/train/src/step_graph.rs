//! Steps as a CUDA graph (`training.cuda_graph`): recorded once, then replayed by one call, so that the host launches nothing.
//!
//! A recording does the same work on the same memory each time. It holds the forward pass, the backward pass and the clipping of a step that
//! [repeats](crate::Task::repeats); other steps run as they do without graphs. The optimizer follows as always: its learning rate differs from
//! step to step, and it is a few kernels.

use crate::{
    boundary::caught,
    error::{Result, TrainError},
    gradient::Gradient,
    prefetch::DeviceBatch,
    task::LossOutput,
    trainer::Settings,
    watch::scalar,
};
use hlrp_config::Problem;
use hlrp_torch::{CudaGraph, clear_grads, is_out_of_memory, set_grads};
use tch::{Device, Tensor};

/// The key that asks for it.
const KEY: &str = "training.cuda_graph";
/// Steps that run before one is recorded: libraries are loaded, and their workspaces exist. More than one, because the second step of a process
/// is counted (`Throughput`), and a replay calls no operators.
const NUM_BEFORE: u64 = 3;

/// The recording of a run's steps, or what comes before it.
pub(crate) struct StepGraph {
    device: Device,
    num_before: u64,
    recording: Option<Recording>,
}

struct Recording {
    graph: CudaGraph,
    /// What it reads.
    batch: DeviceBatch,
    /// The gradients of the parameters, which it writes; undefined where a parameter has none.
    grads: Vec<Tensor>,
    /// Names of the metrics.
    names: Vec<&'static str>,
    /// `float32 [2+M]`, which it writes: loss, norm of the gradient, metrics.
    numbers: Tensor,
}

impl StepGraph {
    /// That of a run, where its settings ask for one.
    ///
    /// # Errors
    /// A device without graphs; several processes, or one that exchanges numbers with itself.
    pub(crate) fn of(settings: &Settings) -> Result<Option<Self>> {
        if !settings.training.cuda_graph {
            return Ok(None);
        }
        let refuse = |message: String, hint| Err(Problem::new(KEY, message, hint).into());
        if !settings.device.is_cuda() {
            return refuse(
                "only a GPU records graphs, and this run is on the CPU".to_owned(),
                "set it to false, or choose device=cuda",
            );
        }
        match settings.world.size() {
            1 if !settings.world.is_exchanging() => {}
            1 => {
                let message = "with WORLD_SIZE=1 set, a process exchanges numbers with itself in every step, which no CUDA graph records";
                return refuse(message.to_owned(), "set it to false, or unset WORLD_SIZE");
            }
            size => {
                let message = format!("{size} processes exchange numbers in every step, which no CUDA graph records");
                return refuse(message, "set it to false, or num_processes to 1");
            }
        }
        Ok(Some(Self { device: settings.device, num_before: 0, recording: None }))
    }

    /// The gradient of step `step` over `batch`, in the gradients of `params`: of `compute`, or of its replay.
    ///
    /// # Errors
    /// Those of `compute`; a step that cannot be recorded, or a batch of other shapes than the recorded one.
    pub(crate) fn gradient(
        &mut self,
        step: u64,
        batch: DeviceBatch,
        params: &[Tensor],
        compute: impl FnOnce(&DeviceBatch) -> Result<Gradient>,
    ) -> Result<Gradient> {
        let recording = match self.recording.take() {
            Some(recording) => {
                recording.take(step, &batch)?;
                recording
            }
            None => {
                clear_grads(params)?;
                if self.num_before < NUM_BEFORE {
                    self.num_before += 1;
                    return compute(&batch);
                }
                let recording = Recording::new(self.device, step, batch, params, compute)?;
                tracing::info!("step {step} is recorded as a CUDA graph; those that repeat it are replayed");
                recording
            }
        };
        let recording = self.recording.insert(recording);
        recording.graph.replay()?;
        set_grads(params, &recording.grads)?;
        recording.numbers()
    }
}

impl Recording {
    fn new(
        device: Device,
        step: u64,
        batch: DeviceBatch,
        params: &[Tensor],
        compute: impl FnOnce(&DeviceBatch) -> Result<Gradient>,
    ) -> Result<Self> {
        let record = || {
            let Gradient { output, norm } = compute(&batch)?;
            let (names, metrics): (Vec<_>, Vec<_>) = output.metrics.into_iter().unzip();
            let scalars = [&output.loss, &norm].into_iter().chain(&metrics).map(scalar).collect::<Result<Vec<_>>>()?;
            let grads = params.iter().map(Tensor::grad).collect::<Vec<_>>();
            Ok((grads, names, Tensor::f_stack(&scalars, 0)?))
        };
        // What libtorch's bindings throw may be a panic.
        let recorded = caught(|| CudaGraph::capture(device, record)).map_err(|error| match error {
            TrainError::Torch(_) | TrainError::Tch(_) | TrainError::Task(_)
                if !is_out_of_memory(&error.to_string()) =>
            {
                unrecorded(step, &error)
            }
            other => other,
        });
        let (graph, (grads, names, numbers)) = recorded?;
        Ok(Self { graph, batch, grads, names, numbers })
    }

    /// Copies `batch` to where the recording reads.
    fn take(&self, step: u64, batch: &DeviceBatch) -> Result<()> {
        check_shapes(step, &self.batch, batch)?;
        for ((_, own), (_, new)) in self.batch.tensors().into_iter().zip(batch.tensors()) {
            own.shallow_clone().f_copy_(new)?;
        }
        Ok(())
    }

    /// What the last replay computed. The next one writes to the same memory, so these are copies.
    fn numbers(&self) -> Result<Gradient> {
        let numbers = self.numbers.copy();
        let number = |index: usize| numbers.f_select(0, index as i64);
        let metrics = self.names.iter().enumerate().map(|(index, name)| Ok((*name, number(2 + index)?)));
        Ok(Gradient {
            output: LossOutput { loss: number(0)?, masked: Vec::new(), metrics: metrics.collect::<Result<_>>()? },
            norm: number(1)?,
        })
    }
}

const HINT: &str = "set it to false";

/// Refuses a batch that a recording of `recorded` cannot read.
fn check_shapes(step: u64, recorded: &DeviceBatch, batch: &DeviceBatch) -> Result<()> {
    let shapes = |batch: &DeviceBatch| -> Vec<(String, Vec<i64>)> {
        batch.tensors().into_iter().map(|(name, tensor)| (name, tensor.size())).collect()
    };
    let (recorded, found) = (shapes(recorded), shapes(batch));
    if recorded == found {
        return Ok(());
    }
    let differs = found.iter().find(|entry| !recorded.contains(entry)).or(recorded.first());
    let (name, shape) = differs.cloned().unwrap_or_default();
    let was = recorded.iter().find(|(known, _)| *known == name).map(|(_, shape)| format!("{shape:?}"));
    let was = was.unwrap_or_else(|| "not there".to_owned());
    let message = format!("`{name}` of the batch of step {step} is {shape:?}, in the recorded step it was {was}");
    Err(Problem::new(KEY, message, HINT).into())
}

fn unrecorded(step: u64, error: &TrainError) -> TrainError {
    let text = error.to_string();
    let reason = text.lines().next().unwrap_or_default();
    Problem::new(KEY, format!("step {step} cannot be recorded as a CUDA graph: {reason}"), HINT).into()
}

#[cfg(test)]
mod tests {
    use super::check_shapes;
    use crate::prefetch::{DeviceBatch, DeviceImages};
    use hlrp_config::with_hint;
    use std::collections::BTreeMap;
    use tch::{Device, Kind, Tensor};

    fn batch(num_samples: i64) -> DeviceBatch {
        let images = DeviceImages {
            pixels_BTCHW: Tensor::zeros([num_samples, 2, 3, 4, 4], (Kind::Uint8, Device::Cpu)),
            is_real_BT: Tensor::ones([num_samples, 2], (Kind::Bool, Device::Cpu)),
        };
        DeviceBatch {
            images: BTreeMap::from([("primary".to_owned(), images)]),
            task: Vec::new(),
            state: None,
            action: None,
            labels: BTreeMap::new(),
            meta: Vec::new(),
        }
    }

    #[test]
    fn a_batch_of_another_shape_is_named() {
        assert!(check_shapes(7, &batch(4), &batch(4)).is_ok());
        let error = check_shapes(7, &batch(4), &batch(3)).err().map(|error| with_hint(&error)).unwrap_or_default();
        assert_eq!(
            error,
            "training.cuda_graph: `images.primary.pixels` of the batch of step 7 is [3, 2, 3, 4, 4], in the recorded step it was \
             [4, 2, 3, 4, 4]\nhint: set it to false"
        );
    }
}
