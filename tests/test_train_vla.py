"""`hlrp train-vla` as a user runs it: what it leaves behind, and that nothing is lost."""

import hashlib
import json
import signal

import hlrp_rs
import numpy as np
import pyarrow.parquet
import pytest
import torch
from conftest import DATA, MINI, VLA_MINI, program, read_metrics, run, train_laq_command, train_vla_command
from interruption import INTERRUPTED, assert_same_run, assert_same_tensors, kill, last_step, start, wait_for
from safetensors.numpy import load_file
from vla_runs import BACKBONE, backbone_folder, policy, record, trained, words_for

# The pooled architecture instead of the expert: one action, no chunk.
POOLED = ["~policy.model.arch.expert", "+policy.model.arch.pooled={}"]


# What a run leaves behind.


def test_a_manifest_names_the_versions_of_what_computed(uninterrupted, uninterrupted_vla):
    ffmpeg = json.loads(run([program("hlrp-data"), "ffmpeg-info"]).stdout)["ffmpeg"]
    for run_dir in (uninterrupted, uninterrupted_vla):
        [session] = json.loads((run_dir / "run.json").read_text())["sessions"]
        assert set(session["versions"]) == {"hlrp", "build", "libtorch", "ffmpeg"}
        assert session["versions"]["ffmpeg"] == ffmpeg


def test_a_validation_measures_errors_beside_baselines_and_draws_pictures(uninterrupted_vla):
    validations = [line for line in read_metrics(uninterrupted_vla) if "val/loss" in line]
    assert [line["step"] for line in validations] == [10, 20, 24]
    for kind, dims in (("latent", 8), ("action", 4)):
        for name in (
            "mse",
            "mean_baseline_mse",
            "repeat_baseline_mse",
            "cosine",
            *(f"mse_dim{i}" for i in range(dims)),
        ):
            assert all(f"val/{kind}_{name}" in line for line in validations), f"val/{kind}_{name}"
    for name in ("accuracy", "frequent_baseline", "repeat_baseline"):
        assert all(0 <= line[f"val/latent_code_{name}"] <= 1 for line in validations), name
    per_dim = [validations[-1][f"val/action_mse_dim{i}"] for i in range(4)]
    assert sum(per_dim) / 4 == pytest.approx(validations[-1]["val/action_mse"], rel=1e-3)
    pictures = {path.name for path in (uninterrupted_vla / "validation/step-000024").iterdir()}
    assert pictures == {"samples.png", "chunks.png"}
    plots = {path.name for path in (uninterrupted_vla / "plots").iterdir()}
    assert plots == {"losses.png", "latent_error.png", "action_error.png"}


@pytest.mark.parametrize("head", ["vector_mse", "code_cross_entropy", "joint_flow"])
def test_every_latent_head_trains_and_the_package_predicts_with_it(tmp_path, uninterrupted, head):
    words = [f"policy.model.arch.expert.latent_head={head}", "training.max_steps=10"]
    run_dir = trained(tmp_path / "run", uninterrupted, *words)
    [validation] = [line for line in read_metrics(run_dir) if "val/loss" in line]
    assert validation["val/loss"] == pytest.approx(validation["val/latent_loss"] + validation["val/action_loss"])
    assert 0 <= validation["val/latent_code_accuracy"] <= 1
    is_certain = head == "code_cross_entropy" and validation["val/latent_code_accuracy"] == 1
    assert (validation["val/latent_mse"] == 0) == is_certain, "the vectors of predicted codes are compared"
    artifact = hlrp_rs.Artifact.load(run_dir / "artifacts/final")
    frame = torch.zeros(2, 3, 48, 48, dtype=torch.uint8)
    seen = {"images": {"primary": frame}, "task": ["push", "push"], "state": torch.zeros(2, 4)}
    predicted = artifact.policy().sample(artifact.tensors(), seen, "multitask")
    slots = policy(run_dir)["model"]["latent"]["code_seq_len"]
    if head == "code_cross_entropy":
        assert predicted.keys() == {"actions", "latent_codes"}
        assert predicted["latent_codes"].shape == (2, slots)
        assert predicted["latent_codes"].dtype == torch.int64
    else:
        assert predicted.keys() == {"actions", "latents"}
        assert predicted["latents"].shape[:2] == (2, slots)


def test_the_final_artifact_is_the_last_checkpoint(uninterrupted_vla):
    artifact = uninterrupted_vla / "artifacts/final"
    facts = record(artifact)
    assert {path.name for path in artifact.iterdir()} == {*facts["files"], "artifact.json"}
    for name, digest in facts["files"].items():
        content = (artifact / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (digest["size"], digest["sha256"]), name
    assert_same_tensors(artifact / "model.safetensors", uninterrupted_vla / "checkpoints/step-000024/model.safetensors")
    assert facts["provenance"] == {"experiment": "vla_tiny", "step": 24}
    assert facts["policy"]["objective"]["mode"] == "multitask"


def test_the_best_artifact_is_the_best_checkpoint(uninterrupted_vla):
    best = (uninterrupted_vla / "checkpoints/best").read_text().strip()
    artifact = uninterrupted_vla / "artifacts/best"
    assert f"step-{record(artifact)['provenance']['step']:06}" == best
    assert_same_tensors(artifact / "model.safetensors", uninterrupted_vla / "checkpoints" / best / "model.safetensors")
    assert {path.name for path in (uninterrupted_vla / "artifacts").iterdir()} == {"best", "final"}


def test_sizes_and_spacing_of_latent_actions_come_from_the_teacher(uninterrupted, uninterrupted_vla):
    checkpoint = uninterrupted / "checkpoints/step-000024"
    laq = json.loads((checkpoint / "checkpoint.json").read_text())
    teacher = policy(uninterrupted_vla)["teacher"]
    assert teacher["sha256"] == hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    assert teacher["pair"] == laq["task"]["pair"]
    model = laq["task"]["model"]
    for size in ("codebook_size", "code_seq_len", "code_dim"):
        assert teacher[size] == model["quantizer"][size]


def test_normalisation_is_that_of_the_training_episodes(uninterrupted_vla):
    """Of fifty episodes five are held out, evenly spread."""
    table = pyarrow.parquet.read_table(DATA / "metaworld_mt5/data/chunk-000/file-000.parquet")
    is_training = ~np.isin(table["episode_index"].to_numpy(), [5, 15, 25, 35, 45])
    processor = policy(uninterrupted_vla)["processor"]
    for ours, theirs in (("state", "observation.state"), ("action", "action")):
        rows = np.stack(table[theirs].to_numpy())[is_training].astype(np.float64)
        assert processor[ours]["mode"] == "mean_std"
        found = processor[ours]["statistics"]
        assert found["count"] == [len(rows)]
        assert found["mean"] == pytest.approx(rows.mean(axis=0))
        assert found["std"] == pytest.approx(rows.std(axis=0))
        assert found["q01"] == pytest.approx(np.quantile(rows, 0.01, axis=0))


def test_actions_alone_need_no_teacher(tmp_path):
    words = ["policy.objective.mode=actions", f"logging.run_dir={tmp_path / 'run'}"]
    result = run(train_vla_command(*VLA_MINI, *words))
    assert result.returncode == 0, result.stderr
    assert policy(tmp_path / "run")["teacher"]["sha256"] is None
    assert not any(name.startswith("val/latent") for line in read_metrics(tmp_path / "run") for name in line)


@pytest.mark.parametrize("words", [["policy.objective.mode=latent"], POOLED, [*POOLED, "policy.objective.mode=latent"]])
def test_other_modes_and_architectures_train(tmp_path, uninterrupted, words):
    run_dir = trained(tmp_path / "run", uninterrupted, *words, "training.max_steps=10")
    losses = [line["train/loss"] for line in read_metrics(run_dir) if "train/loss" in line]
    assert len(losses) == 10
    assert list(policy(run_dir)["model"]["arch"]) == ["pooled" if POOLED[0] in words else "expert"]


def test_a_random_teacher_is_another_teacher_of_the_same_sizes(tmp_path, uninterrupted, uninterrupted_vla):
    words = ["policy.teacher.weights=random", "training.max_steps=10"]
    run_dir = trained(tmp_path / "run", uninterrupted, *words)
    ours = policy(run_dir)["teacher"]
    theirs = policy(uninterrupted_vla)["teacher"]
    assert ours.pop("sha256") != theirs.pop("sha256")
    assert (ours.pop("weights"), theirs.pop("weights")) == ("random", "trained")
    assert ours == theirs
    again = trained(tmp_path / "again", uninterrupted, *words)
    assert read_metrics(again) == read_metrics(run_dir), "its weights follow from the seed"


def test_augmentation_changes_what_the_policy_sees_in_training_alone(tmp_path, uninterrupted):
    words = ["training.optimizer.lr=1e-30", "training.scheduler.min_lr=0", "training.scheduler.warmup_start_lr=0"]
    words += ["training.max_steps=6", "validation.check_interval=6"]
    plain = read_metrics(trained(tmp_path / "plain", uninterrupted, *words))
    changed = read_metrics(trained(tmp_path / "changed", uninterrupted, *words, "training.augmentation.shift=0.2"))
    for before, after in zip(plain, changed, strict=True):
        if "train/loss" in before:
            assert before["train/loss"] != after["train/loss"]
        assert {key: before[key] for key in before if key.startswith("val/")} == {
            key: after[key] for key in after if key.startswith("val/")
        }


def test_multitask_learns_actions_to_the_end_of_an_episode(uninterrupted_vla):
    """Of every batch all samples have actions; those in the last k frames have no pair to learn from."""
    lines = [line for line in read_metrics(uninterrupted_vla) if "train/loss" in line]
    assert {line["train/num_action_samples"] for line in lines} == {4.0}
    num_pairs = [line["train/num_latent_samples"] for line in lines]
    # k = 20 of about 70 frames.
    assert 0.5 < sum(num_pairs) / (4 * len(lines)) < 0.9, num_pairs


def test_a_frozen_backbone_does_not_move(tmp_path, uninterrupted):
    run_dir = trained(tmp_path / "run", uninterrupted, "policy.model.backbone.train_expert_only=true")
    early, late = (load_file(run_dir / f"checkpoints/step-{step:06}/model.safetensors") for step in (5, 24))
    moved = {name for name in late if (early[name] != late[name]).any()}
    assert any(name.startswith("model.vlm_with_expert.lm_expert.") for name in moved)
    assert not any(name.startswith(BACKBONE) for name in moved)
    assert any(name.startswith(BACKBONE) for name in late)
    assert not any(BACKBONE in name for name in load_file(run_dir / "checkpoints/step-000024/optimizer.safetensors"))


def test_averaged_weights_are_what_is_exported(tmp_path, uninterrupted):
    run_dir = trained(tmp_path / "run", uninterrupted, "training.ema.enabled=true", "training.ema.decay=0.9")
    weights = load_file(run_dir / "artifacts/final/model.safetensors")
    averages = load_file(run_dir / "checkpoints/step-000024/ema.safetensors")
    assert averages and all((weights[name] == average).all() for name, average in averages.items())


def test_a_backbone_comes_from_its_folder(tmp_path, uninterrupted, uninterrupted_vla):
    folder = backbone_folder(tmp_path / "backbone", uninterrupted_vla)
    words = [
        f"policy.model.backbone.vlm_model_name={folder}",
        "policy.model.backbone.train_expert_only=true",
        "training.max_steps=5",
        "seed=5",
    ]
    weights = load_file(trained(tmp_path / "run", uninterrupted, *words) / "artifacts/final/model.safetensors")
    given = load_file(folder / "model.safetensors")
    assert given and all((weights[BACKBONE + name] == tensor).all() for name, tensor in given.items())


def test_a_whole_policy_is_a_start(tmp_path, uninterrupted, uninterrupted_vla):
    """Weights under LeRobot's names; a rate of almost zero leaves them where they were."""
    artifact = uninterrupted_vla / "artifacts/final"
    words = [
        f"policy.model.arch.expert.smolvla_checkpoint={artifact}",
        "training.max_steps=1",
        "training.optimizer.lr=1e-12",
        "seed=5",
    ]
    words += ["training.scheduler.type=none", "training.scheduler.warmup_steps=0"]
    weights = load_file(trained(tmp_path / "run", uninterrupted, *words) / "artifacts/final/model.safetensors")
    given = load_file(artifact / "model.safetensors")
    assert weights.keys() == given.keys()
    assert all(abs(weights[name] - tensor).max() < 1e-9 for name, tensor in given.items())


# Nothing is lost.


def test_two_runs_with_one_seed_are_equal_and_other_seeds_are_not(tmp_path, uninterrupted, uninterrupted_vla):
    assert_same_run(trained(tmp_path / "again", uninterrupted), uninterrupted_vla)
    other = trained(tmp_path / "other", uninterrupted, "seed=7")
    assert read_metrics(other) != read_metrics(uninterrupted_vla)


def test_killed_twice_and_resumed_it_is_the_run_that_was_never_killed(tmp_path, uninterrupted, uninterrupted_vla):
    run_dir = tmp_path / "run"
    command = words_for(run_dir, uninterrupted)
    for kill_at in (8, 17):
        process = start(command)
        wait_for(process, lambda at=kill_at: last_step(run_dir) >= at)
        kill(process)
        command = train_vla_command("--resume", run_dir)
    result = run(command)
    assert result.returncode == 0, result.stderr
    assert_same_run(run_dir, uninterrupted_vla)
    for name in ("best", "final"):
        assert_same_tensors(*(path / "artifacts" / name / "model.safetensors" for path in (run_dir, uninterrupted_vla)))


def test_accumulated_gradients_and_augmentation_resume_exactly(tmp_path, uninterrupted):
    words = [
        "training.gradient.accumulate_steps=2",
        "training.augmentation.shift=0.1",
        "training.augmentation.contrast=0.5",
    ]
    whole = trained(tmp_path / "whole", uninterrupted, *words)
    run_dir = tmp_path / "run"
    process = start(words_for(run_dir, uninterrupted, *words))
    wait_for(process, lambda: last_step(run_dir) >= 8)
    kill(process)
    assert run(train_vla_command("--resume", run_dir)).returncode == 0
    assert_same_run(run_dir, whole)


@pytest.mark.parametrize(
    "name", ["SIGTERM", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGINT", "SIGUSR1"))]
)
def test_signals_checkpoint_and_exit_with_their_own_code(tmp_path, uninterrupted, uninterrupted_vla, name):
    run_dir = tmp_path / "run"
    process = start(words_for(run_dir, uninterrupted))
    wait_for(process, lambda: last_step(run_dir) >= 7)
    process.send_signal(getattr(signal, name))
    assert process.wait(timeout=60) == INTERRUPTED
    assert run(train_vla_command("--resume", run_dir)).returncode == 0
    assert_same_run(run_dir, uninterrupted_vla)


def test_teacher_and_policy_may_count_in_other_units(tmp_path, uninterrupted, uninterrupted_vla):
    """Meta-World has 80 frames per second: 20 of them are a quarter of a second."""
    words = ["data.request.unit=seconds", "data.request.image_deltas=[0,0.25]"]
    laq = tmp_path / "laq"
    assert run(train_laq_command(*MINI, *words, f"logging.run_dir={laq}")).returncode == 0
    assert policy(trained(tmp_path / "frames", laq))["teacher"]["pair"] == {
        "unit": "seconds",
        "image_deltas": [0.0, 0.25],
    }
    assert read_metrics(tmp_path / "frames") == read_metrics(uninterrupted_vla)
    # Baselines repeat what was one frame before, in whichever unit the policy counts.
    assert read_metrics(trained(tmp_path / "seconds", laq, words[0])) == read_metrics(uninterrupted_vla)


def test_the_last_action_is_one_frame_back_in_either_unit(tmp_path, uninterrupted):
    words = [*POOLED, "policy.objective.mode=actions"]
    repeat = [
        read_metrics(trained(tmp_path / unit, uninterrupted, *words, f"data.request.unit={unit}"))[-1][
            "val/action_repeat_baseline_mse"
        ]
        for unit in ("frames", "seconds")
    ]
    assert repeat[0] == repeat[1]


def test_spacing_that_confirms_the_teachers(tmp_path, uninterrupted, uninterrupted_vla):
    run_dir = trained(tmp_path / "run", uninterrupted, "data.request.image_deltas=[0,20]")
    assert read_metrics(run_dir) == read_metrics(uninterrupted_vla)
