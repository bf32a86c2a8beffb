"""Damaged and malicious RLDS folders: one clear error each, within little memory, and nothing is written but the index in the cache."""

import io
import json
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hostile import check, png_bomb
from tfrecords import FEATURES, example, field, record, tensor, varint, write

MAX_MEMORY = 3 << 30
NUM_STEPS = 4


def png(height: int = 32, width: int = 48) -> bytes:
    out = io.BytesIO()
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    PIL.Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def episode(**changes: list) -> dict[str, list]:
    features = {
        "steps/observation/image": [png()] * NUM_STEPS,
        "steps/observation/state": [0.5] * 2 * NUM_STEPS,
        "steps/observation/text": [b"do it"] * NUM_STEPS,
        "steps/action": [0.25] * 3 * NUM_STEPS,
        "steps/is_first": [1, 0, 0, 0],
    }
    return features | {key.replace("__", "/"): values for key, values in changes.items()}


def shard(root: Path) -> Path:
    return root / "made-train.tfrecord-00000-of-00001"


def write_shard(root: Path, content: bytes) -> None:
    write(root, [[episode()]])
    shard(root).write_bytes(content)


def edit(root: Path, name: str, change) -> None:
    write(root, [[episode()]])
    value = json.loads((root / name).read_text())
    (root / name).write_text(json.dumps(change(value)))


def split_of(**changes: object):
    return lambda info: info | {"splits": [info["splits"][0] | changes]}


WHOLE = record(example(episode()))
HEAD = WHOLE[:8]


def length_of(length: int) -> bytes:
    return record(example(episode()), length)


def with_image(image: bytes) -> dict[str, list]:
    return episode(steps__observation__image=[image] * NUM_STEPS)


def deep_json(root: Path) -> None:
    write(root, [[episode()]])
    (root / "features.json").write_text('{"featuresDict":{"features":{"steps":' * 5000 + "{}" + "}}}" * 5000)


def nested(root: Path) -> None:
    content = b"x"
    for _ in range(2000):
        content = field(1, content)
    write_shard(root, record(content))


def huge_json(root: Path) -> None:
    write(root, [[episode()]])
    with (root / "features.json").open("w") as file:
        file.truncate(1 << 30)


def linked_shard(root: Path) -> None:
    write(root, [[episode()]])
    outside = root.parent / "outside"
    shutil.move(shard(root), outside)
    shard(root).symlink_to(outside)


def device(root: Path) -> None:
    write(root, [[episode()]])
    shard(root).unlink()
    shard(root).symlink_to("/dev/zero")


def pipe(root: Path) -> None:
    write(root, [[episode()]])
    shard(root).unlink()
    os.mkfifo(shard(root))


def missing(root: Path) -> None:
    write(root, [[episode()]])
    shard(root).unlink()


def sparse(root: Path) -> None:
    """A record of 1 TiB in a file that has it."""
    head = struct.pack("<Q", 1 << 40)
    write_shard(root, length_of(1 << 40)[:12])
    with shard(root).open("r+b") as file:
        file.truncate((1 << 40) + 16)
    assert WHOLE[:8] != head


NO_STEPS = {"featuresDict": {"features": {"action": tensor("float32", 3)}}}
HUGE = {**FEATURES, "action": tensor("float32", 1 << 62, 1 << 62)}
# Name: how the folder is made, and words of the error.
CASES = {
    "cut in the length": (lambda root: write_shard(root, WHOLE[:5]), ["record 0", "cut off"]),
    "cut in the record": (lambda root: write_shard(root, WHOLE[:-100]), ["record 0", "are left in the file"]),
    "cut in the checksum": (lambda root: write_shard(root, WHOLE[:-2]), ["record 0", "are left in the file"]),
    "cut in the second record": (lambda root: write_shard(root, WHOLE + WHOLE[:50]), ["record 1", "are left"]),
    "empty shard": (lambda root: write_shard(root, b""), ["has 0 episodes", "says 1"]),
    "zeros": (lambda root: write_shard(root, bytes(1000)), ["record 0", "checksum of its length"]),
    "wrong checksum of the length": (
        lambda root: write_shard(root, HEAD + b"\0\0\0\0" + WHOLE[12:]),
        ["record 0", "checksum of its length"],
    ),
    "wrong checksum": (lambda root: write_shard(root, WHOLE[:-1] + b"\0"), ["record 0", "wrong checksum"]),
    "a bit in the record": (
        lambda root: write_shard(root, WHOLE[:60] + bytes([WHOLE[60] ^ 4]) + WHOLE[61:]),
        ["record 0", "wrong checksum"],
    ),
    "length 2^63": (lambda root: write_shard(root, length_of(1 << 63)), ["9223372036854775808 bytes"]),
    "length 2^64-1": (lambda root: write_shard(root, length_of((1 << 64) - 1)), ["18446744073709551615 bytes"]),
    "length 2^40": (sparse, ["1099511627776 bytes"]),
    "one episode too many": (lambda root: write_shard(root, WHOLE * 2), ["has 2 episodes", "says 1"]),
    "not an example": (lambda root: write_shard(root, record(b"\xff" * 40)), ["record 0", "the example"]),
    "field beyond its message": (
        lambda root: write_shard(root, record(field(1, b"x")[:-1])),
        ["record 0", "where 0 are left"],
    ),
    "field of 2^62 bytes": (
        lambda root: write_shard(root, record(b"\x0a" + varint(1 << 62) + b"x")),
        ["4611686018427387904 bytes where 1 are left"],
    ),
    "endless number": (lambda root: write_shard(root, record(b"\x0a" + b"\xff" * 20)), ["more than 64 bits"]),
    "nested 2000 deep": (nested, ["record 0"]),
    "name that is not text": (
        lambda root: write_shard(root, record(field(1, field(1, field(1, b"\xff\xfe"))))),
        ["not UTF-8"],
    ),
    "steps of different number": (
        lambda root: write(root, [[episode(steps__action=[0.1] * 9)]]),
        ["has 4 steps, but `steps/action` has 3", "record 0"],
    ),
    "values that make no steps": (
        lambda root: write(root, [[episode(steps__action=[0.1] * 10)]]),
        ["`steps/action`", "10 values"],
    ),
    "images where numbers belong": (
        lambda root: write(root, [[episode(steps__action=[b"x"] * NUM_STEPS)]]),
        ["`steps/action`", "Bytes"],
    ),
    "numbers where images belong": (
        lambda root: write(root, [[episode(steps__observation__image=[1, 2, 3, 4])]]),
        ["`steps/observation/image`", "Ints"],
    ),
    "image that is none": (lambda root: write(root, [[with_image(b"not an image")]]), ["episode 0", "known format"]),
    "empty image": (lambda root: write(root, [[with_image(b"")]]), ["episode 0", "known format"]),
    "cut image": (lambda root: write(root, [[with_image(png()[:200])]]), ["episode 0", "cannot be decoded"]),
    "bomb of 10^10 pixels": (lambda root: write(root, [[with_image(png_bomb(100_000))]]), ["100000x100000"]),
    "bomb of 2^31 wide": (lambda root: write(root, [[with_image(png_bomb((1 << 31) - 1))]]), ["episode 0"]),
    "TIFF": (lambda root: write(root, [[with_image(b"II*\0" + bytes(100))]]), ["episode 0", "TIFF"]),
    "missing shard": (missing, ["the file is missing"]),
    "link out of the folder": (linked_shard, ["leads out of its folder"]),
    "device": (device, ["not a regular file"]),
    "pipe": (pipe, ["not a regular file"]),
    "features nested 5000 deep": (deep_json, ["features.json", "recursion limit"]),
    "features of 1 GB": (huge_json, ["features.json", "bytes"]),
    "features that are a list": (lambda root: edit(root, "features.json", lambda _: []), ["features.json", "steps"]),
    "no steps": (lambda root: edit(root, "features.json", lambda _: NO_STEPS), ["features.json", "no `steps`"]),
    "info that is not JSON": (
        lambda root: (edit(root, "dataset_info.json", lambda info: info), (root / "dataset_info.json").write_text("{"))[
            0
        ],
        ["dataset_info.json"],
    ),
    "info without splits": (
        lambda root: edit(root, "dataset_info.json", lambda info: {"name": "made", "version": "1"}),
        ["dataset_info.json", "splits"],
    ),
    "another record format": (
        lambda root: edit(root, "dataset_info.json", lambda info: info | {"fileFormat": "array_record"}),
        ["array_record", "tfrecord is read"],
    ),
    "shard of -1 episodes": (
        lambda root: edit(root, "dataset_info.json", split_of(shardLengths=["-1"])),
        ["split `train`", "-1"],
    ),
    "shard of 2^63 episodes": (
        lambda root: edit(root, "dataset_info.json", split_of(shardLengths=[str(1 << 63)])),
        ["split `train`", "9223372036854775808"],
    ),
    "two million shards": (
        lambda root: edit(root, "dataset_info.json", split_of(shardLengths=["1"] * 2_000_000)),
        ["split `train`", "2000000 shards"],
    ),
    "shard above its folder": (
        lambda root: edit(root, "dataset_info.json", split_of(filepathTemplate="../{DATASET}")),
        ["split `train`", "../"],
    ),
    "absolute shard": (
        lambda root: edit(root, "dataset_info.json", split_of(filepathTemplate="/etc/passwd")),
        ["split `train`", "/etc/passwd"],
    ),
    "unknown placeholder": (
        lambda root: edit(root, "dataset_info.json", split_of(filepathTemplate="{HOME}")),
        ["split `train`", "{HOME}"],
    ),
    "only the info": (
        lambda root: (write(root, [[episode()]]), (root / "features.json").unlink())[0],
        ["features.json"],
    ),
}


def tree(root: Path) -> list:
    return sorted((path.name, path.lstat().st_mtime_ns, path.lstat().st_size) for path in root.rglob("*"))


def test_a_whole_dataset_has_no_findings(tmp_path):
    write(tmp_path / "made", [[episode(), episode()], [episode()]])
    result = check(tmp_path / "made", tmp_path / "cache", MAX_MEMORY)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "12 images of observation/image" in result.stdout


def test_features_that_are_stored_in_another_way_are_left_out(tmp_path):
    features = {**FEATURES, "huge": HUGE["action"], "words": {"sequence": {"feature": {"text": {}}, "length": "-1"}}}
    write(tmp_path / "made", [[episode()]], features)
    result = check(tmp_path / "made", tmp_path / "cache", MAX_MEMORY)
    assert result.returncode == 0, result.stdout + result.stderr


def test_an_image_that_an_episode_lacks_is_named(tmp_path):
    without = episode()
    del without["steps/observation/image"]
    write(tmp_path / "made", [[episode(), without]])
    result = check(tmp_path / "made", tmp_path / "cache", MAX_MEMORY)
    assert result.returncode == 1
    assert "episode 1" in result.stdout
    assert "the episode has no `observation/image`" in result.stdout


def test_an_index_that_is_cut_off_is_named_and_not_deleted(tmp_path):
    write(tmp_path / "made", [[episode()]])
    assert check(tmp_path / "made", tmp_path / "cache", MAX_MEMORY).returncode == 0
    [index] = (tmp_path / "cache/hlrp/rlds/made-1.0.0").iterdir()
    index.write_bytes(index.read_bytes()[:30])
    result = check(tmp_path / "made", tmp_path / "cache", MAX_MEMORY)
    assert result.returncode == 1
    assert "is not a whole index" in result.stdout
    assert index.stat().st_size == 30


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_folder_is_one_clear_finding(name, tmp_path):
    make, words = CASES[name]
    root = tmp_path / "data" / "made"
    make(root)
    before = tree(root.parent)
    result = check(root, tmp_path / "cache", MAX_MEMORY)
    assert result.returncode in (1, 65), result.stdout + result.stderr
    said = (result.stdout + result.stderr).strip()
    assert len(said.splitlines()) <= 2, said
    assert "panicked" not in said
    for word in words:
        assert word in said
    assert "hint:" in said
    assert tree(root.parent) == before, "the dataset is as it was"
    written = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(root.parent)]
    assert all(path.is_relative_to(tmp_path / "cache/hlrp/rlds") for path in written), written
