"""Shared pieces of the end-to-end tests: they run the built programs as a user would."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from fake_lerobot import FakeLerobot

# Threads that wait for work sleep soon, as under `hlrp`: on a busy machine spinning ones make torch many times slower. Read when torch is
# imported.
os.environ.update({"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "2000"})

# Fixtures of the LeRobot plugin, of a Slurm, of the wheels, of the stand-in for W&B and of made-up runs.
pytest_plugins = ["lerobot_fixtures", "hub_fixtures", "private_slurm", "wheels", "wandb_world", "made_runs"]

REPO = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target")) / "release"
DATA = REPO / "tests" / "data"

# A latent action model that takes milliseconds per step: the properties under test do not depend on its size.
MINI = [
    "experiment=laq_tiny",
    "model=laq_pixel_tiny",
    "model.image_size=32",
    "model.patch_size=4",
    "model.dim=32",
    "model.heads=2",
    "model.dim_head=16",
    "model.spatial_depth=1",
    "model.temporal_depth=1",
    "model.decoders.pixel.depth=1",
    "model.decoders.aux.depth=1",
    "model.quantizer.nsvq.refresh_schedule=[[4,1000]]",
    "data.loader.batch_size=4",
    "training.max_steps=24",
    "training.log_every_n_steps=1",
    "training.scheduler.warmup_steps=3",
    "training.checkpoint.every_n_steps=5",
    "validation.check_interval=10",
    "validation.limit_batches=2",
    "validation.probes.num_pairs=16",
    "logging.min_free_gb=0.1",
]


# A policy of the same kind: a few thousand parameters, both losses.
VLA_MINI = [
    "experiment=vla_tiny",
    "policy.model.resize_imgs_with_padding=[32,32]",
    "policy.processor.frame_size=[32,32]",
    "policy.model.backbone.sizes.vision.hidden_size=16",
    "policy.model.backbone.sizes.vision.intermediate_size=32",
    "policy.model.backbone.sizes.vision.num_hidden_layers=1",
    "policy.model.backbone.sizes.vision.num_attention_heads=2",
    "policy.model.backbone.sizes.vision.image_size=32",
    "policy.model.backbone.sizes.text.hidden_size=32",
    "policy.model.backbone.sizes.text.intermediate_size=48",
    "policy.model.backbone.sizes.text.num_hidden_layers=2",
    "policy.model.backbone.sizes.text.num_attention_heads=2",
    "policy.model.backbone.sizes.text.num_key_value_heads=1",
    "policy.model.backbone.sizes.text.head_dim=16",
    "policy.model.arch.expert.chunk_size=4",
    "policy.model.flow.num_steps=2",
    "data.loader.batch_size=4",
    "training.max_steps=24",
    "training.log_every_n_steps=1",
    "training.scheduler.warmup_steps=3",
    "training.checkpoint.every_n_steps=5",
    "validation.check_interval=10",
    "validation.limit_batches=2",
    "validation.num_fixed_samples=2",
    "validation.num_flow_samples=2",
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


def train_laq(run_dir: Path, *words: object) -> subprocess.CompletedProcess:
    """Trains a model of stage 1 in `run_dir` to its end."""
    result = run(train_laq_command(*words, f"logging.run_dir={run_dir}"))
    assert result.returncode == 0, result.stderr
    return result


def train_vla_command(*words: object) -> list[str]:
    """The command line that trains a policy."""
    return [program("hlrp"), "train-vla", *map(str, words)]


def one_error(result: subprocess.CompletedProcess, code: int, names: list[str]) -> str:
    """The one error with which a program ended; it contains every word of `names`."""
    assert result.returncode == code, f"exit code {result.returncode}: {result.stderr}"
    assert result.stderr.count("error:") == 1, result.stderr
    assert "panicked" not in result.stderr
    message = result.stderr[result.stderr.index("error:") :]
    for name in names:
        assert name in message, f"{name!r} is not in: {message}"
    return message


def is_time(key: str) -> bool:
    """Whether a metric depends on the clock."""
    return key == "time" or key.startswith(("time/", "perf/"))


def read_metrics(run_dir: Path) -> list[dict]:
    """Lines of `metrics.jsonl` without what depends on the clock."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if not is_time(key)} for line in lines]


@pytest.fixture
def lerobot(tmp_path) -> FakeLerobot:
    """A LeRobot that is quick and does as it is told."""
    return FakeLerobot(tmp_path / "fake")


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory) -> Path:
    """Run directory of the mini model, trained without interruption with two decode threads."""
    run_dir = tmp_path_factory.mktemp("uninterrupted") / "run"
    result = run(train_laq_command(*MINI, f"logging.run_dir={run_dir}"))
    assert result.returncode == 0, result.stderr
    return run_dir


@pytest.fixture(scope="session")
def continuous_laq(tmp_path_factory) -> Path:
    """Run directory of a mini model whose latents are continuous."""
    mini = [word for word in MINI if not word.startswith("model.quantizer.nsvq")]
    run_dir = tmp_path_factory.mktemp("continuous") / "run"
    words = [*mini, "model/quantizer=none", "training.max_steps=6", f"logging.run_dir={run_dir}"]
    result = run(train_laq_command(*words))
    assert result.returncode == 0, result.stderr
    return run_dir


def label(checkpoint: Path, out: Path, *words: object, source: Path = DATA / "metaworld_mt5"):
    """`hlrp label` of the Meta-World demonstrations."""
    return run([program("hlrp"), "label", str(checkpoint), str(source), "--out", str(out), *map(str, words)])


@pytest.fixture(scope="session")
def labelled_mt5(uninterrupted, tmp_path_factory) -> Path:
    """The Meta-World demonstrations with the labels of the mini model."""
    out = tmp_path_factory.mktemp("labelled") / "mt5"
    result = label(uninterrupted, out)
    assert result.returncode == 0, result.stderr
    return out


@pytest.fixture(scope="session")
def uninterrupted_vla(tmp_path_factory, uninterrupted) -> Path:
    """Run directory of the mini policy with the mini model as its teacher, trained without interruption."""
    run_dir = tmp_path_factory.mktemp("uninterrupted_vla") / "run"
    teacher = f"policy.teacher.checkpoint={uninterrupted}"
    result = run(train_vla_command(*VLA_MINI, teacher, f"logging.run_dir={run_dir}"))
    assert result.returncode == 0, result.stderr
    return run_dir
