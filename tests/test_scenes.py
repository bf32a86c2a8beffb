"""Folders of scenes: tables of scenes cut from videos, and raw trees of Bridge v2."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import MINI, TARGET, one_error, program, read_metrics, run, train_laq_command
from made_datasets import make_bridge, make_scenes, number_of, write_frames, write_table

SETTING_ERROR = 2
DATA_ERROR = 65
# Scenes of the table, and trajectories in the order of their numbers.
LENGTHS = [14, 9, 12, 2, 11]
TRAJECTORIES = {
    "traj_group0/traj2": (12, "put the spoon on the towel"),
    "traj_group0/traj10": (11, "close the drawer"),
    "traj_group1/traj0": (13, "put the spoon on the towel"),
}


@pytest.fixture(scope="module")
def youtube(tmp_path_factory) -> Path:
    hands = ["true", "0", "Yes", "1", "no"]
    return make_scenes(
        tmp_path_factory.mktemp("datasets") / "cuts", LENGTHS, contains_hand_sam3=hands, take=[1, 1, 2, 2, 2]
    )


@pytest.fixture(scope="module")
def bridge(tmp_path_factory) -> Path:
    return make_bridge(tmp_path_factory.mktemp("datasets") / "raw", TRAJECTORIES)


def hlrp_data(tmp_path: Path, *words: object) -> subprocess.CompletedProcess:
    """`hlrp-data` with a user's cache of its own."""
    env = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    return run([program("hlrp-data"), *map(str, words)], env=env)


def numbers(root: Path, rows: list[int]) -> list[int]:
    """What the pictures at some rows say."""
    command = [TARGET / "examples/frames", root, "image", ",".join(map(str, rows))]
    result = subprocess.run(list(map(str, command)), capture_output=True)
    assert result.returncode == 0, result.stderr.decode()
    head, _, content = result.stdout.partition(b"\n")
    height, width = map(int, head.split())
    frames = np.frombuffer(content, np.uint8).reshape(len(rows), 3, height, width).transpose(0, 2, 3, 1)
    return [number_of(frame) for frame in frames]


def training(tmp_path: Path, name: str, dataset: str, root: Path, *words: object) -> list[str]:
    base = [
        *MINI,
        f"data/dataset={dataset}",
        f"data.sources.{dataset}.root={root}",
        "data.request.image_deltas=[0,3]",
        "training.scheduler.type=none",
        "training.checkpoint.every_n_steps=3",
        f"data.cache.dir={tmp_path / 'frames'}",
        f"logging.run_dir={tmp_path / name}",
    ]
    return train_laq_command(*base, *words)


def record(run_dir: Path, source: str) -> dict:
    """What the last checkpoint of a run says of a source."""
    newest = (run_dir / "checkpoints/last").read_text().strip()
    return json.loads((run_dir / "checkpoints" / newest / "state.json").read_text())["sources"][source]


def tree(root: Path) -> list:
    return sorted((path, path.lstat().st_mtime_ns, path.lstat().st_size) for path in root.rglob("*"))


def test_both_forms_are_shown_and_have_no_findings(tmp_path, youtube, bridge):
    before = tree(youtube) + tree(bridge)
    shown = hlrp_data(tmp_path, "show", youtube)
    assert shown.returncode == 0, shown.stderr
    assert "scenes, YouTube form" in shown.stdout
    assert "5 of 2 to 14 frames" in shown.stdout
    assert "image  64x48, jpeg files" in shown.stdout
    shown = hlrp_data(tmp_path, "show", bridge, "--no-sheet")
    assert "scenes, raw Bridge v2" in shown.stdout
    assert "3 of 11 to 13 frames" in shown.stdout
    for root, num_frames in ((youtube, 48), (bridge, 36)):
        checked = hlrp_data(tmp_path, "check", root)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert f"{num_frames} images of image in order" in checked.stdout
    assert tree(youtube) + tree(bridge) == before


def test_scenes_and_frames_are_in_the_order_of_their_numbers(youtube, bridge):
    """As text, `im_10` would be before `im_2`, and `traj10` before `traj2`."""
    assert numbers(bridge, list(range(36))) == list(range(36))
    assert numbers(youtube, [47, 0, 13, 14]) == [47, 0, 13, 14]


def test_a_folder_for_each_video_is_one_dataset(tmp_path):
    root = tmp_path / "videos"
    make_scenes(root / "video_2", [5, 6])
    make_scenes(root / "video_10", [7], first_number=11)
    (root / "notes").mkdir()
    assert numbers(root, list(range(18))) == list(range(18))
    words = ["data.sources.youtube_scenes.scenes.split={mode: metadata, seed: 1, val_filters: {video_id: video_10}}"]
    result = run(training(tmp_path, "run", "youtube_scenes", root, "training.max_steps=2", *words))
    assert result.returncode == 0, result.stderr
    assert record(tmp_path / "run", "youtube_scenes")["held_out"] == [2]


@pytest.mark.parametrize("dataset", ["youtube_scenes", "bridge_raw"])
def test_a_model_trains_on_it_and_resumes_exactly(tmp_path, dataset, request):
    root = request.getfixturevalue("youtube" if dataset == "youtube_scenes" else "bridge")
    whole = run(training(tmp_path, "whole", dataset, root, "training.max_steps=12"))
    assert whole.returncode == 0, whole.stderr
    first = run(training(tmp_path, "parts", dataset, root, "training.max_steps=6"))
    assert first.returncode == 0, first.stderr
    resumed = run(train_laq_command("--resume", tmp_path / "parts", "training.max_steps=12"))
    assert resumed.returncode == 0, resumed.stderr
    cached = run(training(tmp_path, "cached", dataset, root, "training.max_steps=12", "data.cache.enabled=true"))
    assert cached.returncode == 0, cached.stderr
    assert [path for path in (tmp_path / "frames").iterdir() if path.is_file()], "frames are cached"
    [_] = (tmp_path / "frames/scenes" / root.name).iterdir()  # all runs have the same index
    losses = [
        [line["train/loss"] for line in read_metrics(tmp_path / name) if "train/loss" in line]
        for name in ("whole", "parts", "cached")
    ]
    assert len(losses[0]) == 12
    assert losses[0] == losses[1], "the same samples in the same order, to the last digit"
    assert losses[0] == losses[2]
    fingerprint = record(tmp_path / "whole", dataset)["fingerprint"]
    assert f"fingerprint {fingerprint}" in hlrp_data(tmp_path, "show", root, "--no-sheet").stdout


def test_both_forms_go_together(tmp_path, youtube, bridge):
    words = [f"data.sources.bridge_raw.root={bridge}", "data.sources.bridge_raw.weight=0.5"]
    words += ["data.loader.mixing_block=4", "training.max_steps=4"]
    command = training(tmp_path, "run", "youtube_scenes", youtube, *words)
    command = ["data/dataset=[youtube_scenes,bridge_raw]" if "data/dataset=" in word else word for word in command]
    result = run(command)
    assert result.returncode == 0, result.stderr
    shares = [line["data/share/bridge_raw"] for line in read_metrics(tmp_path / "run") if "train/loss" in line]
    assert shares == [0.5] * 4


def test_conditions_and_splits_choose_scenes(tmp_path, youtube, bridge):
    """Which scenes are held out, and how many are in use, from what a checkpoint remembers."""

    def chosen(number: int, dataset: str, root: Path, *words: str) -> tuple[int, list[int]]:
        words = [f"++data.sources.{dataset}.{word}" for word in words]
        run_dir = tmp_path / f"run{number}"
        result = run(training(tmp_path, run_dir.name, dataset, root, "training.max_steps=1", *words))
        assert result.returncode == 0, result.stderr
        source = record(run_dir, dataset)
        return source["num_episodes"], source["held_out"]

    only_hands = "scenes.filters={contains_hand_sam3: true, num_frames: ['>', 2]}"
    by_take = "scenes.split={mode: metadata, seed: 0, val_filters: {take: '2'}}"
    assert chosen(0, "youtube_scenes", youtube, only_hands, by_take) == (2, [2])
    assert chosen(1, "youtube_scenes", youtube, "scenes.min_frames=9", "scenes.split.val_ratio=0.5")[0] == 4
    assert chosen(2, "youtube_scenes", youtube, "scenes.split=null", "num_val_episodes=1") == (5, [2])
    assert chosen(3, "youtube_scenes", youtube, "scenes.split=null", "val_episodes=[1,4]") == (5, [1, 4])
    # Pairs of three frames: 9, 8 and 10.
    split = "scenes.split={mode: fixed_count, seed: 5, num_val_pairs: 11}"
    assert len(chosen(4, "bridge_raw", bridge, split)[1]) == 2
    of_task = "scenes.filters={language: put the spoon on the towel, environment: toykitchen1, gripper: default}"
    assert chosen(5, "bridge_raw", bridge, of_task)[0] == 2


def test_settings_that_contradict_the_dataset_are_one_error(tmp_path, youtube, bridge):
    def refused(dataset: str, root: Path, *words: str, code: int = SETTING_ERROR, names: tuple[str, ...]) -> None:
        words = [f"++data.sources.{dataset}.{word}" for word in words]
        result = run(training(tmp_path, "run", dataset, root, *words))
        one_error(result, code, ["hint:", *names])
        assert not (tmp_path / "run").exists()

    scenes = "data.sources.youtube_scenes.scenes"
    for mode, key in (("ratio", "val_ratio"), ("metadata", "val_filters"), ("fixed_count", "num_val_pairs")):
        words = [f"scenes.split.mode={mode}", "scenes.split.val_ratio=null"]
        refused("youtube_scenes", youtube, *words, names=(f"{scenes}.split.{key}", "the mode of the split needs it"))
    refused("youtube_scenes", youtube, "scenes.split.val_ratio=1", names=(f"{scenes}.split.val_ratio",))
    refused("youtube_scenes", youtube, "scenes.fps=0", names=(f"{scenes}.fps",))
    refused("youtube_scenes", youtube, "scenes.min_frames=0", names=(f"{scenes}.min_frames",))
    refused("youtube_scenes", youtube, "scenes.filters={label: ['>']}", names=(f"{scenes}.filters.label",))
    refused("youtube_scenes", youtube, "num_val_episodes=1", names=("num_val_episodes", "scenes.split=null"))
    refused("youtube_scenes", youtube, "val_episodes=[0]", names=("val_episodes", "scenes.split=null"))
    missing = "data.sources.youtube_scenes.scenes: "
    refused("youtube_scenes", youtube, "scenes=null", "num_val_episodes=1", names=(missing, "does not record its rate"))
    refused("youtube_scenes", youtube, "cameras.primary=images0", names=("cameras.primary", "there are image"))
    refused("youtube_scenes", youtube, "action_key=action", names=("action_key", "the dataset has no numeric feature"))
    words = "scenes.filters={environment: nowhere}"
    names = ("source `bridge_raw`", "none of its 3 scenes is left", "traj_id")
    refused("bridge_raw", bridge, words, code=DATA_ERROR, names=names)


def test_what_disagrees_with_the_files_is_a_finding(tmp_path):
    """Files decide: how many frames the table says there are matters to nothing but the check."""
    root = make_scenes(tmp_path / "cuts", [6, 6, 6])
    (root / "scene_1/frame_000003.jpg").unlink()
    write_table(root, [
        {"scene_idx": 0, "scene_folder": "scene_0", "start_frame": 0, "end_frame": 9},
        {"scene_idx": 1, "scene_folder": "scene_1", "start_frame": 0, "end_frame": 5},
        {"scene_idx": 2, "scene_folder": "scene_2", "start_frame": 0, "end_frame": 6},
        {"scene_idx": 3, "scene_folder": "empty", "start_frame": 0, "end_frame": 1},
    ])  # fmt: skip
    (root / "empty").mkdir()
    damaged = root / "scene_2/frame_000004.jpg"
    damaged.write_bytes(damaged.read_bytes()[:600])
    checked = hlrp_data(tmp_path, "check", root)
    assert checked.returncode == 1
    for words in (
        "scene_0: has 6 frames, but the table says 9",
        "scene_1: frames are missing between frame_000002.jpg and frame_000004.jpg",
        "empty: has no frame",
        "scene_2/frame_000004.jpg: episode 2, frame at 4.000000 s",
    ):
        assert words in checked.stdout, checked.stdout
    assert len(checked.stdout.splitlines()) == 4


def test_a_source_that_cannot_be_opened_names_itself_and_its_fix(tmp_path):
    root = make_scenes(tmp_path / "cuts", [6, 6])
    write_frames(tmp_path / "elsewhere", 0, ["a.jpg", "b.jpg"])
    (root / "scene_1").rename(root / "renamed")
    result = run(training(tmp_path, "run", "youtube_scenes", root))
    names = ["source `youtube_scenes`", "scene_1: the folder of a scene is missing", "leave out its line of scenes.csv"]
    one_error(result, DATA_ERROR, names)
