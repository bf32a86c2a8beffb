"""`scripts/rollouts.py`: policies in the simulator, beside a blind policy and the expert."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import REPO, VLA_MINI, program, run
from lerobot_world import lerobot_eval

# Each start imports LeRobot with Meta-World, and episodes of a blind policy have 500 steps: some minutes on two idle cores.
pytestmark = pytest.mark.slow

COMMAND = [sys.executable, str(REPO / "scripts/rollouts.py")]
TASK = "button-press-topdown-v3"


def rollouts(*words: object, **kwargs) -> subprocess.CompletedProcess:
    env = os.environ | {"MUJOCO_GL": "osmesa", "HF_HUB_OFFLINE": "1"}
    return subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, env=env, **kwargs)


def train(run_dir: Path, num_steps: int) -> Path:
    """A run of stage 2 on actions."""
    words = [*VLA_MINI, "policy.objective.mode=actions", f"training.max_steps={num_steps}"]
    words += [f"validation.check_interval={num_steps}"]
    result = run([program("hlrp-train-vla"), *words, f"logging.run_dir={run_dir}"])
    assert result.returncode == 0, result.stderr
    return run_dir


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A policy that has learned nearly nothing."""
    return train(tmp_path_factory.mktemp("stage_2") / "mini", 4)


@pytest.fixture(scope="module")
def seeing(tmp_path_factory) -> Path:
    """A policy that closes some doors."""
    return train(tmp_path_factory.mktemp("stage_2") / "seeing", 150)


@pytest.fixture(scope="module")
def rolled_out(trained) -> Path:
    result = rollouts(trained, "--tasks", TASK, "--episodes", 2)
    assert result.returncode == 0, result.stderr
    return trained / "rollouts.jsonl"


@pytest.fixture(scope="module")
def script(plugin) -> ModuleType:
    """The script as a module of this process."""
    sys.path.insert(0, str(REPO / "scripts"))
    return importlib.import_module("rollouts")


def in_process(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["rollouts.py", *map(str, words)])
    script.main()


def episodes(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_expert_succeeds_and_the_blind_policy_does_not(rolled_out):
    rows = episodes(rolled_out)
    assert [(row["arm"], row["simulator_seed"]) for row in rows] == [
        (arm, seed) for arm in ("mini", "always the mean action", "scripted expert") for seed in (1000, 1001)
    ]
    ends = {(row["arm"], row["success"]) for row in rows}
    assert {("always the mean action", False), ("scripted expert", True)} <= ends
    assert all(row["num_steps"] == 500 for row in rows if not row["success"])
    assert all(row["num_steps"] < 100 for row in rows if row["arm"] == "scripted expert")


def test_it_goes_on_where_it_stopped(trained, rolled_out, tmp_path):
    """The last line was cut off: its episode is done again, with the same end; nothing else is."""
    whole = rolled_out.read_text()
    cut = tmp_path / "cut.jsonl"
    cut.write_text(whole[:-20])
    result = rollouts(trained, "--tasks", TASK, "--episodes", 2, "--out", cut)
    assert result.returncode == 0, result.stderr
    assert cut.read_text() == whole
    table = result.stdout.splitlines()[-5:]
    assert table[0] == f"| policy | {TASK} |"
    assert table[-1] == "| scripted expert | 2 of 2 (34% to 100%) |"
    assert table[-2] == "| always the mean action | 0 of 2 (0% to 66%) |"


def test_an_episode_is_that_of_lerobots_own_evaluation(trained, tmp_path):
    """Whole, through `hlrp rollout-lerobot`. A blind policy, so that every step is the same."""
    data = ["lerobot.dataset_repo_id=local/metaworld_mt5", f"lerobot.dataset_root={REPO}/tests/data/metaworld_mt5"]
    words = [
        "experiment=lerobot_smolvla_shared_tiny",
        *data,
        f"lerobot.policy.stage2_artifact={trained}/artifacts/final",
    ]
    words += ["lerobot.steps=1", "lerobot.save_freq=1", "lerobot.batch_size=2"]
    stage_3 = run([program("hlrp"), "train-lerobot", *words, f"logging.run_dir={tmp_path}/stage_3"])
    assert stage_3.returncode == 0, stage_3.stderr
    words = ["experiment=rollout_metaworld_tiny", f"lerobot_eval.policy_path={tmp_path}/stage_3"]
    words += ["lerobot_eval.eval_n_episodes=1", "+lerobot_eval.policy.blind=true"]
    result = run([program("hlrp"), "rollout-lerobot", *words, f"logging.run_dir={tmp_path}/rollout"])
    assert result.returncode == 0, result.stderr
    [theirs] = json.loads((tmp_path / "rollout/rollouts.json").read_text())
    result = rollouts(tmp_path / "stage_3", "--tasks", TASK, "--episodes", 1)
    assert result.returncode == 0, result.stderr
    rows = episodes(tmp_path / "stage_3/rollouts.jsonl")
    assert [row["arm"] for row in rows] == ["stage_3", "always the mean action", "scripted expert"]
    ours = rows[1]
    assert theirs["num_successes"] == ours["success"] == 0
    assert theirs["mean_max_reward"] == pytest.approx(ours["largest_reward"], rel=1e-6)


def test_twenty_episodes_of_a_policy_that_sees_are_those_of_lerobots_own_evaluation(
    script, seeing, tmp_path, monkeypatch
):
    """`lerobot-eval` and the script show a policy the same images and states, to the last bit, and get the same successes and returns: with the
    same noise, short episodes and small images in both."""
    from lerobot.envs.metaworld import MetaworldEnv

    task, num_steps, size, num_episodes = "door-close-v3", 60, 64, 20
    policy, before, after = script.in_lerobot(seeing / "artifacts/final", size, blind=False)
    for part in (policy, before, after):
        part.save_pretrained(tmp_path / "checkpoint")
    noise = torch.randn(1, policy.config.chunk_size, 32, generator=torch.Generator().manual_seed(5)) / 2
    chunks: list[torch.Tensor] = []

    class ShortAndSmall(MetaworldEnv):
        def __init__(self, *words, **options):
            super().__init__(*words, **options, observation_width=size, observation_height=size)
            self._max_episode_steps = num_steps

        def _ensure_env(self):
            super()._ensure_env()
            self._env.mujoco_renderer.width = self._env.mujoco_renderer.height = size

    class FromNoise(script.HLRPSmolVLASharedPolicy):
        def predict_action_chunk(self, batch):
            chunks.append(super().predict_action_chunk(batch, noise=noise))
            return chunks[-1]

    monkeypatch.setattr("lerobot.envs.metaworld.MetaworldEnv", ShortAndSmall)
    monkeypatch.setattr(sys.modules[script.HLRPSmolVLASharedPolicy.__module__], "HLRPSmolVLASharedPolicy", FromNoise)
    monkeypatch.setattr(script, "HLRPSmolVLASharedPolicy", FromNoise)
    monkeypatch.setattr(script, "MAX_STEPS", num_steps)
    words = [
        f"--policy.path={tmp_path}/checkpoint",
        "--policy.device=cpu",
        "--env.type=metaworld",
        f"--env.task={task}",
    ]
    words += [f"--eval.n_episodes={num_episodes}", "--eval.batch_size=1", "--eval.use_async_envs=false", "--seed=1000"]
    lerobot_eval(*words, f"--output_dir={tmp_path}/lerobot")
    [of_task] = json.loads((tmp_path / "lerobot/eval_info.json").read_text())["per_task"]
    theirs, their_chunks = of_task["metrics"], list(chunks)

    chunks.clear()
    env = script.environment(task, size)
    policy = script.policy_of(script.Entry("seeing", folder=tmp_path / "checkpoint"), size)
    ours = [script.rollout(env, policy, seed) for seed in range(1000, 1000 + num_episodes)]
    assert [end["success"] for end in ours] == theirs["successes"]
    assert 0 < sum(theirs["successes"]) < num_episodes == len(ours), "some succeed"
    assert [end["sum_of_rewards"] for end in ours] == pytest.approx(theirs["sum_rewards"], rel=1e-6)
    assert [end["largest_reward"] for end in ours] == pytest.approx(theirs["max_rewards"], rel=1e-6)
    assert all(torch.equal(own, other) for own, other in zip(chunks, their_chunks, strict=True))

    policy, before, _ = script.in_lerobot(tmp_path / "checkpoint", size, blind=False)
    one = {"observation.state": torch.zeros(4), "task": env.task_description}
    black, white = (
        policy.predict_action_chunk(before(one | {"observation.image": torch.full((3, size, size), value)}))
        for value in (0.0, 1.0)
    )
    assert (black - white).abs().max() > 1e-3, "actions depend on the image"


def test_episodes_of_other_files_under_the_same_name_are_kept_and_done_again(
    script, trained, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(script, "MAX_STEPS", 4)
    folder = tmp_path / "mini"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("rollouts.*"))  # those of the other tests
    words = [folder, "--tasks", TASK, "--episodes", 1, "--size", 64]
    in_process(script, monkeypatch, *words)
    first = episodes(folder / "rollouts.jsonl")
    assert [row["arm"] for row in first] == ["mini", script.BLIND, script.EXPERT]
    artifact = folder / "artifacts/final/artifact.json"
    artifact.write_text(json.dumps(json.loads(artifact.read_text()) | {"hlrp": "0.0.0"}))
    capsys.readouterr()
    in_process(script, monkeypatch, *words)
    rows = episodes(folder / "rollouts.jsonl")
    assert rows[:3] == first and [row["arm"] for row in rows[3:]] == ["mini", script.BLIND], "the expert has no files"
    assert rows[3]["sha256"] == script.digest(artifact.parent) != first[0]["sha256"]
    stdout = capsys.readouterr().out
    assert f"2 episodes in {folder}/rollouts.jsonl are of other policies with these names and are not counted" in stdout
    assert stdout.count("0 of 1 (") == 3
    in_process(script, monkeypatch, *words)
    assert episodes(folder / "rollouts.jsonl") == rows, "nothing is left to do"


def test_two_policies_of_one_name_and_seed_are_refused_unless_one_gets_another(script, trained, tmp_path, monkeypatch):
    other = tmp_path / "mini"
    shutil.copytree(trained, other)
    for word in (other, trained):
        with pytest.raises(SystemExit, match=r"are both `mini` with seed \d+\n.*NAME=DIRECTORY"):
            in_process(script, monkeypatch, trained, word, "--tasks", TASK)
    with pytest.raises(SystemExit, match="`scripted expert` is a row of every table"):
        in_process(script, monkeypatch, f"{script.EXPERT}={trained}", "--tasks", TASK)
    runs = [script.Run.read(str(word)) for word in (trained, f"other={other}")]
    assert [entry.arm for entry in script.entries(runs, "final")] == ["mini", "other"]
    with_sign = tmp_path / "lr=0.1"
    with_sign.mkdir()
    assert script.Run.read(str(with_sign)) == script.Run(with_sign)


def test_what_cannot_be_rolled_out_is_named(trained, rolled_out, tmp_path):
    none = rollouts(tmp_path, "--tasks", TASK)
    assert none.returncode == 1 and f"{tmp_path}/config.yaml is missing" in none.stderr and "hint:" in none.stderr
    other = rollouts(trained, "--tasks", TASK, "--size", 64)
    assert other.returncode == 1 and f"{rolled_out} has episodes of size 128" in other.stderr
    unknown = rollouts(trained, "--tasks", "fly-v3")
    assert unknown.returncode == 2 and "unknown task fly-v3" in unknown.stderr
