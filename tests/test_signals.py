"""A signal takes effect within a second, whatever the program is doing: no finished work is lost, and a resumed run continues as if it had not come."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import MINI, REPO, run, train_laq_command
from interruption import INTERRUPTED, assert_same_run, last_step, start, wait_for

# What may pass between a signal and the end of a program that had nothing to save, on a busy machine.
SOON = 3.0


def ended_after(process: subprocess.Popen, *signals: signal.Signals) -> tuple[int, float]:
    """Exit code and seconds after the signals."""
    began = time.monotonic()
    for number in signals:
        process.send_signal(number)
        time.sleep(0.05)
    return process.wait(timeout=60), time.monotonic() - began


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"])
def test_a_run_that_builds_its_cache_ends_at_once(tmp_path, name):
    """There is nothing to save, no run directory is made, and the next build continues where this one was."""
    cache = tmp_path / "cache"
    words = [*MINI, "data.cache.enabled=true", f"data.cache.dir={cache}", "data.loader.num_workers=1"]
    words += ["model.image_size=128", "model.patch_size=16", f"logging.run_dir={tmp_path / 'run'}"]
    process = start(train_laq_command(*words))
    wait_for(process, lambda: list(cache.glob("*.partial")))
    time.sleep(0.3)
    code, seconds = ended_after(process, getattr(signal, name))
    assert (code, list(cache.glob("*.frames"))) == (INTERRUPTED, []), process.stderr.read()
    assert seconds < SOON and not (tmp_path / "run").exists()
    assert "run it again" in process.stderr.read()
    result = run(train_laq_command(*words, "training.max_steps=4"))
    assert result.returncode == 0, result.stderr


# A validation of minutes.
LONG = ["validation.limit_batches=null", "data.loader.batch_size=1", "data.sources.metaworld_mt5.num_val_episodes=20"]


def test_a_validation_that_is_interrupted_is_repeated(tmp_path):
    words = [*MINI, "training.max_steps=12", "validation.check_interval=8", "validation.limit_batches=40"]
    reference, run_dir = tmp_path / "reference", tmp_path / "run"
    assert run(train_laq_command(*words, f"logging.run_dir={reference}")).returncode == 0
    process = start(train_laq_command(*words, *LONG[:1], f"logging.run_dir={run_dir}"))
    wait_for(process, lambda: last_step(run_dir) >= 8)
    time.sleep(0.2)
    code, seconds = ended_after(process, signal.SIGUSR1, signal.SIGTERM)
    assert code == INTERRUPTED and seconds < SOON, process.stderr.read()
    checkpoints = run_dir / "checkpoints"
    assert (checkpoints / "last").read_text() == "step-000008\n" and not (checkpoints / "best").exists()
    assert '"score": null' in (checkpoints / "step-000008/checkpoint.json").read_text()

    result = run(train_laq_command("--resume", run_dir, "validation.limit_batches=40"))
    assert result.returncode == 0, result.stderr
    assert_same_run(run_dir, reference, "step-000012")
    assert (checkpoints / "best").read_text() == (reference / "checkpoints/best").read_text()


def test_a_signal_before_the_last_validation_loses_nothing(tmp_path):
    """The steps are done, their validation is not: a resumed run does it and finishes."""
    words = [*MINI, "training.max_steps=6", "validation.check_interval=6", *LONG, "training.scheduler.warmup_steps=1"]
    run_dir = tmp_path / "run"
    process = start(train_laq_command(*words, f"logging.run_dir={run_dir}"))
    wait_for(process, lambda: last_step(run_dir) >= 6)
    time.sleep(0.2)
    code, _ = ended_after(process, signal.SIGTERM)
    assert code == INTERRUPTED, process.stderr.read()
    result = run(train_laq_command("--resume", run_dir, "validation.limit_batches=2"))
    assert result.returncode == 0, result.stderr
    assert "val/loss" in (run_dir / "metrics.jsonl").read_text() and (run_dir / "checkpoints/best").exists()


def test_readme_and_docs_say_what_signals_do():
    for page in ["README.md", "docs/checkpoints.md"]:
        text = " ".join((Path(REPO) / page).read_text().split())
        assert "within a second" in text and "second SIGINT" in text, page
