"""Labels of every frame pair by the plain loop: LeRobot's DataLoader, the same stage 1 model, tensors in a list. One JSON line.

The peer of `hlrp label`. The model is that of `hlrp_rs.Teacher`, so what differs is how frames get to it and labels get to disk.
"""

import argparse
import json
import os
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from hlrp_rs import Teacher
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("root")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    teacher = Teacher.load(args.checkpoint)
    k = int(teacher.identity["pair"]["image_deltas"][1])
    probe = LeRobotDataset("local/bench", root=args.root)
    camera = probe.meta.camera_keys[0]
    deltas = {camera: [0.0, k / probe.fps]}
    start = time.perf_counter()
    dataset = LeRobotDataset("local/bench", root=args.root, delta_timestamps=deltas, return_uint8=True)
    loader = torch.utils.data.DataLoader(dataset, batch_size=64, num_workers=args.workers)
    labels = [teacher.label(batch[camera], ~batch[camera + "_is_pad"]) for batch in loader]
    num_labels = sum(int(label["latent_is_valid"].sum()) for label in labels)
    print(json.dumps({"pairs_per_s": num_labels / (time.perf_counter() - start), "num_labels": num_labels}))


if __name__ == "__main__":
    main()
