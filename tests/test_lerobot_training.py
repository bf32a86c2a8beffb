"""Stock LeRobot trains, resumes, fine-tunes and evaluates the policy."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import lerobot_ddp_worker
import pytest
import torch
from lerobot_world import (
    METAWORLD,
    PUSHT,
    SIDE,
    flags,
    lerobot_eval,
    lerobot_train,
    pretrained,
    train_command,
)
from safetensors.torch import load_file, save_file


def weights(output: Path, step: str = "last") -> dict[str, torch.Tensor]:
    return load_file(pretrained(output, step) / "model.safetensors")


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Names of the tensors that differ."""
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def evaluate(policy: Path, output: Path, *extra: str) -> dict:
    """`lerobot-eval` on one episode; what it says about it."""
    lerobot_eval(
        f"--policy.path={policy}",
        "--policy.device=cpu",
        "--eval.n_episodes=1",
        "--eval.batch_size=1",
        "--eval.use_async_envs=false",
        f"--output_dir={output}",
        *extra,
    )
    return json.loads((output / "eval_info.json").read_text())["overall"]


def test_training_from_an_artifact_moves_what_trains(pusht_run, pusht_artifact):
    changed = moved(load_file(pusht_artifact / "model.safetensors"), weights(pusht_run.output))
    assert "model.action_out_proj.weight" in changed
    assert not [name for name in changed if name.startswith(("model.vlm_with_expert.vlm.", "model.latent_"))]


def test_a_checkpoint_holds_all_it_needs(pusht_run):
    folder = pretrained(pusht_run.output)
    files = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= files
    assert {"policy_preprocessor.json", "policy_postprocessor.json", "train_config.json"} <= files
    config = json.loads((folder / "config.json").read_text())
    assert config["type"] == "hlrp_smolvla_shared"
    assert config["model"]["action_dim"] == 2
    assert config["default_task"] == "Push the T-shaped block onto the T-shaped target."


def test_multitask_training_learns_both(metaworld_run, latent_artifact):
    changed = moved(load_file(latent_artifact / "model.safetensors"), weights(metaworld_run.output))
    assert {"model.action_out_proj.weight", "model.latent_out_proj.weight"} <= changed
    config = json.loads((pretrained(metaworld_run.output) / "config.json").read_text())
    assert config["latent_frame_offset"] == 20
    assert config["model"]["action_dim"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("data", [PUSHT, METAWORLD], ids=["pusht", "metaworld"])
def test_training_from_scratch(plugin, vlm, tmp_path, data):
    options = flags(
        type="hlrp_smolvla_shared",
        init_mode="scratch",
        vlm_model_name=vlm,
        num_vlm_layers=2,
        chunk_size=5,
        n_action_steps=5,
        resize_imgs_with_padding=[SIDE, SIDE],
        optimizer_lr=1e-3,
    )
    extra = ["--save_freq=10", "--dataset.eval_split=0.2", "--eval_steps=10", "--max_eval_samples=8"]
    lerobot_train(*train_command(data, tmp_path / "run", 10, *options, *extra))
    loaded = weights(tmp_path / "run")
    assert all(tensor.isfinite().all() for tensor in loaded.values())
    backbone = load_file(vlm / "model.safetensors")
    name = "model.vision_model.post_layernorm.weight"
    assert torch.equal(loaded[f"model.vlm_with_expert.vlm.{name}"], backbone[name])


def test_resuming_continues_as_if_nothing_had_happened(pusht_run, tmp_path):
    """Interrupted after half of its steps, the run ends with the same weights and the same optimizer, to the last bit."""
    output = tmp_path / "run"
    shutil.copytree(pusht_run.output, output, symlinks=True)
    first, last = sorted(path for path in (output / "checkpoints").iterdir() if not path.is_symlink())
    shutil.rmtree(last)
    (output / "checkpoints" / "last").unlink()
    (output / "checkpoints" / "last").symlink_to(first.name)
    lerobot_train(
        f"--config_path={pretrained(output) / 'train_config.json'}", "--resume=true", f"--output_dir={output}"
    )
    assert moved(weights(pusht_run.output, first.name), weights(output)), "the second half did something"
    assert moved(weights(pusht_run.output), weights(output)) == set()
    moments = "checkpoints/last/training_state/optimizer_state.safetensors"
    assert moved(load_file(pusht_run.output / moments), load_file(output / moments)) == set()


def test_fine_tuning_a_checkpoint(pusht_run, laq, tmp_path):
    """From actions to both kinds, with LeRobot's own overrides of the processors."""
    output = tmp_path / "run"
    policy = pretrained(pusht_run.output)
    options = flags(
        path=policy,
        stage3_training_mode="multitask",
        laq_checkpoint_path=laq,
        labelled_episodes=[0, 1],
        optimizer_lr=1e-3,
    )
    lerobot_train(*train_command(PUSHT, output, 4, *options, "--save_freq=4"))
    changed = moved(weights(pusht_run.output), weights(output))
    assert {"model.action_out_proj.weight", "model.latent_out_proj.weight"} <= changed


def test_evaluation_on_pusht(pusht_run, tmp_path):
    overall = evaluate(
        pretrained(pusht_run.output),
        tmp_path / "eval",
        "--env.type=pusht",
        "--env.episode_length=20",
        "--env.observation_height=96",
        "--env.observation_width=96",
    )
    assert overall["n_episodes"] == 1
    assert Path(overall["video_paths"][0]).stat().st_size > 0


# An action that closes the door whatever the policy sees.
CLOSING = [1.0, 0.25, -1.0, 0.0]


@pytest.mark.slow
def test_evaluation_on_metaworld(metaworld_run, tmp_path):
    """The policy's actions reach the simulator at the robot's scale: with statistics that turn every action into one that closes the
    door, the door is closed. Meta-World ends an episode only with success or after 500 slow steps, so a sure success is also quick."""
    policy = tmp_path / "policy"
    shutil.copytree(pretrained(metaworld_run.output), policy)
    (statistics,) = policy.glob("policy_postprocessor_step_*_unnormalizer_processor.safetensors")
    scaling = load_file(statistics)
    scaling |= {"action.mean": torch.tensor(CLOSING), "action.std": torch.full((4,), 1e-3)}
    save_file(scaling, statistics)
    overall = evaluate(policy, tmp_path / "eval", "--env.type=metaworld", "--env.task=door-close-v3")
    assert overall["pc_success"] == 100.0


@pytest.mark.slow
def test_two_processes_take_the_step_of_one(pusht_run, lerobot_environment, tmp_path):
    """Two processes with half a batch each, under accelerate as LeRobot uses it, end with the weights of one with the whole batch."""
    policy = pretrained(pusht_run.output)
    lerobot_ddp_worker.main(policy, tmp_path / "one.safetensors")
    rendezvous = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    command = [sys.executable, lerobot_ddp_worker.__file__, str(policy), str(tmp_path / "two.safetensors")]
    workers = [
        subprocess.Popen(
            command,
            env=lerobot_environment
            | rendezvous
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "ACCELERATE_USE_CPU": "true"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors
    one, two = (load_file(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert moved(weights(pusht_run.output), one), "the step did something"
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-5, atol=1e-6)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
