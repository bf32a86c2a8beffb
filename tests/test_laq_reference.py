"""The model of stage 1, computed again in plain PyTorch (`tests/bench/laq.py`): a second opinion beside the golden cases."""

import json
import sys

import pytest
from conftest import MINI, REPO, run, train_laq_command

MODELS = {
    "transformers, a weighted difference and detached pixels, running codes": [],
    "convolutions": ["model=laq_conv"],
    "transformers, pixels, noise substitution": ["model=laq_pixel_tiny"],
    "DINOv3 and its features, with pixels for images": ["model=laq_dino_tiny"],
}


# Each takes twenty seconds: the two that share least are enough for every day.
EVERY_DAY = ["convolutions", "DINOv3 and its features, with pixels for images"]


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=() if name in EVERY_DAY else pytest.mark.slow) for name in MODELS]
)
def test_validation_losses_are_those_of_plain_pytorch(tmp_path, model):
    """After some steps of training, over all held-out pairs, from the weights of the checkpoint."""
    words = [
        *MINI[:1],
        *MODELS[model],
        "training.max_steps=8",
        "training.scheduler.warmup_steps=2",
        "validation.check_interval=8",
    ]
    words += ["training.checkpoint.every_n_steps=8", "validation.limit_batches=3", "validation.probes.enabled=false"]
    trained = run(train_laq_command(*words, "logging.min_free_gb=0.1", f"logging.run_dir={tmp_path}/run"))
    assert trained.returncode == 0, trained.stderr
    again = run([sys.executable, str(REPO / "tests/bench/laq.py"), str(tmp_path / "run"), "--steps", "1"])
    assert again.returncode == 0, again.stderr
    errors = json.loads(again.stdout.splitlines()[-1])["errors"]
    assert errors and max(errors.values()) < 1e-5, errors
