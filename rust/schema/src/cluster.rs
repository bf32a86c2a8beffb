//! Section `cluster`: where a run computes, and where it may write.

use crate::rules::{Checked, at_least, require, section};
use hlrp_config::{Check, Problem};
use regex_lite::Regex;
use serde::{Deserialize, Serialize};
use std::{
    path::{Component, Path, PathBuf},
    sync::LazyLock,
};

/// A place to compute: this machine, or a pool of a Slurm cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// Label, equal to the option's name.
    pub name: String,
    /// Folder for everything large; `paths.root` derives from it.
    pub storage_root: PathBuf,
    /// Folders below which a run may write; anywhere when null.
    pub allowed_roots: Option<Vec<PathBuf>>,
    /// Whether what a run replaces moves to `superseded/` of its run directory; otherwise it is removed.
    pub keep_superseded: bool,
    /// Program with arguments that prints the free bytes and files of a quota; none = the file system's answer is enough.
    pub quota_command: Option<Vec<String>>,
    /// Patterns of the names of login nodes, with `*`; null = guess, an empty list = no host is one.
    pub login_nodes: Option<Vec<String>>,
    /// What a job asks for.
    pub compute: ComputeConfig,
    /// Whether and how jobs are submitted.
    pub slurm: SlurmConfig,
    /// Container images of the site.
    pub images: ImagesConfig,
    /// The container of the job.
    pub container: ContainerConfig,
    /// How this machine reaches the cluster.
    pub remote: RemoteConfig,
}

/// How a workstation reaches a cluster: commands with `--remote` run there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteConfig {
    /// Host or alias of `ssh`.
    pub host: Option<String>,
    /// Folder of the repository there; relative to the home folder, or absolute.
    pub repository: Option<PathBuf>,
}

/// What a job asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComputeConfig {
    /// Machines.
    pub num_nodes: Option<u32>,
    /// GPUs of each machine; 0 = none.
    pub gpus_per_node: Option<u32>,
    /// CPU cores of each task.
    pub cpus_per_task: Option<u32>,
    /// Main memory of each machine in GB.
    pub mem_gb: Option<u32>,
    /// `HH:MM:SS` or `D-HH:MM:SS`.
    pub time_limit: Option<String>,
}

/// Whether and how jobs are submitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlurmConfig {
    /// Whether runs are Slurm jobs; otherwise they run here.
    pub enabled: bool,
    /// One partition, or several with commas: the first that is free.
    pub partition: Option<String>,
    /// Quality of service.
    pub qos: Option<String>,
    /// Account that is charged.
    pub account: Option<String>,
    /// Name of the Slurm cluster (`-M`), where a site has several.
    pub clusters: Option<String>,
}

/// Container images of the site, by what runs in them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagesConfig {
    /// The folder that `hlrp submit image-import` writes to.
    pub dir: Option<PathBuf>,
    /// Stages 1 and 2.
    pub training: Option<PathBuf>,
    /// Stage 3.
    pub lerobot: Option<PathBuf>,
}

/// The container of the job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerConfig {
    /// What runs it.
    pub runtime: ContainerRuntime,
    /// Image file: `.sqsh` for Pyxis, `.sif` for Apptainer.
    pub image: Option<PathBuf>,
    /// The command `hlrp` inside the image.
    pub program: String,
}

/// What runs a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerRuntime {
    /// No container: the programs of the host.
    None,
    /// Enroot through Slurm's Pyxis plugin.
    Pyxis,
    /// Apptainer.
    Apptainer,
}

impl ContainerRuntime {
    /// How its image files end.
    fn extension(self) -> &'static str {
        match self {
            Self::None | Self::Pyxis => ".sqsh",
            Self::Apptainer => ".sif",
        }
    }
}

/// Hours, minutes and seconds, with days in front or not.
#[allow(clippy::unwrap_used)] // a constant pattern
static TIME_LIMIT: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^(?:\d+|\d+-(?:[01]?\d|2[0-3])):[0-5]\d:[0-5]\d$").unwrap());

impl ClusterConfig {
    /// Refuses a path below none of the allowed roots. Links and `..` are followed as far as the path exists.
    ///
    /// # Errors
    /// The path is outside; `key` names it.
    pub fn refuse_outside(&self, key: &str, path: &Path) -> Result<(), Problem> {
        let Some(roots) = &self.allowed_roots else { return Ok(()) };
        let path = real(path);
        require(
            roots.iter().any(|root| path.starts_with(real(root))),
            key,
            format!("{} is outside of the folders in cluster.allowed_roots of '{}'", path.display(), self.name),
            format!("choose a folder below one of {}", listed(roots)),
        )
    }
}

/// What separates the mounts of a container, or ends its line.
const SPLITS_MOUNTS: [char; 3] = [':', ',', '\n'];

impl ClusterConfig {
    /// Refuses a path that a container of this profile cannot mount: lists of mounts are separated by colons and commas.
    ///
    /// # Errors
    /// The profile has a container and the path has such a character; `key` names it.
    pub fn refuse_unmountable(&self, key: &str, path: &Path) -> Result<(), Problem> {
        let is_mounted = self.container.runtime != ContainerRuntime::None;
        let good = !path.to_string_lossy().contains(SPLITS_MOUNTS);
        require(
            !is_mounted || good,
            key,
            format!(
                "{path:?} contains a colon, a comma or a line break, so the container of '{}' cannot mount it",
                self.name
            ),
            "choose a path without these characters",
        )
    }

    /// Refuses a path for writing that is outside of the allowed roots, has no place in a batch script or cannot be mounted.
    ///
    /// # Errors
    /// As [`Self::refuse_outside`] and [`Self::refuse_unmountable`]; a line break or a backslash where runs are jobs.
    pub fn refuse_output(&self, key: &str, path: &Path) -> Result<(), Problem> {
        self.refuse_outside(key, path)?;
        require(
            !self.slurm.enabled || !path.to_string_lossy().contains(['\n', '\\']),
            key,
            format!(
                "{path:?} contains a line break or a backslash, which Slurm does not allow in the path of an output"
            ),
            "choose a path without them",
        )?;
        self.refuse_unmountable(key, path)
    }
}

fn listed(roots: &[PathBuf]) -> String {
    roots.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The absolute path with links resolved, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    absolute.components().fold(PathBuf::new(), |mut so_far, component| match component {
        Component::ParentDir => {
            so_far.pop();
            so_far
        }
        component => {
            so_far.push(component);
            so_far.canonicalize().unwrap_or(so_far)
        }
    })
}

impl Check for ClusterConfig {
    fn check(&self) -> Checked {
        let is_good = |char: char| char.is_ascii_alphanumeric() || "_-.".contains(char);
        let is_name =
            self.name.starts_with(|char: char| char.is_ascii_alphanumeric()) && self.name.chars().all(is_good);
        let message = format!("'{}' is not a name of letters, digits and -_.", self.name);
        require(is_name, "name", message, "set it to the option's name")?;
        if let Some(roots) = &self.allowed_roots {
            let hint = "name folders by their full paths, or set it to null to allow any";
            require(!roots.is_empty(), "allowed_roots", "an empty list allows nothing", hint)?;
            let relative = roots.iter().find(|root| !root.is_absolute());
            let shown = relative.map(|root| root.display().to_string()).unwrap_or_default();
            require(relative.is_none(), "allowed_roots", format!("'{shown}' is not an absolute path"), hint)?;
        }
        for pattern in self.login_nodes.iter().flatten() {
            let good = !pattern.is_empty() && !pattern.contains(char::is_whitespace) && pattern != "*";
            let message = format!("'{pattern}' is not a pattern of host names");
            require(good, "login_nodes", message, "write names in which * matches any characters: login*")?;
        }
        if let Some(command) = &self.quota_command {
            let good = command.first().is_some_and(|program| !program.is_empty());
            require(good, "quota_command", "no program", "write [program, argument, ...], or null for none")?;
        }
        section("remote", self.remote.check())?;
        section("compute", self.compute.check())?;
        section("slurm", self.slurm.check())?;
        if self.slurm.enabled {
            self.check_job()?;
        }
        section("container", self.container.check())
    }
}

impl ClusterConfig {
    /// What every Slurm job needs.
    fn check_job(&self) -> Checked {
        let ComputeConfig { num_nodes, gpus_per_node, time_limit, .. } = &self.compute;
        let needed = [
            ("compute.num_nodes", num_nodes.is_some()),
            ("compute.gpus_per_node", gpus_per_node.is_some()),
            ("compute.time_limit", time_limit.is_some()),
            ("slurm.partition", self.slurm.partition.is_some()),
            ("container.image", self.container.image.is_some() || self.container.runtime == ContainerRuntime::None),
        ];
        needed.into_iter().try_for_each(|(key, is_set)| {
            require(
                is_set,
                key,
                "null, but a Slurm job needs it",
                format!("set cluster.{key}, or cluster.slurm.enabled to false"),
            )
        })
    }
}

impl Check for SlurmConfig {
    fn check(&self) -> Checked {
        let Self { enabled: _, partition, qos, account, clusters } = self;
        let names = [("partition", partition), ("qos", qos), ("account", account), ("clusters", clusters)];
        names.into_iter().filter_map(|(key, name)| Some((key, name.as_ref()?))).try_for_each(|(key, name)| {
            let good = !name.is_empty() && !name.contains(|char: char| char.is_whitespace() || char == '\\');
            require(
                good,
                key,
                format!("'{name}' is an invalid Slurm name"),
                "write the name as Slurm prints it, or null",
            )
        })
    }
}

impl Check for RemoteConfig {
    fn check(&self) -> Checked {
        let Self { host, repository } = self;
        if let Some(host) = host {
            let good = !host.is_empty() && !host.starts_with('-') && !host.contains(char::is_whitespace);
            require(good, "host", format!("'{host}' is not a host"), "write a name that `ssh` knows, such as ai")?;
        }
        let is_empty = repository.as_ref().is_some_and(|path| path.as_os_str().is_empty());
        require(!is_empty, "repository", "an empty path", "write the folder of the repository on that host")?;
        require(
            host.is_some() == repository.is_some(),
            if host.is_some() { "repository" } else { "host" },
            "null, but the other of the two is set",
            "set both, or neither",
        )
    }
}

impl Check for ComputeConfig {
    fn check(&self) -> Checked {
        let counts = [("num_nodes", self.num_nodes), ("cpus_per_task", self.cpus_per_task), ("mem_gb", self.mem_gb)];
        counts.into_iter().try_for_each(|(key, count)| count.map_or(Ok(()), |count| at_least(key, count, 1)))?;
        let Some(time_limit) = &self.time_limit else { return Ok(()) };
        let good = seconds_of_time(time_limit).is_some();
        let message = format!("'{time_limit}' is not a time");
        require(good, "time_limit", message, "write \"HH:MM:SS\" or \"D-HH:MM:SS\", in quotes in a file")
    }
}

impl Check for ContainerConfig {
    fn check(&self) -> Checked {
        let good = !self.program.is_empty() && !self.program.contains(char::is_whitespace);
        require(
            good,
            "program",
            format!("'{}' is not a command", self.program),
            "write hlrp, or its path in the image",
        )?;
        let Some(image) = &self.image else { return Ok(()) };
        let text = image.to_string_lossy();
        let end = self.runtime.extension();
        let good = image.is_absolute() && text.ends_with(end) && !text.contains([',', ':', '\n']);
        require(
            good,
            "image",
            format!("'{text}' is not the full path of a {end} file"),
            format!("for example /storage/images/name{end}"),
        )
    }
}

/// The seconds in `HH:MM:SS` or `D-HH:MM:SS`; none if the text is another, or no time at all.
pub fn seconds_of_time(text: &str) -> Option<u64> {
    if !TIME_LIMIT.is_match(text) {
        return None;
    }
    let (days, time) = text.split_once('-').unwrap_or(("0", text));
    let seconds = time.split(':').try_fold(0u64, |sum, part| sum.checked_mul(60)?.checked_add(part.parse().ok()?))?;
    let seconds = days.parse::<u64>().ok()?.checked_mul(24 * 3600)?.checked_add(seconds)?;
    (seconds > 0).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::seconds_of_time;

    #[test]
    fn times_are_read_as_slurm_reads_them() {
        for (text, seconds) in [("00:30:00", Some(1800)), ("1-02:00:01", Some(93601)), ("120:00:00", Some(432_000))] {
            assert_eq!(seconds_of_time(text), seconds);
        }
        for text in ["00:00:00", "12:00", "43200", "1-24:00:00", "00:61:00"] {
            assert_eq!(seconds_of_time(text), None, "{text}");
        }
    }
}
