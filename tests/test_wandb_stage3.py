"""Stage 3 on W&B: LeRobot's own client and this program's record are one run.

The trainer is a stand-in (tests/support/fake_lerobot.py); what it records, it records with LeRobot's own code and the real client.
"""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import REPO, one_error, program, read_metrics, run
from lerobot_commands import refused, session
from wandb_world import ENTITY, FAST, KEY, OFFICIAL_0_27, Recorder, rows, scalars, sync

TRAIN = ["experiment=lerobot_tiny", "lerobot.steps=30", "lerobot.log_freq=10", "logging.min_free_gb=0.01", *FAST]
BOTH = [*TRAIN, "lerobot.wandb_enable=true"]
OFFLINE = "logging.wandb.mode=offline"


def env(lerobot, recorder: Recorder, **changes: str) -> dict[str, str]:
    """LeRobot's stand-in and the stand-in for W&B together."""
    return recorder.env(**{"PATH": lerobot.env()["PATH"], **changes})


def command(lerobot, *words: object) -> list[str]:
    plugin = [] if "--resume" in words else [f"lerobot.install_policy_editable={lerobot.plugin}"]
    return [program("hlrp"), "train-lerobot", *map(str, words), *plugin]


def train(lerobot, recorder: Recorder, *words: object, **changes: str) -> subprocess.CompletedProcess:
    return run(command(lerobot, *words), env=env(lerobot, recorder, **changes))


def links(run_dir: Path) -> dict[str, str]:
    return session(run_dir)["links"]


def own_id(run_dir: Path) -> str:
    return json.loads((run_dir / "wandb/run.json").read_text())["id"]


def losses(run_dir: Path) -> list[tuple[int, float]]:
    return [(row["step"], row["train/loss"]) for row in read_metrics(run_dir) if "train/loss" in row]


def test_both_switches_are_one_run(lerobot, recorder, tmp_path):
    run_dir = tmp_path / "run"
    words = ["logging.wandb.project=robots", "logging.wandb.group=sweep", "logging.wandb.tags=[a,b]"]
    words += ["logging.wandb.name=mine", "logging.wandb.notes=why"]
    result = train(lerobot, recorder, *BOTH, *words, f"logging.run_dir={run_dir}")
    assert result.returncode == 0, result.stderr
    recorded = recorder.only_run()
    assert recorded["violations"] == []
    assert recorded["name"] == own_id(run_dir) == links(run_dir)["wandb (LeRobot), id"]
    assert (recorded["displayName"], recorded["tags"], recorded["project"]) == ("mine", ["a", "b"], "robots")
    assert (recorded["fields"]["groupName"], recorded["fields"]["notes"]) == ("sweep", "why")
    assert (recorded["state"], recorded["exitcode"]) == ("finished", 0)
    assert [(row["_step"], row["train/loss"]) for row in rows(recorded)] == losses(run_dir)
    assert links(run_dir)["wandb (LeRobot)"].endswith(f"/{ENTITY}/robots/runs/{recorded['name']}")
    assert Path(links(run_dir)["wandb (LeRobot), folder"]).name.endswith(recorded["name"])


@pytest.mark.slow  # two sessions of the official client take minutes on a busy machine
def test_a_resumed_training_is_the_same_run_with_every_step_once(lerobot, recorder, tmp_path):
    run_dir = tmp_path / "run"
    lerobot.behave(wait_at=20)
    words = command(lerobot, *BOTH, f"logging.run_dir={run_dir}")
    process = subprocess.Popen(words, cwd=REPO, env=env(lerobot, recorder), stdout=subprocess.PIPE, text=True)
    while "waiting" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 75
    lerobot.behave(wait_at=None)
    result = train(lerobot, recorder, "--resume", run_dir)
    assert result.returncode == 0, result.stderr
    recorded = recorder.only_run()
    # The official client itself begins its system metrics at offset 0 again.
    assert [found for found in recorded["violations"] if "wandb-events" not in found] == []
    assert recorded["name"] == own_id(run_dir)
    assert [(row["_step"], row["train/loss"]) for row in rows(recorded)] == losses(run_dir)
    assert [step for step, _ in losses(run_dir)] == [10, 20, 30]
    assert (recorded["state"], recorded["exitcode"]) == ("finished", 0)


@pytest.mark.slow  # as above
def test_without_a_network_the_run_is_linked_by_its_folder(lerobot, recorder, tmp_path):
    run_dir = tmp_path / "run"
    result = train(lerobot, recorder, *BOTH, OFFLINE, f"logging.run_dir={run_dir}", WANDB_API_KEY="")
    assert result.returncode == 0, result.stderr
    assert recorder.requests() == []
    assert links(run_dir).keys() == {"wandb (LeRobot), id", "wandb (LeRobot), folder"}
    folder = Path(links(run_dir)["wandb (LeRobot), folder"])
    assert folder.name.startswith("offline-run-") and folder.is_relative_to(run_dir / "lerobot")
    one_error(sync(recorder, run_dir), 2, [own_id(run_dir), "wandb sync"])
    OFFICIAL_0_27.sync(recorder, run_dir / "lerobot")
    recorded = recorder.only_run()
    assert recorded["name"] == own_id(run_dir)
    assert [(row["_step"], row["train/loss"]) for row in rows(recorded)] == losses(run_dir)


def test_our_own_switch_alone_records_what_lerobot_reports(lerobot, recorder, tmp_path):
    run_dir = tmp_path / "run"
    result = train(lerobot, recorder, *TRAIN, f"logging.run_dir={run_dir}")
    assert result.returncode == 0, result.stderr
    recorded = recorder.only_run()
    assert recorded["violations"] == [] and (recorded["state"], recorded["exitcode"]) == ("finished", 0)
    assert [(row["_step"], row["train/loss"]) for row in scalars(recorded)] == losses(run_dir)
    assert recorded["config"]["lerobot"]["value"]["steps"] == 30
    assert any("loss:0.100" in line for line in recorded["output"]), "LeRobot's own lines are its console"
    assert not list((run_dir / "lerobot").glob("wandb"))


def test_a_training_that_fails_has_its_exit_code_on_wandb(lerobot, recorder, tmp_path):
    lerobot.behave(exit=3)
    assert train(lerobot, recorder, *TRAIN, f"logging.run_dir={tmp_path}/run").returncode == 3
    assert (recorder.only_run()["state"], recorder.only_run()["exitcode"]) == ("failed", 3)


def test_wandb_can_be_switched_off_from_outside(lerobot, recorder, tmp_path):
    result = train(lerobot, recorder, *BOTH, f"logging.run_dir={tmp_path}/run", WANDB_MODE="disabled")
    assert result.returncode == 0, result.stderr
    assert "--wandb.enable=false" in lerobot.calls("lerobot-train")[0]["arguments"]
    assert recorder.requests() == [] and links(tmp_path / "run") == {}


def test_a_wrong_key_is_noticed_before_lerobot_starts(lerobot, recorder, tmp_path):
    result = train(lerobot, recorder, *BOTH, f"logging.run_dir={tmp_path}/run", WANDB_API_KEY="b" * len(KEY))
    refused(result, 2, "logging.use_wandb", "WANDB_API_KEY")
    assert lerobot.calls("lerobot-train") == [] and not (tmp_path / "run").exists()


@pytest.mark.slow  # as above
def test_a_run_that_the_service_lacks_cannot_be_resumed_by_lerobot(lerobot, recorder, tmp_path):
    run_dir = tmp_path / "run"
    assert train(lerobot, recorder, *BOTH, OFFLINE, f"logging.run_dir={run_dir}").returncode == 0
    result = train(lerobot, recorder, "--resume", run_dir, "lerobot.steps=40", "logging.wandb.mode=online")
    refused(result, 2, "logging.wandb.mode", own_id(run_dir), "hlrp runs show")


@pytest.mark.parametrize("name", ["project", "mode", "run_id"])
def test_one_run_has_its_settings_in_one_place(lerobot, recorder, tmp_path, name):
    result = train(lerobot, recorder, *BOTH, f"+lerobot.wandb.{name}=x", f"logging.run_dir={tmp_path}/run")
    refused(result, 2, f"lerobot.wandb.{name}", "has a key of its own")


def rollout(lerobot, recorder: Recorder, tmp_path: Path) -> subprocess.CompletedProcess:
    policy = tmp_path / "policy/pretrained_model"
    policy.mkdir(parents=True)
    (policy / "config.json").write_text("{}")
    words = ["experiment=rollout_tiny", "lerobot_eval.eval_n_episodes=4", "logging.min_free_gb=0.01", *FAST]
    words += [f"lerobot_eval.policy_path={policy}", f"logging.run_dir={tmp_path}/run"]
    words += [f"lerobot_eval.install_policy_editable={lerobot.plugin}"]
    return run([program("hlrp"), "rollout-lerobot", *words], env=env(lerobot, recorder))


def test_a_rollout_is_a_run_with_its_success_rate(lerobot, recorder, tmp_path):
    result = rollout(lerobot, recorder, tmp_path)
    assert result.returncode == 0, result.stderr
    recorded = recorder.only_run()
    assert recorded["violations"] == [] and (recorded["state"], recorded["exitcode"]) == ("finished", 0)
    [row] = read_metrics(tmp_path / "run")
    assert recorded["summary"]["rollout/success_rate"] == row["rollout/success_rate"] == 5 / 8


def test_a_rollout_that_fails_has_its_exit_code_on_wandb(lerobot, recorder, tmp_path):
    lerobot.behave(exit=4)
    assert rollout(lerobot, recorder, tmp_path).returncode == 4
    assert (recorder.only_run()["state"], recorder.only_run()["exitcode"]) == ("failed", 4)
