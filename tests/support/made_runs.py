"""Run directories for tests: copies of one real training, with other settings and other values; and how `hlrp runs` is asked about them."""

import json
import shutil
import subprocess
from pathlib import Path
from random import Random

import pytest
import yaml
from conftest import program, run

# Everything but weights, images and logs.
LEFT_OUT = shutil.ignore_patterns("checkpoints", "validation", "plots", "unified.log", ".lock")
# Steps at which the real training validates.
STEPS = [10, 20, 24]
# The sweep that most questions are asked about.
RATES, SEEDS = [1e-4, 1e-3, 3e-3], [1, 2, 3, 4]
LR = "training.optimizer.lr"


def runs(*words: object, **kwargs) -> subprocess.CompletedProcess:
    return run([program("hlrp"), "runs", *map(str, words)], **kwargs)


def output(*words: object, **kwargs) -> str:
    result = runs(*words, **kwargs)
    assert result.returncode == 0, result.stderr
    return result.stdout


def made_losses(rate: float, seed: int) -> list[float]:
    random = Random(f"{rate} {seed}")
    return [random.uniform(0.1, 1.0) for _ in range(3)]


def best_of(losses: list[float]) -> float:
    return min(losses)


@pytest.fixture(scope="session")
def made(tmp_path_factory, uninterrupted):
    """A folder of a sweep, and the values of val/loss of each run by learning rate and seed."""
    folder = tmp_path_factory.mktemp("sweep")
    return folder, sweep(uninterrupted, folder, RATES, SEEDS, made_losses)


@pytest.fixture
def one(tmp_path, uninterrupted) -> Path:
    """A run of its own, to be changed."""
    return make_run(uninterrupted, tmp_path / "one", {"seed": 7}, [0.3, 0.2, 0.25])


def make_run(real: Path, folder: Path, settings: dict[str, object], losses: list[float]) -> Path:
    """A run like `real` in `folder`: with these settings by dotted key, and with these values of val/loss at `STEPS`."""
    shutil.copytree(real, folder, ignore=LEFT_OUT)
    change_settings(folder, settings)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    values = dict(zip(STEPS, losses, strict=True))
    for row in rows:
        if "val/loss" in row:
            row["val/loss"] = values[row["step"]]
    write_rows(folder, rows)
    return folder


def change_settings(folder: Path, settings: dict[str, object]) -> None:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for key, value in settings.items():
        *sections, name = key.split(".")
        section = config
        for part in sections:
            section = section[part]
        assert name in section, key
        section[name] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def change_record(folder: Path, change) -> None:
    """Lets `change` edit the content of `run.json`."""
    path = folder / "run.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def write_rows(folder: Path, rows: list[dict]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def sweep(real: Path, folder: Path, rates: list[float], seeds: list[int], loss) -> dict[tuple[float, int], list[float]]:
    """Runs `<rate>-<seed>` in `folder`; `loss(rate, seed)` is a list of values of val/loss. Returns these lists."""
    made = {(rate, seed): loss(rate, seed) for rate in rates for seed in seeds}
    for (rate, seed), losses in made.items():
        settings = {"training.optimizer.lr": rate, "seed": seed}
        make_run(real, folder / f"{rate}-{seed}", settings, losses)
    return made
