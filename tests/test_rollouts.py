"""`scripts/rollouts.py`: policies in the simulator, beside a blind policy and the expert."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPO, VLA_MINI, program, run

# Each start imports LeRobot with Meta-World; episodes of a blind policy have 500 steps: two minutes on two idle cores.
pytestmark = pytest.mark.slow

COMMAND = [sys.executable, str(REPO / "scripts/rollouts.py")]
TASK = "button-press-topdown-v3"


def rollouts(*words: object, **kwargs) -> subprocess.CompletedProcess:
    env = os.environ | {"MUJOCO_GL": "osmesa", "HF_HUB_OFFLINE": "1"}
    return subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, env=env, **kwargs)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of stage 2 that has learned nearly nothing."""
    run_dir = tmp_path_factory.mktemp("stage_2") / "mini"
    words = [*VLA_MINI, "policy.objective.mode=actions", "training.max_steps=4", "validation.check_interval=4"]
    result = run([program("hlrp-train-vla"), *words, f"logging.run_dir={run_dir}"])
    assert result.returncode == 0, result.stderr
    return run_dir


@pytest.fixture(scope="module")
def rolled_out(trained) -> Path:
    result = rollouts(trained, "--tasks", TASK, "--episodes", 2)
    assert result.returncode == 0, result.stderr
    return trained / "rollouts.jsonl"


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
    """The policy as a checkpoint of stage 3. A blind one, so that the size of the images does not count and every step is the same."""
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


def test_what_cannot_be_rolled_out_is_named(trained, rolled_out, tmp_path):
    none = rollouts(tmp_path, "--tasks", TASK)
    assert none.returncode == 1 and f"{tmp_path}/config.yaml is missing" in none.stderr and "hint:" in none.stderr
    other = rollouts(trained, "--tasks", TASK, "--size", 64)
    assert other.returncode == 1 and f"{rolled_out} has episodes of size 128" in other.stderr
    unknown = rollouts(trained, "--tasks", "fly-v3")
    assert unknown.returncode == 2 and "unknown task fly-v3" in unknown.stderr
