"""How `hlrp train-lerobot` and `hlrp rollout-lerobot` are run in tests, and how what they print and leave is read."""

import importlib
import json
import shlex
import subprocess
import sys
from pathlib import Path

from conftest import one_error, program, run
from fake_lerobot import FakeLerobot


def train(lerobot: FakeLerobot, *words: object, env: dict | None = None) -> subprocess.CompletedProcess:
    """Runs `hlrp train-lerobot` with the stand-in's plugin."""
    command = [program("hlrp"), "train-lerobot", *map(str, words)]
    if "--resume" not in words:
        command.append(f"lerobot.install_policy_editable={lerobot.plugin}")
    return run(command, env=env or lerobot.env())


def rollout(lerobot: FakeLerobot, *words: object) -> subprocess.CompletedProcess:
    plugin = f"lerobot_eval.install_policy_editable={lerobot.plugin}"
    return run([program("hlrp"), "rollout-lerobot", *map(str, words), plugin], env=lerobot.env())


def words_of(shell: str) -> list[str]:
    """The words that a shell makes of a printed command, variables in front left out."""
    words = shlex.split(shell.replace("\\\n", " "))
    return words[next(i for i, word in enumerate(words) if "=" not in word) :]


def flags_of(shell: str) -> dict[str, str]:
    return dict(word[2:].split("=", 1) for word in words_of(shell)[1:])


def session(run_dir: Path) -> dict:
    return json.loads((run_dir / "run.json").read_text())["sessions"][-1]


def refused(result: subprocess.CompletedProcess, code: int, *names: str) -> None:
    """One clear error with a hint that contains every name."""
    one_error(result, code, ["hint:", *names])


def parsed(shell: str, config_class: str = "lerobot.configs.train.TrainPipelineConfig"):
    """What LeRobot's own parser makes of a printed command."""
    import lerobot.envs.configs  # noqa: F401  registers the simulators
    import lerobot.policies.act.configuration_act  # noqa: F401  registers act
    from lerobot.configs import parser
    from lerobot.utils.import_utils import register_third_party_plugins

    register_third_party_plugins()
    module, name = config_class.rsplit(".", 1)

    def read(config):
        return config

    read.__annotations__["config"] = getattr(importlib.import_module(module), name)
    before, sys.argv = sys.argv, words_of(shell)
    try:
        return parser.wrap()(read)()
    finally:
        sys.argv = before


def help_teaches(command: str, exit_code: str) -> None:
    """The help of a command has an example, `--dry-run` and the exit codes, this one among them."""
    result = run([program("hlrp"), command, "--help"])
    for part in ["Examples:", f"hlrp {command} experiment=", "--dry-run", "Exit codes:", exit_code]:
        assert part in result.stdout, result.stdout
