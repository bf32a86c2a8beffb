"""Where weights, sizes and statistics of `hlrp_smolvla_shared` come from, and how a policy is saved and loaded."""

import pytest
import torch
from lerobot_modules import ACTION, BATCH, features, fixed_draws, make_batch, make_policy
from lerobot_world import CHUNK, SIDE

# --- Saving and loading ---


@pytest.mark.parametrize("mode", ["action", "multitask"])
def test_a_saved_policy_is_the_same_policy(plugin, pusht_artifact, laq, tmp_path, mode):
    """Without the artifact, and from another place."""
    artifact = tmp_path / "artifact"
    artifact.symlink_to(pusht_artifact)
    policy = make_policy(stage2_artifact=artifact, stage3_training_mode=mode, laq_checkpoint_path=laq).train()
    policy.save_pretrained(tmp_path / "saved")
    artifact.unlink()
    (tmp_path / "saved").rename(tmp_path / "moved")
    loaded = type(policy).from_pretrained(tmp_path / "moved")
    assert not loaded.training
    noise, time = fixed_draws()
    batch = make_batch(with_pairs=True)
    expected = policy.forward(batch, noise=noise, time=time)
    actual = loaded.train().forward(batch, noise=noise, time=time)
    assert actual[0].item() == expected[0].item()
    assert actual[1] == expected[1]
    assert loaded.state_dict().keys() == policy.state_dict().keys()


def test_the_teacher_is_no_part_of_a_checkpoint(multitask, tmp_path):
    from safetensors import safe_open

    multitask.save_pretrained(tmp_path / "saved")
    with safe_open(tmp_path / "saved" / "model.safetensors", "pt") as weights:
        assert {name.split(".")[0] for name in weights.keys()} == {"model"}  # noqa: SIM118
    multitask.config.laq_checkpoint_path = tmp_path / "gone"
    multitask.save_pretrained(tmp_path / "saved")
    loaded = type(multitask).from_pretrained(tmp_path / "saved")
    assert loaded.predict_action_chunk(make_batch()).isfinite().all(), "acting needs no teacher"


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_weights_load_strictly_both_ways(policy, tmp_path, change):
    """LeRobot asks for `strict=False`."""
    from safetensors.torch import load_file, save_file

    policy.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    if change == "missing":
        del weights["model.state_proj.bias"]
    else:
        weights["model.nobody.bias"] = torch.zeros(1)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match="model.state_proj.bias" if change == "missing" else "model.nobody.bias"):
        type(policy).from_pretrained(tmp_path, strict=False)


def test_training_passes_draw_by_their_number(policy, tmp_path):
    """A loaded policy continues with the noise that the saved one would have seen, whatever was drawn in between."""
    torch.manual_seed(11)
    policy.forward(make_batch())
    policy.save_pretrained(tmp_path)
    expected = [policy.forward(make_batch())[0].item() for _ in range(3)]
    assert len(set(expected)) == 3
    loaded = type(policy).from_pretrained(tmp_path).train()
    torch.rand(5)
    state = torch.get_rng_state()
    assert [loaded.forward(make_batch())[0].item() for _ in range(3)] == expected
    assert torch.equal(torch.get_rng_state(), state)


# --- Starting points ---


def test_the_model_of_an_artifact_is_taken_as_it_is(policy):
    config = policy.config
    assert (config.chunk_size, config.n_action_steps, config.num_vlm_layers) == (CHUNK, CHUNK, 2)
    assert config.resize_imgs_with_padding == (SIDE, SIDE)
    assert config.camera_map == {"primary": "observation.image"}


def test_scratch_takes_the_backbone_and_smolvlas_fields(plugin, vlm):
    options = {
        "init_mode": "scratch",
        "vlm_model_name": str(vlm),
        "num_vlm_layers": 2,
        "resize_imgs_with_padding": (SIDE, SIDE),
    }
    policy = make_policy(**options, chunk_size=5)
    from safetensors.torch import load_file

    backbone = load_file(vlm / "model.safetensors")
    name = "model.text_model.layers.1.mlp.up_proj.weight"
    assert torch.equal(policy.get_parameter(f"model.vlm_with_expert.vlm.{name}"), backbone[name])
    assert policy.predict_action_chunk(make_batch()).shape == (BATCH, 5, ACTION)
    fresh = make_policy(**options, load_vlm_weights=False)
    assert not torch.equal(fresh.get_parameter(f"model.vlm_with_expert.vlm.{name}"), backbone[name])


def test_an_artifact_without_a_robot_takes_the_data_s(plugin, latent_artifact, laq):
    policy = make_policy(stage2_artifact=latent_artifact, chunk_size=9, **features(action_dim=3))
    assert policy.predict_action_chunk(make_batch()).shape == (BATCH, 9, 3)


def test_a_camera_map_decides_which_camera_is_seen(plugin, pusht_artifact):
    keys = ("observation.images.a", "observation.images.b")
    policy = make_policy(stage2_artifact=pusht_artifact, camera_map={"primary": keys[1]}, **features(keys=keys))
    batch = make_batch()
    images = batch.pop("observation.image")
    noise = torch.randn(BATCH, CHUNK, 32)
    chunk = policy.predict_action_chunk(batch | {keys[0]: torch.rand_like(images), keys[1]: images}, noise=noise)
    assert torch.equal(chunk, policy.predict_action_chunk(batch | {keys[0]: images, keys[1]: images}, noise=noise))


def test_statistics_come_from_the_data_else_from_the_artifact(plugin, pusht_artifact):
    from lerobot.policies.factory import make_pre_post_processors

    policy = make_policy(stage2_artifact=pusht_artifact)
    mean = torch.tensor(policy.config.processor["action"]["statistics"]["mean"])
    _, postprocessor = make_pre_post_processors(policy.config, dataset_stats=None)
    assert torch.allclose(postprocessor(torch.zeros(1, ACTION)), mean)
    statistics = {key: {"mean": torch.ones(2), "std": torch.ones(2)} for key in ("observation.state", "action")}
    _, postprocessor = make_pre_post_processors(policy.config, dataset_stats=statistics)
    assert torch.allclose(postprocessor(torch.zeros(1, ACTION)), torch.ones(ACTION))
