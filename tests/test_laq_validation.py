"""The strategies of a validation of stage 1, as a run writes them; their numbers are compared one sample at a time in rust/laq/src/validation/tests.rs."""

import json

import numpy as np
import pytest
from conftest import MINI, one_error, read_metrics, run, train_laq_command
from PIL import Image

CONFIG_ERROR = 2
SHORT = [
    *MINI,
    "training.max_steps=8",
    "validation.check_interval=2",
    "validation.limit_batches=6",
    "validation.fail_on_error=true",
]
RICH = [
    "validation=laq_rich",
    "+validation.buckets.first={filters: {episode: ['<', 25]}, max_samples: 100, is_holdout: false}",
    "+validation.buckets.late={filters: {episode: ['>=', 25], source: metaworld_mt5}, max_samples: 3, is_holdout: true}",
    "+validation/strategy@validation.strategies.histogram_by_part=code_histogram",
    "validation.strategies.histogram_by_part.buckets=[first,late]",
    "validation.strategies.latent_transfer.every_n_validations=3",
    "validation.strategies.action_token_scatter.every_n_validations=4",
]
EVERY_TIME = {"code_histogram", "sequence_histogram", "all_sequences_histogram", "reconstructions"} | {
    "reconstructions_train",
    "action_sequence_scatter",
    "top_sequences_scatter",
    "state_sequence_scatter",
    "histogram_by_part_first",
    "histogram_by_part_late_holdout",
}


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("rich") / "run"
    result = run(train_laq_command(*SHORT, *RICH, f"logging.run_dir={run_dir}"))
    assert result.returncode == 0, result.stderr
    return run_dir


def images(run_dir, step: int) -> set[str]:
    return {path.stem for path in (run_dir / f"validation/step-{step:06d}").glob("*.png")}


def test_strategies_are_due_at_every_nth_validation_and_at_the_last(rich):
    third = {"sequence_examples", "latent_transfer"}
    assert images(rich, 2) == EVERY_TIME | third | {"codebook_embedding", "action_token_scatter"}
    assert images(rich, 4) == images(rich, 6) == EVERY_TIME
    assert images(rich, 8) == images(rich, 2), "the last validation of a run shows everything"


def test_no_image_is_blank(rich):
    for path in rich.glob("validation/*/*.png"):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert (pixels != pixels[0, 0]).any(axis=-1).mean() > 0.01, path


def test_buckets_partition_the_samples(rich):
    last = [line for line in read_metrics(rich) if "val/loss" in line][-1]
    assert last["val/total_val_samples"] == 24
    assert last["val/total_val_samples_late_holdout"] == 3, "at most max_samples"
    assert 0 < last["val/total_val_samples_first"] < 24
    for name in ["latent_transfer_mse", "self_recon_mse"]:
        assert last[f"val/{name}"] > 0
    assert last["val/transfer_ratio"] == pytest.approx(
        last["val/latent_transfer_mse"] / (last["val/self_recon_mse"] + 1e-8)
    )
    assert last["val/failed_strategies"] == 0
    names = {metric["name"] for metric in json.loads((rich / "run.json").read_text())["metrics"]}
    assert {name for name in last if name.startswith("val/")} <= names, "every metric is declared"


def test_what_does_not_train_changes_no_loss(rich, tmp_path):
    result = run(train_laq_command(*SHORT, f"logging.run_dir={tmp_path / 'plain'}"))
    assert result.returncode == 0, result.stderr
    plain = [{k: v for k, v in line.items() if "loss" in k} for line in read_metrics(tmp_path / "plain")]
    assert plain == [{k: v for k, v in line.items() if "loss" in k} for line in read_metrics(rich)]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["validation.strategies.reconstructions.buckets=[bridge]"], ["validation.strategies.reconstructions.buckets", "unknown bucket 'bridge'"]),
        (["+validation.buckets.a={filters: {robot: widowx}, max_samples: 5, is_holdout: false}"], ["validation.buckets.a.filters.robot", "unknown fact 'robot'"]),
        (["+validation.buckets.a={filters: {episode: ['>']}, max_samples: 5, is_holdout: false}"], ["validation.buckets.a.filters.episode"]),
        (["+validation.strategies.flow.code_histogram={}"], ["validation.strategies.flow", "code_histogram, flow"]),
        (["validation.strategies.flow.every_n_validations=0"], ["validation.strategies.flow.every_n_validations"]),
        (["+validation/strategy@validation.strategies.twice=code_histogram"], ["validation.strategies", "of the same kind"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_clear_error(tmp_path, words, names):
    result = run(train_laq_command(*SHORT, *words, f"logging.run_dir={tmp_path / 'run'}"))
    one_error(result, CONFIG_ERROR, [*names, "hint:"])
