"""Labelled actions in the loop of stage 1: what the head sees, what it changes, and who can do without it."""

import json

import pytest
from conftest import (
    DATA,
    MINI,
    VLA_MINI,
    label,
    one_error,
    program,
    read_metrics,
    run,
    train_laq,
    train_laq_command,
    train_vla_command,
)
from interruption import assert_resumes_exactly
from made_datasets import with_other_actions
from ranks import EXACT, assert_equal_runs, weights
from safetensors.numpy import load_file

CONFIG_ERROR = 2
SOURCE = "data.sources.metaworld_mt5"
LABELLED = [0, 12, 20, 31]
HELD_OUT = [5, 15, 25, 35, 45]
FEW = f"{SOURCE}.labelled_episodes={LABELLED}".replace(" ", "")
HEAD = [*MINI, FEW, "model.label_head.weight=0.5"]
SMALL = [
    "data.loader.batch_size=4",
    "analysis.max_batches=20",
    "analysis.samples_per_dataset=60",
    "analysis.visual_subset_size=40",
    "analysis.min_samples_per_dataset=5",
    "analysis.num_probe_pairs=16",
    "logging.min_free_gb=0.1",
]
NAMES = {"train/label_mse", "train/label_r2", "val/label_mse", "val/label_r2"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with a label head, and what it printed."""
    run_dir = tmp_path_factory.mktemp("head") / "run"
    return run_dir, train_laq(run_dir, *HEAD).stdout


def test_every_second_step_has_labelled_pairs_and_a_validation_says_what_the_head_knows(trained):
    run_dir, table = trained
    lines = read_metrics(run_dir)
    assert [line["step"] for line in lines if "train/label_mse" in line] == list(range(2, 25, 2))
    assert [line["step"] for line in lines if "val/label_r2" in line] == [10, 20, 24]
    assert set().union(*lines) >= NAMES
    assert "R² of actions, by the label head" in table
    assert (run_dir / "plots/label_mse.png").exists()


def test_the_manifest_says_how_much_is_labelled(trained):
    session = json.loads((trained[0] / "run.json").read_text())["sessions"][0]
    labels = session["data"]["metaworld_mt5"]["labels"]
    assert (labels["num_episodes"], labels["of_episodes"]) == (4, 45)
    info = (DATA / "metaworld_mt5/meta/info.json").read_text()
    assert 0 < labels["num_samples"] < labels["of_samples"] < json.loads(info)["total_frames"]


def test_without_weight_there_is_no_head(uninterrupted, trained):
    assert not NAMES & set().union(*read_metrics(uninterrupted))
    assert not [name for name in weights(uninterrupted) if name.startswith("label_head.")]
    of_head = [name for name in weights(trained[0]) if name.startswith("label_head.")]
    assert sorted(of_head) == [
        "label_head.layers.0.bias",
        "label_head.layers.0.weight",
        "label_head.unit.count",
        "label_head.unit.square_sum",
        "label_head.unit.sum",
    ]


def test_actions_of_unlabelled_episodes_never_reach_a_loss(tmp_path, trained):
    """Other actions there leave every loss and weight as it is, to the last bit; without hidden labels they do not."""
    changed = with_other_actions(tmp_path / "changed", [*LABELLED, *HELD_OUT])
    short = [*HEAD, "training.max_steps=8", "validation.probes.enabled=false"]

    def found(name: str, *words: object) -> tuple[list[dict], dict]:
        train_laq(tmp_path / name, *short, *words)
        state = {key: tensor.tobytes() for key, tensor in weights(tmp_path / name).items()}
        return read_metrics(tmp_path / name), state

    other = f"{SOURCE}.root={changed}"
    assert found("labelled") == found("labelled_other", other)
    every = f"{SOURCE}.labelled_episodes=null"
    assert found("all", every) != found("all_other", every, other)


@pytest.mark.parametrize(
    "words",
    [
        ["model.label_head.hidden_dims=[16,8]", "model.label_head.every_n_steps=3"],
        [
            "model/quantizer=none",
            "model.triplets.additivity_weight=1",
            "training.augmentation.shift=0.1",
            "training.gradient.accumulate_steps=2",
        ],
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, words):
    words = [word for word in HEAD if "nsvq" not in word or "model/quantizer=none" not in words] + words
    assert_resumes_exactly(tmp_path, words)


def test_two_processes_compute_what_one_does(tmp_path):
    words = [*HEAD, *EXACT, "training.max_steps=10", "data.loader.num_workers=1"]
    train_laq(tmp_path / "alone", *words, "data.loader.batch_size=8")
    train_laq(tmp_path / "pair", *words, "num_processes=2")
    assert_equal_runs(tmp_path / "pair", tmp_path / "alone")
    alone, pair = [
        next(line for line in read_metrics(tmp_path / name) if "val/label_r2" in line) for name in ("alone", "pair")
    ]
    for name in ("val/label_mse", "val/label_r2"):
        assert pair[name] == pytest.approx(alone[name], rel=1e-4), name


def test_what_uses_a_trained_model_needs_no_head(tmp_path, trained):
    run_dir = trained[0]
    result = run([program("hlrp"), "export-laq", str(run_dir), "--out", str(tmp_path / "encoder")])
    assert result.returncode == 0, result.stderr
    assert not [name for name in load_file(tmp_path / "encoder/model.safetensors") if name.startswith("label_head.")]
    result = label(run_dir, tmp_path / "labelled")
    assert result.returncode == 0, result.stderr
    words = [*VLA_MINI, "training.max_steps=4", f"policy.teacher.checkpoint={run_dir}"]
    result = run(train_vla_command(*words, f"logging.run_dir={tmp_path / 'policy'}"))
    assert result.returncode == 0, result.stderr
    words = [f"checkpoint={run_dir}", "experiment=laq_token_analysis", *SMALL]
    result = run([program("hlrp"), "analyze-laq", *words, f"logging.run_dir={tmp_path / 'analysis'}"])
    assert result.returncode == 0, result.stderr


def test_supervised_inverse_dynamics_learns_from_actions_alone(tmp_path):
    words = [word for word in MINI if "nsvq" not in word and "laq_pixel_tiny" not in word and "aux" not in word]
    words[0] = "experiment=laq_inverse_dynamics"
    train_laq(tmp_path / "run", *words, "training.max_steps=60", "data.loader.batch_size=16")
    errors = [line["train/label_mse"] for line in read_metrics(tmp_path / "run") if "train/label_mse" in line]
    assert len(errors) == 60 and sum(errors[-10:]) < 0.8 * sum(errors[:10]), errors


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([f"{SOURCE}.action_key=null", f"{SOURCE}.labelled_episodes=null"], [f"{SOURCE}.action_key", "needs actions"]),
        (["model.label_head.every_n_steps=0"], ["model.label_head.every_n_steps"]),
        (["model.label_head.hidden_dims=[0]"], ["model.label_head.hidden_dims"]),
        (["model.label_head.weight=-1"], ["model.label_head.weight"]),
    ],
)
def test_a_head_that_cannot_be_is_one_clear_error(tmp_path, words, names):
    result = run(train_laq_command(*HEAD, *words, f"logging.run_dir={tmp_path / 'run'}"))
    one_error(result, CONFIG_ERROR, [*names, "hint:"])
    assert not (tmp_path / "run").exists()
