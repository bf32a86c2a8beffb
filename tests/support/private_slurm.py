"""A Slurm of the tests' own: daemons on loopback, everything in one folder, stopped at the end whatever happens."""

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent / "slurm"
PROGRAMS = ["slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol", "scancel"]
# States in which a job is over.
OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY"}


class PrivateSlurm:
    """A running Slurm in `folder`, with nodes n1..nN of 96 cores, 768 GB and 8 pretended GPUs and the partitions of `config/cluster`."""

    def __init__(self, folder: Path, *options: object):
        missing = [name for name in PROGRAMS if find(name) is None]
        assert not missing, f"{missing} are not installed: run scripts/setup.sh"
        self.folder = folder
        self.conf = folder / "etc" / "slurm.conf"
        command = [str(SCRIPTS / "up.sh"), str(folder), *map(str, options), "--owner", str(os.getpid())]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=self.env())
        assert result.returncode == 0, result.stderr

    def stop(self) -> None:
        """Ends the daemons and the jobs."""
        subprocess.run([str(SCRIPTS / "down.sh"), str(self.folder)], check=True, timeout=120)

    def env(self, **more: str) -> dict[str, str]:
        """The environment in which Slurm's commands and `hlrp` meet this Slurm."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        return environment | {"PATH": path, "SLURM_CONF": str(self.conf)} | more

    def run(self, *command: object, **kwargs) -> subprocess.CompletedProcess:
        """Runs a command as a user of this Slurm and keeps what it prints."""
        kwargs.setdefault("env", self.env())
        return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600, **kwargs)

    def output(self, *command: object) -> str:
        """What a command prints; it must succeed."""
        result = self.run(*command)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def submit(self, script: str, *options: object) -> str:
        """Submits a line or more of bash and returns the job's id."""
        self.folder.joinpath("scripts").mkdir(exist_ok=True)
        path = self.folder / "scripts" / f"{time.time_ns()}.sh"
        path.write_text(f"#!/bin/bash\n{script}\n")
        return (
            self.output("sbatch", "--parsable", f"--output={self.folder}/scripts/%j.out", *options, path)
            .strip()
            .split(";")[0]
        )

    def state(self, job: str) -> str:
        """A job's state, by the controller."""
        text = self.output("scontrol", "show", "job", job)
        return text.split("JobState=")[1].split()[0]

    def wait_for(self, job: str, *states: str, timeout: float = 60) -> str:
        """Waits until a job is in one of the states; without any, until it is over. Returns the state."""
        wanted = set(states) or OVER
        end = time.monotonic() + timeout
        while (state := self.state(job)) not in wanted:
            assert time.monotonic() < end, f"job {job} is {state} after {timeout} s, not {wanted}"
            time.sleep(0.1)
        return state

    def ids(self) -> set[str]:
        """Ids of the jobs that are not over."""
        return set(self.output("squeue", "--noheader", "--format=%A").split())


def find(name: str) -> str | None:
    """Path of a program, also of one for administrators."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def container_flags(folder: Path) -> Path:
    """Builds the stand-in for Pyxis, a SPANK plugin with its flags; for `--plugstack="required <path>"`."""
    plugin = folder / "container_flags.so"
    command = ["gcc", "-shared", "-fPIC", str(SCRIPTS / "container_flags.c"), "-o", str(plugin)]
    subprocess.run(command, check=True, timeout=120)
    return plugin


def start(folder: Path, *options: object):
    """For fixtures: a Slurm that is stopped at the end."""
    slurm = PrivateSlurm(folder, *options)
    try:
        yield slurm
    finally:
        slurm.stop()


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """One Slurm of two nodes for all tests, without accounting."""
    yield from start(tmp_path_factory.mktemp("slurm"), "--nodes", 2)


@pytest.fixture(scope="session")
def slurm_of_two_hosts(tmp_path_factory):
    """A Slurm whose nodes n1 and n2 are hosts with names, addresses and network interfaces of their own; needs root."""
    assert os.geteuid() == 0, "network namespaces need root"

    def hosts(action: str) -> None:
        subprocess.run([str(SCRIPTS / "netns_hosts.sh"), action, "2"], check=True, timeout=60)

    with open(Path(tempfile.gettempdir()) / "hlrp_netns.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a machine has one such pair
        hosts("down")  # that of a run of tests that was killed
        hosts("up")
        try:
            yield from start(tmp_path_factory.mktemp("slurm_of_two_hosts"), "--nodes", 2, "--netns")
        finally:
            hosts("down")


@pytest.fixture(scope="session")
def slurm_with_accounting(tmp_path_factory):
    """The Slurm `lrz` with slurmdbd and MariaDB, for sacct and -M; takes ten seconds to start."""
    yield from start(tmp_path_factory.mktemp("slurm_with_accounting"), "--nodes", 1, "--accounting")


@pytest.fixture(scope="session")
def second_slurm(tmp_path_factory, slurm_with_accounting):
    """The Slurm `mcml` at the same site, for -M."""
    options = ["--nodes", 1, "--cluster", "mcml", "--dbd", slurm_with_accounting.folder]
    yield from start(tmp_path_factory.mktemp("second_slurm"), *options)
