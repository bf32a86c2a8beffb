"""LeRobot v2.1 is read as it is: the same samples as of the v3 dataset that it was converted from, and that LeRobot converts it to."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA, MINI, TARGET, one_error, program, read_metrics, run, train_laq_command
from convert_to_v21 import convert
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.scripts.convert_dataset_v21_to_v30 import convert_dataset

CAMERA = "observation.image"
DATA_ERROR = 65


@pytest.fixture(scope="module", params=["metaworld_mt5", "pusht_scripted"])
def converted(request, tmp_path_factory) -> tuple[Path, Path]:
    """A v3 dataset, and the same in v2.1 form."""
    root = DATA / request.param
    return root, convert(root, tmp_path_factory.mktemp("v21") / request.param)


def frames(root: Path, rows: np.ndarray) -> bytes:
    command = [TARGET / "examples/frames", root, CAMERA, ",".join(map(str, rows))]
    result = subprocess.run(command, capture_output=True)
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout


def test_it_reads_what_lerobot_reads_of_the_v3_dataset(converted, tmp_path):
    root, old = converted
    oracle = (DATA / f"oracle_{root.name}.jsonl").read_text().splitlines()
    pairs = [line for line in oracle if json.loads(line)["kind"] == "pair"]
    (tmp_path / "pairs.jsonl").write_text("\n".join(pairs))
    command = [TARGET / "examples/oracle", old, tmp_path / "pairs.jsonl"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert f"{len(pairs)} lines" in result.stdout
    assert len(pairs) == 40


def test_every_image_is_that_of_the_v3_dataset(converted):
    root, old = converted
    num_frames = json.loads((root / "meta/info.json").read_text())["total_frames"]
    rows = np.random.default_rng(0).permutation(num_frames)[:400]
    assert frames(old, rows) == frames(root, rows)


def test_it_has_no_findings_and_a_broken_one_has(converted, tmp_path):
    _, old = converted
    check = [program("hlrp-data"), "check", old]
    result = subprocess.run(check, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    broken = shutil.copytree(old, tmp_path / old.name)
    lines = (broken / "meta/episodes.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    lines[0] = json.dumps(first | {"length": first["length"] + 1})
    (broken / "meta/episodes.jsonl").write_text("\n".join(lines))
    video = next(broken.glob("videos/*/*/episode_000003.mp4"))
    video.write_bytes(video.read_bytes()[:-2000])
    lengths = [json.loads(line)["length"] for line in lines]
    longer = next(episode for episode in range(5, 50) if lengths[episode] > lengths[4])
    videos = [next(broken.glob(f"videos/*/*/episode_{episode:06}.mp4")) for episode in (longer, 4)]
    shutil.copy(*videos)
    result = subprocess.run([program("hlrp-data"), "check", broken], capture_output=True, text=True)
    assert result.returncode == 1
    wanted = f"episode_000004.mp4: has {lengths[longer]} images, but episode 4 {lengths[4]} frames"
    assert wanted in result.stdout
    rows, longer = first["length"], first["length"] + 1
    assert f"episode_000000.parquet: has {rows} rows, but its episodes have {longer}" in result.stdout
    assert "episode_000003.mp4" in result.stdout


def test_lerobot_converts_it_to_the_same_samples(converted, tmp_path):
    root, old = converted
    again = shutil.copytree(old, tmp_path / old.name)
    convert_dataset("local/again", root=again, push_to_hub=False)
    theirs = LeRobotDataset("local/again", root=again)
    assert theirs.meta.total_frames == json.loads((old / "meta/info.json").read_text())["total_frames"]
    rows = np.random.default_rng(1).permutation(theirs.meta.total_frames)[:60]
    assert frames(again, rows) == frames(old, rows)
    head, _, content = frames(old, rows[:8]).partition(b"\n")
    ours = np.frombuffer(content, np.uint8).reshape(8, 3, *map(int, head.split()))
    assert (ours == np.stack([(theirs[int(row)][CAMERA] * 255).round().byte().numpy() for row in rows[:8]])).all()


def test_training_sees_the_same_samples(converted, tmp_path):
    root, old = converted

    def losses(folder: Path, name: str) -> list[dict]:
        words = [*MINI, f"data={root.name}", f"data.sources.{root.name}.root={folder}", "training.max_steps=6"]
        result = run(train_laq_command(*words, f"logging.run_dir={tmp_path / name}"))
        assert result.returncode == 0, result.stderr
        return read_metrics(tmp_path / name)

    assert losses(old, "v21") == losses(root, "v3"), "the same losses to the last digit"


def test_an_older_version_is_refused_with_the_command_that_converts_it(converted, tmp_path):
    _, old = converted
    older = shutil.copytree(old, tmp_path / "older")
    info = (older / "meta/info.json").read_text()
    (older / "meta/info.json").write_text(info.replace('"v2.1"', '"v2.0"'))
    result = run([program("hlrp-data"), "show", older])
    one_error(result, DATA_ERROR, ["is a LeRobot v2.0 dataset", "hint:", "convert_dataset_v20_to_v21"])


def test_a_missing_file_is_named(converted, tmp_path):
    _, old = converted
    damaged = shutil.copytree(old, tmp_path / "damaged")
    (damaged / "meta/tasks.jsonl").unlink()
    result = run([program("hlrp-data"), "show", damaged])
    one_error(result, DATA_ERROR, ["meta/tasks.jsonl", "the file is missing", "hint: fetch it again"])
