"""Tiny datasets, LeRobot v3 and folders of scenes, written by hand so that every detail can be chosen, and the files that they consist of."""

import csv
import io
import json
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

CAMERA = "observation.images.front"
FPS = 20
BITS = 12


def picture(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A picture that says its number: twelve blocks of bits above, colours and an arrangement without symmetry below."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack(
        [128 + 100 * np.sin(x / 9 + number / 5), 128 + 90 * np.cos(y / 7 - number / 6), 40 + 3 * ((x + y) % 60)], -1
    )
    block = width // BITS
    for bit in range(BITS):
        image[: height // 4, bit * block : (bit + 1) * block] = 235 if (number >> bit) & 1 else 20
    image[height // 2 : height // 2 + height // 8, : width // 4] = (230, 20, 30)
    image[-(height // 8) :, :] = (20, 200, 40)
    return np.clip(image, 0, 255).astype(np.uint8)


def number_of(image: np.ndarray) -> int:
    """The number that a picture says."""
    height, width = image.shape[:2]
    block = width // BITS
    bits = [image[1 : height // 4 - 1, b * block + 1 : (b + 1) * block - 1].mean() > 128 for b in range(BITS)]
    return sum(1 << bit for bit, is_set in enumerate(bits) if is_set)


def ffmpeg(*words: object, data: bytes | None = None) -> None:
    command = ["ffmpeg", "-y", "-loglevel", "error", "-threads", "1", *map(str, words)]
    result = subprocess.run(command, input=data, capture_output=True)
    assert result.returncode == 0, result.stderr.decode()[-800:]


def encode(path: Path, pictures: list[np.ndarray], *words: object, fps: int = FPS) -> Path:
    """Encodes pictures; `words` are options of ffmpeg for the output."""
    height, width = pictures[0].shape[:2]
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", fps, "-i", "-"]
    ffmpeg(*source, *words, path, data=b"".join(image.tobytes() for image in pictures))
    return path


def encoded(image: np.ndarray, form: str, **options) -> bytes:
    """The file of one picture."""
    out = io.BytesIO()
    PIL.Image.fromarray(image).save(out, form, **options)
    return out.getvalue()


def patch_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Overwrites how the header of the first track turns its frames: a, b, c, d of its matrix."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    a, b, c, d = (number << 16 for number in matrix)
    struct.pack_into(">9i", content, at, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def patch_edits(path: Path, edits: list[tuple[int, int]]) -> None:
    """Overwrites the edit list of the first track: durations and media times, as many as there are."""
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 4
    assert struct.unpack_from(">II", content, at) == (0, len(edits))
    for number, (duration, start) in enumerate(edits):
        struct.pack_into(">Ii", content, at + 8 + 12 * number, duration, start)
    path.write_bytes(content)


def statistics(values: np.ndarray) -> dict:
    values = np.asarray(values, np.float64).reshape(len(values), -1)
    named = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
    quantiles = {f"q{int(q * 100):02d}": np.quantile(values, q, axis=0) for q in (0.01, 0.10, 0.50, 0.90, 0.99)}
    return {name: value.tolist() for name, value in (named | quantiles).items()} | {"count": [len(values)]}


def make(
    root: Path,
    lengths: list[int],
    *,
    fps: int = FPS,
    video: Path | None = None,
    images: list[bytes] | None = None,
    shape: tuple[int, int, int] = (48, 64, 3),
    codec: str = "h264",
    camera: dict | None = None,
    tasks: tuple[str, ...] = ("do it",),
    task_index: list[int] | None = None,
    listed_tasks: list[list[str]] | None = None,
    from_timestamp: float = 0.0,
    timestamps: np.ndarray | None = None,
    retype=lambda table: table,
    retype_meta=lambda table: table,
) -> Path:
    """Writes a dataset with one camera: `video` has its frames, or `images` their files. `retype` rewrites the data's table,
    `retype_meta` those of tasks and episodes; `camera` replaces parts of what `info.json` says of the camera."""
    num_rows = sum(lengths)
    rng = np.random.default_rng(0)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    frame = np.concatenate([np.arange(length) for length in lengths])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    timestamps = (frame / fps if timestamps is None else timestamps).astype(np.float32)
    task_index = np.zeros(num_rows, int) if task_index is None else np.asarray(task_index)
    columns = {
        "observation.state": rng.normal(size=(num_rows, 3)).astype(np.float32),
        "action": rng.normal(size=(num_rows, 2)).astype(np.float32),
        "timestamp": timestamps,
        "frame_index": frame,
        "episode_index": episode,
        "index": np.arange(num_rows),
        "task_index": task_index,
    }
    described = {
        "dtype": "video" if video else "image",
        "shape": list(shape),
        "names": ["height", "width", "channels"],
        "info": {"video.fps": fps, "video.codec": codec, "is_depth_map": False} if video else None,
    }
    features = {CAMERA: described | (camera or {})}
    table = {}
    for key, values in columns.items():
        width = values.shape[1] if values.ndim > 1 else 1
        features[key] = {"dtype": str(values.dtype), "shape": [width], "names": None}
        flat = pa.array(values.ravel())
        table[key] = pa.FixedSizeListArray.from_arrays(flat, width) if width > 1 else flat
    if images:
        cells = [{"bytes": content, "path": f"frame-{row:06d}"} for row, content in enumerate(images)]
        table[CAMERA] = pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    info = {
        "codebase_version": "v3.0",
        "fps": fps,
        "features": features,
        "total_episodes": len(lengths),
        "total_frames": num_rows,
        "total_tasks": len(tasks),
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "robot_type": "none",
        "splits": {"train": f"0:{len(lengths)}"},
    }
    zeros = [0] * len(lengths)
    episodes = {
        "episode_index": list(range(len(lengths))),
        "tasks": listed_tasks or [sorted({tasks[i] for i in task_index[episode == e]}) for e in range(len(lengths))],
        "length": lengths,
        "data/chunk_index": zeros,
        "data/file_index": zeros,
        "dataset_from_index": starts[:-1].tolist(),
        "dataset_to_index": starts[1:].tolist(),
        "meta/episodes/chunk_index": zeros,
        "meta/episodes/file_index": zeros,
    }
    if video:
        begins = [from_timestamp + float(start) / fps for start in starts]
        prefix = f"videos/{CAMERA}"
        episodes |= {f"{prefix}/chunk_index": zeros, f"{prefix}/file_index": zeros}
        episodes |= {f"{prefix}/from_timestamp": begins[:-1], f"{prefix}/to_timestamp": begins[1:]}
        target = root / prefix / "chunk-000/file-000.mp4"
        target.parent.mkdir(parents=True)
        target.write_bytes(video.read_bytes())
    named_tasks = pd.DataFrame({"task_index": range(len(tasks))}, index=pd.Index(tasks, name="task"))
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    pq.write_table(retype(pa.table(table)), root / "data/chunk-000/file-000.parquet")
    pq.write_table(retype_meta(pa.table(episodes)), root / "meta/episodes/chunk-000/file-000.parquet")
    pq.write_table(retype_meta(pa.Table.from_pandas(named_tasks)), root / "meta/tasks.parquet")
    (root / "meta/info.json").write_text(json.dumps(info, indent=1))
    stats = {key: statistics(values) for key, values in columns.items()}
    pixels = {name: [[[value]]] * 3 for name, value in {"min": 0.0, "max": 1.0, "mean": 0.5, "std": 0.25}.items()}
    (root / "meta/stats.json").write_text(json.dumps(stats | {CAMERA: pixels | {"count": [num_rows]}}))
    return root


def write_frames(folder: Path, first_number: int, names: list[str]) -> None:
    """A scene: files whose pictures say their numbers, from `first_number` on."""
    folder.mkdir(parents=True)
    for number, name in enumerate(names, first_number):
        PIL.Image.fromarray(picture(number)).save(folder / name, quality=95)


def write_table(folder: Path, rows: list[dict]) -> None:
    """The table of the scenes in a folder, one row each; all have the same columns."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "scenes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def make_scenes(folder: Path, lengths: list[int], first_number: int = 0, **columns: list) -> Path:
    """A table and scenes `scene_0`, …: their pictures are numbered on from `first_number`; `columns` have a cell for each scene."""
    rows, number = [], first_number
    for scene, length in enumerate(lengths):
        name = f"scene_{scene}"
        write_frames(folder / name, number, [f"frame_{frame:06d}.jpg" for frame in range(length)])
        own = {key: cells[scene] for key, cells in columns.items()}
        row = {"scene_idx": scene, "scene_folder": name, "start_frame": number, "end_frame": number + length}
        rows.append(row | own)
        number += length
    write_table(folder, rows)
    return folder


def make_bridge(root: Path, trajectories: dict[str, tuple[int, str]], metadata: dict | None = None) -> Path:
    """A raw Bridge v2 tree: by its path, below `bridge_data_v2/toykitchen1/many_skills`, the number of frames and the instruction of a
    trajectory. Pictures are numbered in the order given."""
    dated = root / "bridge_data_v2/toykitchen1/many_skills/00/2023-03-15_13-35-22"
    number = 0
    for path, (length, language) in trajectories.items():
        folder = dated / "raw" / path
        write_frames(folder / "images0", number, [f"im_{frame}.jpg" for frame in range(length)])
        (folder / "lang.txt").write_text(f"{language}\nconfidence: 0.95\n")
        number += length
    (dated / "collection_metadata.json").write_text(json.dumps(metadata or {"robot": "widowx", "gripper": "default"}))
    return root


def with_other_actions(folder: Path, kept: list[int]) -> Path:
    """A copy of the Meta-World demonstrations in which the actions of all episodes but `kept` are others."""
    shutil.copytree(Path(__file__).resolve().parent.parent / "data/metaworld_mt5", folder)
    file = folder / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    actions = np.stack(table["action"].to_numpy())
    is_changed = ~np.isin(table["episode_index"].to_numpy(), kept)
    actions[is_changed] = 7 - 2 * actions[is_changed]
    column = table.schema.get_field_index("action")
    field = table.schema.field(column)
    rows = pa.FixedSizeListArray.from_arrays(actions.reshape(-1), actions.shape[1]).cast(field.type)
    pq.write_table(table.set_column(column, field, rows), file)
    return folder
