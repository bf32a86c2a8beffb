"""Secrets in settings, on the command line and in the environment: every command runs, and not one byte of them is written or printed."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from conftest import DATA, MINI, REPO, VLA_MINI, program
from fake_lerobot import FakeLerobot

# Ten secrets: recognised by the name of their key or variable, or by their form.
NETRC = "machine api.wandb.ai login user password Pl4nted-netrc"
IN_ENV = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "HF_TOKEN": "hf_Pl4ntedAbCdEfGhIjKlMnOpQrStUvWxYz",
    "AWS_SECRET_ACCESS_KEY": "Pl4nted/secret+key",
    "GITHUB_PAT": "Pl4nted-pat",
    "DB_PASSWORD": "Pl4nted password",
    "MY_SECRET": "Pl4nted-secret",
    "NETRC": NETRC,
}
BY_FORM = {
    "url": "https://user:Pl4nted-url@host/path",
    "token": "hf_Pl4nt3dInAText",
    "hex": "89abcdef0123456789abcdef0123456789abcdef",
}
NEEDLES = ["Pl4nted", "Pl4nt3d", IN_ENV["WANDB_API_KEY"], BY_FORM["hex"]]
DESCRIPTION = f"""experiment.description='"from {BY_FORM["url"]} with {BY_FORM["token"]} and {BY_FORM["hex"]}"'"""


def quoted(text: str) -> str:
    return json.dumps(text)


def env_words(section: str) -> list[str]:
    return [f"+{section}.env.{name}={quoted(value)}" for name, value in IN_ENV.items()]


class Runs:
    """Runs commands and keeps every byte that they print."""

    def __init__(self, folder: Path, lerobot: FakeLerobot):
        self.folder, self.lerobot, self.printed = folder, lerobot, []

    def __call__(self, *words: object, code: int = 0, env: dict | None = None) -> str:
        command = [program("hlrp"), *map(str, words)]
        result = subprocess.run(command, cwd=REPO, env=env or self.lerobot.env(), capture_output=True, timeout=300)
        text = (result.stdout + result.stderr).decode(errors="replace")
        assert result.returncode == code, text
        self.printed.append((" ".join(command)[:60], text))
        return text

    def leaks(self) -> list[str]:
        """Where a secret shows: in what was printed, or in a file below the folder, apart from the records of the stand-in for LeRobot."""
        found = [f"{command}: {needle}" for command, text in self.printed for needle in NEEDLES if needle in text]
        files = [path for path in self.folder.rglob("*") if path.is_file() and "fake" not in path.parts]
        assert any(path.name == "run.json" for path in files)
        for path in files:
            content = path.read_bytes()
            found += [f"{path}: {needle}" for needle in NEEDLES if needle.encode() in content]
        return found


@pytest.fixture
def hlrp(tmp_path, lerobot) -> Runs:
    return Runs(tmp_path, lerobot)


def test_no_command_writes_or_prints_a_secret(hlrp, tmp_path, lerobot):
    laq, vla, run_dir = tmp_path / "laq", tmp_path / "vla", tmp_path / "run"
    short = ["training.max_steps=4", "training.checkpoint.every_n_steps=2", DESCRIPTION]
    hlrp("train-laq", *MINI, *short, f"logging.run_dir={laq}")
    teacher = f"policy.teacher.checkpoint={laq}"
    hlrp("train-vla", *VLA_MINI, *short, teacher, f"logging.run_dir={vla}")
    hlrp("train-laq", "--resume", laq, DESCRIPTION)
    hlrp("train-laq", *MINI, DESCRIPTION, "--print-config")
    hlrp("train-laq", "--no-such-option=" + BY_FORM["token"], code=2)
    hlrp("train-laq", *MINI, f"+wandb.api_key={quoted('Pl4nted-key(')}", code=2)
    hlrp("train-laq", *MINI, "+wandb.api_key=Pl4nted,(key", code=2)

    plugin = f"lerobot.install_policy_editable={lerobot.plugin}"
    train = ["experiment=lerobot_tiny", "lerobot.steps=30", "lerobot.log_freq=10", "logging.min_free_gb=0.01", plugin]
    train += [*env_words("lerobot"), DESCRIPTION]
    hlrp("train-lerobot", *train, "--dry-run")
    hlrp("train-lerobot", *train, "--print-config")
    hlrp("train-lerobot", *train, f"logging.run_dir={run_dir}")
    resumed = [*env_words("lerobot"), "lerobot.steps=40"]
    hlrp("train-lerobot", "--resume", run_dir, *(word.lstrip("+").join(["++", ""]) for word in resumed))
    refused = hlrp("train-lerobot", *train, f"+lerobot.policy.hub_token={quoted('Pl4nted-flag')}", code=2)
    assert "lerobot.policy.hub_token" in refused and "environment variable" in refused
    lerobot.behave(exit=3, error=f"Traceback (most recent call last):\n  x\nValueError: at {BY_FORM['url']}")
    hlrp("train-lerobot", *train, f"logging.run_dir={tmp_path / 'failed'}", code=3)
    lerobot.behave(exit=None)

    plugin = f"lerobot_eval.install_policy_editable={lerobot.plugin}"
    rollout = ["experiment=rollout_tiny", f"lerobot_eval.policy_path={run_dir}", "logging.min_free_gb=0.01", plugin]
    rollout += [*env_words("lerobot_eval"), DESCRIPTION]
    hlrp("rollout-lerobot", *rollout, "--dry-run")
    hlrp("rollout-lerobot", *rollout, f"logging.run_dir={tmp_path / 'rollout'}")

    steps = [f"pipeline.laq.overrides={json.dumps([*MINI[1:], *short])}", "pipeline.vla=null"]
    stage_3 = json.dumps(
        [f"lerobot.install_policy_editable={lerobot.plugin}", "lerobot.steps=30", *env_words("lerobot")]
    )
    steps += [f"pipeline.lerobot.overrides={stage_3}", "pipeline.lerobot.experiment=lerobot_tiny"]
    steps += [f"pipeline.rollouts.button_press.overrides={json.dumps([plugin, *env_words('lerobot_eval')])}"]
    pipeline = ["experiment=pipeline_tiny", "logging.min_free_gb=0.01", *steps, DESCRIPTION]
    pipeline.append("~pipeline.rollouts.button_press_blind")
    hlrp("pipeline", *pipeline, "--dry-run")
    hlrp("pipeline", *pipeline, f"logging.run_dir={tmp_path / 'pipeline'}")
    hlrp("pipeline", "--resume", tmp_path / "pipeline", env={**lerobot.env(), **IN_ENV})

    for command in ("list", "table", "show", "watch"):
        hlrp("runs", command, laq)
    hlrp("runs", "compare", laq, vla, "--all")
    hlrp("runs", "plot", laq, vla, "--metric=train/loss", "--out", tmp_path / "plot.png")
    hlrp("runs", "report", laq, vla, run_dir, tmp_path / "failed", "--out", tmp_path / "report.html")
    hlrp("runs", "note", laq, "--out", tmp_path / "note.md")
    refused = hlrp("reproduce", laq, "--out", tmp_path / "again", code=66)
    assert "experiment.description contains a secret" in refused
    hlrp("reproduce", tmp_path / "pipeline", "--out", tmp_path / "again", code=66)

    for words in (["show"], ["show", "--format=json"], ["show", "--unresolved"], ["sweep"], ["explain", "lerobot.env"]):
        hlrp("config", *words, *train)
    hlrp("config", "explain", "lerobot.env.HF_TOKEN", *train, "++lerobot.env.HF_TOKEN=Pl4nted-again")
    hlrp("config", "diff", run_dir, "experiment=lerobot_tiny " + " ".join(env_words("lerobot")[:4]))
    hlrp("config", "complete", f"+lerobot.env.HF_TOKEN={IN_ENV['HF_TOKEN']}")
    hlrp("config", "list", BY_FORM["token"], code=2)
    hlrp("config", "check")
    hlrp("data", "show", BY_FORM["url"], code=65)
    hlrp("data", "check", DATA / "metaworld_mt5", "--quick", env={**lerobot.env(), **IN_ENV})
    hlrp("doctor", "logging.min_free_gb=0", env={**os.environ, **IN_ENV}, code=0)
    assert hlrp.leaks() == []


def test_lerobot_gets_the_values_that_nobody_else_sees(hlrp, lerobot, tmp_path):
    """The child has the real values; a resumed run takes them from the environment, and says so where they are missing."""
    lerobot.behave(environment=["WANDB_API_KEY"])
    words = ["experiment=lerobot_tiny", "lerobot.steps=10", "lerobot.log_freq=10", "logging.min_free_gb=0.01"]
    words += [f"lerobot.install_policy_editable={lerobot.plugin}", f"logging.run_dir={tmp_path / 'run'}"]
    hlrp("train-lerobot", *words, f"+lerobot.env.WANDB_API_KEY={IN_ENV['WANDB_API_KEY']}")
    [call] = lerobot.calls("lerobot-train")
    assert call["env"]["WANDB_API_KEY"] == IN_ENV["WANDB_API_KEY"]
    assert "WANDB_API_KEY: '***'" in (tmp_path / "run/config.yaml").read_text().replace('"', "'")

    error = hlrp("train-lerobot", "--resume", tmp_path / "run", "lerobot.steps=20", code=2)
    assert "lerobot.env.WANDB_API_KEY" in error and "hint: export WANDB_API_KEY" in error
    env = {**lerobot.env(), "WANDB_API_KEY": IN_ENV["WANDB_API_KEY"]}
    hlrp("train-lerobot", "--resume", tmp_path / "run", "lerobot.steps=20", env=env)
    assert lerobot.calls("lerobot-train")[-1]["env"]["WANDB_API_KEY"] == IN_ENV["WANDB_API_KEY"]
    assert hlrp.leaks() == []
