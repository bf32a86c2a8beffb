"""Runs of several processes that end before their time, and how they end."""

import subprocess
import time
from pathlib import Path

from conftest import MINI
from ranks import EXACT, trainer

# 15 steps, with a checkpoint every five.
SHORT = [
    *MINI,
    *EXACT,
    "training.max_steps=15",
    "data.loader.num_workers=1",
    "model.quantizer.nsvq.refresh_schedule=[]",
]
# A run that lasts until it is interrupted.
LONG = [*SHORT, "training.max_steps=100000", "validation.check_interval=100000", "training.log_every_n_steps=1"]
# A process that is gone or hangs is noticed after this.
TIMEOUT = 5
# How long a process without a sign, or a store without an answer, is waited for.
SILENCE = 5


def command(run_dir: Path, *words: object, of=SHORT, timeout: int = TIMEOUT) -> list[str]:
    watched = f"training.distributed.timeout_s={timeout}"
    return trainer("hlrp-train-laq", *of, watched, f"logging.run_dir={run_dir}", *words)


def end_of(processes: list[subprocess.Popen], within: float) -> tuple[list[int], list[str]]:
    """Exit codes and standard errors of processes that end within the time; none of them is left behind."""
    deadline = time.monotonic() + within
    try:
        texts = [process.communicate(timeout=max(0.1, deadline - time.monotonic()))[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], texts
