//! The command that trains: `lerobot-train`, in one process or in several.

use super::{installation::Installation, prepare::Needs};
use crate::child::Invocation;
use hlrp_schema::LerobotTrainConfig;
use std::path::PathBuf;

/// What the command needs of LeRobot.
pub(super) fn needs(config: &LerobotTrainConfig) -> Needs<'_> {
    let lerobot = &config.lerobot;
    Needs {
        section: "lerobot",
        command: &lerobot.command,
        python: lerobot.python.as_deref(),
        plugin: lerobot.install_policy_editable.as_deref(),
        env: &lerobot.env,
        num_threads: config.num_threads,
    }
}

/// The command with these flags.
pub(super) fn invocation(config: &LerobotTrainConfig, flags: Vec<String>) -> Invocation {
    let one = needs(config).invocation(flags);
    match num_processes(config) {
        1 => one,
        several => in_parallel(config, one, several),
    }
}

/// As many processes as configured; else as the cluster has GPUs.
fn num_processes(config: &LerobotTrainConfig) -> u64 {
    let gpus = config.cluster.compute.gpus_per_node.unwrap_or(1).max(1);
    config.lerobot.num_processes.unwrap_or_else(|| gpus.into())
}

/// The same command in several processes.
fn in_parallel(config: &LerobotTrainConfig, one: Invocation, num_processes: u64) -> Invocation {
    let lerobot = &config.lerobot;
    let device = if lerobot.policy_device == "cpu" { "--cpu" } else { "--multi_gpu" };
    let mut arguments: Vec<String> = ["-m", "accelerate.commands.launch", device].map(str::to_owned).into();
    arguments.push(format!("--num_processes={num_processes}"));
    arguments.extend(["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"].map(str::to_owned));
    arguments.extend(lerobot.accelerate_args.iter().cloned());
    arguments.push(one.program.display().to_string());
    arguments.extend(one.arguments);
    let found = Installation::find("lerobot", &lerobot.command, lerobot.python.as_deref());
    let program = found.map_or_else(|_| PathBuf::from("python"), |installation| installation.python);
    Invocation { program, arguments, ..one }
}
