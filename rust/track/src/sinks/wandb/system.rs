//! System metrics: what this process and its machine are busy with. Names are those of the official client, without `system.`.

use crate::host::{Memory, has_gpu, num_cores};
use nvml_wrapper::{
    Nvml,
    enum_wrappers::device::{Clock, TemperatureSensor},
};
use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

const BYTES_PER_MIB: f64 = (1u64 << 20) as f64;
const BYTES_PER_GIB: f64 = (1u64 << 30) as f64;
/// Of the times in `/proc`, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// Bytes of a sector in `/proc/diskstats`, whatever the device's own are.
const SECTOR: f64 = 512.0;

/// Takes samples at an interval.
pub(super) struct Sampler {
    interval: Duration,
    /// When the last one was taken.
    last: Instant,
    cpu_seconds: f64,
    /// Counters at the start: rates and sums of a run begin at zero.
    disks: BTreeMap<String, [f64; 2]>,
    network: [f64; 2],
    nvml: Option<Nvml>,
}

impl Sampler {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            last: Instant::now(),
            cpu_seconds: cpu_seconds().unwrap_or_default(),
            disks: disks(),
            network: network(),
            nvml: nvml(),
        }
    }

    /// Time until the next sample.
    pub(super) fn wait(&self) -> Duration {
        self.interval.saturating_sub(self.last.elapsed())
    }

    /// Takes a sample; what the system does not tell is absent.
    pub(super) fn sample(&mut self) -> Vec<(String, f64)> {
        let mut found = Vec::new();
        let mut put = |key: &str, value: f64| found.push((key.to_owned(), value));
        let elapsed = self.last.elapsed().as_secs_f64().max(1e-3);
        self.last = Instant::now();
        if let Some(seconds) = cpu_seconds() {
            put("cpu", 100.0 * (seconds - self.cpu_seconds) / elapsed / num_cores() as f64);
            self.cpu_seconds = seconds;
        }
        if let Some(memory) = Memory::detect() {
            let rss = resident_bytes().unwrap_or_default();
            let used = cgroup_bytes().filter(|used| *used <= memory.total).unwrap_or(memory.total - memory.available);
            put("memory_percent", 100.0 * used as f64 / memory.total as f64);
            put("proc.memory.rssMB", rss / BYTES_PER_MIB);
            put("proc.memory.percent", 100.0 * rss / memory.total as f64);
            put("proc.memory.availableMB", (memory.total - used) as f64 / BYTES_PER_MIB);
        }
        if let Some(threads) = status("Threads:") {
            put("proc.cpu.threads", threads);
        }
        if let Ok(disk) = rustix::fs::statvfs("/") {
            let used = (disk.f_blocks - disk.f_bfree) as f64;
            put("disk./.usagePercent", 100.0 * used / (used + disk.f_bavail as f64).max(1.0));
            put("disk./.usageGB", used * disk.f_frsize as f64 / BYTES_PER_GIB);
        }
        for (device, counters) in disks() {
            let start = self.disks.get(&device).copied().unwrap_or_default();
            put(&format!("disk.{device}.in"), (counters[0] - start[0]) / BYTES_PER_MIB);
            put(&format!("disk.{device}.out"), (counters[1] - start[1]) / BYTES_PER_MIB);
        }
        let [received, sent] = network();
        put("network.recv", received - self.network[0]);
        put("network.sent", sent - self.network[1]);
        if let Some(nvml) = &self.nvml {
            sample_gpus(nvml, &mut put);
        }
        found
    }
}

/// NVIDIA's management library, loaded now where there is a driver.
fn nvml() -> Option<Nvml> {
    if !has_gpu() {
        return None;
    }
    let open = |path: &str| Nvml::builder().lib_path(path.as_ref()).init();
    open("libnvidia-ml.so.1").or_else(|_| open("libnvidia-ml.so")).ok()
}

/// Name and bytes of memory of each GPU.
pub(super) fn gpus() -> Vec<(String, u64)> {
    let Some(nvml) = nvml() else { return Vec::new() };
    let gpus = 0..nvml.device_count().unwrap_or_default();
    let of = |index| {
        let gpu = nvml.device_by_index(index).ok()?;
        Some((gpu.name().ok()?, gpu.memory_info().ok()?.total))
    };
    gpus.filter_map(of).collect()
}

fn sample_gpus(nvml: &Nvml, put: &mut impl FnMut(&str, f64)) {
    for index in 0..nvml.device_count().unwrap_or_default() {
        let Ok(gpu) = nvml.device_by_index(index) else { continue };
        let mut put = |name: &str, value: f64| put(&format!("gpu.{index}.{name}"), value);
        if let Ok(busy) = gpu.utilization_rates() {
            put("gpu", busy.gpu.into());
            put("memory", busy.memory.into());
        }
        if let Ok(memory) = gpu.memory_info() {
            put("memoryAllocated", 100.0 * memory.used as f64 / memory.total.max(1) as f64);
            put("memoryAllocatedBytes", memory.used as f64);
        }
        if let Ok(celsius) = gpu.temperature(TemperatureSensor::Gpu) {
            put("temp", celsius.into());
        }
        if let (Ok(used), Ok(limit)) = (gpu.power_usage(), gpu.enforced_power_limit()) {
            put("powerWatts", f64::from(used) / 1e3);
            put("enforcedPowerLimitWatts", f64::from(limit) / 1e3);
            put("powerPercent", 100.0 * f64::from(used) / f64::from(limit.max(1)));
        }
        for (name, clock) in [("smClock", Clock::SM), ("memoryClock", Clock::Memory)] {
            if let Ok(mhz) = gpu.clock_info(clock) {
                put(name, mhz.into());
            }
        }
    }
}

/// Seconds of CPU time of this process.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?; // the name before it may contain anything
    let mut fields = fields.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

/// A number of `/proc/self/status`.
fn status(key: &str) -> Option<f64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
}

fn resident_bytes() -> Option<f64> {
    status("VmRSS:").map(|kib| kib * 1024.0)
}

/// Memory of the control group that this process runs in, where it has a limit.
fn cgroup_bytes() -> Option<u64> {
    let number = |name: &str| fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse::<u64>().ok();
    number("memory.max")?;
    number("memory.current")
}

/// Bytes read and written by each disk.
fn disks() -> BTreeMap<String, [f64; 2]> {
    let text = fs::read_to_string("/proc/diskstats").unwrap_or_default();
    let of = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let name = (*fields.get(2)?).to_owned();
        let is_disk = fs::exists(format!("/sys/block/{name}/device")).unwrap_or(false);
        let sectors = |index: usize| Some(fields.get(index)?.parse::<f64>().ok()? * SECTOR);
        is_disk.then_some((name, [sectors(5)?, sectors(9)?]))
    };
    text.lines().filter_map(of).collect()
}

/// Bytes received and sent by all interfaces but the loopback.
fn network() -> [f64; 2] {
    let text = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let of = |line: &str| {
        let (name, fields) = line.split_once(':')?;
        let fields: Vec<f64> = fields.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        (name.trim() != "lo").then_some([*fields.first()?, *fields.get(8)?])
    };
    text.lines().filter_map(of).fold([0.0; 2], |sum, one| [sum[0] + one[0], sum[1] + one[1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_what_the_official_agent_reports() {
        let mut sampler = Sampler::new(Duration::from_secs(15));
        assert!(sampler.wait() > Duration::from_secs(14));
        let sample: BTreeMap<String, f64> = sampler.sample().into_iter().collect();
        for key in
            ["cpu", "memory_percent", "proc.memory.rssMB", "proc.cpu.threads", "disk./.usagePercent", "network.sent"]
        {
            assert!(sample[key] >= 0.0, "{key}: {sample:?}");
        }
        assert!(sample["proc.memory.rssMB"] > 1.0 && sample["memory_percent"] <= 100.0);
    }
}
