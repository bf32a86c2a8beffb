"""Datasets that other recorders and encoders write read as LeRobot itself reads them, or are refused by name. LeRobot reads the same files in
the same test; each `picture` shows its number, so that a frame is recognised whatever its colours are."""

import json
import subprocess
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
from conftest import TARGET, program
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from made_datasets import CAMERA, FPS, encode, encoded, ffmpeg, make, number_of, patch_edits, patch_matrix, picture
from make_fixtures import oracle

X264 = ["-c:v", "libx264", "-crf", "10", "-pix_fmt", "yuv420p"]
NUM = 40


def pictures(num: int = NUM, height: int = 48, width: int = 64) -> list[np.ndarray]:
    return [picture(number, height, width) for number in range(num)]


def example(name: str, *words: object) -> subprocess.CompletedProcess:
    return subprocess.run([TARGET / "examples" / name, *map(str, words)], capture_output=True)


def frames(root: Path, rows: list[int], *words: object) -> np.ndarray:
    """Frames as we read them, `[T,H,W,3]`."""
    result = example("frames", root, CAMERA, ",".join(map(str, rows)), *words)
    assert result.returncode == 0, result.stderr.decode()
    head, _, content = result.stdout.partition(b"\n")
    height, width = map(int, head.split())
    return np.frombuffer(content, np.uint8).reshape(len(rows), 3, height, width).transpose(0, 2, 3, 1)


def lerobot_frames(root: Path, rows: list[int], **options) -> np.ndarray:
    """The same frames as LeRobot reads them."""
    dataset = LeRobotDataset(f"local/{root.name}", root=root, **options)
    images = [(dataset[row][CAMERA] * 255).round().byte() for row in rows]
    return np.stack([image.permute(1, 2, 0).numpy() for image in images])


def refusal(root: Path, *words: object) -> str:
    """The error of reading the first frame."""
    result = example("frames", root, CAMERA, 0, *words)
    assert result.returncode == 1, result.stdout[:80]
    return result.stderr.decode()


def check(root: Path, *words: object) -> subprocess.CompletedProcess:
    return subprocess.run([program("hlrp-data"), "check", root, *map(str, words)], capture_output=True, text=True)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def video_dataset(tmp_path: Path, *words: object, images: list[np.ndarray] | None = None, **options) -> Path:
    images = images or pictures()
    video = encode(tmp_path / "made.mp4", images, *words)
    return make(tmp_path / "dataset", [len(images)], video=video, shape=(*images[0].shape[:2], 3), **options)


# How a container turns its frames


@pytest.mark.parametrize(
    ("matrix", "quarters"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)], ids=["90", "180", "270"]
)
def test_frames_are_turned_as_lerobot_turns_them(tmp_path, matrix, quarters):
    video = encode(tmp_path / "made.mp4", pictures(12), *X264)
    patch_matrix(video, matrix)
    shown = np.stack([np.rot90(image, quarters) for image in pictures(12)])
    root = make(tmp_path / "dataset", [12], video=video, shape=shown.shape[1:])
    rows = list(range(12))
    ours, theirs = frames(root, rows), lerobot_frames(root, rows)
    assert ours.shape == theirs.shape
    assert distance(ours, shown) <= distance(theirs, shown) + 0.1
    assert distance(ours, shown) < 8
    assert check(root).returncode == 0


@pytest.mark.parametrize(
    ("matrix", "what"), [((-1, 0, 0, 1), "mirrors"), ((1, 0, 0, -1), "mirrors"), ((1, 1, -1, 1), "45.0")]
)
def test_frames_that_are_mirrored_or_slanted_are_refused(tmp_path, matrix, what):
    video = encode(tmp_path / "made.mp4", pictures(4), *X264)
    patch_matrix(video, matrix)
    root = make(tmp_path / "dataset", [4], video=video)
    assert what in refusal(root)
    assert "hint: encode" in refusal(root)
    assert what in check(root).stdout


# Colours

X265 = ["-c:v", "libx265", "-crf", "8", "-x265-params", "log-level=error"]
SVT = ["-c:v", "libsvtav1", "-crf", "10", "-preset", "8"]
VP9 = ["-c:v", "libvpx-vp9", "-crf", "4", "-b:v", "0"]
COLOURS = [
    (["-c:v", "libx264", "-crf", "8"], pix_fmt, space, pixel_range, width)
    for pix_fmt in ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le")
    for space, pixel_range, width in ((None, "tv", 64), ("bt709", "tv", 64), ("bt709", "pc", 64), ("bt709", "pc", 72))
] + [
    (X265, "yuv420p10le", "bt2020nc", "tv", 64),
    (X265, "yuv444p12le", "bt709", "tv", 64),
    (SVT, "yuv420p10le", None, "tv", 64),
    (SVT, "yuv420p", "bt709", "pc", 64),
    (VP9, "yuv444p", "bt709", "tv", 64),
    (["-c:v", "libx264", "-crf", "8"], "gray", None, "pc", 64),
    (["-c:v", "libx264rgb", "-crf", "8"], "rgb24", None, "pc", 64),
    (["-c:v", "mjpeg", "-q:v", "2"], "yuvj444p", None, "pc", 64),
    (["-c:v", "mjpeg", "-q:v", "2"], "yuvj422p", None, "pc", 64),
]


@pytest.mark.parametrize(("codec", "pix_fmt", "space", "pixel_range", "width"), COLOURS)
def test_colours_are_no_farther_from_the_source_than_lerobots(tmp_path, codec, pix_fmt, space, pixel_range, width):
    is_rgb = pix_fmt in ("rgb24", "gray")
    matrix = {"bt709": "bt709", "bt2020nc": "bt2020"}.get(space, "bt601")
    filters = f"scale=out_color_matrix={matrix}:out_range={pixel_range}:flags=bicubic,format={pix_fmt}"
    tags = ["-color_range", pixel_range] + (["-colorspace", space] if space else [])
    words = [*codec, "-g", 4, *([] if is_rgb else ["-vf", filters, *tags]), "-pix_fmt", pix_fmt]
    images = pictures(8, 64, width)
    root = video_dataset(tmp_path, *words, images=images, codec="any", camera={"info": None})
    rows = list(range(8))
    source = np.stack(images)
    if pix_fmt == "gray":
        source = np.repeat((source @ [0.299, 0.587, 0.114])[..., None], 3, -1)
    ours, theirs = distance(frames(root, rows), source), distance(lerobot_frames(root, rows), source)
    assert ours <= theirs + 0.05, f"{ours:.3f} from the source, LeRobot {theirs:.3f}"
    assert ours < 6, f"{ours:.3f} from the source, LeRobot {theirs:.3f}"


def test_deep_gray_video_is_refused_as_colour(tmp_path):
    root = video_dataset(tmp_path, *X265, "-pix_fmt", "gray12le", images=pictures(4))
    assert "gray12le" in refusal(root)
    assert "depth maps" in refusal(root)


# Streams in which decoding cannot start at every keyframe

STREAMS = {
    "gradual intra refresh": ["-c:v", "libx264", "-x264-params", "intra-refresh=1:keyint=12:bframes=0"],
    "hevc intra refresh": ["-c:v", "libx265", "-x265-params", "intra-refresh=1:keyint=12:log-level=error"],
    "open groups": ["-c:v", "libx264", "-x264-params", "open-gop=1:keyint=12:bframes=3:b-pyramid=2"],
    "mpeg4 with b frames": ["-c:v", "mpeg4", "-bf", "2", "-g", "12", "-q:v", "2"],
    "mpeg2 with b frames": ["-c:v", "mpeg2video", "-bf", "2", "-g", "12", "-q:v", "2", "-r", "25"],
    "vp9 with hidden frames": ["-c:v", "libvpx-vp9", "-auto-alt-ref", 1, "-lag-in-frames", 20, "-g", 12, "-crf", 4],
    "av1": ["-c:v", "libsvtav1", "-g", "12", "-crf", "10", "-preset", "8"],
    "lossless h264": ["-c:v", "libx264", "-qp", "0", "-g", "12", "-bf", "3"],
}


@pytest.mark.parametrize("name", STREAMS)
def test_every_frame_at_random_is_the_frame_in_order(tmp_path, name):
    fps = 25 if "mpeg2" in name else FPS
    num = 90
    images = pictures(num, 64, 64)
    video = encode(tmp_path / "made.mp4", images, *STREAMS[name], "-pix_fmt", "yuv420p", fps=fps)
    root = make(tmp_path / "dataset", [num], video=video, fps=fps, shape=(64, 64, 3), camera={"info": None})
    in_order = frames(root, list(range(num)))
    assert [number_of(image) for image in in_order] == list(range(num))
    rows = [row * 37 % num for row in range(num)]
    at_random = frames(root, rows, "--alone")
    assert [row for row, image in zip(rows, at_random, strict=True) if not (image == in_order[row]).all()] == []
    checked = check(root)
    assert checked.returncode == 0, checked.stdout
    assert f"{num} images of {CAMERA} in order" in checked.stdout
    assert "again at random" in checked.stdout


# Edit lists

GROUPS = ["-c:v", "libx264", "-crf", "10", "-pix_fmt", "yuv420p", "-g", "12"]


@pytest.mark.parametrize("b_frames", [0, 3])
@pytest.mark.parametrize("edit", ["whole", "begins within a group", "begins later", "ends early"])
def test_an_edit_list_shows_what_lerobot_shows(tmp_path, b_frames, edit):
    whole = encode(tmp_path / "whole.mp4", pictures(), *GROUPS, "-bf", b_frames)
    video, options = tmp_path / "made.mp4", {}
    if edit == "whole":
        ffmpeg("-i", whole, "-c", "copy", video)
    elif edit == "begins within a group":
        ffmpeg("-ss", 17 / FPS, "-i", whole, "-c", "copy", video)
    elif edit == "begins later":
        ffmpeg("-itsoffset", "0.5", "-i", whole, "-c", "copy", video)
        options = {"from_timestamp": 0.5}
    else:
        ffmpeg("-i", whole, "-c", "copy", video)
        start = 1024 if b_frames else 0
        patch_edits(video, [(1000, start)])
    num = {"begins within a group": NUM - 17, "ends early": 20}.get(edit, NUM)
    root = make(tmp_path / "dataset", [num], video=video, **options)
    rows = list(range(num))
    ours = [number_of(image) for image in frames(root, rows)]
    if edit != "begins later":  # LeRobot counts frames from zero and finds none of these
        assert ours == [number_of(image) for image in lerobot_frames(root, rows)]
    assert ours == [row + (17 if edit == "begins within a group" else 0) for row in rows]


def test_an_edit_list_of_several_parts_is_refused(tmp_path):
    whole = encode(tmp_path / "whole.mp4", pictures(), *GROUPS)
    ffmpeg("-itsoffset", "0.5", "-i", whole, "-c", "copy", tmp_path / "made.mp4")
    patch_edits(tmp_path / "made.mp4", [(500, 0), (500, 8192)])
    root = make(tmp_path / "dataset", [10], video=tmp_path / "made.mp4")
    assert "its edit list shows several parts of the video" in refusal(root)


# Containers


def test_of_two_video_tracks_the_one_that_lerobot_plays_is_read(tmp_path):
    small = encode(tmp_path / "small.mp4", pictures(NUM, 24, 48), *X264)
    large = encode(tmp_path / "large.mp4", [picture(n + 100, 48, 64) for n in range(NUM)], *X264)
    ffmpeg("-i", small, "-i", large, "-map", "0:v", "-map", "1:v", "-c", "copy", tmp_path / "made.mp4")
    root = make(tmp_path / "dataset", [NUM], video=tmp_path / "made.mp4")
    rows = [0, 5, 39, 17]
    assert [number_of(image) for image in frames(root, rows)] == [number_of(i) for i in lerobot_frames(root, rows)]
    assert check(root).returncode == 0


def test_a_fragmented_file_and_one_of_another_container_say_what_they_are(tmp_path):
    whole = encode(tmp_path / "whole.mp4", pictures(), *GROUPS)
    ffmpeg("-i", whole, "-c", "copy", "-movflags", "frag_keyframe+empty_moov", tmp_path / "fragments.mp4")
    ffmpeg("-i", whole, "-c", "copy", "-f", "matroska", tmp_path / "matroska.mp4")
    for name, what in {"fragments": "is a fragmented MP4 file", "matroska": "of the format matroska,webm"}.items():
        root = make(tmp_path / name, [NUM], video=tmp_path / f"{name}.mp4")
        message = refusal(root)
        assert what in message
        assert "hint: rewrite it without encoding it again: ffmpeg" in message
        assert "damaged" not in message + check(root).stdout


def test_frames_whose_size_changes_within_a_file_are_named(tmp_path):
    images = {"wide": pictures(10), "narrow": pictures(10, 48, 48)}
    for name, group in images.items():
        encode(tmp_path / f"{name}.mp4", group, "-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p")
    (tmp_path / "list.txt").write_text("file wide.mp4\nfile narrow.mp4\n")
    ffmpeg("-f", "concat", "-i", tmp_path / "list.txt", "-c", "copy", tmp_path / "made.mp4")
    root = make(tmp_path / "dataset", [20], video=tmp_path / "made.mp4", codec="mjpeg")
    checked = check(root)
    assert checked.returncode == 1
    assert "the frame is 48x48, but the video begins with frames of 64x48" in checked.stdout


# Embedded images


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", [None, 1, 2, 3, 4, 5, 6, 7, 8])
def test_embedded_images_show_what_lerobot_shows(tmp_path, form, orientation):
    exif = PIL.Image.Exif()
    if orientation:
        exif[PIL.ExifTags.Base.Orientation] = orientation
    lossless = {"lossless": True} if form == "WEBP" else {"quality": 95} if form == "JPEG" else {}
    images = [encoded(image, form, exif=exif, **lossless) for image in pictures(3)]
    swaps = orientation in (5, 6, 7, 8)
    root = make(tmp_path / "dataset", [3], images=images, shape=(64, 48, 3) if swaps else (48, 64, 3))
    ours, theirs = frames(root, [0, 1, 2]), lerobot_frames(root, [0, 1, 2])
    assert ours.shape == theirs.shape
    worst = int(np.abs(ours.astype(int) - theirs.astype(int)).max())
    # Two JPEG decoders differ in how they round.
    assert worst <= (4 if form == "JPEG" else 0)
    assert distance(ours, theirs) < 0.5
    assert check(root).returncode == 0


def test_images_that_are_no_colour_images_or_of_another_format_say_so(tmp_path):
    deep = encoded(np.full((48, 64), 900, np.uint16), "PNG")
    bitmap, tiff = (encoded(picture(0), form) for form in ("BMP", "TIFF"))
    for name, content, what in [
        ("deep", deep, "is a 16-bit gray image, as depth maps are"),
        ("bitmap", bitmap, "is an image of the unsupported format Bmp; hint: convert it"),
        ("tiff", tiff, "is a TIFF image"),
    ]:
        root = make(tmp_path / name, [2], images=[content] * 2)
        message = refusal(root).replace("\nhint", "; hint")
        assert what in message
        assert "damaged" not in message
    broken = make(tmp_path / "broken", [2], images=[encoded(picture(0), "PNG")[:200]] * 2)
    assert "hint: the image is damaged" in refusal(broken)


def test_embedded_images_of_another_size_than_the_dataset_says_are_named(tmp_path):
    root = make(tmp_path / "dataset", [2], images=[encoded(picture(0, 24, 48), "PNG")] * 2)
    assert "images are 48x24, but meta/info.json says 64x48" in check(root).stdout


# Depth


@pytest.mark.parametrize(
    "mark", [{"info": {"is_depth_map": True}}, {"info": None, "video_info": {"video.is_depth_map": True}}]
)
def test_a_depth_map_is_no_colour_camera(tmp_path, mark):
    deep = encoded(np.full((48, 64), 900, np.uint16), "PNG")
    root = make(tmp_path / "dataset", [2], images=[deep] * 2, camera=mark)
    assert CAMERA in LeRobotDataset("local/depth", root=root).meta.depth_keys
    assert f"`{CAMERA}` is a depth map, not a colour camera" in refusal(root)
    assert f"not verified  depth maps of {CAMERA}" in check(root).stdout
    shown = subprocess.run([program("hlrp-data"), "show", root, "--no-sheet"], capture_output=True, text=True)
    assert f"depth       {CAMERA}" in shown.stdout


# Tables


def equals_lerobot(root: Path) -> None:
    """Every column, task and window of sampled rows is what LeRobot reads."""
    lines = root.parent / f"{root.name}.jsonl"
    oracle(root, lines)
    result = example("oracle", root, lines)
    assert result.returncode == 0, (result.stdout + result.stderr).decode()


def png_dataset(root: Path, **options) -> Path:
    return make(root, [30, 7, 25], images=[encoded(picture(row), "PNG") for row in range(62)], **options)


def test_the_row_decides_which_task_it_has(tmp_path):
    tasks = ("pick the cup", "place the cup", "wave")
    index = [1] * 30 + [2] * 7 + [0] * 12 + [2] * 13
    stale = [["pick the cup"], ["place the cup"], ["pick the cup", "wave"]]
    root = png_dataset(tmp_path / "dataset", tasks=tasks, task_index=index, listed_tasks=stale)
    theirs = LeRobotDataset("local/tasks", root=root)
    assert [theirs[row]["task"] for row in (0, 30, 37, 61)] == ["place the cup", "wave", "pick the cup", "wave"]
    lines = check(root).stdout.splitlines()
    assert len(lines) == 2, "the third episode's list is right"
    assert 'episode 0 lists the tasks ["pick the cup"], but its rows have ["place the cup"]' in lines[0]
    fresh = png_dataset(tmp_path / "fresh", tasks=tasks, task_index=index)
    equals_lerobot(fresh)


def cast(**types):
    def change(table: pa.Table) -> pa.Table:
        for key, of in types.items():
            at = table.schema.get_field_index(key.replace("__", "."))
            if at >= 0:
                table = table.set_column(at, table.schema.field(at).name, table.column(at).cast(of))
        return table

    return change


def encode_dictionaries(table: pa.Table) -> pa.Table:
    for at, field in enumerate(table.schema):
        if pa.types.is_integer(field.type) or pa.types.is_string(field.type):
            table = table.set_column(at, field.name, table.column(at).combine_chunks().dictionary_encode())
    return table


SMALL = {"frame_index": pa.int16(), "episode_index": pa.uint8(), "index": pa.uint32(), "task_index": pa.int8()}
INDICES = {"dataset_from_index": pa.uint32(), "dataset_to_index": pa.int32(), "length": pa.uint16()}
WRITERS = {
    "large lists and texts": {
        "retype": cast(observation__state=pa.large_list(pa.float32()), action=pa.large_list(pa.float64())),
        "retype_meta": cast(tasks=pa.large_list(pa.large_string()), task=pa.large_string()),
    },
    "small and unsigned integers": {
        "retype": cast(**SMALL, timestamp=pa.float64()),
        "retype_meta": cast(**INDICES, episode_index=pa.uint64(), task_index=pa.uint8()),
    },
    "dictionaries": {"retype": encode_dictionaries, "retype_meta": encode_dictionaries},
    "views": {"retype_meta": cast(task=pa.string_view())},
}


@pytest.mark.parametrize("writer", WRITERS)
def test_tables_of_other_writers_hold_the_same_values(tmp_path, writer):
    tasks = ("pick", "place")
    options = {"tasks": tasks, "task_index": [0] * 30 + [1] * 32} | WRITERS[writer]
    root = png_dataset(tmp_path / "dataset", **options)
    equals_lerobot(root)
    assert check(root).returncode == 0, check(root).stdout


def test_statistics_that_nobody_uses_stop_nothing(tmp_path):
    root = png_dataset(tmp_path / "dataset")
    path = root / "meta/stats.json"
    stats = json.loads(path.read_text())
    stats["observation.state"] = None
    stats["action"]["mean"] = "none"
    stats["timestamp"]["std"] = [float("nan")]
    path.write_text(json.dumps(stats))
    assert "NaN" in path.read_text()
    assert frames(root, [0]).shape == (1, 48, 64, 3)
    path.write_text("{")
    assert frames(root, [0]).shape == (1, 48, 64, 3)
    assert "stats.json of a LeRobot dataset" in check(root).stdout


# Times


def test_a_long_episode_is_read_to_its_end(tmp_path):
    """Beyond 2048 s, rounding to float32 alone is more than LeRobot's tolerance."""
    num, fps = 6300, 3
    images = [picture(number % 4096, 16, 96) for number in range(num)]
    video = encode(tmp_path / "made.mp4", images, *X264, "-preset", "ultrafast", "-g", 30, fps=fps)
    root = make(tmp_path / "dataset", [num], fps=fps, video=video, shape=(16, 96, 3))
    rows = list(range(6144, num, 7))
    assert [number_of(image) for image in frames(root, rows)] == [row % 4096 for row in rows]
    theirs = [number_of(image) for image in lerobot_frames(root, rows[:5])]
    assert theirs == [row % 4096 for row in rows[:5]]
    assert check(root).returncode == 0, check(root).stdout


def test_a_tolerance_lets_jitter_pass_as_in_lerobot(tmp_path):
    jitter = np.random.default_rng(0).uniform(-3e-4, 3e-4, NUM)
    jitter[0] = 0
    video = encode(tmp_path / "made.mp4", pictures(), *X264)
    root = make(tmp_path / "dataset", [NUM], video=video, timestamps=np.arange(NUM) / FPS + jitter)
    rows = list(range(NUM))
    with pytest.raises(ValueError, match="tolerance"):
        lerobot_frames(root, rows)
    refused = check(root)
    assert refused.returncode == 1
    assert "data.sources.<name>.tolerance_s allows more" in refused.stdout
    ours, theirs = frames(root, rows, "--tolerance-s", 1e-3), lerobot_frames(root, rows, tolerance_s=1e-3)
    assert [number_of(image) for image in ours] == [number_of(image) for image in theirs] == rows
    assert check(root, "--tolerance-s", 1e-3).returncode == 0
