"""Damaged and malicious folders of scenes: one clear error each, within little memory, and nothing is written."""

from pathlib import Path

import pytest
from hostile import check, content, cut, device, folder, huge, link, pipe, png_bomb
from made_datasets import make_bridge, make_scenes, write_table

MAX_MEMORY = 2 << 30
ROW = {"scene_idx": 0, "scene_folder": "scene_0", "start_frame": 0, "end_frame": 4}
TRAJECTORIES = {"traj_group0/traj0": (4, "do it"), "traj_group0/traj1": (4, "do it again")}
DATED = "bridge_data_v2/toykitchen1/many_skills/00/2023-03-15_13-35-22"
TRAJECTORY = f"{DATED}/raw/traj_group0/traj1"


def table(root: Path, *rows: dict) -> None:
    """A dataset with this table."""
    make_scenes(root, [4])
    write_table(root, [ROW | row for row in rows])


def text(root: Path, content: str | bytes) -> None:
    make_scenes(root, [4])
    (root / "scenes.csv").write_bytes(content if isinstance(content, bytes) else content.encode())


def instead(root: Path, name: str, make, bridge: bool = False) -> None:
    """A dataset in which a file or folder is replaced by what `make` makes in its place; the original is outside."""
    make_bridge(root, TRAJECTORIES) if bridge else make_scenes(root, [4])
    (root / name).rename(root.parent / "outside")
    make(root / name, root.parent / "outside")


def file(path: Path, _: Path) -> None:
    path.write_text("")


def many(root: Path) -> None:
    lines = (f"{scene},s{scene},0,2\n" for scene in range((1 << 20) + 1))
    text(root, "scene_idx,scene_folder,start_frame,end_frame\n" + "".join(lines))


FRAME = "scene_0/frame_000002.jpg"
METADATA = f"{DATED}/collection_metadata.json"
LANGUAGE = f"{TRAJECTORY}/lang.txt"
IM = f"{TRAJECTORY}/images0/im_2.jpg"
CALC = "=cmd|'/C calc'!A0"
# Name: how the folder is made, and words of the error.
CASES = {
    "empty table": (lambda root: text(root, ""), ["scenes.csv", "no column `scene_idx`"]),
    "table without scenes": (
        lambda root: text(root, "scene_idx,scene_folder,start_frame,end_frame\n"),
        ["has no scene"],
    ),
    "table of bytes": (lambda root: text(root, b"\xff\xfe\0" * 100), ["scenes.csv", "UTF-8"]),
    "table of zeros": (lambda root: text(root, bytes(1000)), ["scenes.csv", "no column `scene_idx`"]),
    "table of 2^40 bytes": (
        lambda root: instead(root, "scenes.csv", huge(1 << 40)),
        ["scenes.csv", "bytes, more than"],
    ),
    "table that is a device": (lambda root: instead(root, "scenes.csv", device), ["scenes.csv", "not a regular file"]),
    "table that is a pipe": (lambda root: instead(root, "scenes.csv", pipe), ["scenes.csv", "not a regular file"]),
    "table outside": (lambda root: instead(root, "scenes.csv", link), ["scenes.csv", "leads out of its folder"]),
    "open quote": (lambda root: text(root, 'scene_idx,scene_folder,start_frame,end_frame\n0,"a,0,4\n'), ["scenes.csv"]),
    "a million scenes": (many, ["more than 1048576 scenes"]),
    "formula for a number": (lambda root: table(root, {"end_frame": CALC}), ["line 2: end_frame", CALC]),
    "formula for a folder": (lambda root: table(root, {"scene_folder": CALC}), ["the folder of a scene is missing"]),
    "number beyond 64 bits": (lambda root: table(root, {"end_frame": 1 << 64}), ["line 2: end_frame", "not a count"]),
    "folder above": (lambda root: table(root, {"scene_folder": "../outside"}), ["line 2", "../outside"]),
    "folder above in the middle": (lambda root: table(root, {"scene_folder": "a/../../b"}), ["line 2", "a/../../b"]),
    "absolute folder": (lambda root: table(root, {"scene_folder": "/etc"}), ["line 2", '"/etc"']),
    "folder of control characters": (lambda root: table(root, {"scene_folder": "\x1b[2Ja\nb"}), ["line 2", "\\u{1b}"]),
    "folder of 70000 characters": (lambda root: table(root, {"scene_folder": "a" * 70_000}), ["line 2", "aaa"]),
    "scene twice": (lambda root: table(root, {}, {"scene_idx": 1}), ["scenes.csv", "scene_0 twice"]),
    "scene outside": (lambda root: instead(root, "scene_0", link), ["scene_0", "out of the dataset's folder"]),
    "scene that is a file": (lambda root: instead(root, "scene_0", file), ["the folder of a scene is missing"]),
    "frame outside": (lambda root: instead(root, FRAME, link), [FRAME, "episode 0", "leads out of its folder"]),
    "frame that is a device": (lambda root: instead(root, FRAME, device), [FRAME, "not a regular file"]),
    "frame that is a pipe": (lambda root: instead(root, FRAME, pipe), [FRAME, "not a regular file"]),
    "first frame that is a pipe": (
        lambda root: instead(root, "scene_0/frame_000000.jpg", pipe),
        ["scene_0/frame_000000.jpg", "not a regular file"],
    ),
    "frame that is a folder": (lambda root: instead(root, FRAME, folder), [FRAME, "not a regular file"]),
    "frame of 2^40 bytes": (lambda root: instead(root, FRAME, huge(1 << 40)), [FRAME, "bytes, more than"]),
    "empty frame": (lambda root: instead(root, FRAME, file), [FRAME, "known format"]),
    "cut frame": (lambda root: instead(root, FRAME, cut(700)), [FRAME, "cannot be decoded"]),
    "frame without its end": (lambda root: instead(root, FRAME, cut(-40)), [FRAME, "cannot be decoded"]),
    "frame of 10^10 pixels": (lambda root: instead(root, FRAME, content(png_bomb(100_000))), [FRAME, "100000x100000"]),
    "frame that is a TIFF": (lambda root: instead(root, FRAME, content(b"II*\0" + bytes(100))), [FRAME, "TIFF"]),
    "trajectory outside": (lambda root: instead(root, TRAJECTORY, link, True), [TRAJECTORY, "out of the dataset's"]),
    "images outside": (
        lambda root: instead(root, f"{TRAJECTORY}/images0", link, True),
        ["images0", "out of the dataset's folder"],
    ),
    "image outside": (lambda root: instead(root, IM, link, True), [IM, "episode 1", "leads out of its folder"]),
    "cut image": (lambda root: instead(root, IM, cut(700), True), [IM, "episode 1", "cannot be decoded"]),
    "metadata of 2^40 bytes": (
        lambda root: instead(root, METADATA, huge(1 << 40), True),
        [METADATA, "bytes, more than"],
    ),
    "metadata nested 5000 deep": (
        lambda root: instead(root, METADATA, content(b'{"a":' * 5000 + b"1" + b"}" * 5000), True),
        [METADATA, "recursion limit"],
    ),
    "metadata that are a list": (lambda root: instead(root, METADATA, content(b"[]"), True), [METADATA, "JSON object"]),
    "metadata outside": (lambda root: instead(root, METADATA, link, True), [METADATA, "leads out of its folder"]),
    "instruction of 2^40 bytes": (
        lambda root: instead(root, LANGUAGE, huge(1 << 40), True),
        [LANGUAGE, "bytes, more than"],
    ),
    "instruction of bytes": (lambda root: instead(root, LANGUAGE, content(b"\xff\xfe"), True), [LANGUAGE, "UTF-8"]),
    "instruction that is a pipe": (lambda root: instead(root, LANGUAGE, pipe, True), [LANGUAGE, "not a regular file"]),
}


def tree(root: Path) -> list:
    return sorted((path, path.lstat().st_mtime_ns, path.lstat().st_size) for path in root.rglob("*"))


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_folder_is_one_clear_finding(name, tmp_path):
    make, words = CASES[name]
    root = tmp_path / "data" / "made"
    make(root)
    before = tree(tmp_path)
    result = check(root, tmp_path / "cache", MAX_MEMORY)
    assert result.returncode in (1, 65), result.stdout + result.stderr
    said = (result.stdout + result.stderr).strip()
    assert len(said.splitlines()) <= 2, said
    assert len(said) < 2000, said
    assert "panicked" not in said
    for word in words:
        assert word in said
    assert "hint:" in said
    assert tree(tmp_path) == before, "nothing is written, and the dataset is as it was"


def test_links_within_the_dataset_are_read_once(tmp_path):
    root = make_bridge(tmp_path / "raw", TRAJECTORIES)
    (root / "again").symlink_to("bridge_data_v2")
    (root / DATED / "up").symlink_to("../..")
    frame = root / TRAJECTORY / "images0/im_3.jpg"
    frame.rename(frame.with_name("third.jpg"))
    frame.symlink_to("third.jpg")
    result = check(root, tmp_path / "cache", MAX_MEMORY)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "8 images of image in order" in result.stdout
