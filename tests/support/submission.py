"""Submissions of the tests: clusters named as the site's, on the tests' own Slurm, without containers."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from conftest import MINI, REPO, program


def on_cluster(root: Path, *, gpus: int = 0) -> list[str]:
    """Overrides that bring an option of `cluster` to the tests' Slurm; everything is written below `root`."""
    return [
        f"cluster.storage_root={root}",
        f"cluster.allowed_roots=[{root}]",
        "cluster.login_nodes=[]",
        "cluster.container.runtime=none",
        f"cluster.compute.gpus_per_node={gpus}",
        "cluster.compute.cpus_per_task=1",
        "device=cpu",
        "num_threads=1",
    ]


def submit(slurm, root: Path, *overrides: object, hlrp: str | None = None, **kwargs) -> subprocess.CompletedProcess:
    """`hlrp submit` of the mini model."""
    words = [hlrp or program("hlrp"), "submit", *MINI, *on_cluster(root), *map(str, overrides)]
    env = kwargs.pop("env", None) or (slurm.env() if slurm else None)
    return subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=kwargs.pop("cwd", REPO), env=env)


def job_ids(run_dir: Path) -> list[str]:
    """Ids of the jobs of a run, in the order in which they were queued."""
    records = [json.loads(path.read_text()) for path in sorted((run_dir / "submit").rglob("jobs/*.json"))]
    in_order = sorted(records, key=lambda record: (record["at"], [int(part) for part in record["id"].split("_")]))
    return [record["id"] for record in in_order]


def stub_programs(folder: Path, payload: str) -> str:
    """A copy of `hlrp` beside a stand-in for the trainer: a script with `payload` as its body. Returns the path of the copy."""
    folder.mkdir(parents=True)
    shutil.copy(program("hlrp"), folder / "hlrp")
    stub = folder / "hlrp-train-laq"
    stub.write_text(f"#!/usr/bin/env bash\n{payload}\n")
    stub.chmod(0o755)
    return str(folder / "hlrp")


def stand_in(env: dict[str, str], folder: Path, name: str, script: str) -> dict[str, str]:
    """The environment in which the program `name` is `script`, which is written into `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(script)
    (folder / name).chmod(0o755)
    return env | {"PATH": f"{folder}:{env['PATH']}"}


def wait_until(what, seconds: float = 60):
    """Waits for something to be true and returns it."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"still not after {seconds} s"
        time.sleep(0.1)
    return found


def shellcheck(text: str) -> None:
    """A script has no findings of shellcheck."""
    found = shutil.which("shellcheck", path=f"{REPO}/.venv/bin:{os.environ['PATH']}")
    assert found, "shellcheck is not installed: run scripts/setup.sh"
    result = subprocess.run([found, "-"], input=text, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout


def inventory(root: Path) -> dict[str, float]:
    """Every path below a folder with its time of change."""
    return {str(path): path.lstat().st_mtime for path in sorted(root.rglob("*"))}


def path_without(*names: str) -> str:
    """PATH without the folders that have one of these programs."""
    folders = os.environ["PATH"].split(":")
    return ":".join(folder for folder in folders if not any((Path(folder) / name).exists() for name in names))
