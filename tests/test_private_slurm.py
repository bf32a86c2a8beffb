"""The Slurm that the tests start for themselves (`support/private_slurm.py`)."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import private_slurm
import pytest

START = """
from pathlib import Path
from private_slurm import PrivateSlurm
import sys, time
slurm = PrivateSlurm(Path(sys.argv[1]))
job = slurm.submit("sleep 600", "--mem=1G", "--output=/dev/null")
slurm.wait_for(job, "RUNNING")
print("ready", flush=True)
time.sleep(600)
"""


def processes_of(folder: Path) -> set[str]:
    """Names of the processes that were started with a Slurm's configuration, its jobs included."""
    names = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            traces = process.joinpath("cmdline").read_bytes() + process.joinpath("environ").read_bytes()
            if f"{folder}/".encode() in traces:
                names.add(process.joinpath("comm").read_text().strip())
        except OSError:  # it has ended, or is another user's
            continue
    return names


def test_it_runs_a_job_with_pretended_gpus(slurm, tmp_path):
    assert set(slurm.output("sinfo", "-h", "-N", "-p", "lrz-cpu", "-o", "%N").split()) == {"n1", "n2"}
    script = 'echo "gpus $CUDA_VISIBLE_DEVICES on $SLURM_JOB_NODELIST"'
    job = slurm.submit(script, "--gres=gpu:2", "--mem=1G", f"--output={tmp_path}/out")
    assert slurm.wait_for(job) == "COMPLETED"
    assert re.fullmatch(r"gpus \d,\d on n[12]\n", (tmp_path / "out").read_text())


@pytest.mark.slow  # a start of its own for each
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_it_ends_with_the_tests_however_they_end(tmp_path, end):
    """A Slurm that outlives an interrupted pytest would run on for days."""
    support = Path(private_slurm.__file__).parent
    command = [sys.executable, "-c", START, str(tmp_path / "slurm")]
    environment = os.environ | {"PYTHONPATH": str(support)}
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert owner.stdout.readline() == "ready\n"
    assert {"slurmctld", "slurmd", "munged", "slurmstepd", "sleep"} <= processes_of(tmp_path)
    owner.send_signal(end)
    owner.wait()
    deadline = time.monotonic() + 60
    while running := processes_of(tmp_path):
        assert time.monotonic() < deadline, running
        time.sleep(0.2)
