//! Which options of `cluster` are about this host, and which of them is the one to choose.

use crate::doctor::report::Finding;
use hlrp_config::{compose, groups};
use hlrp_schema::{ClusterConfig, ConfigArgs, LaqConfig, PROJECT};
use hlrp_track::{
    host::{Place, hostname, matches},
    run::SlurmJob,
};

/// What is to be chosen here, and why.
pub(super) struct Choice {
    /// Options that are about this host.
    matching: Vec<String>,
    /// The one to choose for a run here, or for a job that is submitted from here.
    pub(super) option: Option<String>,
    /// The one to choose for a job, wherever this is.
    pub(super) for_jobs: Option<String>,
    why: String,
}

/// Every option of `cluster` in the tree; none without a tree. An error in a file is reported by `hlrp config check`.
pub(super) fn all(arguments: &ConfigArgs) -> Vec<ClusterConfig> {
    let Ok(root) = arguments.root() else { return Vec::new() };
    let group = groups(&root).into_iter().flatten().find(|group| group.name == PROJECT.crossed_with);
    let options = group.into_iter().flat_map(|group| group.options).filter(|option| !option.name.starts_with('_'));
    let read = |name: &str| {
        let composed = compose(&PROJECT, &root, &arguments.config_name, &[format!("{}={name}", PROJECT.crossed_with)]);
        let config: LaqConfig = composed.ok()?.extract().ok()?;
        Some(ClusterConfig { name: name.to_owned(), ..config.cluster })
    };
    options.filter_map(|option| read(&option.name)).collect()
}

/// A host that the configuration in use takes for a workstation is a login node if another option names it as one.
pub(super) fn name_login_node(place: Place, profiles: &[ClusterConfig]) -> Place {
    let host = hostname();
    let named = profiles.iter().find_map(|profile| {
        let pattern = profile.login_nodes.iter().flatten().find(|pattern| matches(pattern, &host))?;
        Some(format!("its name matches {pattern:?} of cluster.login_nodes of {}", profile.name))
    });
    match (place, named) {
        (Place::Workstation, Some(reason)) => Place::LoginNode { reason },
        (place, _) => place,
    }
}

/// The option for this place; `configured` is that of the command line.
pub(super) fn choose(profiles: &[ClusterConfig], place: &Place, configured: Option<&ClusterConfig>) -> Choice {
    let partitions = |profile: &ClusterConfig| -> Vec<String> {
        profile.slurm.partition.iter().flat_map(|list| list.split(',')).map(|name| name.trim().to_owned()).collect()
    };
    let host = hostname();
    let with_slurm = |profile: &&ClusterConfig| profile.slurm.enabled;
    let (matching, why): (Vec<&ClusterConfig>, String) = match place {
        Place::Workstation => {
            (profiles.iter().filter(|profile| !profile.slurm.enabled).collect(), "this is no part of a cluster".into())
        }
        Place::LoginNode { .. } => {
            let names_host =
                |profile: &&ClusterConfig| profile.login_nodes.iter().flatten().any(|pattern| matches(pattern, &host));
            let named: Vec<_> = profiles.iter().filter(with_slurm).filter(names_host).collect();
            if named.is_empty() {
                (profiles.iter().filter(with_slurm).collect(), "a login node that no option names".into())
            } else {
                (named, "their login nodes have names like this host's".into())
            }
        }
        Place::SlurmJob { .. } => match SlurmJob::from_env().and_then(|job| job.partition) {
            Some(own) => {
                let has = |profile: &&ClusterConfig| partitions(profile).contains(&own);
                (profiles.iter().filter(has).collect(), format!("this job is in partition {own}"))
            }
            None => (Vec::new(), "this job does not tell its partition".into()),
        },
    };
    // Several partitions: the first that is free.
    let best = |candidates: &[&ClusterConfig]| {
        let own = candidates.iter().find(|profile| configured.is_some_and(|own| own.name == profile.name));
        let widest = || candidates.iter().rev().max_by_key(|profile| partitions(profile).len());
        own.or_else(widest).map(|profile| profile.name.clone())
    };
    let for_jobs: Vec<_> = profiles.iter().filter(with_slurm).collect();
    Choice {
        option: best(&matching),
        for_jobs: if for_jobs.iter().any(|profile| matching.iter().any(|other| other.name == profile.name)) {
            best(&matching)
        } else {
            best(&for_jobs)
        },
        matching: matching.into_iter().map(|profile| profile.name.clone()).collect(),
        why,
    }
}

impl Choice {
    pub(super) fn finding(&self) -> Finding {
        const NAME: &str = "cluster";
        match &self.option {
            None => {
                let hint = "choose one of `hlrp config list cluster`";
                Finding::note(NAME, format!("no option matches: {}", self.why), Some(hint))
            }
            Some(option) => {
                let others: Vec<&str> =
                    self.matching.iter().map(String::as_str).filter(|name| name != option).collect();
                let others = if others.is_empty() { String::new() } else { format!("; also {}", others.join(", ")) };
                Finding::ok(NAME, format!("cluster={option} ({}){others}", self.why))
            }
        }
    }
}
