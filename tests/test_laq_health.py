"""Codes that carry nothing are named while the training runs, and healthy recipes are left alone."""

import pytest
from conftest import run, train_laq_command

# The rule is judged at steps 100, 150 and 200; gain and noise from 150 steps after the warm-up on.
SHORT = [
    "training.max_steps=200",
    "validation.check_interval=200",
    "validation.limit_batches=1",
    "validation.probes.enabled=false",
]
SHORT += ["training.checkpoint.every_n_steps=200", "logging.min_free_gb=0.1"]
NSVQ = ["model/quantizer=nsvq", "model.quantizer.nsvq.refresh_schedule=[]"]

# What was done to the recipe of laq_tiny, and what is said of it.
UNHEALTHY = {
    "codes of other pairs in training: all in use, and empty": (
        ["model.latent_ablation=permute_batch"],
        "hardly use the codes",
    ),
    "a decoder that may copy the first frame": (
        ["model=laq_pixel_tiny", "model/quantizer=ema_vq", "data.request.image_deltas=[0,2]"],
        "hardly use the codes",
    ),
    "changes far smaller than the codes are apart": (
        ["model=laq_pixel_tiny", "data.request.image_deltas=[0,2]"],
        "signal/noise",
    ),
    "a learning rate that is too high, no refresh": (
        [*NSVQ, "training.optimizer.lr=0.3"],
        "the codebook has collapsed",
    ),
    "no learning": (
        ["training.optimizer.lr=1e-9", "training.scheduler.min_lr=0", "training.scheduler.warmup_start_lr=0"],
        "hardly use the codes",
    ),
}
HEALTHY = [("laq_tiny", 1), ("laq_tiny", 2), ("laq_tiny", 3), ("laq_conv_tiny", 1), ("laq_conv_tiny", 2)]


def warnings(run_dir, *words: str) -> list[str]:
    result = run(train_laq_command(*words, *SHORT, f"logging.run_dir={run_dir}"))
    assert result.returncode == 0, result.stderr
    lines = (result.stdout + result.stderr).splitlines()
    return [line for line in lines if "[WARNING]" in line or "[WARN]" in line]


@pytest.mark.slow  # 200 steps of the recipe that ships: a minute each
@pytest.mark.parametrize("cause", UNHEALTHY)
def test_an_unhealthy_run_is_named_by_step_200(tmp_path, cause):
    words, expected = UNHEALTHY[cause]
    found = warnings(tmp_path / "run", "experiment=laq_tiny", *words)
    assert len(found) == 1 and expected in found[0], found


@pytest.mark.slow  # 200 steps of the recipes that ship: a minute each
@pytest.mark.parametrize(("experiment", "seed"), HEALTHY)
def test_a_healthy_run_is_left_alone(tmp_path, experiment, seed):
    assert warnings(tmp_path / "run", f"experiment={experiment}", f"seed={seed}") == []
