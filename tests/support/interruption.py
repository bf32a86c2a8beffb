"""Runs that are interrupted, and how to tell that nothing was lost."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import REPO, read_metrics, run, train_laq_command
from safetensors.numpy import load_file

# Exit code of a run that a signal stopped.
INTERRUPTED = 75


# How a terminal starts programs, whatever started the tests, and how `nohup` does.
OF_TERMINAL = ["env", "--default-signal=HUP"]
UNDER_NOHUP = ["env", "--ignore-signal=HUP"]


def start(command: list[str]) -> subprocess.Popen:
    command = [*OF_TERMINAL, *command]
    return subprocess.Popen(command, cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def last_step(run_dir: Path) -> int:
    """Newest step in `metrics.jsonl`; 0 before the first."""
    try:
        return max((line["step"] for line in read_metrics(run_dir)), default=0)
    except (FileNotFoundError, ValueError):  # not there yet, or a line half written
        return 0


def wait_for(process: subprocess.Popen, condition) -> None:
    """Polls `condition` until it holds; fails when the program ends before."""
    while not condition():
        if process.poll() is not None:
            pytest.fail(f"the run ended before it could be interrupted: {process.stderr.read()}")
        time.sleep(0.0002)


def freeze(process: subprocess.Popen, condition) -> None:
    """Stops the program, all its threads, at a moment when `condition` holds."""
    while True:
        wait_for(process, condition)
        os.kill(process.pid, signal.SIGSTOP)
        while Path(f"/proc/{process.pid}/stat").read_text().rsplit(") ", 1)[1][0] not in "TZ":
            time.sleep(0.0002)
        if condition():
            return
        os.kill(process.pid, signal.SIGCONT)


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def assert_resumes_exactly(folder: Path, words: list[str]) -> None:
    """A run of stage 1 that is stopped after six steps and resumed is the uninterrupted one."""
    reference, run_dir = folder / "reference", folder / "run"
    result = run(train_laq_command(*words, f"logging.run_dir={reference}"))
    assert result.returncode == 0, result.stderr
    process = start(train_laq_command(*words, f"logging.run_dir={run_dir}"))
    wait_for(process, lambda: last_step(run_dir) >= 6)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == INTERRUPTED
    result = run(train_laq_command("--resume", run_dir, "data.loader.num_workers=4"))
    assert result.returncode == 0, result.stderr
    assert_same_run(run_dir, reference)


def assert_same_run(run_dir: Path, reference: Path, checkpoint: str = "step-000024") -> None:
    """Metrics, weights and optimizer state agree to the last bit."""
    assert read_metrics(run_dir) == read_metrics(reference)
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert_same_tensors(run_dir / "checkpoints" / checkpoint / file, reference / "checkpoints" / checkpoint / file)


def assert_same_tensors(ours: Path, theirs: Path) -> None:
    ours_by_name, theirs_by_name = load_file(ours), load_file(theirs)
    assert ours_by_name.keys() == theirs_by_name.keys()
    differing = [name for name, tensor in theirs_by_name.items() if not (ours_by_name[name] == tensor).all()]
    assert not differing, f"{ours} differs from {theirs} in {differing}"
