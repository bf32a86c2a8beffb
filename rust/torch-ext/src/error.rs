//! Errors of libtorch.

use hlrp_config::Hint;
use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum TorchError {
    /// libtorch threw an exception.
    #[error("libtorch: {operation}: {message}")]
    Exception {
        /// What was attempted.
        operation: &'static str,
        /// libtorch's message.
        message: String,
    },
    /// Lists that belong together have different lengths, or a buffer does not match its shape.
    #[error("{operation}: {message}")]
    Shape {
        /// What was attempted.
        operation: &'static str,
        /// What does not match.
        message: String,
    },
    /// An unknown device name.
    #[error("unknown device '{0}'")]
    UnknownDevice(String),
    /// A GPU was asked for and is not available.
    #[error("device '{wanted}' is not available: {reason}")]
    NoCuda {
        /// The device as written.
        wanted: String,
        /// What is missing.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// `libtorch_cuda` exists and cannot be loaded.
    #[error("{path}: {message}", path = path.display())]
    LoadCuda {
        /// The library.
        path: PathBuf,
        /// The dynamic linker's message.
        message: String,
    },
    /// An exchange between the processes of a run failed.
    #[error("{operation}: {message}")]
    Exchange {
        /// What was attempted.
        operation: &'static str,
        /// c10d's message.
        message: String,
    },
    /// Processes of a run that did not start, or not in time.
    #[error("{ranks} did not join the run within {seconds} s")]
    NotJoined {
        /// Which.
        ranks: String,
        /// How long they were waited for.
        seconds: u64,
    },
    /// No network device for the exchanges between the processes of a run.
    #[error("no network for the exchanges between the processes{}: {message}",
        interface.as_ref().map(|name| format!(" (GLOO_SOCKET_IFNAME={name})")).unwrap_or_default())]
    NoNetwork {
        /// The interface that was asked for.
        interface: Option<String>,
        /// c10d's message.
        message: String,
    },
    /// The process where all others meet is not there.
    #[error("the master at {host}:{port} does not answer within {seconds} s: {message}")]
    NoMaster {
        /// Its machine.
        host: String,
        /// Its port.
        port: u16,
        /// How long was tried.
        seconds: u64,
        /// c10d's message.
        message: String,
        /// Whether this process is the one that reports it.
        is_reporter: bool,
    },
    /// The port where the processes meet cannot be opened.
    #[error("port {port} cannot be opened for the processes of this run: {message}")]
    PortInUse {
        /// The port.
        port: u16,
        /// c10d's message.
        message: String,
    },
    /// The first process has opened the port where the processes meet, and cannot reach it by the name of the machine.
    #[error("rank 0 cannot reach itself at {host}:{port}: {message}")]
    WrongMaster {
        /// The name.
        host: String,
        /// The port.
        port: u16,
        /// c10d's message.
        message: String,
    },
    /// Several processes on GPUs, which cannot exchange tensors.
    #[error("{size} processes cannot train on GPUs: {message}")]
    NoNccl {
        /// How many.
        size: usize,
        /// What c10d or the dynamic linker says.
        message: String,
    },
    /// The names of the weights are not those of the model.
    #[error("weights do not fit the model: {} missing ({}), {} unknown ({})",
        missing.len(), first(missing), unknown.len(), first(unknown))]
    WeightNames {
        /// In the model, not among the weights.
        missing: Vec<String>,
        /// Among the weights, not in the model.
        unknown: Vec<String>,
    },
    /// A tensor has another shape or number format than the model's.
    #[error("weight `{name}` is {found}, the model needs {expected}")]
    Weight {
        /// Name of the tensor.
        name: String,
        /// What the model holds.
        expected: String,
        /// What was given.
        found: String,
    },
}

impl Hint for TorchError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Exception { .. } | Self::Shape { .. } | Self::Exchange { .. } => None,
            Self::NotJoined { .. } => Some(
                "see the output of these processes; WORLD_SIZE, or srun's --ntasks, is the number of processes that are \
                 started"
                    .to_owned(),
            ),
            Self::NoNetwork { .. } => Some(
                "set GLOO_SOCKET_IFNAME to a network interface of this machine (`ip link` lists them) that reaches the \
                 others, or unset it: the interface of the host's name is used then"
                    .to_owned(),
            ),
            Self::NoMaster { .. } => Some(
                "rank 0 opens that port: see its output; MASTER_ADDR and MASTER_PORT must be reachable from every machine"
                    .to_owned(),
            ),
            Self::PortInUse { .. } => Some("set MASTER_PORT to a free port".to_owned()),
            Self::WrongMaster { .. } => Some(
                "set MASTER_ADDR to a name or address of the machine where rank 0 is started".to_owned(),
            ),
            Self::NoNccl { .. } => Some("use one GPU (num_processes=1), or set device=cpu".to_owned()),
            Self::WeightNames { .. } => {
                Some("the weights belong to a model of another architecture or size".to_owned())
            }
            Self::Weight { .. } => Some("the weights belong to a model of another size".to_owned()),
            Self::UnknownDevice(_) => Some("use the CPU or a CUDA device".to_owned()),
            Self::NoCuda { hint, .. } => Some((*hint).to_owned()),
            Self::LoadCuda { .. } => {
                Some("reinstall the torch wheel with its nvidia-* packages, or set device=cpu".to_owned())
            }
        }
    }
}

impl TorchError {
    /// What libtorch threw, from the text of a panic: its bindings panic on exceptions. None for a panic of other code.
    pub fn from_panic(text: &str) -> Option<Self> {
        let (_, thrown) = text.split_once("Torch(\"")?;
        // The text is quoted, and libtorch's stack follows the message.
        let message = thrown.split("\\nException raised from").next().unwrap_or(thrown);
        let message = message.trim_end_matches("\")").replace("\\n", "\n").replace("\\\"", "\"");
        Some(Self::Exception { operation: "computing", message })
    }
}

/// Whether the text of an error of libtorch says that memory ran out, on the machine or on a GPU.
pub fn is_out_of_memory(text: &str) -> bool {
    let text = text.to_lowercase();
    ["out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "bad_alloc"]
        .iter()
        .any(|sign| text.contains(sign))
}

/// The first few names, for an error text.
fn first(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let mut text = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(", …");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_bindings_is_what_libtorch_threw() {
        let panic = "called `Result::unwrap()` on an `Err` value: Torch(\"[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: \
                     can't allocate memory: you tried to allocate 99 bytes.\\nException raised from f (most recent call first):\\nframe #0\")";
        let text = TorchError::from_panic(panic).map(|error| error.to_string()).unwrap_or_default();
        assert!(text.ends_with("you tried to allocate 99 bytes.") && is_out_of_memory(&text), "{text}");
        assert!(is_out_of_memory(
            "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79 GiB"
        ));
        assert!(TorchError::from_panic("index out of bounds").is_none() && !is_out_of_memory("shape mismatch"));
    }
}
