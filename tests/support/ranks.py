"""Runs of several processes: how they are started, found, and compared with a run of one."""

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
from conftest import MINI, REPO, VLA_MINI, program, read_metrics
from safetensors.numpy import load_file

# Float sums of two halves differ from the sum of the whole in the last digits.
TOLERANCE = 1e-6
# A probe that is a network is trained from the start at every validation; so much more do its results differ.
TRAINED = 100
# Fractions of a whole, which is 1 where they are near 0.
OF_ONE = ("_r2", "_cosine")
# One thread each, float32, and an optimizer that does not turn rounding into whole steps: what differs is then the number of processes.
EXACT = ["precision=32-true", "num_threads=1", "device=cpu", "training.optimizer.eps=1e-3"]
# 20 steps with a refresh of the codebook every 4.
SHORT = [*MINI, *EXACT, "training.max_steps=20", "data.loader.num_workers=1"]
PAIR = ["num_processes=2"]


def policy_words(teacher, run_dir, batch_size: int) -> list[str]:
    """A policy of 20 steps."""
    words = [*VLA_MINI, *EXACT, f"policy.teacher.checkpoint={teacher}", "data.loader.num_workers=1"]
    return [*words, "training.max_steps=20", f"data.loader.batch_size={batch_size}", f"logging.run_dir={run_dir}"]


def torchrun(num_processes: int, *command: object) -> list[str]:
    """The command under torchrun, as its documentation writes it."""
    start = [str(REPO / ".venv/bin/python"), "-m", "torch.distributed.run", f"--nproc-per-node={num_processes}"]
    return [*start, f"--master-port={free_port()}", "--no-python", *map(str, command)]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def rank_variables(rank: int, size: int, port: int) -> dict[str, str]:
    """The environment of one process, as torchrun sets it."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    return os.environ | {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "127.0.0.1"}


def start_ranks(
    *commands: list[str],
    size: int | None = None,
    port: int | None = None,
    first: int = 0,
    **environment: dict[str, str],
) -> list[subprocess.Popen]:
    """One process for each command, as a cluster's own launcher starts them, from the rank `first` on. `rank0={…}` is more of the environment of
    that rank, and `all={…}` of each."""
    size, port = size or len(commands), port or free_port()
    return [
        subprocess.Popen(
            command,
            cwd=REPO,
            env=rank_variables(rank, size, port) | environment.get("all", {}) | environment.get(f"rank{rank}", {}),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank, command in enumerate(commands, first)
    ]


def end_of(processes: list[subprocess.Popen], within: float = 120) -> tuple[list[int], list[str]]:
    """Exit codes and standard errors of processes that end within the time; none of them is left behind."""
    deadline = time.monotonic() + within
    try:
        texts = [process.communicate(timeout=max(0.1, deadline - time.monotonic()))[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], texts


def processes_of(launcher: subprocess.Popen, size: int = 2) -> list[int]:
    """Ids of the processes that `num_processes` has started, by rank; empty until all are there."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    ranks = {}
    for pid in map(int, children):
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        ranks |= {int(text[5:]): pid for text in variables if text.startswith(b"RANK=")}
    return [ranks[rank] for rank in range(size)] if len(ranks) == size else []


def send(pid: int, name: str) -> None:
    os.kill(pid, getattr(signal, name))


def losses(run_dir: Path) -> dict[int, dict[str, float]]:
    """Losses by step."""
    return {
        step: {key: value for key, value in values.items() if key.endswith("loss")}
        for step, values in results(run_dir).items()
    }


# Each sample with another one of its batch: one that the same process has.
WITHIN_PARTS = re.compile(r"val/(permuted_latent_\w+|\w+_(permuted_ratio|code_gain)|latent_transfer\w*)")


def results(run_dir: Path) -> dict[int, dict[str, float]]:
    """Losses of the training, and what validations measure, by step."""
    found: dict[int, dict[str, float]] = {}
    for line in read_metrics(run_dir):
        values = {
            key: value
            for key, value in line.items()
            if key.endswith("loss") or (key.startswith("val/") and not WITHIN_PARTS.fullmatch(key))
        }
        found.setdefault(line["step"], {}).update(values)
    return found


def weights(run_dir: Path) -> dict[str, np.ndarray]:
    name = (run_dir / "checkpoints/last").read_text().strip()
    return load_file(run_dir / "checkpoints" / name / "model.safetensors")


def assert_equal_runs(
    run_dir: Path, reference: Path, keys: tuple[str, ...] = ("train/", "val/"), tolerance: float = TOLERANCE
) -> None:
    """Losses of every step, validations, and weights at the end agree within the tolerance."""
    ours, theirs = results(run_dir), results(reference)
    assert ours.keys() == theirs.keys()
    for step, values in theirs.items():
        assert ours[step].keys() == values.keys(), step
        for key in (key for key in values if key.startswith(keys)):
            allowed, least = tolerance * (TRAINED if "_network_" in key else 1), 1 if key.endswith(OF_ONE) else 1e-3
            assert abs(ours[step][key] - values[key]) <= allowed * max(abs(values[key]), least), (step, key)
    ours, theirs = weights(run_dir), weights(reference)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        difference = np.linalg.norm((ours[name] - tensor).astype(np.float64))
        assert difference <= tolerance * max(np.linalg.norm(tensor.astype(np.float64)), 1e-3), name


def trainer(name: str, *words: object) -> list[str]:
    """The command line of a training program itself, as torchrun and srun start it."""
    return [program(name), *map(str, words)]
