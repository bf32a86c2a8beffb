//! Processor, memory and GPUs.

use std::{fs, process::Command};

/// The processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpu {
    /// Model name; `unknown` where the system does not tell.
    pub model: String,
    /// Cores that this process may use.
    pub num_cores: usize,
}

impl Cpu {
    /// The processor of this machine.
    pub fn detect() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self { model: cpu_model(&info), num_cores: num_cores() }
    }
}

/// CPU cores that this process may use.
pub fn num_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The main memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What this process may use: the machine's memory or its control group's limit, whichever is smaller.
    pub total: u64,
    /// What can be had now without swapping.
    pub available: u64,
}

impl Memory {
    /// The memory of this machine; nothing where the system does not tell.
    pub fn detect() -> Option<Self> {
        let memory = Self::parse(&fs::read_to_string("/proc/meminfo").ok()?)?;
        let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
        let total = limit.unwrap_or(u64::MAX).min(memory.total);
        Some(Self { total, available: memory.available.min(total) })
    }

    /// Reads the text of `/proc/meminfo`.
    fn parse(meminfo: &str) -> Option<Self> {
        let bytes = |key: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
        };
        Some(Self { total: bytes("MemTotal")?, available: bytes("MemAvailable")? })
    }
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Product name.
    pub name: String,
    /// Memory in MiB.
    pub total_mib: u64,
    /// Free memory in MiB.
    pub free_mib: u64,
    /// Driver version.
    pub driver: String,
}

/// Whether the NVIDIA driver shows a GPU; cheaper than [`gpus`].
pub fn has_gpu() -> bool {
    fs::read_dir("/proc/driver/nvidia/gpus").is_ok_and(|mut gpus| gpus.next().is_some())
        || std::path::Path::new("/dev/nvidia0").exists()
}

/// The NVIDIA GPUs of this machine, as `nvidia-smi` lists them.
///
/// # Errors
/// A sentence why there are none: no driver, or what `nvidia-smi` said.
pub fn gpus() -> Result<Vec<Gpu>, String> {
    const QUERY: [&str; 2] =
        ["--query-gpu=name,memory.total,memory.free,driver_version", "--format=csv,noheader,nounits"];
    let output = match Command::new("nvidia-smi").args(QUERY).output() {
        Ok(output) => output,
        Err(_) => {
            return Err(match fs::read_to_string("/proc/driver/nvidia/version") {
                Ok(version) => format!("a driver is loaded ({}), but nvidia-smi is not on PATH", first_line(&version)),
                Err(_) => "no NVIDIA driver".into(),
            });
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("nvidia-smi failed: {}", first_line(if said.is_empty() { &text } else { &said })));
    }
    Ok(text.lines().filter_map(parse_gpu).collect())
}

fn parse_gpu(line: &str) -> Option<Gpu> {
    let mut fields = line.split(',').map(str::trim);
    let mut next = || fields.next();
    Some(Gpu {
        name: next()?.into(),
        total_mib: next()?.parse().ok()?,
        free_mib: next()?.parse().ok()?,
        driver: next()?.into(),
    })
}

fn cpu_model(cpuinfo: &str) -> String {
    let value = |key: &str| cpuinfo.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(':'));
    value("model name").map_or_else(|| "unknown".into(), |model| model.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
    use super::*;

    #[test]
    fn reads_what_the_kernel_and_nvidia_smi_print() {
        let info = "processor\t: 0\nmodel name\t: AMD EPYC  9B14\n\nprocessor\t: 1\nmodel name\t: AMD EPYC  9B14\n";
        assert_eq!(cpu_model(info), "AMD EPYC 9B14");
        assert_eq!(cpu_model("processor : 0\n"), "unknown");
        let memory = Memory::parse("MemTotal:       8000 kB\nMemFree: 1 kB\nMemAvailable:   4000 kB\n").unwrap();
        assert_eq!(memory, Memory { total: 8000 << 10, available: 4000 << 10 });
        let gpu = parse_gpu("NVIDIA H100 80GB HBM3, 81559, 81000, 570.86.15").unwrap();
        assert_eq!(
            gpu,
            Gpu { name: "NVIDIA H100 80GB HBM3".into(), total_mib: 81559, free_mib: 81000, driver: "570.86.15".into() }
        );
    }
}
