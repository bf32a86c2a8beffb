//! From overrides to job plans: every run of a sweep, on every cluster of a race, every step of a pipeline.

use super::{mounts, stage3};
use crate::{error::CommandError, pipeline};
use anyhow::{Context, Result};
use hlrp_config::{Composed, Problem, SweepRun, Value, num_runs, override_key, secret::has_secret, sweep, write_path};
use hlrp_schema::{ConfigArgs, ContainerRuntime, PRIMARY, PROJECT, RunBasics, Stage};
use hlrp_slurm::{
    client::Slurm,
    outcome::SUBMIT_DIR,
    plan::{Container, JobPlan, Resources, Rival, STEP, Token},
    snapshot,
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Overrides of the submission itself: a job gets its own run directory, and prints no preview.
const NOT_PASSED_ON: [&str; 3] = ["submit.dry_run", "submit.print", RUN_DIR];
const RUN_DIR: &str = "logging.run_dir";
/// Key of the commands that run before the program.
const PRE_COMMANDS: &str = "submit.pre_commands";
const READ_ON_THE_NODE: &str =
    "export it in a file that only you can read, and let the job read that: source ~/.my_keys";
/// Key of the race.
const RACE: &str = "submit.race";

/// Everything that one call submits.
pub(super) struct Submission {
    /// What all its runs share, as the first has it.
    pub(super) basics: RunBasics,
    /// The configuration tree.
    pub(super) tree: PathBuf,
    /// How long a command of Slurm may take.
    pub(super) time_limit: Duration,
    /// The runs in the order of the sweep.
    pub(super) runs: Vec<RunPlan>,
}

impl Submission {
    /// The Slurm of a job.
    pub(super) fn slurm(&self, job: &JobPlan) -> Slurm {
        Slurm { clusters: job.resources.clusters.clone(), time_limit: self.time_limit }
    }
}

/// One run.
pub(super) struct RunPlan {
    /// Its directory.
    pub(super) run_dir: PathBuf,
    /// What a sweep adds to its name.
    pub(super) suffix: Option<String>,
    /// What distinguishes it in a sweep, as overrides.
    pub(super) overrides: Vec<String>,
    /// Its configuration, on the first cluster of a race.
    pub(super) composed: Composed,
    /// The configurations of its jobs, or of the steps of a pipeline.
    pub(super) configurations: Vec<Composed>,
    /// On each cluster of the race the jobs that run it: one, or one for each step of a pipeline in their order.
    pub(super) jobs: Vec<Vec<JobPlan>>,
}

/// How many jobs a submission would queue, a pipeline counted as one; none if it only prints or runs here.
///
/// # Errors
/// An invalid configuration, or a sweep that cannot be expanded.
pub(super) fn count(config: &ConfigArgs) -> Result<usize> {
    refuse_list_of_clusters(&config.overrides)?;
    let composed = config.compose()?;
    let is_true = |key: &str| composed.tree().get(key).is_some_and(|node| node.summary() == "true");
    let race = match composed.tree().get(RACE).map(|node| &node.value) {
        Some(Value::List(clusters)) => clusters.len(),
        _ => 1,
    };
    let chooses_cluster = match composed.tree().get(PROJECT.sweep_params).map(|node| &node.value) {
        Some(Value::Map(params)) => params.keys().any(|key| key == PROJECT.crossed_with),
        _ => false,
    };
    let queues = is_true("cluster.slurm.enabled") || race > 1 || chooses_cluster;
    Ok(if queues && !is_true("submit.dry_run") { race * num_runs(&PROJECT, &composed)? } else { 0 })
}

/// Plans a submission; nothing is written.
///
/// # Errors
/// An invalid configuration of any run on any cluster.
pub(super) fn plan(config: &ConfigArgs, time_limit: Duration) -> Result<Submission> {
    let tree = config.root()?;
    snapshot::check(&tree)?;
    let composed = config.compose()?;
    let basics = RunBasics::of(&composed)?;
    let race = basics.submit.race.clone();
    let clusters: Vec<Option<&str>> = match &race {
        Some(names) => names.iter().map(|name| Some(name.as_str())).collect(),
        None => vec![None],
    };
    let working_dir = std::env::current_dir().context("cannot find the working directory")?;
    if working_dir.to_string_lossy().contains(['\n', '\r']) {
        let message = format!("the working directory {working_dir:?} has a line break in its name");
        return Err(CommandError::new(message, "a script cannot name it: submit from another directory").into());
    }
    let program = std::env::current_exe().context("cannot find the path of hlrp")?;
    let on_clusters = clusters.iter().map(|cluster| {
        let choice = cluster.map(|name| format!("cluster={name}"));
        let overrides: Vec<String> = config.overrides.iter().cloned().chain(choice).collect();
        let runs = sweep(&PROJECT, hlrp_schema::check, &tree, &config.config_name, &overrides);
        runs.with_context(|| cluster.map_or_else(|| "the sweep".into(), |name| format!("cluster={name}")))
    });
    let on_clusters: Vec<Vec<SweepRun>> = on_clusters.collect::<Result<_>>()?;
    refuse_other_numbers(&on_clusters)?;

    let config_name = &config.config_name;
    let mut runs = Vec::new();
    for index in 0..on_clusters[0].len() {
        let of_run: Vec<&SweepRun> = on_clusters.iter().map(|runs| &runs[index]).collect();
        runs.push(plan_run(&of_run, &clusters, &tree, config_name, &working_dir, &program)?);
    }
    let basics = RunBasics::of(&runs[0].composed)?;
    runs.iter().try_for_each(|run| refuse_other_submission(&basics, run))?;
    Ok(Submission { basics, tree, time_limit, runs })
}

/// What is said once holds for all runs of a sweep: how they are submitted, and whether by Slurm.
fn refuse_other_submission(first: &RunBasics, run: &RunPlan) -> Result<()> {
    let basics = RunBasics::of(&run.composed)?;
    let what = if basics.submit != first.submit {
        "another section 'submit'"
    } else if basics.cluster.slurm.enabled != first.cluster.slurm.enabled {
        "a cluster of another kind, with or without Slurm,"
    } else {
        return Ok(());
    };
    let message = format!("{} has {what} than the first run, but a sweep is submitted as one", basics.experiment.name);
    let hint = "give submit.… once, for all runs, and sweep over clusters that all queue jobs";
    Err(Problem::new(PROJECT.sweep_params, message, hint).into())
}

/// A list of clusters is a sweep in Hydra; here it is nearly always meant as a race.
fn refuse_list_of_clusters(overrides: &[String]) -> Result<(), Problem> {
    let list = overrides.iter().filter_map(|text| text.strip_prefix("cluster=")).find(|value| value.contains(','));
    let Some(list) = list else { return Ok(()) };
    let list = list.trim_matches(['[', ']']);
    let message = format!("'{list}' is a list, but a run has one cluster");
    let hint = format!("to queue it on each and let the first start win: 'submit.race=[{list}]'");
    Err(Problem::new("cluster", message, hint))
}

fn refuse_other_numbers(on_clusters: &[Vec<SweepRun>]) -> Result<(), Problem> {
    let [first, others @ ..] = on_clusters else { return Ok(()) };
    match others.iter().find(|runs| runs.len() != first.len()) {
        None => Ok(()),
        Some(runs) => {
            let message =
                format!("the clusters do not agree on the runs of the sweep: {} and {}", first.len(), runs.len());
            Err(Problem::new(PROJECT.sweep_params, message, "sweep over values that do not depend on the cluster"))
        }
    }
}

fn plan_run(
    of_run: &[&SweepRun],
    clusters: &[Option<&str>],
    tree: &Path,
    config_name: &str,
    working_dir: &Path,
    program: &Path,
) -> Result<RunPlan> {
    let first = of_run[0];
    refuse_secrets(first)?;
    let basics: Vec<RunBasics> = of_run.iter().map(|run| RunBasics::of(&run.composed)).collect::<Result<_, _>>()?;
    let run_dir = absolute(&basics[0].logging.run_dir)?;
    let token = Token::random();
    let rival = |basics: &RunBasics| Rival {
        cluster: basics.cluster.name.clone(),
        clusters: basics.cluster.slurm.clusters.clone(),
    };
    let race: Vec<Rival> = basics.iter().map(rival).collect();
    refuse_same_names(&race)?;
    let submit_dir = run_dir.join(SUBMIT_DIR);
    let mut options = vec!["--config-dir".to_owned(), snapshot::folder(&submit_dir).display().to_string()];
    if config_name != PRIMARY {
        options.extend(["--config-name".to_owned(), config_name.to_owned()]);
    }
    let (mut jobs, mut configurations) = (Vec::new(), Vec::new());
    for (index, (run, basics)) in of_run.iter().zip(&basics).enumerate() {
        basics.cluster.refuse_output(RUN_DIR, &run_dir)?;
        if clusters.len() > 1 && !basics.cluster.slurm.enabled {
            let message = format!("'{}' has no Slurm", basics.cluster.name);
            return Err(Problem::new(RACE, message, "name clusters that queue jobs: `hlrp config list cluster`").into());
        }
        let choice = clusters[index].map(|name| format!("cluster={name}"));
        let is_there = choice.as_ref().is_some_and(|choice| run.overrides.contains(choice));
        let choice = choice.filter(|_| !is_there);
        let target = format!("{RUN_DIR}={}", write_path(&run_dir));
        let is_kept = |text: &&String| !NOT_PASSED_ON.contains(&override_key(text));
        let overrides: Vec<String> =
            run.overrides.iter().filter(is_kept).cloned().chain(choice).chain([target]).collect();
        let base =
            Base { token: &token, run_dir: &run_dir, working_dir, program, race: &race, name: &basics.experiment.name };
        let start: Vec<String> = options.iter().chain(&overrides).cloned().collect();
        if basics.stage != Stage::Pipeline {
            let arguments = |rest: Vec<String>| [basics.stage.command().to_owned()].into_iter().chain(rest).collect();
            let resume = vec!["--resume".to_owned(), run_dir.display().to_string()];
            jobs.push(vec![base.job(&run.composed, basics, None, arguments(start), arguments(resume))?]);
            configurations.push(run.composed.clone());
            continue;
        }
        let steps = pipeline::composed_steps(&run.composed, tree, config_name, &run_dir)?;
        let of_steps = steps.iter().enumerate().map(|(index, (name, composed))| {
            // A step is submitted as its pipeline is.
            let basics = RunBasics { submit: basics.submit.clone(), ..RunBasics::of(composed)? };
            let last = [STEP.to_owned(), name.clone()];
            let command = [Stage::Pipeline.command().to_owned()];
            let arguments: Vec<String> = command.into_iter().chain(start.iter().cloned()).chain(last).collect();
            let after = index.checked_sub(1).map(|before| steps[before].0.clone());
            let plan = base.job(composed, &basics, Some(name), arguments.clone(), arguments)?;
            Ok(JobPlan { after, ..plan })
        });
        jobs.push(of_steps.collect::<Result<_>>()?);
        configurations.extend(steps.into_iter().map(|(_, composed)| composed));
    }
    let (suffix, overrides, composed) = (first.suffix.clone(), first.overrides.clone(), first.composed.clone());
    Ok(RunPlan { run_dir, suffix, overrides, composed, configurations, jobs })
}

/// Two options of `cluster` with one `cluster.name` would share their scripts.
fn refuse_same_names(race: &[Rival]) -> Result<(), Problem> {
    for (index, rival) in race.iter().enumerate() {
        if race[..index].iter().any(|earlier| earlier.cluster == rival.cluster) {
            let message = format!("two clusters of the race have the name '{}'", rival.cluster);
            return Err(Problem::new(RACE, message, "give each option its own cluster.name"));
        }
    }
    Ok(())
}

/// A secret among the overrides would be in the script.
fn refuse_secrets(run: &SweepRun) -> Result<(), Problem> {
    match run.overrides.iter().find(|text| has_secret(text)) {
        None => Ok(()),
        Some(argument) => {
            let key = override_key(argument);
            let hint = if key == PRE_COMMANDS { READ_ON_THE_NODE } else { snapshot::SECRET_HINT };
            Err(Problem::new(key, "the value is a secret, which a script must not contain", hint))
        }
    }
}

/// A command that has a secret, as `${oc.env:NAME}` may give it one, would be in the script and in its output.
fn refuse_secret_commands(commands: &[String]) -> Result<(), Problem> {
    if !commands.iter().any(|command| has_secret(command)) {
        return Ok(());
    }
    Err(Problem::new(PRE_COMMANDS, "a command contains a secret, which a script must not contain", READ_ON_THE_NODE))
}

/// What all jobs of a run share.
struct Base<'a> {
    token: &'a Token,
    run_dir: &'a Path,
    working_dir: &'a Path,
    program: &'a Path,
    race: &'a [Rival],
    name: &'a str,
}

impl Base<'_> {
    fn job(
        &self,
        composed: &Composed,
        basics: &RunBasics,
        step: Option<&str>,
        start: Vec<String>,
        resume: Vec<String>,
    ) -> Result<JobPlan> {
        let submit_dir = self.run_dir.join(SUBMIT_DIR);
        let end = step.map(|step| format!("_{step}")).unwrap_or_default();
        let cache_dir = absolute(&basics.paths.cache_dir)?;
        stage3::check(composed, basics)?;
        let submit = &basics.submit;
        refuse_secret_commands(&submit.pre_commands)?;
        let resources = resources(basics)?;
        if basics.cluster.slurm.enabled {
            refuse_several_nodes(basics.stage, &resources)?;
            refuse_missing_gpu(composed, &resources)?;
            refuse_secret_resources(&resources)?;
        }
        Ok(JobPlan {
            format: JobPlan::FORMAT,
            token: self.token.clone(),
            cluster: basics.cluster.name.clone(),
            stage: basics.stage,
            job_name: format!("hlrp_{}{end}", self.name),
            run_dir: self.run_dir.to_path_buf(),
            submit_dir: step.map_or_else(|| submit_dir.clone(), |step| submit_dir.join(step)),
            step: step.map(str::to_owned),
            after: None,
            working_dir: self.working_dir.to_path_buf(),
            program: self.program.to_path_buf(),
            start,
            resume,
            resources,
            container: container(composed, basics, self.run_dir, self.working_dir)?,
            cache_dir,
            save_before_limit_s: submit.save_before_limit_s(),
            max_restarts: submit.max_restarts,
            pre_commands: submit.pre_commands.clone(),
            race: self.race.to_vec(),
        })
    }
}

/// Stages 1 and 2 train on several machines; LeRobot's programs and evaluations use one, training all of its GPUs.
fn refuse_several_nodes(stage: Stage, resources: &Resources) -> Result<(), Problem> {
    if resources.num_nodes == 1 || matches!(stage, Stage::Laq | Stage::Vla) {
        return Ok(());
    }
    let message = format!("{}, but stage {} uses one machine", resources.num_nodes, stage.name());
    let hint = "choose a cluster with one node, or set cluster.compute.num_nodes=1";
    Err(Problem::new("cluster.compute.num_nodes", message, hint))
}

/// A job without GPUs cannot give a run the one that it asks for.
fn refuse_missing_gpu(composed: &Composed, resources: &Resources) -> Result<(), Problem> {
    let device = composed.tree().get("device").and_then(|node| node.as_str()).unwrap_or_default();
    if resources.gpus_per_node > 0 || !device.starts_with("cuda") {
        return Ok(());
    }
    let message = format!("0, but the run has device={device}");
    Err(Problem::new("cluster.compute.gpus_per_node", message, "choose a cluster with GPUs, or set device=cpu"))
}

/// A secret that `${oc.env:NAME}` gives to one of Slurm's values would be in the script.
fn refuse_secret_resources(resources: &Resources) -> Result<(), Problem> {
    let Resources { partition, qos, account, clusters, .. } = resources;
    let optional = [("qos", qos), ("account", account), ("clusters", clusters)];
    let values = optional.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
    match values.chain([("partition", partition)]).find(|(_, value)| has_secret(value)) {
        None => Ok(()),
        Some((key, _)) => {
            let message = "the value is a secret, which a script must not contain";
            Err(Problem::new(format!("cluster.slurm.{key}"), message, "set it to the name that Slurm knows"))
        }
    }
}

fn resources(basics: &RunBasics) -> Result<Resources, Problem> {
    let (compute, slurm) = (&basics.cluster.compute, &basics.cluster.slurm);
    let gpus_per_node = compute.gpus_per_node.unwrap_or(0);
    let tasks_per_node = match basics.stage {
        Stage::Laq | Stage::Vla if basics.num_processes.is_one() => gpus_per_node.max(1),
        // One process, which starts others itself.
        _ => 1,
    };
    let num_nodes = compute.num_nodes.unwrap_or(1);
    if num_nodes > 1 && !basics.num_processes.is_one() {
        let message =
            format!("{}, but the processes of {num_nodes} machines are started by srun", basics.num_processes);
        let hint = "set num_processes=1: there is one process for each of cluster.compute.gpus_per_node";
        return Err(Problem::new("num_processes", message, hint));
    }
    Ok(Resources {
        partition: slurm.partition.clone().unwrap_or_default(),
        qos: slurm.qos.clone(),
        account: slurm.account.clone(),
        clusters: slurm.clusters.clone(),
        num_nodes,
        tasks_per_node,
        gpus_per_node,
        cpus_per_task: compute.cpus_per_task,
        mem_gb: compute.mem_gb,
        time_limit: compute.time_limit.clone().unwrap_or_default(),
    })
}

fn container(composed: &Composed, basics: &RunBasics, run_dir: &Path, working_dir: &Path) -> Result<Option<Container>> {
    let container = &basics.cluster.container;
    let (ContainerRuntime::Pyxis | ContainerRuntime::Apptainer, Some(image)) = (container.runtime, &container.image)
    else {
        return Ok(None);
    };
    let mounts = mounts::of(composed, basics, run_dir, working_dir)?;
    Ok(Some(Container { runtime: container.runtime, image: image.clone(), program: container.program.clone(), mounts }))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot find the full path of {}", path.display()))
}
