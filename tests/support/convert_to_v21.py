"""Converts a LeRobot v3 dataset back to v2.1: one data file and one video per episode, metadata in JSON lines. Nothing is encoded again.

.venv/bin/python tests/support/convert_to_v21.py DATASET OUT
"""

import json
import sys
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
from made_datasets import statistics

CHUNK = 1000
DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"


def tables(folder: Path) -> list:
    return [pq.read_table(file) for file in sorted(folder.glob("*/*.parquet"))]


def cut_video(source: Path, target: Path, start: float, end: float, fps: float) -> None:
    """Copies the packets of the frames from `start` to `end`, seconds; the first is a keyframe."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with av.open(source) as read, av.open(target, "w") as write:
        stream = read.streams.video[0]
        copy = write.add_stream_from_template(stream, opaque=True)
        first, last = round(start * fps), round(end * fps)
        shift = round(first / fps / stream.time_base)
        for packet in read.demux(stream):
            if packet.pts is None or not first <= round(packet.pts * stream.time_base * fps) < last:
                continue
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
            write.mux(packet)


def write_lines(path: Path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def convert(root: Path, out: Path) -> Path:
    info = json.loads((root / "meta/info.json").read_text())
    episodes = [row for table in tables(root / "meta/episodes") for row in table.to_pylist()]
    tasks = pq.read_table(root / "meta/tasks.parquet").to_pylist()
    cameras = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
    rows = [table for table in tables(root / "data")]
    (out / "meta").mkdir(parents=True)
    of_episodes, of_stats = [], []
    for episode in episodes:
        index = episode["episode_index"]
        place = {"episode_chunk": index // CHUNK, "episode_index": index}
        mine = [table.filter(np.asarray(table["episode_index"]) == index) for table in rows]
        [table] = [table for table in mine if table.num_rows]
        data = out / DATA_PATH.format(**place)
        data.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, data)
        of_episodes.append({"episode_index": index, "tasks": episode["tasks"], "length": table.num_rows})
        stats = {}
        for key, feature in info["features"].items():
            if key in cameras:  # LeRobot samples images; any numbers of its form will do
                stats[key] = {name: [[[0.5]]] * 3 for name in ("min", "max", "mean", "std")} | {"count": [1]}
            elif feature["dtype"] != "string":
                stats[key] = statistics(np.array(table[key].to_pylist(), np.float64))
                stats[key] = {name: stats[key][name] for name in ("min", "max", "mean", "std", "count")}
        of_stats.append({"episode_index": index, "stats": stats})
        for camera in cameras:
            at = {name: episode[f"videos/{camera}/{name}"] for name in ("chunk_index", "file_index")}
            source = root / info["video_path"].format(video_key=camera, **at)
            start, end = (episode[f"videos/{camera}/{name}_timestamp"] for name in ("from", "to"))
            cut_video(source, out / VIDEO_PATH.format(video_key=camera, **place), start, end, info["fps"])
    write_lines(out / "meta/tasks.jsonl", [{"task_index": t["task_index"], "task": t["task"]} for t in tasks])
    write_lines(out / "meta/episodes.jsonl", of_episodes)
    write_lines(out / "meta/episodes_stats.jsonl", of_stats)
    del info["data_files_size_in_mb"], info["video_files_size_in_mb"]
    info |= {
        "codebase_version": "v2.1",
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if cameras else None,
        "chunks_size": CHUNK,
        "total_chunks": (len(episodes) - 1) // CHUNK + 1,
        "total_videos": len(episodes) * len(cameras),
    }
    (out / "meta/info.json").write_text(json.dumps(info, indent=4))
    return out


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
