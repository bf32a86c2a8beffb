"""Stage 2 learns from the labels that `hlrp label` wrote as from a teacher that labels while it trains."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import VLA_MINI, label, one_error, read_metrics, run, train_vla_command
from hlrp_rs import Teacher

ROOT = "data.sources.metaworld_mt5.root"
LABELS = "policy.teacher.label_prefix=latent_labels"


def labels(checkpoint: Path, out: Path, *words: str) -> Path:
    result = label(checkpoint, out, *words)
    assert result.returncode == 0, result.stderr
    return out


def train(run_dir: Path, *words: str):
    return run(train_vla_command(*VLA_MINI, f"logging.run_dir={run_dir}", *words))


def trained(run_dir: Path, *words: str) -> list[dict]:
    """The metrics of a run, without clocks."""
    result = train(run_dir, *words)
    assert result.returncode == 0, result.stderr
    return [
        {name: value for name, value in row.items() if name.startswith(("train/", "val/"))}
        for row in read_metrics(run_dir)
    ]


def teacher(run_dir: Path) -> dict:
    return json.loads((run_dir / "artifacts/final/artifact.json").read_text())["policy"]["teacher"]


@pytest.mark.parametrize("mode", ["latent", "multitask"])
@pytest.mark.parametrize("head", ["vector_flow", "code_cross_entropy"])
def test_labels_teach_what_the_online_teacher_teaches(mode, head, labelled_mt5, uninterrupted, tmp_path):
    words = [f"policy.objective.mode={mode}", f"policy.model.arch.expert.latent_head={head}", "training.max_steps=12"]
    online = trained(tmp_path / "online", *words, f"policy.teacher.checkpoint={uninterrupted}")
    columns = trained(tmp_path / "columns", *words, f"{ROOT}={labelled_mt5}", LABELS)
    assert any("train/latent_loss" in row and row["train/latent_loss"] > 0 for row in columns)
    assert any("val/latent_repeat_baseline_mse" in row for row in columns), "the pair before is labelled too"
    assert columns == online
    assert teacher(tmp_path / "columns") == teacher(tmp_path / "online"), "the policy continues with either"


def test_continuous_labels_are_standardised_by_the_dataset(labelled_mt5, uninterrupted, tmp_path):
    words = [f"{ROOT}={labelled_mt5}", LABELS, "policy.teacher.label_vectors=continuous", "training.max_steps=10"]
    rows = trained(tmp_path / "run", *words)
    baseline = next(row["val/latent_mean_baseline_mse"] for row in rows if "val/latent_mean_baseline_mse" in row)
    assert 0.3 < baseline < 3, "the variance of standardised vectors is about 1"
    assert not any("val/latent_code_accuracy" in row for row in rows), "they have no codes"
    assert teacher(tmp_path / "run")["sha256"] != Teacher.load(uninterrupted).identity["sha256"], (
        "other labels than the teacher's codes"
    )


def test_a_continuous_teacher_labels_online_and_in_columns_alike(continuous_laq, tmp_path):
    labelled = labels(continuous_laq, tmp_path / "labelled")
    words = ["policy.objective.mode=latent", "training.max_steps=6"]
    online = trained(tmp_path / "online", *words, f"policy.teacher.checkpoint={continuous_laq}")
    assert trained(tmp_path / "columns", *words, f"{ROOT}={labelled}", LABELS) == online


def test_summed_actions_teach_as_latent_actions(uninterrupted, tmp_path):
    labelled = labels(uninterrupted, tmp_path / "actions", "--source", "action-as-latent")
    rows = trained(tmp_path / "run", f"{ROOT}={labelled}", LABELS, "training.max_steps=10")
    assert teacher(tmp_path / "run")["code_seq_len"] == 1
    assert teacher(tmp_path / "run")["code_dim"] == 4, "Meta-World's actions have four dimensions"
    baseline = next(row["val/latent_mean_baseline_mse"] for row in rows if "val/latent_mean_baseline_mse" in row)
    assert 0.3 < baseline < 3, "sums are standardised"


def test_what_labels_cannot_teach_is_named(labelled_mt5, uninterrupted, tmp_path):
    def refused(names: list[str], *words: str) -> None:
        one_error(train(tmp_path / "run", *words), 2, [*names, "hint:"])
        assert not (tmp_path / "run").exists()

    refused(["metaworld_mt5.root", "label_manifest.json", "hlrp label"], LABELS)
    both = f"policy.teacher.checkpoint={uninterrupted}"
    refused(["policy.teacher.label_prefix", "checkpoint"], f"{ROOT}={labelled_mt5}", LABELS, both)
    refused(
        ["other.codebook_vector_latents", "hlrp label"], f"{ROOT}={labelled_mt5}", "policy.teacher.label_prefix=other"
    )
    refused(["policy.teacher.label_vectors"], "policy.teacher.label_vectors=code", both)
    damaged = tmp_path / "damaged"
    shutil.copytree(labelled_mt5, damaged)
    manifest = json.loads((damaged / "label_manifest.json").read_text())
    del manifest["labels"]["teacher"]
    (damaged / "label_manifest.json").write_text(json.dumps(manifest))
    refused(["label_manifest.json", "teacher"], f"{ROOT}={damaged}", LABELS)
    actions = labels(uninterrupted, tmp_path / "actions", "--source", "action-as-latent")
    head = "policy.model.arch.expert.latent_head=code_cross_entropy"
    refused(["codes"], f"{ROOT}={actions}", LABELS, head)
