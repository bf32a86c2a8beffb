#!/usr/bin/env python3
"""Rolls policies out in Meta-World and prints how often each succeeds.

    python scripts/rollouts.py runs/my_study --tasks push-v3,drawer-open-v3 --episodes 30
    MUJOCO_GL=osmesa python scripts/rollouts.py runs/one_policy other=elsewhere/one_policy --tasks button-press-topdown-v3

Given are run directories of `hlrp train-vla` or `hlrp train-lerobot`, or a study's (`hlrp pipeline`, section pipeline.study): then every arm with
every seed. A row of the table has the name of an arm or run directory, or the NAME of NAME=DIRECTORY (of a study NAME/arm), and all seeds of that
name. Policies run in LeRobot's Meta-World environment, which is rendered in the size of the demonstrations and only where a policy looks: once for
each chunk of actions. Beside them are the scripted expert and a blind policy, which always does the mean action of the first policy's
demonstrations. Seeds are the simulator's, the same for all; the noise of a policy follows from them.

Each episode is a line of `rollouts.jsonl`, written when it ends: the same command goes on where it stopped. A line names the policy's files by a
digest (`sha256`). Episodes of other files under the same name, or without a digest, stay in `rollouts.jsonl`, are not counted, and are done again.
Needs hlrp_rs, the plugin, and LeRobot with Meta-World (`pip install 'lerobot[metaworld]'`).
"""

import argparse
import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# A machine without a display renders through EGL; OSMesa where there is no GPU driver.
os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np
import torch
import yaml
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.policies.factory import make_pre_post_processors
from lerobot_policy_hlrp.smolvla_shared.configuration_hlrp_smolvla_shared import HLRPSmolVLASharedConfig
from lerobot_policy_hlrp.smolvla_shared.modeling_hlrp_smolvla_shared import HLRPSmolVLASharedPolicy
from lerobot_policy_hlrp.smolvla_shared.processor_hlrp_smolvla_shared import (
    make_hlrp_smolvla_shared_pre_post_processors,
)
from make_demonstrations import ACTION, MAX_STEPS, STATE, environment, positive, tasks

EXPERT, BLIND = "scripted expert", "always the mean action"
# Of the normal distribution, for an interval of 95 %.
QUANTILE = 1.96

# The simulator and its observation to a chunk of actions `[T,A]`.
type Policy = Callable[[Any, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Entry:
    """A policy: its row in the table, the seed of its training where it has one, and its artifact or checkpoint where it is learned."""

    arm: str
    seed: int | None = None
    folder: Path | None = None
    sha256: str | None = None

    @property
    def key(self) -> dict[str, Any]:
        """What its episodes have in common."""
        return {"arm": self.arm, "seed": self.seed, "sha256": self.sha256}


@dataclass(frozen=True)
class Run:
    """A run directory, and the name of its row where one is given."""

    path: Path
    name: str | None = None

    @classmethod
    def read(cls, text: str) -> "Run":
        """DIRECTORY or NAME=DIRECTORY; a directory may have an `=` in its name."""
        name, _, path = text.partition("=")
        return cls(Path(path), name) if name and path and not Path(text).exists() else cls(Path(text))


def digest(folder: Path) -> str:
    """The sha256 of a policy's description and weights."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors"))
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def entries(runs: list[Run], artifact: str) -> list[Entry]:
    """The policies in `runs`; `artifact` is `best` or `final`."""
    found = []
    for run in runs:
        path = run.path
        config = path / "config.yaml"
        if not config.is_file():
            raise SystemExit(
                f"error: {config} is missing\nhint: give run directories of hlrp train-vla, hlrp train-lerobot or of a study"
            )
        tree = yaml.safe_load(config.read_text())
        study = (tree.get("pipeline") or {}).get("study")
        if study is None:
            is_checkpoint = tree["experiment"]["stage"] == "lerobot_train"
            folder = "lerobot/checkpoints/last/pretrained_model" if is_checkpoint else f"artifacts/{artifact}"
            found.append(Entry(run.name or path.resolve().name, tree["seed"], path / folder))
            continue
        steps = {step["name"]: step for step in json.loads((path / "pipeline.json").read_text())["steps"]}
        for arm in study["arms"]:
            for seed in study["seeds"] if study["runs"][arm["run"]]["per_seed"] else [None]:
                step = steps[arm["run"] if seed is None else f"{arm['run']}_seed{seed}"]
                # One that was started again has another directory.
                run_dir = path / Path(step["run_dir"] or step["name"]).name
                name = arm["name"] if run.name is None else f"{run.name}/{arm['name']}"
                found.append(Entry(name, seed, run_dir / "artifacts" / artifact))
    refuse_equal_names(found)
    missing = [entry.folder for entry in found if not (entry.folder / "model.safetensors").is_file()]
    for folder in missing:
        print(f"warning: {folder} is not there yet and is left out", flush=True)
    found = [replace(entry, sha256=digest(entry.folder)) for entry in found if entry.folder not in missing]
    if not found:
        raise SystemExit("error: no policy to roll out\nhint: finish the runs first, or choose --artifact best")
    return found


def refuse_equal_names(found: list[Entry]) -> None:
    """Refuses two policies with one name and seed: the table would add them up."""
    taken: dict[tuple[str, int | None], Path | None] = {}
    for entry in found:
        if entry.arm in (EXPERT, BLIND):
            raise SystemExit(
                f"error: {entry.folder}: `{entry.arm}` is a row of every table\nhint: NAME=DIRECTORY names it"
            )
        other = taken.setdefault((entry.arm, entry.seed), entry.folder)
        if other is not entry.folder:
            raise SystemExit(
                f"error: {other} and {entry.folder} are both `{entry.arm}` with seed {entry.seed}\n"
                "hint: name one of them with NAME=DIRECTORY"
            )


def in_lerobot(folder: Path, size: int, blind: bool) -> tuple[HLRPSmolVLASharedPolicy, Any, Any]:
    """The policy in an artifact or checkpoint for square images of `size` pixels, and LeRobot's steps before and after it."""
    if (folder / "config.json").is_file():
        config = PreTrainedConfig.from_pretrained(folder)
        config.device, config.blind = "cpu", blind
        policy = HLRPSmolVLASharedPolicy.from_pretrained(folder, config=config)
        on_cpu = {"device_processor": {"device": "cpu"}}
        steps = make_pre_post_processors(config, pretrained_path=folder, preprocessor_overrides=on_cpu)
        return policy, *steps
    shapes = {
        "observation.image": PolicyFeature(FeatureType.VISUAL, (3, size, size)),
        "observation.state": PolicyFeature(FeatureType.STATE, (len(STATE),)),
    }
    actions = {"action": PolicyFeature(FeatureType.ACTION, (len(ACTION),))}
    config = HLRPSmolVLASharedConfig(
        device="cpu", stage2_artifact=folder, blind=blind, input_features=shapes, output_features=actions
    )
    policy = HLRPSmolVLASharedPolicy(config)
    return policy, *make_hlrp_smolvla_shared_pre_post_processors(config)


def policy_of(entry: Entry, size: int) -> Policy:
    """What an entry does."""
    if entry.folder is None:
        return lambda env, seen: env.expert_policy.get_action(seen)[None]
    policy, before, after = in_lerobot(entry.folder, size, blind=entry.arm == BLIND)

    def act(env: Any, seen: np.ndarray) -> np.ndarray:
        image = torch.from_numpy(np.ascontiguousarray(env.render())).permute(2, 0, 1) / 255
        state = torch.from_numpy(seen[: len(STATE)]).float()
        batch = before({"observation.image": image, "observation.state": state, "task": env.task_description})
        return after(policy.predict_action_chunk(batch))[0, : policy.config.n_action_steps].numpy()

    return act


def rollout(env: Any, policy: Policy, seed: int) -> dict[str, Any]:
    """Whether an episode succeeds, its steps, and the sum and the largest of their rewards."""
    sim = env._env
    torch.manual_seed(seed)
    sim.seed(seed)
    seen, _ = sim.reset(seed=seed)
    chunk: list[np.ndarray] = []
    rewards: list[float] = []
    while len(rewards) < MAX_STEPS:
        chunk = chunk or list(policy(env, seen))
        seen, reward, _, _, info = sim.step(np.clip(chunk.pop(0), -1, 1).astype(np.float32))
        rewards.append(float(reward))
        if info["success"]:
            break
    return {
        "success": bool(info["success"]),
        "num_steps": len(rewards),
        "sum_of_rewards": sum(rewards),
        "largest_reward": max(rewards),
    }


def wilson(num_successes: int, total: int) -> tuple[float, float]:
    """Wilson's score interval of a rate, 95 % (Wilson, 1927)."""
    rate, squared = num_successes / total, QUANTILE**2
    middle = rate + squared / (2 * total)
    half = QUANTILE * math.sqrt(rate * (1 - rate) / total + squared / (4 * total**2))
    low, high = (middle - half) / (1 + squared / total), (middle + half) / (1 + squared / total)
    return max(low, 0.0), min(high, 1.0)


def table(rows: list[dict], arms: list[str], names: list[str]) -> str:
    """Successes of each arm in each task, in Markdown, of the episodes `rows`."""
    lines = [["policy", *names], ["---", *("---:" for _ in names)]]
    for arm in arms:
        cells = []
        for name in names:
            own = [row for row in rows if row["arm"] == arm and row["task"] == name]
            successes = sum(row["success"] for row in own)
            by_seed = {
                seed: [row["success"] for row in own if row["seed"] == seed] for seed in {row["seed"] for row in own}
            }
            seeds = ", ".join(f"{np.mean(by_seed[seed]):.0%}" for seed in sorted(by_seed, key=str))
            if own:
                low, high = wilson(successes, len(own))
                each = f"; seeds {seeds}" if len(by_seed) > 1 else ""
                cells.append(f"{successes} of {len(own)} ({low:.0%} to {high:.0%}{each})")
            else:
                cells.append("")
        lines.append([arm, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def is_of(row: dict, entry: Entry) -> bool:
    """Whether an episode is one of a policy, by its name, its seed and its files."""
    return all(row.get(name) == value for name, value in entry.key.items())


def read(path: Path) -> list[dict]:
    """The episodes in `path`; a last line that was cut off is done again."""
    if not path.exists():
        return []
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        with path.open("r+") as file:
            file.truncate(len(whole.encode()))
    return [json.loads(line) for line in whole.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "runs",
        type=Run.read,
        nargs="+",
        metavar="[NAME=]DIRECTORY",
        help="run directories of hlrp train-vla, hlrp train-lerobot, or of a study",
    )
    parser.add_argument("--tasks", type=tasks, required=True, help="Meta-World tasks with commas, such as push-v3")
    parser.add_argument("--episodes", type=positive, default=30, help="of each policy in each task (30)")
    parser.add_argument("--seed", type=int, default=1000, help="of the simulator in the first episode (1000)")
    parser.add_argument("--size", type=positive, default=128, help="side of the images in pixels, as in training (128)")
    parser.add_argument(
        "--artifact", choices=("best", "final"), default="final", help="of each run of hlrp train-vla (final)"
    )
    parser.add_argument("--out", type=Path, help="file of the episodes (rollouts.jsonl in the first run directory)")
    arguments = parser.parse_args()
    trained = entries(arguments.runs, arguments.artifact)
    out = arguments.out or arguments.runs[0].path / "rollouts.jsonl"
    rows = read(out)
    settings = {"size": arguments.size, "artifact": arguments.artifact}
    other = next((row for row in rows if {key: row[key] for key in settings} != settings), None)
    if other is not None:
        raise SystemExit(
            f"error: {out} has episodes of size {other['size']} and artifact {other['artifact']}\nhint: choose another --out"
        )
    everyone = [*trained, replace(trained[0], arm=BLIND, seed=None), Entry(EXPERT)]
    kept = [row for row in rows if any(is_of(row, entry) for entry in everyone)]
    names = {entry.arm for entry in everyone}
    if others := sum(row["arm"] in names for row in rows) - len(kept):
        print(f"{others} episodes in {out} are of other policies with these names and are not counted", flush=True)
    done = {(row["arm"], row["seed"], row["task"], row["simulator_seed"]) for row in kept}
    with out.open("a") as file:
        for task in arguments.tasks:
            env = environment(task, arguments.size)
            for entry in everyone:
                seeds = range(arguments.seed, arguments.seed + arguments.episodes)
                left = [seed for seed in seeds if (entry.arm, entry.seed, task, seed) not in done]
                policy = policy_of(entry, arguments.size) if left else None
                for seed in left:
                    kept.append(
                        entry.key | {"task": task, "simulator_seed": seed} | rollout(env, policy, seed) | settings
                    )
                    file.write(json.dumps(kept[-1]) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                successes = [row["success"] for row in kept if is_of(row, entry) and row["task"] == task]
                of_seed = "" if entry.seed is None else f", seed {entry.seed}"
                print(f"{task}, {entry.arm}{of_seed}: {sum(successes)} of {len(successes)}", flush=True)
            env.close()
    print(table(kept, list(dict.fromkeys(entry.arm for entry in everyone)), arguments.tasks))


if __name__ == "__main__":
    main()
