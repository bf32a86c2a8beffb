"""`hlrp where`, what to look at before anything is started, and `--remote`, the same command on the cluster."""

import json
import os
import shlex
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conftest import REPO, one_error, program, run

CONFIG_ERROR = 2
HOST = socket.gethostname()
# A login node's name in the tree, so that this host is one: `cluster.login_nodes` of every LRZ option.
LOGIN = f"cluster.login_nodes=[{HOST}]"


def where(*words: str, env: dict | None = None, cwd: Path = REPO) -> dict[str, dict]:
    """The findings of `hlrp where --json` by name."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "CUDA_"))}
    command = [program("hlrp"), "where", "--json", *words]
    result = subprocess.run(command, cwd=cwd, env={**clean, **(env or {})}, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return {finding["name"]: finding for finding in json.loads(result.stdout)["findings"]}


def script(folder: Path, name: str, text: str) -> Path:
    """A program of a few lines, in a folder that goes on PATH."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_workstation(tmp_path):
    found = where("logging.min_free_gb=0", f"paths.root={tmp_path}")
    assert found["directory"]["text"] == str(REPO)
    assert found["host"]["text"].startswith(f"{HOST}, a workstation")
    assert found["allocation"]["text"] == "none: not inside a Slurm job"
    for name, path in [("runs", tmp_path / "runs"), ("cache", tmp_path / "cache")]:
        assert found[name]["text"].startswith(f"{path}, ") and "GiB free" in found[name]["text"]
        assert not path.exists(), "nothing is written"
    assert found["cluster"]["text"].startswith("cluster=local_dev ")
    assert {"cpu", "memory", "gpu"} <= found.keys() and "experiment" not in found


def test_a_login_node_names_the_options_of_its_site_and_sends_experiments_to_them():
    found = where("cluster=lrz_h100", "experiment=laq_tiny", LOGIN)
    assert "a login node" in found["host"]["text"] and "hlrp submit" in found["host"]["hint"]
    assert found["experiment"]["text"].startswith("belongs on the cluster: this is a login node")
    assert found["experiment"]["hint"] == f"hlrp submit experiment=laq_tiny {LOGIN} cluster=lrz_h100".replace(
        LOGIN, shlex.quote(LOGIN)
    )


def test_inside_a_job_the_allocation_is_shown_and_the_partition_says_which_option_it_is(tmp_path):
    end = int(time.time()) + 2 * 3600 + 61
    job = {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_PARTITION": "lrz-hgx-a100-80x4",
        "SLURM_JOB_NODELIST": "n1",
        "CUDA_VISIBLE_DEVICES": "0,1",
    }
    found = where(env={**job, "SLURM_JOB_END_TIME": str(end)})
    assert "inside Slurm job 4711" in found["host"]["text"]
    assert found["allocation"]["text"].startswith("job 4711, partition lrz-hgx-a100-80x4, nodes n1, GPUs 0,1, 2:0"), (
        found
    )
    assert found["cluster"]["text"].startswith("cluster=lrz_x100 (this job is in partition lrz-hgx-a100-80x4)")

    # An older Slurm sets no end time; squeue knows it.
    script(tmp_path / "bin", "squeue", 'echo "1-02:03:04"')
    found = where(env={**job, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"})
    assert found["allocation"]["text"].endswith("1-02:03:04 left")
    script(tmp_path / "bin", "squeue", "exit 1")
    found = where(env={**job, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"})
    assert found["allocation"]["text"].endswith("unknown time left")


GPU = "NVIDIA H100, 81559, 81000, 570.86.15"
# The GPU of a workstation.
SMALL_GPU = "NVIDIA GeForce RTX 5090, 32607, 32000, 570.86.15"


@pytest.mark.parametrize(
    ("experiment", "gpu", "verdict", "command"),
    [
        ("laq_tiny", None, "fits here: small enough for the CPU", "hlrp train-laq experiment=laq_tiny"),
        ("laq_pixel", None, "belongs on the cluster: no GPU here", "hlrp submit experiment=laq_pixel cluster=lrz_x100"),
        ("laq_pixel", GPU, "fits here: on the NVIDIA H100 (80 GiB)", "hlrp train-laq experiment=laq_pixel"),
        ("laq_cluster", GPU, "belongs on the cluster: ", "hlrp submit experiment=laq_cluster cluster=mcml_h100"),
        ("laq_local", SMALL_GPU, "fits here: on the NVIDIA GeForce RTX 5090 (32 GiB)", "hlrp train-laq experiment=laq_local"),
        ("vla_local", SMALL_GPU, "fits here: on the NVIDIA GeForce RTX 5090 (32 GiB)", "hlrp train-vla experiment=vla_local"),
        ("vla_tiny", None, "fits here: small enough for the CPU", "hlrp train-vla experiment=vla_tiny"),
        ("vla_smolvla", None, "belongs on the cluster: no GPU here", "hlrp submit experiment=vla_smolvla cluster=lrz_x100"),
    ],
)  # fmt: skip
def test_where_an_experiment_belongs(tmp_path, experiment, gpu, verdict, command):
    script(tmp_path / "bin", "nvidia-smi", f'echo "{gpu}"' if gpu else "exit 9")
    found = where(f"experiment={experiment}", env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"})
    assert found["experiment"]["text"].startswith(verdict), found["experiment"]
    assert found["experiment"]["hint"] == command


def test_it_works_where_nothing_is_installed(tmp_path):
    """A copy of the one file, in a folder without a tree, without any program on PATH."""
    alone = tmp_path / "hlrp"
    alone.write_bytes(Path(program("hlrp")).read_bytes())
    alone.chmod(0o755)
    result = subprocess.run(
        [alone, "where", "--json"], cwd=tmp_path, env={"PATH": "/nowhere"}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    found = {finding["name"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert found["directory"]["text"] == str(tmp_path)
    assert found["config"]["status"] == "problem" and found["cluster"]["status"] == "note"


def test_a_value_that_is_still_to_be_given_is_named_beside_the_answer():
    found = where("experiment=vla_local")
    assert found["config"]["text"].startswith("policy.teacher.checkpoint: ") and "hint" in found["config"]
    assert found["experiment"]["hint"]


def test_an_experiment_with_an_error_leaves_the_question_where_this_is():
    found = where("experiment=no_such_experiment")
    assert "no_such_experiment" in found["config"]["text"] and found["host"]["text"].startswith(HOST)


def test_a_quota_is_shown_beside_the_disk(tmp_path):
    """`cluster.quota_command` counts for the report as it counts for a run."""
    quota = script(tmp_path / "bin", "quota", 'echo "5368709120 4000"')
    words = [f"paths.root={tmp_path}", "logging.min_free_gb=0", f"cluster.quota_command=[{quota}]"]
    assert where(*words)["runs"]["text"].endswith("; in the quota 5.0 GiB free, 4000 files free")
    full = where(*words, "logging.min_free_files=4001")["runs"]
    assert full["status"] == "problem" and "4000 may still be made in its quota" in full["text"]
    quota.write_text("#!/bin/sh\necho unknown\n")
    assert "quota unknown" in where(*words)["runs"]["text"]


# An ssh that runs the command in a shell of its own, as the real one does on the other side, and keeps what it was told.
FAKE_SSH = 'printf "%s\\n" "$@" > "$LOG"\nshift\necho "to $1"\nshift\nexec sh -c "$*"'
REMOTE_HLRP = 'pwd\nfor argument; do echo "<$argument>"; done\ncat\nexit 75'


def remote(tmp_path: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess:
    """The command with `--remote`: the other side is a folder here, with an `hlrp` that prints its arguments and its input."""
    script(tmp_path / "bin", "ssh", FAKE_SSH)
    script(tmp_path / "there", "hlrp", REMOTE_HLRP)
    (tmp_path / "there" / "a repository").mkdir(exist_ok=True)
    path = f"{tmp_path / 'bin'}:{tmp_path / 'there'}:{os.environ['PATH']}"
    site = ["cluster.remote.host=ai", f"cluster.remote.repository={tmp_path / 'there' / 'a repository'}"]
    return subprocess.run(
        [program("hlrp"), "where", *words, *site],
        cwd=REPO,
        env={**os.environ, "PATH": path, "LOG": str(tmp_path / "log")},
        capture_output=True,
        text=True,
        input=stdin,
    )


HARD = ['experiment.description="it\'s a test of $HOME; `id` *"', "seed=7"]


def test_remote_prints_a_command_that_a_shell_reads_back(tmp_path):
    result = remote(tmp_path, "--remote", *HARD)
    assert result.returncode == 0, result.stderr
    ssh, host, line = shlex.split(result.stdout)
    assert (ssh, host) == ("ssh", "ai") and not (tmp_path / "log").exists(), "nothing is run"
    there = tmp_path / "there" / "a repository"
    cd, folder, then, *command = shlex.split(line)
    assert (cd, folder, then) == ("cd", str(there), "&&")
    assert command[:4] == ["hlrp", "where", *HARD] and "--remote" not in command


def test_remote_with_yes_runs_it_with_its_streams_and_exit_code(tmp_path):
    result = remote(tmp_path, "--yes", *HARD, "--remote", stdin="typed\n")
    assert result.returncode == 75, result.stderr
    printed, to, folder, *rest = result.stdout.splitlines()
    assert printed.startswith("ssh ai ") and to == "to ai" and folder == str(tmp_path / "there" / "a repository")
    assert rest[:2] == ["<where>", "<--yes>"], "nobody is asked there either"
    assert rest[2:4] == [f"<{word}>" for word in HARD] and rest[-1] == "typed" and "<--remote>" not in rest


def test_remote_finds_the_one_cluster_that_the_tree_names():
    command = [program("hlrp"), "where", "--remote"]
    result = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "ssh ai 'cd workspace/code/high-level-robot-planner && hlrp where'\n"


@pytest.mark.parametrize(
    "words",
    [
        "submit experiment=laq_cluster cluster=lrz_x100",
        "submit acceptance cluster=mcml_h100",
        "submit image-import docker://image:1 cluster=lrz_cpu_only",
        "submit --resume runs/one",
        *(f"jobs {words}" for words in ["list", "show 1", "watch 1", "logs 1", "status 1", "cancel 1"]),
    ],
)
def test_every_command_of_submit_and_jobs_can_be_brought_to_the_cluster(words):
    result = subprocess.run([program("hlrp"), *words.split(), "--remote"], cwd=REPO, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    _, _, line = shlex.split(result.stdout)
    assert shlex.split(line)[3:] == ["hlrp", *words.split()]


def test_remote_without_a_cluster_says_which_key(tmp_path):
    tree = tmp_path / "config"
    subprocess.run(["cp", "-r", str(REPO / "config"), str(tree)], check=True)
    site = tree / "cluster/_lrz.yaml"
    site.write_text(site.read_text().replace("host: ai", "host: null").replace("repository: workspace/code/high-level-robot-planner", "repository: null"))  # fmt: skip
    command = [program("hlrp"), "where", "--remote", f"--config-dir={tree}"]
    result = subprocess.run(command, capture_output=True, text=True)
    one_error(result, CONFIG_ERROR, ["cluster.remote.host", "hint:"])


def test_a_secret_is_neither_printed_nor_sent(tmp_path):
    secret = "hf_" + "a1B2" * 8 + "c3"
    word = f"+lerobot.env.HF_TOKEN={secret}"
    shown = remote(tmp_path, "--remote", word)
    assert shown.returncode == 0 and secret not in shown.stdout + shown.stderr and "***" in shown.stdout
    result = remote(tmp_path, "--remote", "--yes", word)
    one_error(result, 1, ["secret", "hint:"])
    assert secret not in result.stdout + result.stderr and not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["train-laq", "experiment=laq_tiny"],
        ["train-vla", "experiment=vla_tiny", "policy.objective.mode=actions"],
        ["train-lerobot", "experiment=lerobot_tiny"],
        ["rollout-lerobot", "experiment=rollout_local", "lerobot_eval.policy_path=runs/some"],
        ["pipeline", "experiment=pipeline_tiny"],
    ],
    ids=lambda words: words[0],
)
def test_no_stage_runs_on_a_login_node(tmp_path, words):
    command = [program("hlrp"), *words, LOGIN, f"logging.run_dir={tmp_path}/run", "logging.min_free_gb=0.1"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "HF_HUB_"))}
    one_error(run(command, env=clean), 77, ["login node", "--allow-login-node"])
    assert not (tmp_path / "run").exists()
