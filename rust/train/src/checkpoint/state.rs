//! Where a run is, besides its tensors.

use super::STATE;
use crate::{
    data::SourceRecord,
    error::{Result, TrainError},
};
use hlrp_config::foreign::read_text;
use hlrp_data::Position;
use hlrp_torch::World;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};
use tch::{Device, Kind, Tensor};

/// `state.json` of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// Optimizer steps done.
    pub step: u64,
    /// Where the training stream continues.
    pub position: Position,
    /// States of libtorch's random generators, of each process by its rank.
    pub rng: Vec<RngStates>,
    /// The learning rate schedule.
    pub schedule: ScheduleState,
    /// Best score so far.
    pub best: Option<BestScore>,
    /// Updates of the averaged weights so far.
    pub num_ema_updates: u64,
    /// Whether a signal interrupted what follows the step (validation, artifacts): a resumed run does that first.
    pub is_unfinished: bool,
    /// The data, by source; none in a checkpoint of a format before 3.
    pub sources: Option<BTreeMap<String, SourceRecord>>,
}

/// What the schedule says at this point. It is a pure function of the configuration: recorded, not read back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleState {
    /// Finished steps that it has seen.
    pub num_done: u64,
    /// Learning rate of the next step.
    pub next_lr: f64,
}

/// The best value of the monitored metric, and the step of the weights that reached it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BestScore {
    /// The value.
    pub value: f64,
    /// Optimizer steps done.
    pub step: u64,
}

/// States of the default generators, in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RngStates {
    cpu: String,
    /// Of the GPU in use; absent in a run on the CPU.
    cuda: Option<String>,
}

impl RngStates {
    /// The states now.
    pub(crate) fn capture(device: Device) -> Result<Self> {
        let read = |device| Ok::<_, TrainError>(hex::encode(hlrp_torch::rng::state(device)?));
        Ok(Self { cpu: read(Device::Cpu)?, cuda: device.is_cuda().then(|| read(device)).transpose()? })
    }

    /// The states of all processes, by rank.
    pub(crate) fn of_all(&self, world: &World) -> Result<Vec<Self>> {
        if world.size() == 1 {
            return Ok(vec![self.clone()]);
        }
        let gather = |digits: &str| {
            let own = Tensor::from_slice(digits.as_bytes());
            let all = world.all_gather(&own)?;
            let text = |bytes: &Tensor| {
                let bytes = Vec::<u8>::try_from(bytes.to_kind(Kind::Uint8))?;
                Ok::<_, TrainError>(String::from_utf8_lossy(&bytes).into_owned())
            };
            all.iter().map(text).collect::<Result<Vec<_>>>()
        };
        let cpu = gather(&self.cpu)?;
        let cuda = self.cuda.as_deref().map(gather).transpose()?;
        let of_rank = |(rank, cpu): (usize, String)| Self { cpu, cuda: cuda.as_ref().map(|all| all[rank].clone()) };
        Ok(cpu.into_iter().enumerate().map(of_rank).collect())
    }

    /// Restores the states. A run that moved to another kind of device keeps that device's own state.
    pub(crate) fn restore(&self, device: Device) -> Result<()> {
        let write = |device, digits: &str| {
            let bytes = hex::decode(digits).map_err(|error| TrainError::Malformed {
                path: STATE.into(),
                reason: format!("a random state is not hexadecimal: {error}"),
            })?;
            Ok::<_, TrainError>(hlrp_torch::rng::set_state(device, &bytes)?)
        };
        write(Device::Cpu, &self.cpu)?;
        match &self.cuda {
            Some(state) if device.is_cuda() => write(device, state),
            _ => Ok(()),
        }
    }
}

impl RunState {
    /// Reads the state of the checkpoint `dir`, which was written in this format version.
    pub(crate) fn read(dir: &Path, format_version: u64) -> Result<Self> {
        let path = dir.join(STATE);
        let text = read_text(&path).map_err(TrainError::io("read", &path))?;
        let malformed =
            |error: serde_json::Error| TrainError::Malformed { path: path.clone(), reason: error.to_string() };
        let mut value: Value = serde_json::from_str(&text).map_err(malformed)?;
        if format_version == 1 {
            value["rng"] = Value::Array(vec![value["rng"].take()]); // of the only process
        }
        if value["is_unfinished"].is_null() {
            value["is_unfinished"] = false.into(); // checkpoints of older programs are of finished steps
        }
        serde_json::from_value(value).map_err(malformed)
    }
}
