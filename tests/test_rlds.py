"""RLDS datasets (Open X-Embodiment, written by TensorFlow Datasets) read as TFDS itself reads them, without TensorFlow."""

import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from conftest import DATA, MINI, TARGET, one_error, program, read_metrics, run, train_laq_command
from tfrecords import images

RLDS = DATA / "rlds"
DATASETS = {
    "bridge": ("0.1.0", "observation/image"),
    "fractal20220817_data": ("0.1.0", "observation/image"),
    "language_table": ("0.1.0", "observation/rgb"),
}
SETTING_ERROR = 2


def folder(name: str) -> Path:
    return RLDS / name / DATASETS[name][0]


def hlrp_data(tmp_path: Path, *words: object) -> subprocess.CompletedProcess:
    """`hlrp-data` with a user's cache of its own."""
    env = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    return run([program("hlrp-data"), *map(str, words)], env=env)


def frames(root: Path, camera: str, rows: list[int], index_dir: Path) -> np.ndarray:
    """Frames as we read them, `[T,H,W,3]`."""
    command = [TARGET / "examples/frames", root, camera, ",".join(map(str, rows)), "--index-dir", index_dir]
    result = subprocess.run(list(map(str, command)), capture_output=True)
    assert result.returncode == 0, result.stderr.decode()
    head, _, content = result.stdout.partition(b"\n")
    height, width = map(int, head.split())
    return np.frombuffer(content, np.uint8).reshape(len(rows), 3, height, width).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("name", DATASETS)
def test_every_value_is_that_of_tfds(name):
    oracle = DATA / f"oracle_rlds_{name}.jsonl"
    result = run([str(TARGET / "examples/oracle"), str(folder(name)), str(oracle)])
    assert result.returncode == 0, result.stderr
    episodes = sum(json.loads(line)["kind"] == "episode" for line in oracle.read_text().splitlines())
    assert f"episode  {episodes} lines" in result.stdout
    if name == "language_table":  # PNG
        summary = result.stdout.split("episode")[1]
        num_images = summary.split(" images")[0].split()[-1]
        assert f"{num_images} images ({num_images} with identical RGB" in summary


@pytest.mark.parametrize("name", DATASETS)
def test_every_image_is_that_of_its_file(name, tmp_path):
    """PNG images are equal. Of a JPEG image, all but a few values are within 2 levels of libjpeg's exact decoder, none is beyond 4."""
    root, camera = folder(name), DATASETS[name][1]
    shards = sorted(root.glob("*-train.*")) + sorted(root.glob("*-val.*"))
    encoded = [image for shard in shards for episode in images(shard, f"steps/{camera}") for image in episode]
    ours = frames(root, camera, list(range(len(encoded))), tmp_path)
    for content, image in zip(encoded, ours, strict=True):
        theirs = np.asarray(PIL.Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
        off = np.abs(image.astype(int) - theirs)
        is_png = camera.endswith("rgb")
        assert off.max() <= (0 if is_png else 4)
        assert off.mean() <= 0.1
        assert (off > 2).mean() <= 1e-4


def test_show_and_check_index_in_the_cache_and_leave_the_dataset_alone(tmp_path):
    root = shutil.copytree(folder("fractal20220817_data"), tmp_path / "fractal/0.1.0")
    before = {path: path.stat().st_mtime_ns for path in [root, *root.iterdir()]}
    shown = hlrp_data(tmp_path, "show", root, "--no-sheet")
    assert shown.returncode == 0, shown.stderr
    assert "RLDS, fractal20220817_data 0.1.0" in shown.stdout
    assert "12 of 1 to 23 frames, mean" in shown.stdout
    assert "per second" not in shown.stdout, "the dataset does not say"
    assert "observation/image  320x256, jpeg images, 6 shards" in shown.stdout
    assert "action/world_vector  float32 [3]" in shown.stdout
    checked = hlrp_data(tmp_path, "check", root)
    assert checked.returncode == 0, checked.stdout
    assert "checksums and contents of 6 shards, 12 episodes" in checked.stdout
    assert {path: path.stat().st_mtime_ns for path in [root, *root.iterdir()]} == before

    indices = sorted((tmp_path / "cache/hlrp/rlds/fractal20220817_data-0.1.0").iterdir())
    assert len(indices) == 6
    kept = {path: path.stat().st_mtime_ns for path in indices[1:]}
    indices[0].unlink()
    assert hlrp_data(tmp_path, "show", root, "--no-sheet").stdout == shown.stdout
    assert indices[0].exists(), "an interrupted build continues with the shards that are missing"
    assert {path: path.stat().st_mtime_ns for path in indices[1:]} == kept, "and reads no other again"

    shard = root / "fractal20220817_data-train.tfrecord-00001-of-00003"
    orphan = shutil.copy(shard, root / "fractal20220817_data-train.tfrecord-00003-of-00004")
    checked = hlrp_data(tmp_path, "check", "--quick", root)
    assert checked.returncode == 1
    assert checked.stdout == f"{orphan}: dataset_info.json does not list this shard\n"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    checked = hlrp_data(tmp_path, "check", root)
    assert checked.returncode == 1
    assert shard.name in checked.stdout
    assert "has the wrong checksum" in checked.stdout


SOURCE = "data.sources.rt1"


def training(tmp_path: Path, name: str, *words: object) -> list[str]:
    base = [
        *MINI,
        "data/dataset=oxe_rt1",
        f"paths.datasets_dir={RLDS}",
        f"{SOURCE}.rlds.split=train",
        f"{SOURCE}.rlds.val_split=val",
        "data.request.image_deltas=[0,1]",
        "training.scheduler.type=none",
        "training.checkpoint.every_n_steps=3",
        f"data.cache.dir={tmp_path / 'frames'}",
        f"logging.run_dir={tmp_path / name}",
    ]
    return train_laq_command(*base, *words)


def test_a_model_trains_on_it_and_resumes_exactly(tmp_path):
    whole = run(training(tmp_path, "whole", "training.max_steps=12"))
    assert whole.returncode == 0, whole.stderr
    assert list((tmp_path / "frames/rlds/fractal20220817_data-0.1.0").iterdir()), "its index is in the cache"
    first = run(training(tmp_path, "parts", "training.max_steps=6"))
    assert first.returncode == 0, first.stderr
    resumed = run(train_laq_command("--resume", tmp_path / "parts", "training.max_steps=12"))
    assert resumed.returncode == 0, resumed.stderr
    losses = [
        [line["train/loss"] for line in read_metrics(tmp_path / name) if "train/loss" in line]
        for name in ("whole", "parts")
    ]
    assert len(losses[0]) == 12
    assert losses[0] == losses[1], "the same samples in the same order, to the last digit"
    cached = run(training(tmp_path, "cached", "training.max_steps=12", "data.cache.enabled=true"))
    assert cached.returncode == 0, cached.stderr
    assert [line["train/loss"] for line in read_metrics(tmp_path / "cached") if "train/loss" in line] == losses[0]


def test_settings_that_contradict_the_dataset_are_one_error(tmp_path):
    def refused(*words: object) -> str:
        return one_error(run(training(tmp_path, "run", *words)), SETTING_ERROR, ["hint:"])

    missing = refused(f"{SOURCE}.rlds=null", f"{SOURCE}.num_val_episodes=1")
    assert f"{SOURCE}.rlds" in missing
    assert "does not record its rate" in missing
    assert f"{SOURCE}.rlds.fps" in refused(f"{SOURCE}.rlds.fps=0")
    assert f"{SOURCE}.num_val_episodes" in refused(f"{SOURCE}.num_val_episodes=1")
    assert "observation/image" in refused(f"{SOURCE}.cameras.primary=image")
    for split, what in (("test", "there is no split `test`"), ("train[:10]", "goes beyond the 9 episodes")):
        result = run(training(tmp_path, "run", f"{SOURCE}.rlds.split='{split}'"))
        assert what in one_error(result, result.returncode, ["hint:", "train (9 episodes), val (3 episodes)"])
    overlap = run(training(tmp_path, "run", f"{SOURCE}.rlds.val_split='train[:2]'"))
    assert "occurs twice" in one_error(overlap, overlap.returncode, ["hint:", "rlds.split"])
