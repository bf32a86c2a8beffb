"""Mistakes are refused before a training starts, each with one text that names what is wrong and what to do."""

import json
import os
import shutil
import sys

import pytest
import torch
from lerobot_world import (
    METAWORLD,
    PUSHT,
    flags,
    lerobot_eval,
    lerobot_train,
    pretrained,
    train_command,
)
from test_lerobot_policy import features, fixed_draws, make_batch, make_policy


def refused(match: str):
    """A mistake of a user: a message with a hint."""
    return pytest.raises((ValueError, RuntimeError, FileNotFoundError, OSError), match=rf"(?s){match}.*hint: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "init_mode = artifact needs stage2_artifact"),
        (
            {"init_mode": "scratch", "stage2_artifact": "somewhere"},
            "stage2_artifact is given, but init_mode = scratch does not read it",
        ),
        ({"init_mode": "smolvla"}, "init_mode = smolvla needs smolvla_checkpoint"),
        ({"init_mode": "smolvla", "smolvla_checkpoint": "nowhere"}, "nowhere/config.json"),
        ({"init_mode": "hub"}, "init_mode = hub is unknown"),
        ({"stage3_training_mode": "actions"}, "stage3_training_mode = actions is unknown"),
        ({"stage2_artifact": "nowhere", "stage3_training_mode": "latent"}, "needs laq_checkpoint_path"),
        ({"stage2_artifact": "x", "stage3_training_mode": "latent", "laq_checkpoint_path": "nowhere"}, "nowhere"),
        ({"stage2_artifact": "nowhere", "labelled_episodes": []}, "labelled_episodes is empty"),
        ({"stage2_artifact": "nowhere"}, "nowhere"),
        ({"init_mode": "scratch", "vlm_model_name": "no/model"}, "no/model"),
        ({"use_peft": True}, "use_peft is set"),
    ],
)
def test_contradictions_are_found_when_lerobot_asks_for_the_optimizer(plugin, tmp_path, options, message):
    """That is before it opens the dataset; the message is the last thing a user reads."""
    command = train_command(PUSHT, tmp_path / "run", 1, *flags(type="hlrp_smolvla_shared", **options))
    with refused(message):
        lerobot_train(*command)
    assert not (tmp_path / "run").exists()


def test_sizes_that_contradict_the_artifact(plugin, pusht_artifact):
    with refused(r"num_vlm_layers = 16 \(there: 2\), chunk_size = 50 \(there: 6\)"):
        make_policy(stage2_artifact=pusht_artifact, chunk_size=50, num_vlm_layers=16)


def test_more_action_steps_than_a_chunk_has(plugin, pusht_artifact):
    with refused("n_action_steps = 7 does not lie between 1 and chunk_size = 6"):
        make_policy(stage2_artifact=pusht_artifact, n_action_steps=7)


def test_a_damaged_artifact(plugin, pusht_artifact, tmp_path):
    shutil.copytree(pusht_artifact, tmp_path / "artifact")
    with (tmp_path / "artifact" / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    with refused("sha256 differs"):
        make_policy(stage2_artifact=tmp_path / "artifact")


def test_a_dataset_of_another_robot(plugin, pusht_artifact, tmp_path):
    command = train_command(
        METAWORLD, tmp_path / "run", 1, *flags(type="hlrp_smolvla_shared", stage2_artifact=pusht_artifact)
    )
    with refused("actions have 4 numbers here, the artifact .* predicts 2"):
        lerobot_train(*command)


def test_an_environment_of_another_robot(pusht_run, tmp_path):
    with refused("actions have 4 numbers here, the checkpoint .* predicts 2"):
        lerobot_eval(
            f"--policy.path={pretrained(pusht_run.output)}",
            "--policy.device=cpu",
            "--env.type=metaworld",
            "--env.task=door-close-v3",
            "--eval.n_episodes=1",
            "--eval.batch_size=1",
            "--eval.use_async_envs=false",
            f"--output_dir={tmp_path / 'eval'}",
        )


def test_a_dataset_without_a_camera(plugin, pusht_artifact, tmp_path):
    """A copy of PushT whose description has no images."""
    shutil.copytree(PUSHT, tmp_path / "blind")
    info_path = tmp_path / "blind" / "meta" / "info.json"
    info = json.loads(info_path.read_text())
    del info["features"]["observation.image"]
    info_path.write_text(json.dumps(info))
    command = train_command(
        tmp_path / "blind", tmp_path / "run", 1, *flags(type="hlrp_smolvla_shared", stage2_artifact=pusht_artifact)
    )
    with refused("the policy needs a camera"):
        lerobot_train(*command)


def test_more_cameras_than_the_model_has(plugin, pusht_artifact):
    keys = ("observation.images.a", "observation.images.b")
    with refused("the data has 2 cameras .* the model 1"):
        make_policy(stage2_artifact=pusht_artifact, **features(keys=keys))


@pytest.mark.parametrize(
    ("camera_map", "message"),
    [
        ({"wrist": "observation.image"}, "camera_map names the camera `wrist`"),
        ({"primary": "observation.images.top"}, "camera_map.primary is `observation.images.top`"),
    ],
)
def test_a_camera_map_that_names_what_is_not_there(plugin, pusht_artifact, camera_map, message):
    with refused(message):
        make_policy(stage2_artifact=pusht_artifact, camera_map=camera_map)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("observation.image", None, "the batch lacks the camera"),
        ("observation.state", None, "the batch lacks observation.state"),
        ("observation.state", torch.zeros(4, 1, 3), "has 3 numbers, the policy was trained with 2"),
        ("task", ["one"], "1 instructions for 4 samples"),
        ("action", None, "the batch has no actions"),
    ],
)
def test_batches_that_lack_something(plugin, pusht_artifact, key, value, message):
    batch = make_batch()
    batch.pop(key) if value is None else batch.update({key: value})
    with refused(message):
        make_policy(stage2_artifact=pusht_artifact).forward(batch)


def test_pairs_are_asked_for(plugin, pusht_artifact, laq):
    policy = make_policy(stage2_artifact=pusht_artifact, stage3_training_mode="latent", laq_checkpoint_path=laq)
    with refused(r"the teacher needs pairs .* the batch has \[4, 1, 3"):
        policy.forward(make_batch())
    with refused("learns latent actions only"):
        policy.predict_action_chunk(make_batch())


def test_episodes_that_do_not_exist(plugin, pusht_artifact, tmp_path):
    options = flags(type="hlrp_smolvla_shared", stage2_artifact=pusht_artifact, labelled_episodes=[3, 20])
    with refused(r"labelled_episodes names \[20\], the dataset has the episodes 0 to 19"):
        lerobot_train(*train_command(PUSHT, tmp_path / "run", 1, *options))


def test_spacing_in_seconds_needs_the_datasets_rate(plugin):
    from lerobot_policy_hlrp.smolvla_shared.teacher import offset_of

    seconds = {"unit": "seconds", "image_deltas": [0, 0.5]}
    assert offset_of(seconds, 10) == 5
    assert offset_of({"unit": "frames", "image_deltas": [0, 20]}, None) == 20
    with refused("seconds apart"):
        offset_of(seconds, None)
    with refused("no whole number of frames at 5 per second"):
        offset_of(seconds, 5)
    with refused("begin at offset -1"):
        offset_of({"unit": "frames", "image_deltas": [-1, 1]}, None)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("ACCELERATE_USE_FSDP", "true", "FSDP shards parameters"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "DeepSpeed shards parameters"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "torch.compile sees no Python operations"),
    ],
)
def test_launches_that_cannot_work(plugin, pusht_artifact, monkeypatch, variable, value, message):
    monkeypatch.setenv(variable, value)
    with refused(message):
        make_policy(stage2_artifact=pusht_artifact)


def test_adapters_and_compilation(plugin, pusht_artifact):
    policy = make_policy(stage2_artifact=pusht_artifact)
    with refused("PEFT adapters"):
        policy.wrap_with_peft()
    with refused("torch.compile"):
        policy.compile()


def test_a_compiler_around_the_policy_leaves_it_alone(plugin, pusht_artifact):
    policy = make_policy(stage2_artifact=pusht_artifact)
    noise, time = fixed_draws()
    expected, _ = policy.forward(make_batch(), noise=noise, time=time)
    loss, _ = torch.compile(policy)(make_batch(), noise=noise, time=time)
    assert loss.item() == expected.item()


def test_half_precision_weights(plugin, pusht_artifact):
    with refused("float32|Float"):
        make_policy(stage2_artifact=pusht_artifact).half().forward(make_batch())


def test_a_checkpoint_without_its_tokenizer(pusht_run, tmp_path):
    shutil.copytree(pretrained(pusht_run.output), tmp_path / "policy")
    (tmp_path / "policy" / "tokenizer.json").unlink()
    from lerobot_policy_hlrp.smolvla_shared.modeling_hlrp_smolvla_shared import HLRPSmolVLASharedPolicy

    with refused("tokenizer.json: there is no such file"):
        HLRPSmolVLASharedPolicy.from_pretrained(tmp_path / "policy")


def test_another_torch_is_one_error_of_the_run(plugin, pusht_artifact, tmp_path, monkeypatch):
    """The plugin registers without `hlrp_rs`, so that the run says what is wrong instead of an unknown policy type."""
    (tmp_path / "hlrp_rs.py").write_text(
        "raise ImportError('hlrp_rs was built for torch 2.11.0, but this is 2.10.0')\n"
    )
    for name in [name for name in sys.modules if name.split(".")[0] == "hlrp_rs"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    options = flags(type="hlrp_smolvla_shared", stage2_artifact=pusht_artifact)
    with pytest.raises(ImportError, match="hlrp_rs was built for torch 2.11.0, but this is 2.10.0"):
        lerobot_train(*train_command(PUSHT, tmp_path / "run", 1, *options))
