"""Random frame pairs (t, t+5) through LeRobot's own dataset and DataLoader: one JSON line of rates.

The peer of `bench_loader` (rust/data/examples). OMP_NUM_THREADS=1 is LeRobot's faster setting on a busy machine.
"""

import argparse
import json
import multiprocessing
import os
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # noqa: E402
from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402


def cpu_seconds() -> float:
    """CPU seconds so far of this process and of its running loader workers."""
    pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    stats = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--float", action="store_true", help="float32 images, LeRobot's default; else uint8")
    args = parser.parse_args()
    torch.set_num_threads(1)

    start = time.perf_counter()
    probe = LeRobotDataset("local/bench", root=args.root)
    camera = probe.meta.camera_keys[0]
    deltas = {camera: [0.0, 5 / probe.fps]}
    dataset = LeRobotDataset("local/bench", root=args.root, delta_timestamps=deltas, return_uint8=not args.float)
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=args.batch_size,
        shuffle=True,
        num_workers=args.workers,
        persistent_workers=args.workers > 0,
        drop_last=True,
        generator=torch.Generator().manual_seed(0),
    )

    def endless():
        while True:
            yield from loader

    batches = endless()
    next(batches)
    first_batch_s = time.perf_counter() - start
    wall, cpu = time.perf_counter(), cpu_seconds()
    for _ in range(args.batches):
        next(batches)
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    pairs = args.batches * args.batch_size
    print(
        json.dumps(
            {
                "pairs_per_s": pairs / wall,
                "cpu_s_per_pair": cpu / pairs,
                "first_batch_s": first_batch_s,
                "workers": args.workers,
            }
        )
    )


if __name__ == "__main__":
    main()
