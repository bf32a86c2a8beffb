"""Runs of several processes that end before their time."""

import subprocess
from pathlib import Path

from conftest import MINI
from interruption import last_step, start, wait_for
from ranks import EXACT, processes_of, trainer

# 15 steps with a checkpoint every five.
FIFTEEN_STEPS = [
    *MINI,
    *EXACT,
    "training.max_steps=15",
    "data.loader.num_workers=1",
    "model.quantizer.nsvq.refresh_schedule=[]",
]
# A run that lasts until it is interrupted.
LONG = [*FIFTEEN_STEPS, "training.max_steps=100000", "validation.check_interval=100000", "training.log_every_n_steps=1"]
# A process that is gone or hangs is noticed after this.
TIMEOUT = 5
# How long a process without a sign, or a store without an answer, is waited for.
SILENCE = 5


def command(run_dir: Path, *words: object, of=FIFTEEN_STEPS, timeout: int = TIMEOUT) -> list[str]:
    watched = f"training.distributed.timeout_s={timeout}"
    return trainer("hlrp-train-laq", *of, watched, f"logging.run_dir={run_dir}", *words)


def started(run_dir: Path, *words: object, at: int = 7, size: int = 2) -> tuple[subprocess.Popen, list[int]]:
    """A run of several processes on one machine that has done some steps, and the processes by rank."""
    process = start(command(run_dir, f"num_processes={size}", *words, of=LONG))
    wait_for(process, lambda: last_step(run_dir) >= at)
    return process, processes_of(process, size)
