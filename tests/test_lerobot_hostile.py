"""Damaged and malicious LeRobot folders, v3 and v2.1: one clear error each, within little memory, and nothing is written."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import REPO
from convert_to_v21 import convert
from hostile import check, content, cut, device, huge, link, pipe, png_bomb

MAX_MEMORY = 3 << 30
IMAGES, VIDEO = (REPO / "tests/data" / name for name in ("embedded_images", "h264_bframes"))
INFO, TASKS, EPISODES = "meta/info.json", "meta/tasks.parquet", "meta/episodes/chunk-000/file-000.parquet"
ROWS = "data/chunk-000/file-000.parquet"
CAMERA = "observation.images.front"
MP4 = f"videos/{CAMERA}/chunk-000/file-000.mp4"


def instead(name: str, make, source: Path = IMAGES):
    """A dataset in which a file or folder is replaced by what `make` makes in its place; the original is outside."""

    def dataset(root: Path) -> None:
        shutil.copytree(source, root)
        (root / name).rename(root.parent / "outside")
        make(root / name, root.parent / "outside")

    return dataset


def info(source: Path = IMAGES, **changes: object):
    """A dataset with other values in `meta/info.json`."""

    def make(path: Path, outside: Path) -> None:
        path.write_text(json.dumps(json.loads(outside.read_text()) | changes))

    return instead(INFO, make, source)


def column(name: str, key: str, values, source: Path = IMAGES):
    """A dataset with other values in a column of a parquet file: `values` makes them of those that it has."""

    def make(path: Path, outside: Path) -> None:
        table = pq.read_table(outside)
        at = table.schema.get_field_index(key)
        pq.write_table(table.set_column(at, key, pa.array(values(table[key].to_pylist()))), path)

    return instead(name, make, source)


def image(change):
    """A dataset whose first embedded image is another."""
    return column(ROWS, CAMERA, lambda images: [change(dict(images[0])), *images[1:]])


def footer_of(length: int):
    """A parquet file whose footer claims to have so many bytes."""

    def make(path: Path, outside: Path) -> None:
        path.write_bytes(outside.read_bytes()[:-8] + length.to_bytes(4, "little") + b"PAR1")

    return make


def feature(**changes: object):
    """A dataset whose state is described in another way."""
    features = json.loads((IMAGES / INFO).read_text())["features"]
    return info(features=features | {"observation.state": features["observation.state"] | changes})


def old(name: str, make):
    """As `instead` of a v2.1 dataset."""

    def dataset(root: Path) -> None:
        convert(VIDEO, root)
        (root / name).rename(root.parent / "outside")
        make(root / name, root.parent / "outside")

    return dataset


def line(path: Path, outside: Path, **changes: object) -> None:
    first, _, rest = outside.read_text().partition("\n")
    path.write_text(json.dumps(json.loads(first) | changes) + "\n" + rest)


OLD_EPISODES, OLD_TASKS = "meta/episodes.jsonl", "meta/tasks.jsonl"
OLD_ROWS = "data/chunk-000/episode_000001.parquet"
DEEP = b'{"a":' * 5000 + b"1" + b"}" * 5000
# Name: how the folder is made, and words of the error.
CASES = {
    "info of 1 GB": (instead(INFO, huge(1 << 30)), [INFO, "bytes, more than"]),
    "info nested 5000 deep": (
        instead(INFO, content(b'{"codebase_version": "v3.0", "features": ' + DEEP + b"}")),
        [INFO, "is not the info.json"],
    ),
    "info that is a list": (instead(INFO, content(b"[]")), [INFO]),
    "info of bytes": (instead(INFO, content(b"\xff\xfe\0")), [INFO, "UTF-8"]),
    "info that is a device": (instead(INFO, device), [INFO, "not a regular file"]),
    "info that is a pipe": (instead(INFO, pipe), [INFO, "not a regular file"]),
    "info outside": (instead(INFO, link), [INFO, "leads out of"]),
    "rate of 0": (info(fps=0), [INFO, "fps"]),
    "rate of -1e308": (info(fps=-1e308), [INFO, "fps"]),
    "2^63 frames": (info(total_frames=1 << 63), ["9223372036854775808"]),
    "data above the folder": (
        info(data_path="../outside/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"),
        ["data_path", "../outside"],
    ),
    "absolute data": (info(data_path="/etc/passwd"), ["data_path", "/etc/passwd"]),
    "unknown placeholder": (info(data_path="{HOME}/file.parquet"), ["data_path", "{HOME}"]),
    "videos above the folder": (info(VIDEO, video_path="../{video_key}.mp4"), ["video_path", "../"]),
    "state of 2^62 values": (feature(shape=[1 << 31, 1 << 31]), [INFO, "observation.state"]),
    "state of 2^64 values": (feature(shape=[1 << 32, 1 << 32]), [INFO, "observation.state"]),
    "state of -1 values": (feature(shape=[-1]), [INFO]),
    "cut tasks": (instead(TASKS, cut(-100)), [TASKS, "not a whole parquet file"]),
    "cut episodes": (instead(EPISODES, cut(-100)), [EPISODES, "not a whole parquet file"]),
    "cut rows": (instead(ROWS, cut(-100)), [ROWS, "not a whole parquet file"]),
    "rows of zeros": (instead(ROWS, content(bytes(1000))), [ROWS, "not a whole parquet file"]),
    "footer of 2^31 bytes": (instead(ROWS, footer_of((1 << 31) - 1)), [ROWS, "not a whole parquet file"]),
    "footer of 0 bytes": (instead(ROWS, footer_of(0)), [ROWS, "not a whole parquet file"]),
    "rows outside": (instead(ROWS, link), [ROWS, "leads out of"]),
    "rows that are a pipe": (instead(ROWS, pipe), [ROWS, "not a regular file"]),
    "rows that are a device": (instead(ROWS, device), [ROWS, "not a regular file"]),
    "data outside": (instead("data", link), [ROWS, "leads out of"]),
    "episode of 2^63-1 frames": (
        column(EPISODES, "dataset_to_index", lambda ends: [*ends[:-1], (1 << 63) - 1]),
        [EPISODES],
    ),
    "episode from row -5": (column(EPISODES, "dataset_from_index", lambda rows: [-5, *rows[1:]]), [EPISODES]),
    "file 2^62": (column(EPISODES, "data/file_index", lambda files: [1 << 62, *files[1:]]), [EPISODES]),
    "empty image": (image(lambda image: image | {"bytes": b""}), [ROWS, "episode 0"]),
    "cut image": (image(lambda image: image | {"bytes": image["bytes"][:200]}), [ROWS, "cannot be decoded"]),
    "bomb of 10^10 pixels": (image(lambda image: image | {"bytes": png_bomb(100_000)}), ["100000x100000"]),
    "image above the folder": (
        image(lambda image: {"bytes": None, "path": "../outside/secret.png"}),
        ["episode 0", "../outside/secret.png"],
    ),
    "absolute image": (image(lambda image: {"bytes": None, "path": "/etc/passwd"}), ["/etc/passwd"]),
    "cut video": (instead(MP4, cut(-100), VIDEO), [MP4]),
    "video of zeros": (instead(MP4, content(bytes(5000)), VIDEO), [MP4]),
    "video outside": (instead(MP4, link, VIDEO), [MP4, "leads out of"]),
    "video that is a pipe": (instead(MP4, pipe, VIDEO), [MP4, "not a regular file"]),
    "video at 1e300 s": (
        column(EPISODES, f"videos/{CAMERA}/from_timestamp", lambda times: [1e300, *times[1:]], VIDEO),
        [MP4, "episode 0"],
    ),
    "v2.1 episodes of 1 GB": (old(OLD_EPISODES, huge(1 << 30)), [OLD_EPISODES]),
    "v2.1 episode of 2^63 frames": (
        old(OLD_EPISODES, lambda path, outside: line(path, outside, length=1 << 63)),
        [OLD_EPISODES],
    ),
    "v2.1 line nested 5000 deep": (old(OLD_TASKS, content(b'{"task": ' + DEEP + b"}")), [OLD_TASKS, "line 1"]),
    "v2.1 tasks that are a device": (old(OLD_TASKS, device), [OLD_TASKS, "not a regular file"]),
    "v2.1 rows outside": (old(OLD_ROWS, link), [OLD_ROWS, "leads out of"]),
    "v2.1 rows cut": (old(OLD_ROWS, cut(-100)), [OLD_ROWS, "not a whole parquet file"]),
}


def tree(root: Path) -> list:
    return sorted((path, path.lstat().st_mtime_ns, path.lstat().st_size) for path in root.rglob("*"))


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_folder_is_one_clear_finding(name, tmp_path):
    make, words = CASES[name]
    root = tmp_path / "data" / "made"
    root.parent.mkdir()
    make(root)
    before = tree(tmp_path)
    result = check(root, tmp_path / "cache", MAX_MEMORY)
    assert result.returncode in (1, 65), result.stdout + result.stderr
    said = (result.stdout + result.stderr).strip()
    assert "panicked" not in said
    for word in words:
        assert word in said
    assert "hint:" in said or name == "2^63 frames", "of counts that disagree, either may be wrong"
    assert len(said.splitlines()) <= 2, said
    assert len(said) < 2000, said
    assert tree(tmp_path) == before, "nothing is written, and the dataset is as it was"


def test_links_to_the_same_place_in_another_copy_are_read(tmp_path):
    """As `hlrp label` makes them for videos on another disk, and `cp -rs` for everything."""
    copy = shutil.copytree(VIDEO, tmp_path / "copy")
    root = tmp_path / "made"
    for file in filter(Path.is_file, copy.rglob("*")):
        link = root / file.relative_to(copy)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    result = check(root, tmp_path / "cache", MAX_MEMORY)
    assert result.returncode == 0, result.stdout + result.stderr
