//! Where tensors are computed.

use hlrp_config::Problem;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::{fmt, str::FromStr};

/// What `device` may be.
const KNOWN: &[&str] = &["auto", "cpu", "cuda", "cuda:N"];

/// A device as the configuration names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// `auto`: the first GPU, else the CPU.
    Auto,
    /// `cpu`
    Cpu,
    /// `cuda` (the first GPU) or `cuda:N`.
    Cuda(usize),
}

impl FromStr for Device {
    type Err = Problem;

    /// # Errors
    /// An unknown name, as a problem of the key `device`.
    fn from_str(name: &str) -> Result<Self, Problem> {
        let index = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok());
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => name.strip_prefix("cuda:").and_then(index).flatten().map(Self::Cuda).ok_or_else(|| {
                let hint = format!("use one of {}", KNOWN.join(", "));
                Problem::new("device", format!("unknown device '{name}'"), hint)
            }),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl<'de> Deserialize<'de> for Device {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(|_| D::Error::unknown_variant(&name, KNOWN))
    }
}

impl Serialize for Device {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices() {
        let known =
            [("auto", Device::Auto), ("cpu", Device::Cpu), ("cuda", Device::Cuda(0)), ("cuda:3", Device::Cuda(3))];
        for (name, device) in known {
            assert_eq!(name.parse(), Ok(device));
        }
        for name in ["gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "CPU", ""] {
            assert!(name.parse::<Device>().is_err(), "{name}");
        }
    }
}
