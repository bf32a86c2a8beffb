"""User errors are refused before a training starts, each with one message that names what is wrong and what to do."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import VLA_MINI, run, train_vla_command
from lerobot_modules import features, fixed_draws, make_batch, make_policy, refused
from lerobot_world import (
    METAWORLD,
    PUSHT,
    flags,
    lerobot_eval,
    lerobot_train,
    pretrained,
    train_command,
)


def edited(folder: Path, copy: Path, edit: Callable[[dict], None], name: str = "artifact.json") -> Path:
    """A copy of a folder whose JSON file of that name `edit` has changed."""
    shutil.copytree(folder, copy)
    content = json.loads((copy / name).read_text())
    edit(content)
    (copy / name).write_text(json.dumps(content))
    return copy


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
        ({"laq_weights": "fresh"}, "laq_weights = fresh is unknown"),
        ({"dtype": "float16"}, "dtype = float16 is unknown"),
        ({"pad_language_to": "right"}, "pad_language_to = right is unknown"),
        ({"stage2_artifact": "nowhere", "stage3_training_mode": "latent"}, "needs laq_checkpoint_path"),
        ({"stage2_artifact": "x", "stage3_training_mode": "latent", "laq_checkpoint_path": "nowhere"}, "nowhere"),
        ({"stage2_artifact": "nowhere", "labelled_episodes": []}, "labelled_episodes is empty"),
        ({"stage2_artifact": "nowhere"}, "nowhere"),
        ({"init_mode": "scratch", "vlm_model_name": "no/model"}, "no/model"),
        ({"use_peft": True}, "use_peft is set"),
        ({"stage2_artifact": "nowhere", "n_obs_steps": 2}, "n_obs_steps = 2: this policy sees one frame"),
    ],
)
def test_contradictions_are_found_when_lerobot_asks_for_the_optimizer(plugin, tmp_path, options, message):
    """That is before it opens the dataset; the message is the last thing a user reads."""
    command = train_command(PUSHT, tmp_path / "run", 1, *flags(type="hlrp_smolvla_shared", **options))
    with refused(message):
        lerobot_train(*command)
    assert not (tmp_path / "run").exists()


def test_sizes_that_contradict_the_artifact(plugin, pusht_artifact):
    with refused(r"chunk_size = 50 \(there: 6\), num_vlm_layers = 16 \(there: 2\)"):
        make_policy(stage2_artifact=pusht_artifact, chunk_size=50, num_vlm_layers=16)


def test_images_that_are_to_be_scaled(plugin, pusht_artifact):
    from lerobot.configs import NormalizationMode

    with refused("normalization_mapping.VISUAL is MEAN_STD: the model scales its images itself"):
        make_policy(stage2_artifact=pusht_artifact, normalization_mapping={"VISUAL": NormalizationMode.MEAN_STD})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "config.json: invalid JSON"),
        (b"\xff\xfe\x00", "config.json: invalid JSON"),
        (b"[]", "config.json: not a JSON object"),
        (b'{"type": "act"}', "config.json: its type is act, not smolvla"),
    ],
)
def test_a_checkpoint_that_is_no_smolvla(plugin, tmp_path, content, message):
    (tmp_path / "config.json").write_bytes(content)
    with refused(message):
        make_policy(init_mode="smolvla", smolvla_checkpoint=tmp_path)


def test_a_backbone_without_the_tokens_around_an_image(plugin, vlm, tmp_path):
    def without_global(tokenizer: dict) -> None:
        tokens = tokenizer["added_tokens"]
        tokenizer["added_tokens"] = [token for token in tokens if token["content"] != "<global-img>"]

    folder = edited(vlm, tmp_path / "vlm", without_global, "tokenizer.json")
    options = {"init_mode": "scratch", "num_vlm_layers": 2, "add_image_special_tokens": True}
    with refused("the tokenizer has no .* or no `<global-img>`"):
        make_policy(vlm_model_name=str(folder), **options)
    assert make_policy(vlm_model_name=str(vlm), **options).config.model["arch"]["expert"]["image_special_tokens"]
    (folder / "tokenizer.json").unlink()
    with refused("tokenizer.json: No such file or directory"):
        make_policy(vlm_model_name=str(folder), **options)


def test_more_action_steps_than_a_chunk_has(plugin, pusht_artifact):
    with refused("n_action_steps = 7 is not between 1 and chunk_size = 6"):
        make_policy(stage2_artifact=pusht_artifact, n_action_steps=7)


def test_a_damaged_artifact(plugin, pusht_artifact, tmp_path):
    shutil.copytree(pusht_artifact, tmp_path / "artifact")
    with (tmp_path / "artifact" / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    with refused("sha256 differs"):
        make_policy(stage2_artifact=tmp_path / "artifact")


@pytest.fixture(scope="module")
def pooled_run(tmp_path_factory, laq) -> Path:
    """A run of stage 2 whose small heads predict latent actions alone."""
    run_dir = tmp_path_factory.mktemp("pooled") / "run"
    model = ["~policy.model.arch.expert", "+policy.model.arch.pooled={}", "policy.objective.mode=latent"]
    model += [f"policy.teacher.checkpoint={laq}"]
    steps = ["training.max_steps=2", "training.scheduler.warmup_steps=1"]
    result = run(train_vla_command(*VLA_MINI, *model, *steps, f"logging.run_dir={run_dir}"))
    assert result.returncode == 0, result.stderr
    return run_dir


def test_an_artifact_that_cannot_act(plugin, pooled_run):
    with refused("the artifact .* has no action head"):
        make_policy(stage2_artifact=pooled_run / "artifacts" / "final")


def test_a_dataset_of_another_robot(plugin, pusht_artifact, tmp_path):
    command = train_command(
        METAWORLD, tmp_path / "run", 1, *flags(type="hlrp_smolvla_shared", stage2_artifact=pusht_artifact)
    )
    with refused("actions have 4 dimensions here, the artifact .* predicts 2"):
        lerobot_train(*command)


@pytest.mark.parametrize(
    ("state_dim", "here"), [(3, "states have 3 dimensions here"), (None, "there are no states here")]
)
def test_states_of_another_robot(plugin, pusht_artifact, state_dim, here):
    with refused(f"{here}, the artifact .* sees 2"):
        make_policy(stage2_artifact=pusht_artifact, **features(state_dim=state_dim))


def test_an_environment_of_another_robot(pusht_run, tmp_path):
    with refused("actions have 4 dimensions here, the checkpoint .* predicts 2"):
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

    def blind(info: dict) -> None:
        del info["features"]["observation.image"]

    data = edited(PUSHT, tmp_path / "blind", blind, "meta/info.json")
    options = flags(type="hlrp_smolvla_shared", stage2_artifact=pusht_artifact)
    with refused("the policy needs a camera"):
        lerobot_train(*train_command(data, tmp_path / "run", 1, *options))


def test_data_without_actions(plugin, pusht_artifact):
    with refused(r"the policy predicts actions, and the data has none, only \['observation.image'"):
        make_policy(stage2_artifact=pusht_artifact, **features(action_dim=None))


def test_a_dataset_without_statistics(plugin, latent_artifact, tmp_path):
    """The artifact knows no robot, so that it has none either."""

    def without_action(statistics: dict) -> None:
        del statistics["action"]

    data = edited(PUSHT, tmp_path / "unmeasured", without_action, "meta/stats.json")
    options = flags(type="hlrp_smolvla_shared", stage2_artifact=latent_artifact)
    with refused(r"there are no statistics of action to normalise it with \(MEAN_STD\)"):
        lerobot_train(*train_command(data, tmp_path / "run", 1, *options))


def test_fewer_cameras_than_the_model_has(plugin, pusht_artifact, tmp_path):
    def add_wrist(record: dict) -> None:
        record["policy"]["model"]["cameras"].append("wrist")

    artifact = edited(pusht_artifact, tmp_path / "artifact", add_wrist)
    keys = ("observation.images.primary",)
    with refused(
        r"the data has no image for the model's cameras \['wrist'\]; its own are \['observation.images.primary'\]"
    ):
        make_policy(stage2_artifact=artifact, **features(keys=keys))


def test_more_cameras_than_the_model_has(plugin, pusht_artifact):
    keys = ("observation.images.a", "observation.images.b")
    with refused(
        r"cannot match the cameras of the data \['observation.images.a', .* to those of the model \['primary'\]"
    ):
        make_policy(stage2_artifact=pusht_artifact, **features(keys=keys))


@pytest.mark.parametrize(
    ("names", "roles", "mapped"),
    [
        (["top", "wrist"], ["wrist", "top"], {"wrist": "wrist", "top": "top"}),
        (["overhead", "top"], ["top", "wrist"], {"top": "top", "wrist": "overhead"}),
        (["any"], ["primary"], {"primary": "any"}),
        (["overhead", "left"], ["top", "wrist"], None),
        (["top", "left", "right"], ["top", "wrist"], None),
        (["left"], ["top", "wrist"], None),
    ],
)
def test_cameras_meet_by_equal_names_and_one_that_is_left_over(plugin, names, roles, mapped):
    """Whatever leaves a choice is refused, with both lists and a map to start from."""
    from lerobot_policy_hlrp.smolvla_shared.cameras import map_cameras

    keys = [f"observation.images.{name}" for name in names]
    if mapped is not None:
        expected = {role: f"observation.images.{name}" for role, name in mapped.items()}
        assert list(map_cameras(keys, roles, 0, {}).items()) == list(expected.items())
        return
    with pytest.raises(ValueError) as refusal:
        map_cameras(keys, roles, 1, {})
    text = str(refusal.value)
    assert str(keys) in text and str(roles) in text and "--policy.camera_map='{" in text


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
        ("observation.state", torch.zeros(4, 1, 3), "has 3 dimensions, the policy was trained with 2"),
        ("observation.image", torch.zeros(3, 48, 96), r"a tensor of shape \[3, 48, 96\] is not a batch"),
        ("observation.state", torch.zeros(2), r"a tensor of shape \[2\] is not a batch"),
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


def test_pairs_whose_padding_was_lost(plugin, pusht_artifact, laq):
    policy = make_policy(stage2_artifact=pusht_artifact, stage3_training_mode="latent", laq_checkpoint_path=laq)
    batch = make_batch(with_pairs=True)
    del batch["observation.image_is_pad"]
    with refused("the batch lacks observation.image_is_pad"):
        policy.forward(batch)


def test_labelled_episodes_in_a_batch_that_does_not_say_its_own(plugin, pusht_artifact):
    policy = make_policy(stage2_artifact=pusht_artifact, labelled_episodes=[0]).train()
    batch = make_batch()
    del batch["episode_index"]
    with refused("labelled_episodes is set, but the batch lacks episode_index"):
        policy.forward(batch)


def test_a_teacher_that_is_no_latent_action_model(plugin, pusht_artifact, pooled_run, tmp_path):
    options = {"stage3_training_mode": "latent", "laq_checkpoint_path": pooled_run}
    command = flags(type="hlrp_smolvla_shared", stage2_artifact=pusht_artifact, **options)
    with refused(f"{pooled_run}: it is not a latent action model"):
        lerobot_train(*train_command(PUSHT, tmp_path / "run", 1, *command))


def test_episodes_that_do_not_exist(plugin, pusht_artifact, tmp_path):
    options = flags(type="hlrp_smolvla_shared", stage2_artifact=pusht_artifact, labelled_episodes=[3, 20])
    with refused(r"labelled_episodes names \[20\], the dataset has the episodes 0 to 19"):
        lerobot_train(*train_command(PUSHT, tmp_path / "run", 1, *options))


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("ACCELERATE_USE_FSDP", "true", "FSDP shards parameters"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "DeepSpeed shards parameters"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", "Megatron-LM shards parameters"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "this parallelism shards parameters"),
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


def test_chunks_as_cuda_graphs_on_a_cpu(plugin, pusht_artifact):
    policy = make_policy(stage2_artifact=pusht_artifact, cuda_graph=True)
    with refused("cuda_graph: only a GPU records graphs"):
        policy.predict_action_chunk(make_batch())


def test_half_precision_weights(plugin, pusht_artifact):
    with refused("float32|Float"):
        make_policy(stage2_artifact=pusht_artifact).half().forward(make_batch())


def test_a_configuration_alone_is_no_checkpoint(pusht_run, tmp_path):
    def without_model(config: dict) -> None:
        config["model"] = None

    policy = edited(pretrained(pusht_run.output), tmp_path / "policy", without_model, "config.json")
    with refused(f"{policy}: config.json does not describe a model"):
        lerobot_train(*train_command(PUSHT, tmp_path / "run", 1, *flags(path=policy)))


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({"state_dim": None}, r"hlrp_smoke sees states, and there is none among \['observation.image'\]"),
        ({"action_dim": None}, "hlrp_smoke predicts actions, and the data has none"),
    ],
)
def test_data_that_the_smoke_policy_cannot_use(plugin, widths, message):
    from lerobot_policy_hlrp.smoke.modeling_hlrp_smoke import HLRPSmokePolicy

    with refused(message):
        HLRPSmokePolicy(HLRPSmokePolicy.config_class(**features(**widths)))


def test_a_checkpoint_without_its_tokenizer(pusht_run, tmp_path):
    shutil.copytree(pretrained(pusht_run.output), tmp_path / "policy")
    (tmp_path / "policy" / "tokenizer.json").unlink()
    from lerobot_policy_hlrp.smolvla_shared.modeling_hlrp_smolvla_shared import HLRPSmolVLASharedPolicy

    with refused("tokenizer.json: the file is missing"):
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
