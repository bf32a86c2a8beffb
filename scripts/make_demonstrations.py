#!/usr/bin/env python3
"""Writes demonstrations of Meta-World's scripted experts as a LeRobot dataset.

    python scripts/make_demonstrations.py push-v3,drawer-open-v3 --episodes 50 --out datasets/push_drawer
    MUJOCO_GL=osmesa python scripts/make_demonstrations.py door-close-v3 --episodes 2 --size 64 --out /tmp/doors

Scenes and camera are those of LeRobot's Meta-World environment, rendered in the size that is recorded. An episode ends with its success; one
without success is not recorded, and the next seed takes its place. `demonstrations.json` in the new folder has the seed of every episode:
the same command makes the same episodes. The folder appears when it is whole; what a stopped command left in `.NAME.partial` is kept as
`.NAME.partial.superseded-1` (2, 3, …) by the next one, which begins anew. Needs LeRobot with Meta-World (`pip install 'lerobot[metaworld]'`).
"""

import argparse
import fcntl
import itertools
import json
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

# A machine without a display renders through EGL; OSMesa where there is no GPU driver.
os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.envs.metaworld import TASK_DESCRIPTIONS, MetaworldEnv

MAX_STEPS = 500
STATE = ["hand_x", "hand_y", "hand_z", "gripper"]
ACTION = ["dx", "dy", "dz", "grip"]


def episode(env: MetaworldEnv, seed: int, noise: float) -> list[dict]:
    """The frames of the expert from one seed; empty where it does not succeed. `noise` is the deviation of what is added to its actions."""
    sim, drawn = env._env, np.random.default_rng(seed)
    sim.seed(seed)
    seen, _ = sim.reset(seed=seed)
    frames = []
    for _ in range(MAX_STEPS):
        action = env.expert_policy.get_action(seen) + noise * drawn.standard_normal(len(ACTION))
        action = np.clip(action, -1, 1).astype(np.float32)
        state, image = seen[: len(STATE)].astype(np.float32), np.ascontiguousarray(env.render())
        frames.append({"observation.image": image, "observation.state": state, "action": action})
        seen, _, _, _, info = sim.step(action)
        if info["success"]:
            return [frame | {"task": env.task_description} for frame in frames]
    return []


def environment(task: str, size: int) -> MetaworldEnv:
    """LeRobot's environment of a task, which renders squares of `size` pixels."""
    env = MetaworldEnv(task)
    env._ensure_env()
    env._env.mujoco_renderer.width = env._env.mujoco_renderer.height = size
    return env


def demonstrations(arguments: argparse.Namespace) -> Iterator[tuple[str, int, list[dict]]]:
    """Task, seed and frames of every episode."""
    for task in arguments.tasks:
        env, seed, num_done = environment(task, arguments.size), arguments.seed, 0
        while num_done < arguments.episodes:
            if seed - arguments.seed > 10 * arguments.episodes + 10:
                raise SystemExit(f"error: the expert of {task} fails too often\nhint: lower --noise")
            frames = episode(env, seed, arguments.noise)
            if frames:
                num_done += 1
                print(f"{task} {num_done}/{arguments.episodes}: seed {seed}, {len(frames)} frames", flush=True)
                yield task, seed, frames
            seed += 1
        env.close()


def tasks(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in TASK_DESCRIPTIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown task {unknown[0]}; there are {', '.join(sorted(TASK_DESCRIPTIONS))}")
    return names


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return int(text)


def hold(folder: Path) -> None:
    """Locks a folder until this process ends; refuses one that another process has locked."""
    file = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit(
            f"error: another command is writing {folder}\nhint: wait for it, or choose another folder with --out"
        ) from None
    except OSError as error:  # some shared file systems have no locks
        print(f"warning: {folder} cannot be locked: {error}", flush=True)


def put_aside(partial: Path) -> None:
    """Gives what a stopped command left another name."""
    names = (partial.with_name(f"{partial.name}.superseded-{number}") for number in itertools.count(1))
    kept = next(path for path in names if not path.exists())
    partial.rename(kept)
    print(f"what a stopped command left is kept in {kept}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", type=tasks, metavar="TASK[,TASK]", help="Meta-World tasks, such as push-v3")
    parser.add_argument("--out", type=Path, required=True, help="the new dataset's folder")
    parser.add_argument("--episodes", type=positive, default=50, help="of each task (50)")
    parser.add_argument("--size", type=positive, default=128, help="side of the images in pixels (128)")
    parser.add_argument("--seed", type=int, default=0, help="of each task's first episode (0)")
    parser.add_argument("--noise", type=float, default=0.0, help="standard deviation of noise on the actions (0)")
    arguments = parser.parse_args()
    out = arguments.out
    if out.exists():
        raise SystemExit(f"error: {out} exists\nhint: choose another folder with --out")
    # Whole or not at all: it is written beside.
    partial = out.with_name(f".{out.name}.partial")
    if partial.exists():
        hold(partial)
        put_aside(partial)
    features = {
        "observation.image": {
            "dtype": "video",
            "shape": (arguments.size, arguments.size, 3),
            "names": ["height", "width", "channels"],
        },
        "observation.state": {"dtype": "float32", "shape": (len(STATE),), "names": STATE},
        "action": {"dtype": "float32", "shape": (len(ACTION),), "names": ACTION},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    rate = MetaworldEnv.metadata["render_fps"]
    dataset = LeRobotDataset.create(f"local/{out.name}", fps=rate, features=features, root=partial, robot_type="sawyer")
    hold(partial)
    recorded = []
    for task, seed, frames in demonstrations(arguments):
        for frame in frames:
            dataset.add_frame(frame)
        dataset.save_episode()
        recorded.append({"episode": len(recorded), "task": task, "seed": seed, "num_frames": len(frames)})
    dataset.finalize()
    record = {
        "tasks": arguments.tasks,
        "size": arguments.size,
        "noise": arguments.noise,
        "episodes": recorded,
        "versions": {name: version(name) for name in ("lerobot", "metaworld", "mujoco")},
    }
    (partial / "demonstrations.json").write_text(json.dumps(record, indent=1) + "\n")
    partial.rename(out)
    print(f"{out}: {len(recorded)} episodes, {sum(entry['num_frames'] for entry in recorded)} frames")


if __name__ == "__main__":
    main()
