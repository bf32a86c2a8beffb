"""A LeRobot environment that is quick and does as it is told: what `hlrp` starts, and with which words, shows in its records.

Everything is a script in one folder: `python` (also pip and ensurepip), `lerobot-train`, `lerobot-eval`, and, where a test wants them,
`uv` and `pip`. `behaviour.json` beside them says how they behave, `calls.jsonl` what they were called with.
"""

import json
import os
import sys
from pathlib import Path

PLUGIN = "lerobot_policy_fake"
SCRIPT = """#!{python}
import sys
sys.path.insert(0, {tests!r})
import fake_lerobot
fake_lerobot.act({name!r}, {folder!r})
"""


# What other tests set for LeRobot in this process.
OF_LEROBOT = ("HF_HUB_OFFLINE", "MUJOCO_GL")


class FakeLerobot:
    """The folder, seen from a test."""

    def __init__(self, folder: Path, programs=("python", "lerobot-train", "lerobot-eval"), **behaviour):
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        for name in programs:
            path = self.bin / name
            path.write_text(
                SCRIPT.format(python=sys.executable, tests=str(Path(__file__).parent), name=name, folder=str(self.bin))
            )
            path.chmod(0o755)
        self.behave(lerobot="0.6.1", plugin=True, **behaviour)
        self.plugin = folder / "plugin"
        self.plugin.mkdir()
        (self.plugin / "pyproject.toml").write_text(f'[project]\nname = "{PLUGIN}"\nversion = "1.0"\n')

    def behave(self, **behaviour) -> None:
        """Changes how the programs behave: `exit` of LeRobot, `plugin` and `lerobot` as installed, `pip`, `ensurepip`, `uv`, …"""
        path = self.bin / "behaviour.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(known | behaviour))

    def calls(self, program: str) -> list[dict]:
        """Calls of a program, each with its `arguments` and some variables in `env`."""
        path = self.bin / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [call for call in map(json.loads, lines) if call["program"] == program]

    def installs(self) -> list[str]:
        """Attempts to install the plugin, each as one line."""
        path = self.bin / "calls.jsonl"
        calls = map(json.loads, path.read_text().splitlines() if path.exists() else [])
        wanted = [call for call in calls if {"install", "ensurepip"} & set(call["arguments"])]
        return [" ".join([call["program"], *call["arguments"]]) for call in wanted]

    def env(self, **more: str) -> dict:
        """Variables under which this is the LeRobot of the user, and nothing else of Python is on PATH."""
        users = {name: value for name, value in os.environ.items() if name not in OF_LEROBOT}
        return {**users, "PATH": f"{self.bin}:/usr/bin:/bin", **more}


def act(name: str, folder: str) -> None:
    """What a script of the folder does."""
    here = Path(folder)
    behaviour = json.loads((here / "behaviour.json").read_text())
    arguments = sys.argv[1:]
    names = (
        "MUJOCO_GL",
        "HF_HUB_OFFLINE",
        "OMP_NUM_THREADS",
        "OMP_WAIT_POLICY",
        "GOMP_SPINCOUNT",
        "PYTHONUNBUFFERED",
        "LIBERO_CONFIG_PATH",
        *behaviour.get("environment", ()),
    )
    record = {"program": name, "arguments": arguments, "env": {key: os.environ.get(key) for key in names}}
    with (here / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps(record) + "\n")
    if name == "python" and arguments[-1] == "libero":
        print(here / "libero")
    elif name == "python" and "-c" in arguments:
        probe(arguments[arguments.index("-c") + 2 :], behaviour)
    elif name == "python" and arguments[:2] == ["-m", "ensurepip"]:
        outcome(here, behaviour, "ensurepip", then={"pip": "ok"})
    elif name == "python" and arguments[:2] == ["-m", "pip"]:
        outcome(here, behaviour, "pip", then={"plugin": True})
    elif name in ("uv", "pip"):
        outcome(here, behaviour, f"{name} on PATH", then={"plugin": True})
    elif name == "lerobot-train":
        train(arguments, behaviour)
    elif name == "lerobot-eval":
        evaluate(arguments, behaviour)


def probe(names: list[str], behaviour: dict) -> None:
    def look(name: str):
        if name == PLUGIN:
            return {"version": "1.0", "name": name, "is_module": True} if behaviour["plugin"] else None
        if name == "lerobot":
            return behaviour["lerobot"] and {"version": behaviour["lerobot"], "name": name, "is_module": True}
        return {"version": "2.11.0", "name": name, "is_module": True}

    print(json.dumps({"python": "3.12.0", "distributions": {name: look(name) for name in names}}))


def outcome(here: Path, behaviour: dict, key: str, then: dict) -> None:
    """`ok` ends well and has the effect `then`, `elsewhere` ends well without it, everything else is an error's text."""
    verdict = behaviour.get(key, "not told how to behave")
    if verdict not in ("ok", "elsewhere"):
        print(verdict, file=sys.stderr)
        sys.exit(1)
    if verdict == "ok":
        (here / "behaviour.json").write_text(json.dumps(behaviour | then))


def flag(arguments: list[str], name: str) -> str | None:
    return next((word.split("=", 1)[1] for word in arguments if word.startswith(f"--{name}=")), None)


def train(arguments: list[str], behaviour: dict) -> None:
    import signal
    import time

    output, steps = Path(flag(arguments, "output_dir")), int(flag(arguments, "steps"))
    if behaviour.get("exit"):
        print(behaviour.get("error", "something is wrong inside LeRobot"), file=sys.stderr)
        sys.exit(behaviour["exit"])
    client = lerobots_client(arguments) if flag(arguments, "wandb.enable") == "true" else None
    start = resumed_from(arguments) if client else 0
    for step in range(start + 10, steps + 1, 10):
        if client:
            client.log_dict({"loss": float(f"{1 / step:.3f}")}, step)
        print(f"\rTraining {step}/{steps}", end="", file=sys.stderr)
        print(
            f"\nINFO n_train.py:641 step:{step} smpl:80 ep:1 epch:0.1 loss:{1 / step:.3f} grdn:2.0 lr:1.0e-04 smp/s:9"
        )
        if behaviour.get("checkpoints", True):
            save(output, step)
        if step == behaviour.get("wait_at"):
            signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
            print("waiting", flush=True)
            time.sleep(600)


def resumed_from(arguments: list[str]) -> int:
    config = flag(arguments, "config_path")
    state = Path(config).parent.parent / "training_state/training_step.json" if config else None
    return json.loads(state.read_text())["step"] if state else 0


def lerobots_client(arguments: list[str]):
    """LeRobot's own code for W&B, with the real client, as its trainer sets it up."""
    import logging
    from types import SimpleNamespace

    from lerobot.common.wandb_utils import WandBLogger

    logging.basicConfig(level=logging.INFO, force=True)  # it logs the address of its page
    from lerobot.configs.default import WandBConfig

    given = {name: flag(arguments, f"wandb.{name}") for name in ("project", "entity", "notes", "run_id", "mode")}
    given = {name: value for name, value in given.items() if value is not None}
    config = {"policy": {"type": "act"}, "steps": int(flag(arguments, "steps"))}
    output = Path(flag(arguments, "output_dir"))
    output.mkdir(parents=True, exist_ok=True)
    return WandBLogger(
        SimpleNamespace(
            wandb=WandBConfig(**given, add_tags=flag(arguments, "wandb.add_tags") != "false"),
            output_dir=output,
            job_name=flag(arguments, "job_name") or "lerobot_tiny",
            env=None,
            resume=flag(arguments, "resume") == "true",
            is_reward_model_training=False,
            policy=SimpleNamespace(type="act"),
            seed=42,
            dataset=SimpleNamespace(repo_id="pusht"),
            to_dict=lambda: config,
        )
    )


def save(output: Path, step: int) -> None:
    checkpoint = output / "checkpoints" / f"{step:06}"
    for part in ("pretrained_model", "training_state"):
        (checkpoint / part).mkdir(parents=True, exist_ok=True)
    (checkpoint / "pretrained_model" / "config.json").write_text("{}")
    (checkpoint / "training_state" / "training_step.json").write_text(json.dumps({"step": step}))
    last = checkpoint.parent / "last"
    last.unlink(missing_ok=True)
    last.symlink_to(checkpoint.name)


def evaluate(arguments: list[str], behaviour: dict) -> None:
    output, episodes = Path(flag(arguments, "output_dir")), int(flag(arguments, "eval.n_episodes"))
    if behaviour.get("exit"):
        sys.exit(behaviour["exit"])

    def task(group: str, successes: int) -> dict:
        outcomes = [True] * successes + [False] * (episodes - successes)
        metrics = {"successes": outcomes, "max_rewards": [0.5] * episodes, "video_paths": [f"{output}/{group}.mp4"]}
        return {"task_group": group, "task_id": 0, "metrics": metrics}

    output.mkdir(parents=True, exist_ok=True)
    info = {"per_task": [task("push-v3", 1), task("reach-v3", episodes)]}
    (output / "eval_info.json").write_text(json.dumps(info))
