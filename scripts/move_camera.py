#!/usr/bin/env python3
"""Copies a LeRobot dataset as if its cameras had been moving.

    python scripts/move_camera.py tests/data/metaworld_mt5 --out datasets/moving --shift 6

Every frame is shifted by whole pixels along a smooth path, another one for each episode and camera: a swing of `--shift` pixels at most in each
direction, at 0.5 to 1.5 Hz; what comes in repeats the edge. States, actions and tasks stay as they are. It asks which target of a latent action
model survives a camera that moves (docs/results/laq.md). `moving_camera.json` in the new folder has the arguments; the same command makes the same
frames. The folder appears when it is whole. Needs LeRobot.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

# Columns that LeRobot's writer makes itself.
WRITTEN = {"timestamp", "frame_index", "episode_index", "index", "task_index"}


def path(num_frames: int, fps: float, shift: int, drawn: np.random.Generator) -> np.ndarray:
    """Pixels down and to the right of each frame, `int [T,2]`."""
    rate, phase = drawn.uniform(0.5, 1.5, size=2), drawn.uniform(0, 2 * np.pi, size=2)
    seconds = np.arange(num_frames)[:, None] / fps
    return np.round(shift * np.sin(2 * np.pi * rate * seconds + phase)).astype(int)


def shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """An image `[H,W,C]` as a camera sees it that has moved."""
    height, width = image.shape[:2]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return np.ascontiguousarray(image[rows][:, columns])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="folder of a LeRobot v3 dataset")
    parser.add_argument("--out", type=Path, required=True, help="the new dataset's folder")
    parser.add_argument("--shift", type=int, default=6, help="largest shift in pixels (6)")
    parser.add_argument("--seed", type=int, default=0, help="of the paths (0)")
    parser.add_argument("--episodes", type=int, help="so many of the first (all)")
    arguments = parser.parse_args()
    out = arguments.out
    if out.exists():
        raise SystemExit(f"error: {out} exists\nhint: choose another folder with --out")
    if not (arguments.dataset / "meta/info.json").exists():
        raise SystemExit(
            f"error: {arguments.dataset} is no LeRobot dataset\nhint: give the folder that has meta/info.json"
        )
    source = LeRobotDataset(f"local/{arguments.dataset.name}", root=arguments.dataset)
    cameras, drawn = source.meta.camera_keys, np.random.default_rng(arguments.seed)
    features = {key: feature for key, feature in source.meta.features.items() if key not in WRITTEN}
    out.parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all: it is written beside.
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent)) / out.name
    fps, robot = source.meta.fps, source.meta.robot_type
    target = LeRobotDataset.create(f"local/{out.name}", fps=fps, features=features, root=partial, robot_type=robot)
    for episode in list(source.meta.episodes)[: arguments.episodes]:
        rows = range(episode["dataset_from_index"], episode["dataset_to_index"])
        paths = {camera: path(len(rows), fps, arguments.shift, drawn) for camera in cameras}
        for nth, row in enumerate(rows):
            item = source[row]
            frame = {key: item[key].numpy().reshape(features[key]["shape"]) for key in features if key not in cameras}
            for camera in cameras:
                image = (item[camera] * 255).round().byte().permute(1, 2, 0).numpy()
                frame[camera] = shifted(image, *paths[camera][nth])
            target.add_frame(frame | {"task": item["task"]})
        target.save_episode()
    target.finalize()
    record = {"dataset": arguments.dataset.name, "shift": arguments.shift, "seed": arguments.seed}
    (partial / "moving_camera.json").write_text(json.dumps(record, indent=1) + "\n")
    partial.rename(out)
    partial.parent.rmdir()
    print(f"{out}: {target.meta.total_episodes} episodes, {target.meta.total_frames} frames")


if __name__ == "__main__":
    main()
