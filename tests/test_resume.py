"""A run that is killed and resumed is the run that was never killed, to the last bit."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import MINI, REPO, read_metrics, run, train_laq_command
from safetensors.numpy import load_file

INTERRUPTED = 75


def start(*words: object) -> subprocess.Popen:
    return subprocess.Popen(
        train_laq_command(*words), cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


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


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def assert_same_run(run_dir: Path, reference: Path) -> None:
    assert read_metrics(run_dir) == read_metrics(reference)
    for file in ("model.safetensors", "optimizer.safetensors"):
        ours = load_file(run_dir / "checkpoints" / "step-000024" / file)
        theirs = load_file(reference / "checkpoints" / "step-000024" / file)
        assert ours.keys() == theirs.keys()
        assert all((ours[name] == theirs[name]).all() for name in theirs), f"{file} differs"


@pytest.mark.parametrize("num_workers", [1, 4])
def test_kill_at_several_steps(tmp_path, uninterrupted, num_workers):
    run_dir = tmp_path / "run"
    words = [*MINI, f"logging.run_dir={run_dir}", f"data.loader.num_workers={num_workers}"]
    for kill_at in (2, 7, 13, 20):
        process = start(*words)
        wait_for(process, lambda at=kill_at: last_step(run_dir) >= at)
        kill(process)
        words = ["--resume", run_dir] if (run_dir / "checkpoints" / "last").exists() else words
        if "--resume" not in words:  # killed before the first checkpoint: nothing to resume, the run starts anew
            run_dir = tmp_path / f"run-after-{kill_at}"
            words = [*MINI, f"logging.run_dir={run_dir}", f"data.loader.num_workers={num_workers}"]
    result = run(train_laq_command("--resume", run_dir))
    assert result.returncode == 0, result.stderr
    assert_same_run(run_dir, uninterrupted)


def test_kill_in_the_middle_of_a_checkpoint_write(tmp_path, uninterrupted):
    run_dir = tmp_path / "run"
    checkpoints = run_dir / "checkpoints"

    def finished() -> set[str]:
        return {name for name in os.listdir(checkpoints) if name.startswith("step-")} if checkpoints.exists() else set()

    def half_written() -> bool:
        if not checkpoints.exists():
            return False
        names = set(os.listdir(checkpoints))
        return len(finished()) >= 2 and any(name not in finished() | {"last", "best"} for name in names)

    process = start(*MINI, f"logging.run_dir={run_dir}")
    wait_for(process, half_written)
    kill(process)
    assert half_written(), "the kill came too late to hit the write"

    result = run(train_laq_command("--resume", run_dir))
    assert result.returncode == 0, result.stderr
    assert_same_run(run_dir, uninterrupted)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_signals_checkpoint_and_exit_with_their_own_code(tmp_path, uninterrupted, name):
    run_dir = tmp_path / "run"
    process = start(*MINI, f"logging.run_dir={run_dir}")
    wait_for(process, lambda: last_step(run_dir) >= 7)
    process.send_signal(getattr(signal, name))
    assert process.wait(timeout=60) == INTERRUPTED
    step = int((run_dir / "checkpoints" / "last").read_text().removeprefix("step-"))
    assert step == last_step(run_dir), "the checkpoint is of the last step taken"

    result = run(train_laq_command("--resume", run_dir))
    assert result.returncode == 0, result.stderr
    assert_same_run(run_dir, uninterrupted)


def test_two_runs_with_one_seed_are_equal_and_other_seeds_are_not(tmp_path, uninterrupted):
    again, other = tmp_path / "again", tmp_path / "other"
    assert run(train_laq_command(*MINI, f"logging.run_dir={again}")).returncode == 0
    assert run(train_laq_command(*MINI, f"logging.run_dir={other}", "seed=7")).returncode == 0
    assert_same_run(again, uninterrupted)
    assert read_metrics(other) != read_metrics(uninterrupted)
