//! Clusters: their values, what derives from the one place of the site's paths, and where a run may write.
#![allow(clippy::unwrap_used)]

mod common;

use common::{our_root, owned};
use hlrp_config::{compose, with_hint};
use hlrp_schema::{ClusterConfig, LaqConfig, PROJECT};
use std::path::Path;

fn laq(overrides: &[&str]) -> Result<LaqConfig, String> {
    let composed = compose(&PROJECT, &our_root(), "config", &owned(overrides)).map_err(|error| with_hint(&error))?;
    composed.extract().map_err(|error| with_hint(&error))
}

fn cluster(name: &str) -> ClusterConfig {
    laq(&[&format!("cluster={name}")]).unwrap_or_else(|error| panic!("{error}")).cluster
}

/// name, nodes, GPUs, CPUs, memory in GB, time, partition, qos
type Row = (&'static str, u32, u32, Option<u32>, Option<u32>, &'static str, &'static str, Option<&'static str>);

const ROWS: [Row; 8] = [
    ("lrz_cpu_only", 1, 0, Some(16), Some(128), "08:00:00", "lrz-cpu", Some("cpu")),
    ("lrz_h100", 1, 1, None, None, "15:00:00", "lrz-hgx-h100-94x4", None),
    ("lrz_h100_multinode", 4, 4, None, None, "48:00:00", "lrz-hgx-h100-94x4", Some("mcml")),
    ("lrz_x100", 1, 1, None, None, "15:00:00", "lrz-hgx-h100-94x4,lrz-hgx-a100-80x4,lrz-dgx-a100-80x8", None),
    ("mcml_h100", 1, 1, None, None, "15:00:00", "mcml-hgx-h100-94x4", Some("mcml")),
    ("mcml_a100_40", 1, 1, None, None, "15:00:00", "mcml-dgx-a100-40x8", Some("mcml")),
    ("mcml_a100_80", 1, 1, None, None, "15:00:00", "mcml-hgx-a100-80x4", Some("mcml")),
    ("mcml_x100", 1, 1, None, None, "15:00:00", "mcml-hgx-h100-94x4,mcml-hgx-a100-80x4", Some("mcml")),
];

#[test]
fn every_cluster_has_the_values_of_its_site() {
    const IMAGE: &str = "/dss/dssmcmlfs01/pn57pi/pn57pi-dss-0001/felix_minzenmay/enroot/lam.sqsh";
    for (name, nodes, gpus, cpus, mem_gb, time, partition, qos) in ROWS {
        let ClusterConfig { name: label, compute, slurm, container, .. } = cluster(name);
        assert_eq!(label, name);
        assert_eq!((compute.num_nodes, compute.gpus_per_node), (Some(nodes), Some(gpus)), "{name}");
        assert_eq!((compute.cpus_per_task, compute.mem_gb), (cpus, mem_gb), "{name}");
        assert_eq!(compute.time_limit.as_deref(), Some(time), "{name}");
        assert!(slurm.enabled && slurm.account.is_none(), "{name}");
        assert_eq!((slurm.partition.as_deref(), slurm.qos.as_deref()), (Some(partition), qos), "{name}");
        let home = std::env::var("HOME").unwrap();
        let image = if name == "lrz_cpu_only" { format!("{home}/workspace/containers/lam.sqsh") } else { IMAGE.into() };
        assert_eq!(container.image.as_deref(), Some(Path::new(&image)), "{name}");
    }
}

#[test]
fn this_machine_has_no_jobs() {
    let local = laq(&[]).unwrap().cluster;
    assert_eq!(local.name, "local_dev");
    assert!(!local.slurm.enabled && local.container.image.is_none() && local.allowed_roots.is_none());
}

#[test]
fn images_are_imported_to_the_storage_of_the_project_whichever_cluster_does_it() {
    for (name, ..) in ROWS {
        let config = laq(&[&format!("cluster={name}"), "cluster.storage_root=/storage/me"]).unwrap();
        assert_eq!(config.cluster.images.dir.unwrap(), Path::new("/storage/me/enroot"), "{name}");
    }
}

#[test]
fn runs_caches_datasets_and_images_derive_from_one_root() {
    let config = laq(&["cluster=mcml_h100", "cluster.storage_root=/storage/me", "data=libero"]).unwrap();
    assert!(config.logging.run_dir.starts_with("/storage/me/runs"));
    assert_eq!(config.paths.cache_dir, Path::new("/storage/me/cache"));
    assert_eq!(config.data.cache.dir, Path::new("/storage/me/cache/frames"));
    assert_eq!(
        config.data.sources["libero"].root.as_deref(),
        Some(Path::new("/storage/me/datasets/HuggingFaceVLA/libero"))
    );
    assert_eq!(config.cluster.container.image.unwrap(), Path::new("/storage/me/enroot/lam.sqsh"));
    assert_eq!(config.cluster.images.lerobot.unwrap(), Path::new("/storage/me/enroot/hlrp_libero.sqsh"));
}

#[test]
fn the_site_is_named_in_one_file_once() {
    let folder = our_root();
    let mut lines = Vec::new();
    let mut waiting = vec![folder];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            lines.extend(text.lines().filter(|line| line.contains("/dss/")).map(str::to_owned));
        }
    }
    assert_eq!(lines.len(), 1, "{lines:?}");
}

#[test]
fn invalid_values_of_a_cluster_are_refused() {
    let cases = [
        ("cluster.compute.time_limit=15h", "'15h' is not a time"),
        ("cluster.compute.time_limit='15:60:00'", "'15:60:00' is not a time"),
        ("cluster.compute.time_limit='00:00:00'", "'00:00:00' is not a time"),
        ("cluster.compute.time_limit='1-24:00:00'", "'1-24:00:00' is not a time"),
        ("cluster.compute.time_limit=null", "null, but a Slurm job needs it"),
        ("cluster.compute.num_nodes=0", "0 is below 1"),
        ("cluster.compute.cpus_per_task=0", "0 is below 1"),
        ("cluster.compute.mem_gb=0", "0 is below 1"),
        ("cluster.slurm.partition=null", "null, but a Slurm job needs it"),
        ("cluster.container.image=null", "null, but a Slurm job needs it"),
        ("cluster.container.image=lam.sqsh", "'lam.sqsh' is not the full path of a .sqsh file"),
        ("cluster.container.image='/a,b.sqsh'", "'/a,b.sqsh' is not the full path of a .sqsh file"),
        ("cluster.allowed_roots=[]", "an empty list allows nothing"),
        ("cluster.allowed_roots=[runs]", "'runs' is not an absolute path"),
        ("cluster.quota_command=[]", "no program"),
        ("cluster.remote.host=null", "null, but the other of the two is set"),
        ("cluster.remote.repository=null", "null, but the other of the two is set"),
        ("cluster.remote.host='-oProxyCommand'", "'-oProxyCommand' is not a host"),
        ("cluster.login_nodes=['*']", "'*' is not a pattern of host names"),
        ("cluster.login_nodes=['']", "'' is not a pattern of host names"),
    ];
    for (argument, message) in cases {
        let error = laq(&["cluster=lrz_x100", argument]).unwrap_err();
        let key = argument.split('=').next().unwrap();
        assert!(error.starts_with(&format!("{key}: {message}")), "{argument}: {error}");
        assert!(
            error.contains(&format!("(command line: {argument})")) && error.contains("\nhint: "),
            "{argument}: {error}"
        );
    }
    for time in ["00:30:00", "120:00:00", "2-00:00:00", "1-23:59:59"] {
        laq(&["cluster=lrz_x100", &format!("cluster.compute.time_limit='{time}'")]).unwrap();
    }
}

#[test]
fn a_run_writes_below_the_allowed_roots_only() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
    let allowed = format!("cluster.allowed_roots=[{}]", root.path().display());
    let inside = format!("paths.root={}", root.path().display());
    let with = |argument: String| laq(&[&allowed, &inside, &argument]).map(|_| ());
    assert_eq!(with("seed=1".into()), Ok(()));
    let refused = [
        ("logging.run_dir", outside.path().display().to_string()),
        ("logging.run_dir", format!("{}/../other", root.path().display())),
        ("logging.run_dir", format!("{}/link/run", root.path().display())),
        ("logging.run_dir", format!("{}-beside", root.path().display())),
        ("logging.run_dir", "runs/relative".into()),
        ("paths.cache_dir", outside.path().display().to_string()),
    ];
    for (key, path) in refused {
        let error = with(format!("{key}={path}")).unwrap_err();
        assert!(error.starts_with(&format!("{key}: ")) && error.contains("cluster.allowed_roots"), "{error}");
        assert!(error.contains(&format!("(command line: {key}={path})")), "{error}");
    }
    let cache = format!("data.cache.dir={}", outside.path().display());
    assert_eq!(with(cache.clone()), Ok(()), "nothing is written to a cache that is off");
    let error = laq(&[&allowed, &inside, &cache, "data.cache.enabled=true"]).unwrap_err();
    assert!(error.starts_with("data.cache.dir: "), "{error}");
}

#[test]
fn nothing_is_deleted_on_a_cluster_and_each_option_can_be_reached() {
    for (name, ..) in ROWS {
        let ClusterConfig { keep_superseded, remote, allowed_roots, .. } = cluster(name);
        assert!(keep_superseded && allowed_roots.is_some(), "{name}");
        assert_eq!(remote.host.as_deref(), Some("ai"), "{name}");
    }
    let local = laq(&[]).unwrap().cluster;
    assert!(!local.keep_superseded && local.remote.host.is_none() && local.quota_command.is_none());
}

/// Checks a whole composition as every program does before it starts.
fn check(overrides: &[&str]) -> Result<(), String> {
    let composed = compose(&PROJECT, &our_root(), "config", &owned(overrides)).map_err(|error| with_hint(&error))?;
    hlrp_schema::check(&composed).map_err(|error| with_hint(&error))
}

#[test]
fn what_a_container_mounts_has_a_path_that_a_list_of_mounts_can_hold() {
    let on_cluster = ["cluster=lrz_x100", "cluster.allowed_roots=null"];
    let with = |argument: &str| check(&[&on_cluster[..], &[argument]].concat());
    assert_eq!(with("seed=1"), Ok(()));
    let keys = [
        "logging.run_dir",
        "paths.cache_dir",
        "data.sources.metaworld_mt5.root",
        "training.resume_from_checkpoint",
        "training.load_weights_from",
    ];
    for key in keys {
        for path in ["/data/a:b", "/data/a,b"] {
            let error = with(&format!("{key}='{path}'")).unwrap_err();
            assert!(error.starts_with(&format!("{key}: ")) && error.contains("cannot mount"), "{error}");
            assert!(error.contains("hint: choose a path without"), "{error}");
        }
        assert_eq!(check(&[&format!("{key}='/data/a:b'")]), Ok(()), "without a container nothing is mounted");
    }
    let error = check(&[
        "cluster=lrz_x100",
        "cluster.container.runtime=none",
        "cluster.allowed_roots=null",
        "logging.run_dir='/data/a\nb'",
    ]);
    assert!(
        error.unwrap_err().contains("contains a line break"),
        "a script has no place for it, with or without a container"
    );
    let error = check(&[&on_cluster[..], &["data.cache.enabled=true", "data.cache.dir='relative/a:b'"]].concat());
    assert!(error.unwrap_err().starts_with("data.cache.dir: "));
}

#[test]
fn lerobot_writes_below_the_allowed_roots_only() {
    let with = |arguments: &[&str]| {
        let site = ["experiment=lerobot_tiny", "cluster.allowed_roots=[/storage/me]", "paths.root=/storage/me"];
        check(&[&site[..], arguments].concat())
    };
    assert_eq!(with(&[]), Ok(()));
    assert_eq!(with(&["+lerobot.env.HF_HOME=/storage/me/hf", "+lerobot.env.HF_TOKEN=x"]), Ok(()));
    let cases = [
        ("lerobot.output_dir", "lerobot.output_dir=/tmp/out"),
        ("lerobot.env.HF_HOME", "+lerobot.env.HF_HOME=/tmp/hf"),
        ("lerobot.env.WANDB_DIR", "+lerobot.env.WANDB_DIR=/tmp/wandb"),
        ("lerobot.extra_args", "lerobot.extra_args=['--output_dir=/tmp/out']"),
    ];
    for (key, argument) in cases {
        let error = with(&[argument]).unwrap_err();
        assert!(error.starts_with(&format!("{key}: ")), "{argument}: {error}");
    }
}

#[test]
fn a_run_of_an_older_version_keeps_what_it_replaces_if_it_ran_on_a_cluster() {
    for (option, keeps) in [("lrz_x100", true), ("local_dev", false)] {
        let composed = compose(&PROJECT, &our_root(), "config", &owned(&[&format!("cluster={option}")])).unwrap();
        let lines = composed.to_yaml();
        let old: Vec<&str> = lines.lines().filter(|line| !line.contains("keep_superseded")).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, old.join("\n")).unwrap();
        let read = hlrp_config::from_resolved(&PROJECT, &path, &[]).unwrap();
        assert_eq!(read.extract::<LaqConfig>().unwrap().cluster.keep_superseded, keeps, "{option}");
        assert_eq!(read.migrated(), [format!("added cluster.keep_superseded={keeps}")]);
    }
}

#[test]
fn a_time_in_base_60_is_named_as_it_was_written() {
    let tree = tempfile::tempdir().unwrap();
    copy(&our_root(), tree.path());
    let local = std::fs::read_to_string(our_root().join("cluster/local_dev.yaml")).unwrap();
    let line = local.lines().find(|line| line.contains("time_limit:")).unwrap();
    let changed = local.replace(line, "  time_limit: 12:00:00  # half a day");
    std::fs::write(tree.path().join("cluster/local_dev.yaml"), changed).unwrap();
    let composed = compose(&PROJECT, tree.path(), "config", &[]).unwrap();
    let error = with_hint(&composed.extract::<LaqConfig>().unwrap_err());
    assert!(error.contains("hint: write \"12:00:00\" in quotes (YAML 1.1 reads 12:00:00 as 43200)"), "{error}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)
        } else {
            std::fs::copy(entry.path(), target).map(|_| ()).unwrap()
        }
    }
}

#[test]
fn an_interval_of_weights_and_biases_is_above_zero_and_its_mode_known() {
    for (word, message) in [
        ("logging.wandb.mode=onlin", "logging.wandb.mode: unknown mode 'onlin'"),
        ("logging.wandb.retry_min_s=0", "logging.wandb.retry_min_s: 0.0 is not above 0"),
        ("logging.wandb.finish_timeout_s=1e9", "logging.wandb.finish_timeout_s: 1000000000 s is more than a day"),
    ] {
        let error = laq(&[word]).unwrap_err();
        assert!(error.starts_with(message), "{error}");
    }
    laq(&["logging.use_wandb=true", "logging.wandb.stats_interval_s=null"]).unwrap();
}
