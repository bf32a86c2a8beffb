"""Commands of `hlrp jobs` and jobs for them, for the tests."""

import json
import os
import pty
import subprocess
import time
from pathlib import Path

from conftest import program
from private_slurm import PrivateSlurm

# A command of Slurm that does not know a job.
UNKNOWN_JOB = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"


def jobs(slurm: PrivateSlurm, *words: object, **kwargs) -> subprocess.CompletedProcess:
    """Runs `hlrp jobs …`."""
    return slurm.run(program("hlrp"), "jobs", *words, **kwargs)


def printed(slurm: PrivateSlurm, *words: object, **kwargs) -> str:
    """What `hlrp jobs …` prints; it must succeed."""
    result = jobs(slurm, *words, **kwargs)
    assert result.returncode == 0, result.stderr
    return result.stdout


def as_json(slurm: PrivateSlurm, *words: object):
    """What `hlrp jobs … --json` prints."""
    return json.loads(printed(slurm, *words, "--json"))


def submit(slurm: PrivateSlurm, script: str, run_dir: Path, *options: str, token: str = "hlrp:0123456789abcdef") -> str:
    """A job as `hlrp submit` makes them: its comment has a token, and its output is in the run's directory."""
    (run_dir / "submit").mkdir(parents=True, exist_ok=True)
    files = [f"--output={run_dir}/%j.out", f"--error={run_dir}/%j.err", "--open-mode=append"]
    return slurm.submit(script, f"--comment={token} lrz_x100", "--mem=1G", *files, *options)


def fake_commands(folder: Path, **scripts: str) -> str:
    """A PATH on which some of Slurm's commands are shell scripts."""
    folder.mkdir(exist_ok=True)
    for name, script in scripts.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def wait_for_text(path: Path, text: str) -> None:
    """Waits until a file has a text."""
    for _ in range(600):
        if path.exists() and text in path.read_text():
            return
        time.sleep(0.1)
    raise AssertionError(f"{text!r} is not in {path}")


def on_terminal(slurm: PrivateSlurm, *words: str, answer: str | None = None) -> tuple[str, int]:
    """Runs `hlrp jobs …` on a terminal and types an answer; returns what it shows, and the exit code."""
    ours, theirs = pty.openpty()
    command = [program("hlrp"), "jobs", *words]
    child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=slurm.env())
    os.close(theirs)
    if answer is not None:
        os.write(ours, answer.encode())
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the terminal's other side is closed
            break
    os.close(ours)
    return shown.decode(), child.wait(timeout=60)
