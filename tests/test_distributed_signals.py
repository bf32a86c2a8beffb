"""What ends several processes from outside: a signal to one of them, or to the program that started them, or its end."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import REPO, run
from failing_ranks import LONG, command, started
from interruption import INTERRUPTED, OF_TERMINAL, UNDER_NOHUP, last_step, wait_for
from ranks import end_of, free_port, processes_of, send, start_ranks, torchrun, trainer


def is_gone(pid: int) -> bool:
    """Whether that process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def launched(run_dir: Path, temporary: Path, *words: object, how=OF_TERMINAL) -> subprocess.Popen:
    """The program that starts two processes, with that folder of temporary files."""
    temporary.mkdir()
    return subprocess.Popen(
        [*how, *command(run_dir, "num_processes=2", *words, of=LONG)],
        cwd=REPO,
        env=os.environ | {"TMPDIR": str(temporary)},
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize(
    ("rank", "size"),
    [(0, 2), (1, 2), pytest.param(2, 4, marks=pytest.mark.slow)],  # four processes share two cores
)
def test_a_signal_to_one_process_stops_all_at_the_same_step(tmp_path, rank, size):
    run_dir = tmp_path / "run"
    process, ranks = started(run_dir, "training.checkpoint.every_n_steps=100000", size=size)
    send(ranks[rank], "SIGUSR1")
    _, text = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED and "error:" not in text, text
    (checkpoint,) = (run_dir / "checkpoints").glob("step-*")
    assert checkpoint.name == f"step-{last_step(run_dir):06}"


@pytest.mark.parametrize("at", [None, 0, 7])
def test_no_process_survives_the_one_that_started_it(tmp_path, at):
    """Killed as soon as both exist, at the first sign of the run, and in training: then they save their work. No file of theirs is left."""
    run_dir, temporary = tmp_path / "run", tmp_path / "temporary"
    launcher = launched(run_dir, temporary)
    wait_for(launcher, lambda: processes_of(launcher))
    ranks = processes_of(launcher)
    if at is not None:
        wait_for(launcher, lambda: run_dir.exists() and last_step(run_dir) >= at)
    launcher.kill()
    deadline = time.monotonic() + 30
    try:
        while not all(map(is_gone, ranks)):
            assert time.monotonic() < deadline, "they go on without it"
            time.sleep(0.05)
    finally:
        for pid in ranks:
            if not is_gone(pid):
                send(pid, "SIGKILL")
    _, text = launcher.communicate(timeout=30)
    assert "error:" not in text and list(temporary.iterdir()) == [], text
    if at == 7:
        assert (run_dir / "checkpoints/last").read_text() == f"step-{last_step(run_dir):06}\n"
    if at is None:
        assert not run_dir.exists()


def test_a_closed_terminal_is_a_request_to_save(tmp_path):
    run_dir = tmp_path / "run"
    launcher = launched(run_dir, tmp_path / "temporary", "training.checkpoint.every_n_steps=100000")
    wait_for(launcher, lambda: last_step(run_dir) >= 3)
    send(launcher.pid, "SIGHUP")
    codes, [text] = end_of([launcher], within=60)
    assert codes == [INTERRUPTED] and "error:" not in text, text
    assert (run_dir / "checkpoints/last").read_text() == f"step-{last_step(run_dir):06}\n"


def test_under_nohup_a_closed_terminal_changes_nothing(tmp_path):
    run_dir = tmp_path / "run"
    launcher = launched(run_dir, tmp_path / "temporary", how=UNDER_NOHUP)
    wait_for(launcher, lambda: last_step(run_dir) >= 3)
    for pid in [launcher.pid, *processes_of(launcher)]:
        send(pid, "SIGHUP")
    step = last_step(run_dir)
    wait_for(launcher, lambda: last_step(run_dir) >= step + 5)
    send(launcher.pid, "SIGTERM")
    codes, [text] = end_of([launcher], within=60)
    assert codes == [INTERRUPTED], text


def catches(pid: int, name: str) -> bool:
    """Whether that process does something of its own on that signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
    return bool(int(mask, 16) >> (getattr(signal, name) - 1) & 1)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_process_as_soon_as_it_has_started_ends_all(tmp_path, rank):
    """Before they have met."""
    run_dir = tmp_path / "run"
    processes = start_ranks(*[command(run_dir, timeout=600)] * 2)
    for process in processes:
        wait_for(process, lambda one=process: catches(one.pid, "SIGTERM"))
    send(processes[rank].pid, "SIGTERM")
    codes, texts = end_of(processes, within=30)
    assert codes == [INTERRUPTED] * 2 and "error:" not in "".join(texts) and not run_dir.exists(), texts


def test_a_process_that_comes_late_hears_of_the_signal(tmp_path):
    run_dir, port = tmp_path / "run", free_port()
    line = command(run_dir, timeout=600)
    processes = start_ranks(*[line] * 2, size=3, port=port)
    for process in processes:
        wait_for(process, lambda one=process: catches(one.pid, "SIGTERM"))
    send(processes[1].pid, "SIGTERM")
    assert processes[1].wait(timeout=30) == INTERRUPTED
    late = start_ranks(line, size=3, port=port, first=2)
    codes, texts = end_of([*processes, *late], within=30)
    assert codes == [INTERRUPTED] * 3 and "error:" not in "".join(texts) and not run_dir.exists(), texts
    assert texts[0].count("rank 1: interrupted before there was anything to save") == 1, texts


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_process_before_training_ends_all(tmp_path, rank):
    """While one builds the cache of frames and the other waits for it."""
    run_dir, cache = tmp_path / "run", tmp_path / "cache"
    words = ["data.cache.enabled=true", f"data.cache.dir={cache}", "model.image_size=128", "model.patch_size=16"]
    processes = start_ranks(*[command(run_dir, *words, of=LONG, timeout=60)] * 2)
    wait_for(processes[rank], lambda: list(cache.glob("*.partial")))
    send(processes[rank].pid, "SIGTERM")
    codes, texts = end_of(processes, within=120)
    assert codes == [INTERRUPTED] * 2 and "error:" not in "".join(texts), texts
    assert "interrupted before there was anything to save" in texts[0] and not run_dir.exists(), texts


@pytest.mark.slow  # torchrun and two starts
def test_torchrun_starts_a_run_again_where_it_resumes(tmp_path):
    """Its `--max-restarts` repeats the command, so the command must be one that can be repeated."""
    run_dir = tmp_path / "run"
    result = run(torchrun(2, *command(run_dir)))
    assert result.returncode == 0, result.stderr
    shutil.rmtree(run_dir / "checkpoints/step-000015")
    (run_dir / "checkpoints/last").write_text("step-000010\n")
    *start, no_python = torchrun(2)
    line = [*start, "--max-restarts=1", no_python, *trainer("hlrp-train-laq", "--resume", run_dir)]
    process = subprocess.Popen(line, cwd=REPO, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for(process, lambda: processes_of(process))
    send(processes_of(process)[1], "SIGKILL")
    _, text = process.communicate(timeout=120)
    assert process.returncode == 0, text
    assert last_step(run_dir) == 15
