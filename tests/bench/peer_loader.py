"""Random samples of a LeRobot dataset through the loaders of others: one JSON line of rates.

The peer of `bench_loader` (rust/data/examples): the same frames of uniformly drawn anchors whose frames are all in their episode.

  lerobot     LeRobot's own dataset and DataLoader
  lance       lerobot-lancedb's dataset in the same DataLoader, over the folder that its converter wrote
  torchcodec  its decoder alone: the frames of a batch from each file in one call; no table, no state and action

With `--frames ROW,…` it writes these frames of the first camera instead (`uint8 [T,3,H,W]`), to be compared with ours.
OMP_NUM_THREADS=1 is LeRobot's faster setting on a busy machine.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata  # noqa: E402

REPO_ID = "local/bench"


def cpu_seconds() -> float:
    """CPU seconds so far of this process and of its running loader workers."""
    pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    stats = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


class Anchors:
    """Endless batches of rows, each row once in each pass: the anchors of a dataset in random order."""

    def __init__(self, meta: LeRobotDatasetMetadata, reach: int, batch_size: int):
        bounds = zip(meta.episodes["dataset_from_index"], meta.episodes["dataset_to_index"], strict=True)
        self.rows = np.concatenate([np.arange(start, max(start, end - reach)) for start, end in bounds])
        self.batch_size = batch_size
        assert len(self.rows) >= batch_size, "the dataset has fewer anchors than a batch"

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng(0)
        while True:
            order = random.permutation(self.rows)
            for start in range(0, len(order) - self.batch_size + 1, self.batch_size):
                yield order[start : start + self.batch_size].tolist()


def dataset_of(args: argparse.Namespace, meta: LeRobotDatasetMetadata, deltas: list[int]) -> torch.utils.data.Dataset:
    """Samples of LeRobot's dataset or of Lance's, which has all its cameras in each."""
    seconds = {camera: [delta / meta.fps for delta in deltas] for camera in meta.camera_keys}
    settings = {"root": args.root, "delta_timestamps": seconds, "return_uint8": not args.float}
    if args.kind == "lance":
        from lerobot_lancedb import LanceDBDataset

        return LanceDBDataset(**settings)
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset(REPO_ID, **settings)


class TorchcodecBatches:
    """Batches of frames of all cameras, without anything that a dataset has beside them."""

    def __init__(self, meta: LeRobotDatasetMetadata, deltas: list[int]):
        self.meta, self.deltas = meta, np.asarray(deltas)
        self.starts = np.asarray(meta.episodes["dataset_from_index"])
        self.first_frames = {
            camera: np.rint(np.asarray(meta.episodes[f"videos/{camera}/from_timestamp"]) * meta.fps).astype(int)
            for camera in meta.camera_keys
        }
        self.decoders = {}

    def decoder(self, episode: int, camera: str):
        from torchcodec.decoders import VideoDecoder

        path = self.meta.root / self.meta.get_video_file_path(episode, camera)
        if path not in self.decoders:
            self.decoders[path] = VideoDecoder(path, seek_mode="approximate")
        return self.decoders[path]

    def load(self, rows: list[int]) -> dict[str, torch.Tensor]:
        episodes = np.searchsorted(self.starts, rows, side="right") - 1
        batch = {}
        for camera, first_frames in self.first_frames.items():
            offsets = np.asarray(rows) - self.starts[episodes] + first_frames[episodes]
            decoders = [self.decoder(int(episode), camera) for episode in episodes]
            samples: list[torch.Tensor | None] = [None] * len(rows)
            for decoder in set(decoders):
                members = [index for index, of_sample in enumerate(decoders) if of_sample is decoder]
                indices = (offsets[members, None] + self.deltas).ravel().tolist()
                frames = decoder.get_frames_at(indices=indices).data
                for index, of_sample in zip(members, frames.split(len(self.deltas)), strict=True):
                    samples[index] = of_sample
            batch[camera] = torch.stack(samples)
        return batch


def batches_of(args: argparse.Namespace, meta: LeRobotDatasetMetadata, deltas: list[int]) -> Iterator:
    anchors = Anchors(meta, max(deltas), args.batch_size)
    if args.kind == "torchcodec":
        return map(TorchcodecBatches(meta, deltas).load, anchors)
    dataset = dataset_of(args, meta, deltas)
    workers = {"num_workers": args.workers, "persistent_workers": args.workers > 0}
    return iter(torch.utils.data.DataLoader(dataset, batch_sampler=anchors, **workers))


def write_frames(args: argparse.Namespace, meta: LeRobotDatasetMetadata) -> None:
    """The frames of `--frames`, in one line of their height and width and their bytes."""
    camera = meta.camera_keys[0]
    if args.kind == "torchcodec":
        frames = TorchcodecBatches(meta, [0]).load(args.frames)[camera][:, 0]
    else:
        dataset = dataset_of(args, meta, [0])
        frames = torch.stack(
            [dataset[row][camera].reshape(meta.shapes[camera][2], *meta.shapes[camera][:2]) for row in args.frames]
        )
    assert frames.dtype == torch.uint8
    sys.stdout.buffer.write(b"%d %d\n" % tuple(frames.shape[2:]) + frames.numpy().tobytes())


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("lerobot", "lance", "torchcodec"))
    parser.add_argument("root", type=Path)
    parser.add_argument("--deltas", type=numbers, default=[0, 5], help="frames of a sample, relative to its anchor")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--float", action="store_true", help="float32 images, LeRobot's default; else uint8")
    parser.add_argument("--frames", type=numbers, help="rows whose frames are written")
    args = parser.parse_args()
    torch.set_num_threads(1)

    start = time.perf_counter()
    meta = LeRobotDatasetMetadata(REPO_ID, root=args.root)
    if args.frames:
        write_frames(args, meta)
        return
    batches = batches_of(args, meta, args.deltas)
    first = next(batches)
    first_batch_s = time.perf_counter() - start
    shape = [args.batch_size, len(args.deltas)]
    assert all(list(first[camera].shape[:2]) == shape for camera in meta.camera_keys), "the loader read other samples"
    wall, cpu = time.perf_counter(), cpu_seconds()
    for _ in range(args.batches):
        next(batches)
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    num_samples = args.batches * args.batch_size
    figures = {"samples_per_s": num_samples / wall, "cpu_s_per_sample": cpu / num_samples}
    print(json.dumps(figures | {"first_batch_s": first_batch_s, "workers": args.workers}))


if __name__ == "__main__":
    main()
