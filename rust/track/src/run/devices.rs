//! What a run computed on.

use crate::host::{Cpu, Memory, gpus, has_gpu, num_cores};
use serde::{Deserialize, Serialize};

/// The hardware of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    /// Model of the processor.
    pub cpu: String,
    /// Cores that the process may use.
    pub num_cores: usize,
    /// Main memory that it may use, in bytes.
    pub memory_bytes: Option<u64>,
    /// Product names of the NVIDIA GPUs.
    pub gpus: Vec<String>,
    /// Version of their driver.
    pub driver: Option<String>,
}

impl Devices {
    /// The hardware of this host.
    pub fn detect() -> Self {
        let gpus = if has_gpu() { gpus().unwrap_or_default() } else { Vec::new() };
        Self {
            cpu: Cpu::detect().model,
            num_cores: num_cores(),
            memory_bytes: Memory::detect().map(|memory| memory.total),
            driver: gpus.first().map(|gpu| gpu.driver.clone()),
            gpus: gpus.into_iter().map(|gpu| gpu.name).collect(),
        }
    }
}
