"""A run that is killed and resumed is the run that was never killed, to the last bit."""

import os
import signal

import pytest
from conftest import MINI, read_metrics, run, train_laq_command
from interruption import INTERRUPTED, assert_same_run, freeze, kill, last_step, start, wait_for


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 4])
def test_kill_at_several_steps(tmp_path, uninterrupted, num_workers):
    run_dir = tmp_path / "run"
    words = [*MINI, f"logging.run_dir={run_dir}", f"data.loader.num_workers={num_workers}"]
    for kill_at in (2, 7, 13, 20):
        process = start(train_laq_command(*words))
        wait_for(process, lambda at=kill_at: last_step(run_dir) >= at)
        kill(process)
        words = ["--resume", run_dir] if (run_dir / "checkpoints" / "last").exists() else words
        if "--resume" not in words:  # killed before the first checkpoint: nothing to resume, the run starts anew
            run_dir = tmp_path / f"run-after-{kill_at}"
            words = [*MINI, f"logging.run_dir={run_dir}", f"data.loader.num_workers={num_workers}"]
    result = run(train_laq_command("--resume", run_dir))
    assert result.returncode == 0, result.stderr
    assert_same_run(run_dir, uninterrupted)


def test_kill_in_the_middle_of_clips(tmp_path):
    words = [*MINI, "data.loader.anchors_per_clip=4"]
    reference, run_dir = tmp_path / "reference", tmp_path / "run"
    assert run(train_laq_command(*words, f"logging.run_dir={reference}")).returncode == 0
    process = start(train_laq_command(*words, f"logging.run_dir={run_dir}"))
    wait_for(process, lambda: last_step(run_dir) >= 7)
    kill(process)
    result = run(train_laq_command("--resume", run_dir, "data.loader.num_workers=4"))
    assert result.returncode == 0, result.stderr
    assert_same_run(run_dir, reference)


def test_kill_in_the_middle_of_a_checkpoint_write(tmp_path, uninterrupted):
    run_dir = tmp_path / "run"
    checkpoints = run_dir / "checkpoints"

    def half_written() -> bool:
        names = set(os.listdir(checkpoints)) if checkpoints.exists() else set()
        finished = {name for name in names if name.startswith("step-")}
        return len(finished) >= 2 and not names <= finished | {"last", "best"}

    process = start(train_laq_command(*MINI, "training.checkpoint.every_n_steps=1", f"logging.run_dir={run_dir}"))
    freeze(process, half_written)
    kill(process)
    assert half_written()

    result = run(train_laq_command("--resume", run_dir))
    assert result.returncode == 0, result.stderr
    assert_same_run(run_dir, uninterrupted)


@pytest.mark.parametrize(
    "name", ["SIGTERM", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGINT", "SIGUSR1"))]
)
def test_signals_checkpoint_and_exit_with_their_own_code(tmp_path, uninterrupted, name):
    run_dir = tmp_path / "run"
    process = start(train_laq_command(*MINI, f"logging.run_dir={run_dir}"))
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
