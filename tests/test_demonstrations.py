"""`scripts/make_demonstrations.py`: scripted experts of Meta-World as a dataset that the official reader and our checks accept."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO, program, run

# Each start imports LeRobot with Meta-World, and every frame is rendered in software: a minute on two idle cores.
pytestmark = pytest.mark.slow

COMMAND = [sys.executable, str(REPO / "scripts/make_demonstrations.py")]


def start(out: Path, *words: object) -> subprocess.Popen:
    env = os.environ | {"MUJOCO_GL": "osmesa", "HF_HUB_OFFLINE": "1"}
    command = [*COMMAND, "door-close-v3", "--size", "64", "--out", str(out), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def make(out: Path, *words: object) -> subprocess.CompletedProcess:
    process = start(out, *words)
    stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


@pytest.fixture(scope="module")
def doors(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("demonstrations") / "doors"
    result = make(out, "--episodes", 2, "--seed", 7)
    assert result.returncode == 0, result.stderr
    return out


def test_the_official_reader_and_our_check_accept_it(doors):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    record = json.loads((doors / "demonstrations.json").read_text())
    dataset = LeRobotDataset("local/doors", root=doors)
    assert dataset.num_episodes == len(record["episodes"]) == 2
    assert dataset.num_frames == sum(entry["num_frames"] for entry in record["episodes"])
    sample = dataset[0]
    assert sample["observation.image"].shape == (3, 64, 64) and sample["observation.image"].std() > 0.05
    assert sample["action"].shape == (4,) and sample["task"]
    result = run([program("hlrp"), "data", "check", str(doors)])
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_seed_makes_the_same_episode_again(doors, tmp_path):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    seed = json.loads((doors / "demonstrations.json").read_text())["episodes"][1]["seed"]
    result = make(tmp_path / "again", "--episodes", 1, "--seed", seed)
    assert result.returncode == 0, result.stderr
    first, again = (LeRobotDataset("local/doors", root=root) for root in (doors, tmp_path / "again"))
    start = first.meta.episodes[1]["dataset_from_index"]
    old, new = (np.array(data.hf_dataset.with_format("numpy")["action"]) for data in (first, again))
    assert len(new) > 20 and np.array_equal(old[start : start + len(new)], new)


def test_a_killed_command_begins_anew_and_its_rest_is_kept(tmp_path):
    out, partial = tmp_path / "doors", tmp_path / ".doors.partial"
    of_another = tmp_path / ".doors.partial.superseded-1"
    of_another.mkdir()
    words = ["--episodes", 2, "--seed", 7]
    killed = start(out, *words)
    assert any("door-close-v3 1/2" in line for line in killed.stdout)
    killed.send_signal(signal.SIGSTOP)  # it does not end meanwhile
    beside = make(out, *words)
    assert beside.returncode == 1 and f"another command is writing {partial}" in beside.stderr
    killed.kill()
    killed.communicate()
    assert sorted(tmp_path.iterdir()) == [partial, of_another]
    whole = make(out, *words)
    assert whole.returncode == 0, whole.stderr
    kept = tmp_path / ".doors.partial.superseded-2"
    assert f"what a stopped command left is kept in {kept}" in whole.stdout
    assert sorted(tmp_path.iterdir()) == [of_another, kept, out] and (kept / "meta/info.json").is_file()
    assert len(json.loads((out / "demonstrations.json").read_text())["episodes"]) == 2


def test_what_cannot_be_made_is_named(doors, tmp_path):
    taken = make(doors)
    assert taken.returncode == 1 and f"{doors} exists" in taken.stderr and "hint:" in taken.stderr
    unknown = subprocess.run([*COMMAND, "fly-v3", "--out", str(tmp_path / "x")], capture_output=True, text=True)
    assert unknown.returncode == 2 and "unknown task fly-v3" in unknown.stderr
    none = make(tmp_path / "x", "--episodes", 0)
    assert none.returncode == 2 and "not a number above 0" in none.stderr
    assert list(tmp_path.iterdir()) == []
