"""A forward model in stage 1: what it is measured by, what a checkpoint holds of it, and what it cannot be combined with.

What it predicts, and what its loss trains, is compared with sums by hand in rust/laq/tests/forward_model.rs.
"""

import json

import pytest
from conftest import MINI, label, one_error, program, read_metrics, run, train_laq, train_laq_command
from interruption import assert_resumes_exactly
from ranks import EXACT, assert_equal_runs, weights
from safetensors.numpy import load_file

CONFIG_ERROR = 2
WITHOUT_NSVQ = [word for word in MINI if "nsvq" not in word]
FORWARD = ["model.decoders.forward.enabled=true", "model.decoders.forward.depth=1"]
CONV = [
    "model/encoder=conv",
    "model.decoder_network=conv",
    "model.spatial_depth=0",
    "model.temporal_depth=0",
]
ALONE = [*WITHOUT_NSVQ, "model/quantizer=none", *CONV, *FORWARD, "model.decoders.pixel.detached=true"]
AUGMENTED = [
    "training.augmentation.pair=independent",
    "training.augmentation.shift=0.1",
    "training.augmentation.brightness=0.3",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("forward") / "run"
    train_laq(run_dir, *ALONE, *AUGMENTED, "training.max_steps=60", "training.scheduler.warmup_steps=3")
    return run_dir


def test_its_loss_is_logged_and_falls(trained):
    lines = read_metrics(trained)
    losses = [line["train/forward_loss"] for line in lines if "train/forward_loss" in line]
    assert len(losses) == 60 and sum(losses[-10:]) < 0.8 * sum(losses[:10]), losses
    measured = [line for line in lines if "val/forward_loss" in line]
    assert [line["step"] for line in measured] == [10, 20, 30, 40, 50, 60]
    assert measured[-1]["val/forward_loss"] < measured[0]["val/forward_loss"]
    assert measured[-1]["val/forward_own_to_copy"] > 0 and "val/forward_code_gain" in measured[-1]
    declared = {metric["name"] for metric in json.loads((trained / "run.json").read_text())["metrics"]}
    assert {name for name in measured[-1] if name.startswith("val/")} <= declared


def test_the_weight_is_no_part_of_what_is_logged(tmp_path):
    words = [*ALONE, "training.max_steps=4", "model.decoders.aux.enabled=false", "model.decoders.pixel.enabled=false"]

    def first(name: str, *more: str) -> dict:
        train_laq(tmp_path / name, *words, *more)
        return next(line for line in read_metrics(tmp_path / name) if "train/loss" in line)

    plain, doubled = first("plain"), first("doubled", "model.decoders.forward.loss_weight=2")
    assert doubled["train/forward_loss"] == plain["train/forward_loss"]
    assert plain["train/loss"] == plain["train/forward_loss"]
    assert doubled["train/loss"] == pytest.approx(2 * plain["train/loss"], rel=1e-6)


def test_the_averaged_encoder_is_in_the_checkpoint_and_in_no_export(trained, uninterrupted, tmp_path):
    names = weights(trained)
    averaged = {name.removeprefix("average_encoder.") for name in names if name.startswith("average_encoder.")}
    assert averaged == {name for name in names if name.startswith("conv_encoder.")}
    differing = [name for name in averaged if (names[name] != names[f"average_encoder.{name}"]).any()]
    assert differing, "it lags behind"
    assert not [name for name in weights(uninterrupted) if name.startswith(("average_encoder.", "forward_"))]
    result = run([program("hlrp"), "export-laq", str(trained), "--out", str(tmp_path / "encoder")])
    assert result.returncode == 0, result.stderr
    exported = load_file(tmp_path / "encoder/model.safetensors")
    assert not [name for name in exported if name.startswith(("average_encoder.", "forward_"))]
    result = label(trained, tmp_path / "labelled")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "words",
    [
        [*ALONE, *AUGMENTED],
        pytest.param(
            [*MINI, *FORWARD, "model.decoders.forward.num_steps=1", "training.gradient.accumulate_steps=2"],
            marks=pytest.mark.slow,  # the same again
        ),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, words):
    assert_resumes_exactly(tmp_path, words)


def test_two_processes_compute_what_one_does(tmp_path):
    words = [*MINI, *FORWARD, *EXACT, "training.max_steps=10", "data.loader.num_workers=1"]
    train_laq(tmp_path / "alone", *words, "data.loader.batch_size=8")
    train_laq(tmp_path / "pair", *words, "num_processes=2")
    assert_equal_runs(tmp_path / "pair", tmp_path / "alone")


def test_other_objectives_see_pairs_of_random_spans(tmp_path):
    """With one step there is one span, that of the pair: then every other loss is as without a forward model."""
    words = [*WITHOUT_NSVQ, "model/quantizer=none", "training.max_steps=4", "training.optimizer.lr=1e-30"]
    words += ["training.scheduler.min_lr=0", "training.scheduler.warmup_start_lr=0"]

    def losses(name: str, *more: str) -> list[float]:
        train_laq(tmp_path / name, *words, *more)
        return [line["train/pixel_loss"] for line in read_metrics(tmp_path / name) if "train/pixel_loss" in line]

    without = losses("without")
    assert losses("one", *FORWARD, "model.decoders.forward.num_steps=1") == without
    assert losses("many", *FORWARD, "model.decoders.forward.num_steps=5") != without


def test_a_source_may_have_a_span_of_its_own(tmp_path):
    span = "data.sources.metaworld_mt5.span={unit: frames, length: 10}"
    train_laq(tmp_path / "run", *ALONE, span, "model.decoders.forward.num_steps=3", "training.max_steps=4")
    assert len([line for line in read_metrics(tmp_path / "run") if "val/forward_loss" in line]) == 1


def test_an_analysis_reads_its_checkpoint(trained, tmp_path):
    small = [
        "data.loader.batch_size=4",
        "analysis.max_batches=20",
        "analysis.samples_per_dataset=60",
        "analysis.visual_subset_size=40",
        "analysis.min_samples_per_dataset=5",
        "analysis.num_probe_pairs=16",
        "logging.min_free_gb=0.1",
    ]
    codes = tmp_path / "codes"
    words = [*WITHOUT_NSVQ, "model/quantizer=ema_vq", *CONV, *FORWARD, "training.max_steps=4"]
    train_laq(codes, *words)
    words = [f"checkpoint={codes}", "experiment=laq_token_analysis", *small]
    result = run([program("hlrp"), "analyze-laq", *words, f"logging.run_dir={tmp_path / 'analysis'}"])
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "analysis/decoder_dependence/decoder_dependence.json").read_text())
    assert "pixel" in found and "forward" not in found, "its pairs lack the frame between"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["model.decoders.forward.num_steps=3"], ["model.decoders.forward.num_steps", "20 frames", "3 steps", "divisor"]),
        (["model.decoders.forward.num_steps=0"], ["model.decoders.forward.num_steps"]),
        (["model.decoders.forward.average_decay=1"], ["model.decoders.forward.average_decay", "fraction"]),
        (["model.triplets.additivity_weight=1"], ["model.triplets.additivity_weight", "model.decoders.forward"]),
        (["model.decoders.forward.detached=true"], ["no decoder trains the codes", "model.label_head.weight"]),
        (["model.decoders.flow.enabled=true", "model.decoders.flow.teacher=lucas_kanade", "model.decoders.flow.cache.enabled=true"], ["model.decoders.flow.cache.enabled", "random spans"]),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_one_clear_error(tmp_path, words, names):
    result = run(train_laq_command(*ALONE, *words, f"logging.run_dir={tmp_path / 'run'}"))
    one_error(result, CONFIG_ERROR, [*names, "hint:"])
    assert not (tmp_path / "run").exists()


def test_reversal_goes_with_it(tmp_path):
    train_laq(tmp_path / "run", *ALONE, "model.triplets.reversal_weight=1", "training.max_steps=4")
    assert len([line for line in read_metrics(tmp_path / "run") if "train/reversal_loss" in line]) == 4
