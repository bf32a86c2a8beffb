"""Shared pieces of the end-to-end tests: they run the built programs as a user would."""

import json
import os
import subprocess
from pathlib import Path

import pytest

# Fixtures of the LeRobot plugin.
pytest_plugins = ["lerobot_fixtures"]

REPO = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target")) / "release"
DATA = REPO / "tests" / "data"

# A latent action model that takes milliseconds per step: the properties under test do not depend on its size.
MINI = [
    "experiment=laq_tiny",
    "model.image_size=32",
    "model.patch_size=4",
    "model.dim=32",
    "model.heads=2",
    "model.dim_head=16",
    "model.spatial_depth=1",
    "model.temporal_depth=1",
    "model.pixel_decoder.depth=1",
    "model.aux_decoder.depth=1",
    "model.codebook_replace_schedule=[[4,1000]]",
    "data.loader.batch_size=4",
    "training.max_steps=24",
    "training.log_every_n_steps=1",
    "training.scheduler.warmup_steps=3",
    "training.checkpoint.every_n_steps=5",
    "validation.check_interval=10",
    "validation.limit_batches=2",
    "logging.min_free_gb=0.1",
]


def program(name: str) -> str:
    """Path of a built program."""
    path = TARGET / name
    assert path.exists(), f"{path} is not built: run `make build`"
    return str(path)


def train_laq_command(*words: object) -> list[str]:
    """The command line that trains the mini model."""
    return [program("hlrp"), "train-laq", *map(str, words)]


def run(command: list[str], cwd: Path = REPO, **kwargs) -> subprocess.CompletedProcess:
    """Runs a command to its end and keeps what it prints."""
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, **kwargs)


def is_time(key: str) -> bool:
    """Whether a metric depends on the clock."""
    return key == "time" or key.startswith(("time/", "perf/"))


def read_metrics(run_dir: Path) -> list[dict]:
    """Lines of `metrics.jsonl` without what depends on the clock."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if not is_time(key)} for line in lines]


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory) -> Path:
    """Run directory of the mini model, trained without interruption with two decode threads."""
    run_dir = tmp_path_factory.mktemp("uninterrupted") / "run"
    result = run(train_laq_command(*MINI, f"logging.run_dir={run_dir}"))
    assert result.returncode == 0, result.stderr
    return run_dir
