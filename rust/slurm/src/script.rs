//! The text of a batch script. It runs on the host; only the program runs in the container, so that Slurm's commands are at hand.

use crate::{
    in_job::{EXIT, STARTED},
    plan::{Container, JobPlan},
    shell::{is_plain, quoted},
};
use hlrp_schema::ContainerRuntime;
use hlrp_track::exit_code::INTERRUPTED;
use std::{
    fmt::{Display, Write},
    path::{Path, PathBuf},
};

/// Cache folders of the libraries that a run may use, below the cache directory.
const CACHES: [(&str, &str); 6] = [
    ("HF_HUB_CACHE", "huggingface/hub"),
    ("HF_DATASETS_CACHE", "huggingface/datasets"),
    ("HF_LEROBOT_HOME", "lerobot"),
    ("TORCH_HOME", "torch"),
    ("TRITON_CACHE_DIR", "triton"),
    ("WANDB_CACHE_DIR", "wandb"),
];

/// Variables that the container takes from the job, whatever the image sets.
const CONTAINER_ENV: &str = "HOME,HF_TOKEN,HUGGINGFACE_HUB_TOKEN,HF_HUB_CACHE,HF_DATASETS_CACHE,HF_LEROBOT_HOME,TORCH_HOME,\
                             TRITON_CACHE_DIR,WANDB_CACHE_DIR,TMPDIR,NCCL_DEBUG,NCCL_SOCKET_IFNAME";

/// The batch script of a run.
pub fn batch_script(plan: &JobPlan) -> String {
    [
        directives(plan),
        header(plan),
        signals(plan),
        begin(plan),
        environment(plan),
        gpus(plan),
        pre_commands(&plan.pre_commands, "leave"),
        step(plan),
    ]
    .concat()
}

/// The script of a short job that checks the node before the run of a plan starts.
pub fn preflight_script(plan: &JobPlan) -> String {
    let commands = "for command in squeue scontrol scancel sbatch; do\n  \
                      command -v \"$command\" > /dev/null || echo \"$command is not on this node: the claim alone decides a race\"\n\
                    done\n";
    let check = format!("job preflight \"$plan\" {}", words(plan.config_arguments()));
    let lines = [vec!["srun --nodes=1 --ntasks=1".to_owned()], in_container(plan, &check)].concat();
    let step = format!("\n# shellcheck disable=SC2016\n{}\n", lines.join(" \\\n  "));
    [
        directives(plan),
        header(plan),
        commands.into(),
        environment(plan),
        gpus(plan),
        pre_commands(&plan.pre_commands, "exit"),
        step,
    ]
    .concat()
}

/// The script of a job that runs one command on the host, in the directives of a plan.
pub fn host_script(plan: &JobPlan, command: &[String]) -> String {
    // Nothing in it would catch the signal, which ends a shell.
    let asks = |line: &&str| !line.starts_with("#SBATCH --signal=");
    let directives: String = directives(plan).lines().filter(asks).map(|line| format!("{line}\n")).collect();
    format!("{directives}set -euo pipefail\n{}\n", words(command))
}

/// The script of an array whose members run one of `scripts` each, with their output in one of `run_dirs` each; `limit` run at a time.
pub fn array_script(plan: &JobPlan, scripts: &[PathBuf], run_dirs: &[PathBuf], limit: Option<u32>) -> String {
    let mut text = directives(plan).replace("/%j.", "/%A_%a.");
    let limit = limit.map(|limit| format!("%{limit}")).unwrap_or_default();
    let list = |paths: &[PathBuf]| paths.iter().map(|each| format!("  {}\n", path(each))).collect::<String>();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "#SBATCH --array=0-{}{limit}\n\
         set -uo pipefail\n\
         # Each member is one run of the sweep: its own script, its output in its own directory.\n\
         scripts=(\n{})\n\
         run_dirs=(\n{})\n\
         output=\"${{run_dirs[$SLURM_ARRAY_TASK_ID]}}/${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID\"\n\
         exec bash \"${{scripts[$SLURM_ARRAY_TASK_ID]}}\" >> \"$output.out\" 2>> \"$output.err\"\n",
        scripts.len().saturating_sub(1),
        list(scripts),
        list(run_dirs),
    );
    text
}

/// What a job asks for, as the first lines of its script.
fn directives(plan: &JobPlan) -> String {
    let mut lines = Directives::default();
    let resources = &plan.resources;
    lines.add("job-name", &plan.job_name);
    lines.add("comment", plan.comment());
    lines.add("chdir", plan.working_dir.display());
    lines.add("partition", &resources.partition);
    lines.add_some("qos", resources.qos.as_ref());
    lines.add_some("account", resources.account.as_ref());
    lines.add_some("clusters", resources.clusters.as_ref());
    lines.add("nodes", resources.num_nodes);
    lines.add("ntasks-per-node", resources.tasks_per_node);
    lines.add_some("gres", (resources.gpus_per_node > 0).then(|| format!("gpu:{}", resources.gpus_per_node)));
    lines.add_some("cpus-per-task", resources.cpus_per_task);
    lines.add_some("mem", resources.mem_gb.map(|gigabytes| format!("{gigabytes}G")));
    lines.add("time", &resources.time_limit);
    lines.add("signal", format!("B:USR1@{}", plan.save_before_limit_s));
    lines.add_flag("requeue");
    lines.add("open-mode", "append");
    for (stream, end) in [("output", "out"), ("error", "err")] {
        lines.add(stream, output_pattern(&plan.run_dir, end));
    }
    format!("#!/usr/bin/env bash\n{}\n", lines.0)
}

/// `<folder>/%j.<end>`, with the percent signs of the folder as Slurm reads them.
fn output_pattern(folder: &Path, end: &str) -> String {
    format!("{}/%j.{end}", folder.display().to_string().replace('%', "%%"))
}

#[derive(Default)]
struct Directives(String);

impl Directives {
    fn add(&mut self, name: &str, value: impl Display) {
        let value = value.to_string();
        let escaped = || value.replace('\\', "\\\\").replace('"', "\\\"");
        let quoted = if is_plain(&value) { value } else { format!("\"{}\"", escaped()) };
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "#SBATCH --{name}={quoted}");
    }

    fn add_some(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    fn add_flag(&mut self, name: &str) {
        let _ = writeln!(self.0, "#SBATCH --{name}");
    }
}

fn header(plan: &JobPlan) -> String {
    format!(
        "set -o pipefail\n\
         echo \"job $SLURM_JOB_ID on $SLURM_JOB_NODELIST ($SLURM_JOB_PARTITION), restart ${{SLURM_RESTART_COUNT:-0}}, $(date)\"\n\
         hlrp={}\n\
         plan={}\n",
        path(&plan.program),
        path(&plan.path()),
    )
}

/// What a signal does, from the first line on: a job whose program has not started yet must not end as a failure.
fn signals(plan: &JobPlan) -> String {
    format!(
        "\n# Every signal reaches the program as USR1: TERM would make srun kill it. One that comes before the program has started waits for it.\n\
         signalled='' step=''\n\
         started={}/$SLURM_JOB_ID.${{SLURM_RESTART_COUNT:-0}}{STARTED}\n\
         forward() {{\n  \
           signalled=yes\n  \
           if [[ -n $step && -e $started ]] && kill -USR1 \"$step\" 2> /dev/null; then signalled=''; fi\n\
         }}\n\
         trap forward USR1 TERM\n\
         # Ends a job whose program has not started; one that was told to stop is queued again.\n\
         leave() {{\n  \
           local code=$?\n  \
           if [[ -z $signalled ]]; then exit \"$code\"; fi\n  \
           \"$hlrp\" job end \"$plan\" {INTERRUPTED}\n  \
           exit\n\
         }}\n",
        path(&plan.submit_dir.join(EXIT)),
    )
}

fn begin(plan: &JobPlan) -> String {
    format!(
        "\n# One job trains: the one that claims the run. It cancels its siblings that still wait; a sibling that has started ends here.\n\
         decision=$(\"$hlrp\" job begin \"$plan\") || leave\n\
         # ${{...}} in single quotes is for the configuration.\n\
         # shellcheck disable=SC2016\n\
         case $decision in\n  \
           start) arguments=({}) ;;\n  \
           resume) arguments=({}) ;;\n  \
           *) exit 0 ;;\n\
         esac\n",
        words(&plan.start),
        words(&plan.resume),
    )
}

fn environment(plan: &JobPlan) -> String {
    let caches: String =
        CACHES.iter().map(|(name, folder)| format!("export {name}={}\n", path(&plan.cache_dir.join(folder)))).collect();
    let names: Vec<String> = CACHES.iter().map(|(name, _)| format!("\"${name}\"")).collect();
    format!(
        "\n{caches}\
         mkdir -p {}\n\
         export TMPDIR=\"${{SLURM_TMPDIR:-/tmp}}/hlrp-$SLURM_JOB_ID\"\n\
         mkdir -p \"$TMPDIR\"\n\
         \n# The token of Hugging Face is read here, on the node: it is not in this file.\n\
         for file in \"$HOME/.cache/huggingface/token\" \"$HOME/.huggingface/token\"; do\n  \
           if [[ -z $HF_TOKEN && -r $file ]]; then read -r HF_TOKEN < \"$file\"; fi\n\
         done\n\
         if [[ -z $HUGGINGFACE_HUB_TOKEN ]]; then printf -v HUGGINGFACE_HUB_TOKEN %s \"$HF_TOKEN\"; fi\n\
         if [[ -n $HF_TOKEN ]]; then export HF_TOKEN HUGGINGFACE_HUB_TOKEN; fi\n",
        names.join(" "),
    )
}

fn gpus(plan: &JobPlan) -> String {
    if plan.resources.gpus_per_node == 0 {
        return "\necho 'no GPU was asked for'\n".into();
    }
    "\nexport NCCL_DEBUG=WARN\n\
     if [[ -e /sys/class/net/ib0 ]]; then export NCCL_SOCKET_IFNAME=ib0; fi\n\
     nvidia-smi || echo 'nvidia-smi does not run on this node'\n"
        .into()
}

/// Commands of the user as lines of a script; one that fails ends it with `otherwise`.
pub fn pre_commands(commands: &[String], otherwise: &str) -> String {
    let one = |(index, command): (usize, &String)| {
        let shown = quoted(&format!("[pre_command {}/{}] {command}", index + 1, commands.len()));
        // As one word each: an open quote ends this command, not the script.
        format!("\necho {shown}\n# shellcheck disable=SC2016\neval {} || {otherwise}\n", quoted(command))
    };
    commands.iter().enumerate().map(one).collect()
}

fn step(plan: &JobPlan) -> String {
    let resources = &plan.resources;
    let mut command = vec![
        "srun".to_owned(),
        format!("--nodes={}", resources.num_nodes),
        format!("--ntasks={}", resources.num_tasks()),
        format!("--ntasks-per-node={}", resources.tasks_per_node),
    ];
    command.extend(resources.cpus_per_task.map(|cores| format!("--cpus-per-task={cores}")));
    command.push("--kill-on-bad-exit=1".into());
    command.extend(in_container(plan, "job step \"$plan\" -- \"${arguments[@]}\" &"));
    format!(
        "\nif [[ -n $signalled ]]; then leave; fi\n\
         {}\n\
         step=$!\n\
         # A signal ends the wait, not the step.\n\
         while\n  \
           wait \"$step\"\n  \
           code=$?\n  \
           kill -0 \"$step\" 2> /dev/null\n\
         do\n  \
           until [[ -z $signalled ]] || ! kill -0 \"$step\" 2> /dev/null; do\n    \
             sleep 1\n    \
             forward\n  \
           done\n\
         done\n\
         \n# The program's own exit code is in a file: srun reports another where it killed other tasks.\n\
         \"$hlrp\" job end \"$plan\" \"$code\"\n",
        command.join(" \\\n  "),
    )
}

/// The lines after `srun`: the container, and `hlrp` in it with its arguments.
fn in_container(plan: &JobPlan, arguments: &str) -> Vec<String> {
    let host = vec![format!("\"$hlrp\" {arguments}")];
    let Some(Container { runtime, image, program, mounts }) = &plan.container else { return host };
    let mounts: Vec<String> = mounts.iter().map(|mount| mount.display().to_string()).collect();
    let pairs: Vec<String> = mounts.iter().map(|mount| format!("{mount}:{mount}")).collect();
    match runtime {
        ContainerRuntime::None => host,
        ContainerRuntime::Pyxis => vec![
            format!("--container-image={}", path(image)),
            format!("--container-mounts={}", quoted(&pairs.join(","))),
            format!("--container-workdir={}", path(&plan.working_dir)),
            format!("--container-env={CONTAINER_ENV}"),
            format!("{} {arguments}", quoted(program)),
        ],
        ContainerRuntime::Apptainer => {
            let nv = if plan.resources.gpus_per_node > 0 { "--nv " } else { "" };
            let bind = quoted(&pairs.join(","));
            let start = format!("apptainer exec {nv}--bind {bind} --pwd {}", path(&plan.working_dir));
            vec![start, path(image), format!("{} {arguments}", quoted(program))]
        }
    }
}

fn path(path: &Path) -> String {
    quoted(&path.display().to_string())
}

fn words(arguments: &[String]) -> String {
    arguments.iter().map(|argument| quoted(argument)).collect::<Vec<_>>().join(" ")
}
