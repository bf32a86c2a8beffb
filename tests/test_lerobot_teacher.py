"""The latent action model inside LeRobot: which one fits a policy, what it labels, and how its frame spacing becomes LeRobot's offsets."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lerobot_fixtures import dataset_statistics
from lerobot_modules import CODES, OFFSET, make_batch, make_policy, refused
from lerobot_world import CHUNK, PUSHT, stage2_artifact

# What a policy asks a dataset for.
DATASET = SimpleNamespace(fps=10, total_episodes=20, tasks=None)


def test_a_random_teacher_is_the_same_model_with_other_weights(plugin, pusht_artifact, laq):
    options = {"stage2_artifact": pusht_artifact, "stage3_training_mode": "latent", "laq_checkpoint_path": laq}
    batch = make_batch(with_pairs=True)
    labels = [
        make_policy(**options, laq_weights=weights, laq_seed=seed)._targets(batch)["latents"]
        for weights, seed in (("trained", 0), ("random", 0), ("random", 0), ("random", 1))
    ]
    assert torch.equal(labels[1], labels[2])
    assert not torch.equal(labels[0], labels[1])
    assert not torch.equal(labels[1], labels[3])


def test_offsets_of_a_sample_are_the_teacher_s(multitask, policy):
    assert multitask.config.observation_delta_indices == [0, OFFSET]
    assert multitask.config.action_delta_indices == list(range(CHUNK))
    assert policy.config.observation_delta_indices == [0]


def test_spacing_in_seconds_needs_the_datasets_rate(plugin):
    from lerobot_policy_hlrp.smolvla_shared.teacher import offset_of

    seconds = {"unit": "seconds", "image_deltas": [0, 0.5]}
    assert offset_of(seconds, 10) == 5
    assert offset_of({"unit": "frames", "image_deltas": [0, 20]}, None) == 20
    with refused("seconds apart"):
        offset_of(seconds, None)
    with refused("not a whole number of frames at 5 per second"):
        offset_of(seconds, 5)
    with refused("start at offset -1"):
        offset_of({"unit": "frames", "image_deltas": [-1, 1]}, None)


def test_a_camera_of_the_teacher_that_the_model_lacks(plugin, pusht_artifact, laq):
    options = {"stage3_training_mode": "latent", "laq_checkpoint_path": laq, "laq_camera": "wrist"}
    with refused("laq_camera = wrist is not a camera of the model"):
        make_policy(stage2_artifact=pusht_artifact, **options)


@pytest.fixture
def artifact_taught_by(plugin, vlm, teacher_identity, tmp_path) -> Callable[..., Path]:
    """Makes an artifact whose teacher differs from the fixture `laq` in the given values."""

    def make(**differences: object) -> Path:
        teacher = teacher_identity | differences
        return stage2_artifact(tmp_path / "artifact", vlm, "multitask", 2, teacher, dataset_statistics(PUSHT))

    return make


@pytest.fixture
def taught(laq) -> dict:
    """Options of a training with that model."""
    return {"stage3_training_mode": "multitask", "laq_checkpoint_path": laq, "dataset_meta": DATASET}


def test_a_teacher_whose_codes_the_artifact_does_not_predict(artifact_taught_by, taught):
    with refused(
        r"the artifact .* predicts latent actions of \{.*'code_dim': 5.*\}, the teacher's are \{.*'code_dim': 8.*\}"
    ):
        make_policy(stage2_artifact=artifact_taught_by(code_dim=5), **taught)


def test_a_teacher_whose_codes_the_checkpoint_does_not_predict(artifact_taught_by, laq, tmp_path):
    policy = make_policy(stage2_artifact=artifact_taught_by(code_dim=5))
    with refused(rf"the policy's latent head has the shape \(4, 5\), .* the shape \({CODES[0]}, {CODES[1]}\)"):
        fine_tuned(policy, tmp_path / "saved", laq)


def test_a_teacher_of_a_checkpoint_that_learned_actions_alone(plugin, vlm, laq, tmp_path):
    statistics = dataset_statistics(PUSHT)
    policy = make_policy(stage2_artifact=stage2_artifact(tmp_path / "artifact", vlm, "actions", 2, None, statistics))
    with refused(rf"the policy has no latent head, the teacher's codes have the shape \({CODES[0]}, {CODES[1]}\)"):
        fine_tuned(policy, tmp_path / "saved", laq)


def fine_tuned(policy, folder: Path, laq: Path | None):
    """The policy saved and loaded again for a training with a teacher, as `lerobot-train --policy.path` does it."""
    policy.save_pretrained(folder)
    config = type(policy.config).from_pretrained(folder)
    config.stage3_training_mode, config.laq_checkpoint_path = "multitask", laq
    config.latent_frame_offset = OFFSET
    return type(policy).from_pretrained(folder, config=config, dataset_meta=DATASET)


@pytest.mark.parametrize(("difference", "num_warnings"), [({}, 0), ({"sha256": "0" * 64}, 1)])
def test_another_teacher_than_before_is_worth_a_warning(
    artifact_taught_by, taught, teacher_identity, caplog, difference, num_warnings
):
    policy = make_policy(stage2_artifact=artifact_taught_by(**difference), **taught)
    warnings = [
        message for message in caplog.messages if "is not the one whose codes the policy has learned" in message
    ]
    assert len(warnings) == num_warnings
    assert policy.config.teacher == teacher_identity, "the new teacher is recorded"


def test_a_teacher_whose_pairs_are_further_apart(plugin, pusht_artifact, taught):
    """For instance another one than a checkpoint was trained with."""
    message = f"10 frames per second, so the teacher's pairs are {OFFSET} frames apart, not 5\nhint: --policy.(.*)=(.*)"
    with pytest.raises(ValueError, match=message) as caught:
        make_policy(stage2_artifact=pusht_artifact, latent_frame_offset=5, **taught)
    advice = re.search(message, str(caught.value))
    make_policy(stage2_artifact=pusht_artifact, **{advice[1]: int(advice[2])}, **taught)


def test_latent_actions_without_a_teacher(plugin, pusht_artifact, taught, tmp_path):
    """A checkpoint says where its teacher was; without it, it can act and no more."""
    policy = make_policy(stage2_artifact=pusht_artifact, **taught)
    with refused("stage3_training_mode = multitask needs laq_checkpoint_path"):
        fine_tuned(policy, tmp_path / "saved", None)
    policy.config.laq_checkpoint_path = None
    policy.save_pretrained(tmp_path / "saved")
    loaded = type(policy).from_pretrained(tmp_path / "saved").train()
    with refused("there is no teacher: laq_checkpoint_path is not set"):
        loaded.forward(make_batch(with_pairs=True))
