"""`scripts/move_camera.py`: a dataset whose camera moves, for the question which target of stage 1 survives it."""

import subprocess
import sys

import torch
from conftest import DATA, REPO
from lerobot.datasets.lerobot_dataset import LeRobotDataset

SCRIPT = REPO / "scripts/move_camera.py"


def test_frames_move_along_a_smooth_path_and_nothing_else_changes(tmp_path):
    command = [sys.executable, SCRIPT, DATA / "embedded_images", "--episodes", "2", "--shift", "3"]
    made = subprocess.run([*command, "--out", tmp_path / "moving"], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    before = LeRobotDataset("local/before", root=DATA / "embedded_images", episodes=[0, 1])
    after = LeRobotDataset("local/after", root=tmp_path / "moving")
    assert after.num_frames == before.num_frames and after.num_episodes == 2
    camera, shifts = before.meta.camera_keys[0], []
    for row in range(before.num_frames):
        a, b = before[row], after[row]
        for key in ("observation.state", "action", "episode_index", "timestamp"):
            assert torch.equal(a[key], b[key])
        assert a["task"] == b["task"]
        inner = lambda image, down=0, right=0: image[:, 3 - down : -3 - down or None, 3 - right : -3 - right or None]  # noqa: E731
        fits = [
            (d, r) for d in range(-3, 4) for r in range(-3, 4) if torch.equal(inner(a[camera], d, r), inner(b[camera]))
        ]
        assert fits, f"frame {row} is the recorded one, shifted"
        shifts.append(fits[0])
    assert len(set(shifts)) > 5
    again = subprocess.run([*command, "--out", tmp_path / "moving"], capture_output=True, text=True, check=False)
    assert again.returncode == 1 and "hint: " in again.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["moving"]
