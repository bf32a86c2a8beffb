"""Stage 1 with every quantizer, encoder and decoder: it trains, and a run that is stopped and resumed is the uninterrupted one to the last bit."""

from pathlib import Path

import pytest
import torch
from conftest import MINI, one_error, read_metrics, run, train_laq_command
from interruption import assert_resumes_exactly
from safetensors.torch import save_file
from torchvision.models.optical_flow import raft_small

CONFIG_ERROR = 2
WITHOUT_NSVQ = [word for word in MINI if "nsvq" not in word]
BATCH_NORM = "model.quantizer.normalization=batch_norm"
DIFFERENCE = ["model.decoders.difference.enabled=true", "model.decoders.difference.depth=1"]
CONV = [
    "model/encoder=conv",
    "model.decoder_network=conv",
    "model.spatial_depth=0",
    "model.temporal_depth=0",
]
TRIPLETS = ["model.triplets.additivity_weight=1", "model.triplets.reversal_weight=1"]
SHIFTED = [
    "training.augmentation.shift=0.1",
    "training.augmentation.brightness=0.3",
    "training.augmentation.saturation=0.5",
]
INDEPENDENT = "training.augmentation.pair=independent"

VARIANTS = {
    "nsvq after a start without it": [
        *MINI,
        BATCH_NORM,
        "model.quantizer.unquantized_steps=8",
        "model.quantizer.kmeans_start=true",
        "model.quantizer.slot_embedding=true",
        "model.quantizer.grid_width=16",
    ],
    "ema_vq, convolutions, difference": [
        *WITHOUT_NSVQ,
        "model/quantizer=ema_vq",
        *CONV,
        *DIFFERENCE,
        "model.decoders.difference.motion_weight=3",
        "model.decoders.pixel.enabled=false",
    ],
    "fsq": [*WITHOUT_NSVQ, "model/quantizer=fsq"],
    "triplets, augmentation": [*WITHOUT_NSVQ, "model/quantizer=none", *TRIPLETS, *SHIFTED, INDEPENDENT],
    "none": [*WITHOUT_NSVQ, "model/quantizer=none", *DIFFERENCE, "model.decoders.difference.from_latent_only=true"],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, name):
    assert_resumes_exactly(tmp_path, VARIANTS[name])


def values(run_dir: Path, name: str) -> list[float]:
    return [line[name] for line in read_metrics(run_dir) if name in line]


def test_metrics_say_what_the_codes_are_worth(tmp_path):
    run_dir = tmp_path / "run"
    result = run(train_laq_command(*VARIANTS["ema_vq, convolutions, difference"], f"logging.run_dir={run_dir}"))
    assert result.returncode == 0, result.stderr
    assert len(values(run_dir, "train/commitment_loss")) == 24
    assert all(value > 0 for value in values(run_dir, "train/latent_signal_to_noise"))
    assert all(1 <= value <= 8 for value in values(run_dir, "train/slot_perplexity_min"))
    for slot in range(4):
        assert 1 <= values(run_dir, f"val/slot{slot}_perplexity")[-1] <= 8
    assert values(run_dir, "val/difference_own_to_copy")[-1] < 1.1
    assert values(run_dir, "val/difference_code_gain")[-1] > -0.1
    assert (run_dir / "validation/step-000024/reconstructions.png").exists()


def test_changes_add_up_where_triplets_ask_for_it(tmp_path):
    words = [*WITHOUT_NSVQ, "model/quantizer=none", *DIFFERENCE, "training.max_steps=60"]

    def errors(name: str, weight: float) -> list[float]:
        run_dir = tmp_path / name
        weights = [f"{word.split('=')[0]}={weight}" for word in TRIPLETS]
        result = run(train_laq_command(*words, *weights, f"logging.run_dir={run_dir}"))
        assert result.returncode == 0, result.stderr
        mean = [sum(values(run_dir, f"train/{law}_loss")[-20:]) / 20 for law in ("additivity", "reversal")]
        assert len(values(run_dir, "val/loss")) == 6, "validation has pairs"
        return mean

    measured_alone, trained = errors("measured", 1e-9), errors("trained", 1)
    assert all(with_loss < 0.5 * without for with_loss, without in zip(trained, measured_alone, strict=True)), (
        trained,
        measured_alone,
    )


def test_augmentation_changes_training_and_not_validation(tmp_path):
    """With weights that stay as they are, and a quantizer without noise, only the images decide."""
    words = [*WITHOUT_NSVQ, "model/quantizer=fsq", "model.quantizer.normalization=none"]
    words += ["training.optimizer.lr=1e-30", "training.scheduler.min_lr=0", "training.scheduler.warmup_start_lr=0"]
    words += ["training.max_steps=6", "validation.check_interval=6"]

    def losses(name: str, *more: str) -> tuple[list[float], list[float]]:
        run_dir = tmp_path / name
        result = run(train_laq_command(*words, *more, f"logging.run_dir={run_dir}"))
        assert result.returncode == 0, result.stderr
        return values(run_dir, "train/pixel_loss"), values(run_dir, "val/pixel_loss")

    plain, same, independent = losses("plain"), losses("same", *SHIFTED), losses("independent", *SHIFTED, INDEPENDENT)
    assert plain[1] == same[1] == independent[1]
    assert all(len({*step}) == 3 for step in zip(plain[0], same[0], independent[0], strict=True))


def random_raft(path: Path) -> None:
    torch.manual_seed(0)
    save_file(raft_small(weights=None).state_dict(), path)


FLOW = [
    "experiment=laq_flow_tiny",
    *[
        word
        for word in MINI
        if word.startswith(("model.dim", "model.heads", "model.spatial", "model.temporal", "logging"))
    ],
    "model.decoders.flow.depth=1",
    "model.decoders.flow.teacher_num_updates=1",
    "data.loader.batch_size=2",
    "training.max_steps=3",
    "training.log_every_n_steps=1",
    "training.scheduler.warmup_steps=1",
    "training.checkpoint.every_n_steps=3",
    "validation.check_interval=3",
    "validation.limit_batches=1",
]


def test_a_model_learns_the_flow_of_its_teacher(tmp_path):
    weights = tmp_path / "raft.safetensors"
    random_raft(weights)
    run_dir = tmp_path / "run"
    words = [*FLOW, f"model.decoders.flow.teacher_weights={weights}"]
    result = run(train_laq_command(*words, f"logging.run_dir={run_dir}"))
    assert result.returncode == 0, result.stderr
    losses = values(run_dir, "train/flow_loss")
    assert len(losses) == 3 and all(loss > 0 for loss in losses)
    assert values(run_dir, "train/loss") != losses, "the aux decoder's loss is part of it"
    assert len(values(run_dir, "val/flow_own_to_copy")) == 1
    result = run(
        train_laq_command(*words, "model.decoders.flow.teacher=raft_large", f"logging.run_dir={tmp_path / 'x'}")
    )
    one_error(result, 1, [str(weights), "hint:"])


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([*WITHOUT_NSVQ, "model/quantizer=fsq", "model.quantizer.fsq.levels=[5,5]"], ["model.quantizer.code_dim", "2 dimensions"]),
        ([*WITHOUT_NSVQ, "model/quantizer=fsq", "model.quantizer.codebook_size=8"], ["model.quantizer.codebook_size", "125 combinations"]),
        ([*WITHOUT_NSVQ, "model/quantizer=none", "model.quantizer.kmeans_start=true"], ["model.quantizer.kmeans_start", "none"]),
        ([*MINI, "+model.quantizer.ema_vq={decay: 0.9, commitment_weight: 1, restart_threshold: 0}"], ["model.quantizer", "several quantizers are chosen: nsvq, ema_vq"]),
        ([*MINI, BATCH_NORM, "data.loader.batch_size=1"], ["data.loader.batch_size", "batch_norm"]),
        ([*MINI, "model.decoders.token.target=backbone", "model.decoders.token.enabled=true"], ["model.decoders.token.target"]),
        ([*MINI, "model.decoders.flow.enabled=true"], ["model.decoders.flow.teacher_weights", "no weights"]),
        ([*MINI, "model.decoders.pixel.detached=true"], ["no decoder trains the codes"]),
        ([*MINI, "model.decoders.aux.detached=false"], ["model.decoders.aux.detached"]),
        ([*MINI, TRIPLETS[0]], ["model.quantizer.normalization", "keeps the variance", "model.triplets"]),
        ([*MINI, BATCH_NORM, "model.triplets.reversal_weight=-1"], ["model.triplets.reversal_weight", "negative"]),
        ([*MINI, "model.quantizer.normalization=layer_norm", TRIPLETS[1], "data.loader.batch_size=1"], ["data.loader.batch_size", "model.triplets"]),
        ([*MINI, BATCH_NORM, TRIPLETS[0], "data.request.image_deltas=[0,60]"], ["data.request.image_deltas", "shorter", "frame t+2k"]),
        ([*MINI, "model.quantizer.normalization=layer_norm", "model.quantizer.code_dim=1"], ["model.quantizer.normalization", "always 0"]),
        ([*MINI, "model.decoders.pixel.loss_weight=0"], ["model.decoders.pixel.loss_weight", "no decoder trains the codes"]),
        ([*MINI, "model.decoders.pixel.motion_threshold=0.1"], ["model.decoders.pixel.motion_threshold", "motion_weight is 0"]),
        ([*MINI, "model.decoders.pixel.motion_threshold=2"], ["model.decoders.pixel.motion_threshold", "fraction"]),
        ([*MINI, "model.latent_ablation=permute_batch", "data.loader.batch_size=1"], ["data.loader.batch_size", "latent_ablation"]),
        ([*MINI, "model.quantizer.unquantized_steps=24"], ["model.quantizer.unquantized_steps", "training.max_steps=24"]),
        ([*MINI, "model.quantizer.collapse_perplexity=5"], ["model.quantizer.collapse_perplexity", "fraction"]),
        ([*MINI, "model.channels=1"], ["model.channels", "1 channels"]),
        ([*MINI, "training.augmentation.shift=1"], ["training.augmentation.shift", "fraction"]),
        ([*MINI, "training.augmentation.pair=both"], ["training.augmentation.pair", "independent"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_clear_error(tmp_path, words, names):
    result = run(train_laq_command(*words, f"logging.run_dir={tmp_path / 'run'}"))
    one_error(result, CONFIG_ERROR, [*names, "hint:"])
