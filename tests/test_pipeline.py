"""`hlrp pipeline`: files go from stage to stage, and a run that was stopped anywhere continues where it stood.

The first half has the real programs of stages 1 and 2 at mini size and a stand-in for LeRobot, which can be told to wait; the last test
has everything real. It takes a minute, most of which LeRobot needs to start: nothing else shows that the four programs fit together.
"""

import html
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conftest import DATA, MINI, REPO, VLA_MINI, program, run
from fake_lerobot import FakeLerobot
from lerobot_commands import help_teaches
from mini_pipeline import NAMES, pipeline


def state(run_dir: Path) -> dict[str, dict]:
    return {step["name"]: step for step in json.loads((run_dir / "pipeline.json").read_text())["steps"]}


def sessions(run_dir: Path) -> list[str]:
    return [session["status"] for session in json.loads((run_dir / "run.json").read_text())["sessions"]]


@pytest.fixture
def command(lerobot, tmp_path) -> list[str]:
    """The mini pipeline with the stand-in for LeRobot."""
    train = [f"lerobot.install_policy_editable={lerobot.plugin}", "lerobot.steps=30"]
    return pipeline(tmp_path / "run", train, [f"lerobot_eval.install_policy_editable={lerobot.plugin}"])


def start(command: list[str], lerobot: FakeLerobot) -> subprocess.Popen:
    return subprocess.Popen(
        command, cwd=REPO, env=lerobot.env(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [found for child in map(int, children) for found in (*descendants(child), child)]


def kill_all(process: subprocess.Popen) -> None:
    """As when the machine goes down: no process has a chance to do anything."""
    for pid in [process.pid, *descendants(process.pid)]:
        os.kill(pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_a_pipeline_killed_in_every_step_does_each_once(command, lerobot, tmp_path):
    run_dir = tmp_path / "run"
    for step in NAMES[:2]:
        process = start(command, lerobot)
        wait_for(lambda step=step: (run_dir / step / "checkpoints/last").exists(), process)
        kill_all(process)
        assert state(run_dir)[step]["status"] == "running"

    lerobot.behave(wait_at=20)
    process = start(command, lerobot)
    wait_for(lambda: (run_dir / "3_lerobot/lerobot/checkpoints/000020/training_state").exists(), process)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 75, stderr
    assert f"interrupted in 3_lerobot; continue with: hlrp pipeline --resume {run_dir}" in stdout
    assert state(run_dir)["3_lerobot"]["status"] == "interrupted"

    lerobot.behave(wait_at=None)
    result = run([program("hlrp"), "pipeline", "--resume", str(run_dir)], env=lerobot.env())
    assert result.returncode == 0, result.stderr
    assert {name: step["status"] for name, step in state(run_dir).items()} == dict.fromkeys(NAMES, "done")
    assert [sessions(run_dir / name) for name in NAMES] == [
        ["killed", "finished"],
        ["killed", "finished"],
        ["interrupted", "finished"],
        ["finished"],
    ]
    assert sessions(run_dir) == ["killed", "killed", "interrupted", "finished"]
    assert sorted(path.name for path in run_dir.iterdir() if path.is_dir() and path.name[0].isdigit()) == NAMES

    # Each step has what the one before it made.
    [first, again] = lerobot.calls("lerobot-train")
    assert f"--policy.stage2_artifact={run_dir}/2_vla/artifacts/best" in first["arguments"]
    assert "--resume=true" in again["arguments"]
    inputs = json.loads((run_dir / "2_vla/run.json").read_text())["sessions"][0]["inputs"]
    assert str(run_dir / "1_laq") in [given["path"] for given in inputs]
    [evaluation] = lerobot.calls("lerobot-eval")
    assert f"--policy.path={run_dir}/3_lerobot/lerobot/checkpoints/000030/pretrained_model" in evaluation["arguments"]

    # Everything is summed up, and a further start has nothing left to do.
    for part in [
        "1_laq",
        "validation pixel loss",
        "validation loss",
        "training loss",
        "successes in all tasks",
        "3 of 4",
    ]:
        assert part in result.stdout, result.stdout
    repeated = run(command, env=lerobot.env())
    assert repeated.returncode == 0 and len(lerobot.calls("lerobot-train")) == 2, repeated.stderr
    assert all(f"{name} is done" in repeated.stderr for name in NAMES)
    page = (run_dir / "summary.html").read_text()
    assert page.count("data:image/png;base64,") >= 4 and "Stage 1" in page and "push-v3.mp4" in page
    assert "http:" not in page and "https:" not in page, "the page needs nothing from elsewhere"
    # What the codes of 24 steps carry, beside floors, and what is wrong with them.
    verdict = json.loads((run_dir / "1_laq/run.json").read_text())["sessions"][-1]["verdict"]
    for part in ["from codes", "codes of random weights"]:
        assert f"R² of actions beyond frame t, {part}" in page
    for part in ["R² of actions, best floor", "what is wrong", html.escape(verdict.splitlines()[0], quote=False)]:
        assert part in page, part


def test_a_failed_step_stops_the_pipeline_and_is_repeated(command, lerobot, tmp_path):
    run_dir = tmp_path / "run"
    lerobot.behave(exit=5)
    result = run([*command, "pipeline.laq=null", "pipeline.vla=null", *ACTIONS_ONLY], env=lerobot.env())
    assert result.returncode == 5
    assert "3_lerobot ended with exit code 5" in result.stderr and "hint:" in result.stderr
    assert state(run_dir)["3_lerobot"]["status"] == "failed"

    lerobot.behave(exit=None)
    result = run([program("hlrp"), "pipeline", "--resume", str(run_dir)], env=lerobot.env())
    assert result.returncode == 0, result.stderr
    assert Path(state(run_dir)["3_lerobot"]["run_dir"]).name == "3_lerobot-2", "what the failed run left stays as it is"


# Stage 3 without what the stages before it make.
ACTIONS_ONLY = ["pipeline.lerobot.experiment=lerobot_tiny"]


def test_a_step_that_failed_before_it_wrote_anything_names_no_log(command, lerobot, tmp_path):
    lerobot.behave(lerobot=None)
    result = run([*command, "pipeline.laq=null", "pipeline.vla=null", *ACTIONS_ONLY], env=lerobot.env())
    assert result.returncode == 1 and not (tmp_path / "run/3_lerobot").exists()
    assert "hint: see its output above" in result.stderr and "3_lerobot/unified.log" not in result.stderr


def test_what_is_the_pipelines_goes_to_every_step(command, lerobot, tmp_path):
    words = [*command, "pipeline.laq=null", "pipeline.vla=null", *ACTIONS_ONLY]
    plain = run([*words, "--dry-run"], env=lerobot.env()).stdout
    assert not any(
        part in plain for part in ["precision=", "logging.level=", "--allow-login-node", "cluster.", "--config"]
    )

    given = ["precision=32-true", "logging.level=warn", f"cluster.login_nodes=['{socket.gethostname()}*']"]
    shown = run([*words, *given, "--allow-login-node", "--dry-run"], env=lerobot.env())
    for word in ["precision=32-true", "logging.level=warn", "cluster.login_nodes=", "--allow-login-node"]:
        assert shown.stdout.count(word) == 2, shown.stdout

    refused = run([*words, *given], env=lerobot.env())
    assert refused.returncode == 77 and "--allow-login-node" in refused.stderr, refused.stderr
    lerobot.behave(exit=5)
    assert run([*words, *given, "--allow-login-node"], env=lerobot.env()).returncode == 5
    lerobot.behave(exit=None)
    again = [program("hlrp"), "pipeline", "--resume", str(tmp_path / "run"), "--allow-login-node"]
    result = run(again, env=lerobot.env())
    assert result.returncode == 0, result.stderr
    assert 'precision: "32-true"' in (tmp_path / "run/3_lerobot-2/config.yaml").read_text(), "kept for --resume"


def test_what_the_pipelines_experiment_sets_of_the_cluster_goes_to_every_step(command, lerobot, other_tree):
    experiment = other_tree / "experiment/pipeline_tiny.yaml"
    image = "cluster:\n  container: {image: '${cluster.storage_root}/a.sqsh'}\n"
    experiment.write_text(experiment.read_text() + image + "  storage_root: /a place\n  login_nodes: [a, 'b*']\n")
    words = [*command, "pipeline.laq=null", "pipeline.vla=null", "pipeline.lerobot.experiment=lerobot_mine"]
    words += ["--config-name=primary", "--config-dir", str(other_tree), "--dry-run"]
    own = "pipeline.rollouts.button_press.overrides=['cluster.login_nodes=[mine]']"
    result = run([*words, "cluster={compute: {mem_gb: 64}}", own], env=lerobot.env())
    assert result.returncode == 0, result.stderr
    steps = [shlex.split(step) for step in re.split(r"\n(?=\S)", result.stdout.replace("\\\n", " ").strip())]
    shared = ["cluster.storage_root=/a place", "cluster.container.image=/a place/a.sqsh", "cluster.compute.mem_gb=64"]
    for step in steps:
        values = [word for word in step if word.startswith("cluster.")]
        assert set(values) - {"cluster.login_nodes=[mine]"} == {*shared, 'cluster.login_nodes=[a,"b*"]'}, values
    assert len(steps) == 2 and "cluster.login_nodes=[mine]" in steps[1], "a step's own overrides win"
    assert steps[1].index("cluster.login_nodes=[mine]") > steps[1].index("cluster.compute.mem_gb=64")


def test_a_step_that_has_run_keeps_its_settings(command, lerobot, tmp_path):
    words = [*command, "pipeline.laq=null", "pipeline.vla=null", *ACTIONS_ONLY]
    assert run(words, env=lerobot.env()).returncode == 0
    result = run([*words, "seed=7"], env=lerobot.env())
    assert result.returncode == 2
    assert "3_lerobot has run with other settings" in result.stderr and "seed=7" in result.stderr


def test_a_dry_run_shows_every_command_and_writes_nothing(command, lerobot, tmp_path):
    result = run([*command, "--dry-run"], env=lerobot.env())
    assert result.returncode == 0, result.stderr
    run_dir = tmp_path / "run"
    for part in [
        f"policy.teacher.checkpoint={run_dir}/1_laq",
        f"lerobot.policy.stage2_artifact={run_dir}/2_vla/artifacts/best",
        f"lerobot_eval.policy_path={run_dir}/3_lerobot",
    ]:
        assert part in result.stdout
    assert not run_dir.exists()


def test_the_pipeline_of_a_workstation_has_the_local_version_of_each_stage():
    result = run([program("hlrp"), "pipeline", "experiment=pipeline_local", "--dry-run"])
    assert result.returncode == 0, result.stderr
    assert re.findall(r"experiment=(\w+)", result.stdout) == [
        "laq_local",
        "vla_local",
        "lerobot_local",
        "rollout_local",
    ]


def test_what_a_step_sets_itself_is_not_handed_over(command, lerobot, tmp_path):
    own = {
        "policy.teacher.checkpoint": ("vla", "policy.teacher={checkpoint: /my/teacher}"),
        "lerobot.policy.stage2_artifact": ("lerobot", "lerobot.policy.stage2_artifact=/my/artifact"),
        "lerobot_eval.policy_path": ("rollouts.button_press", "lerobot_eval.policy_path=/my/policy"),
    }
    for key, (step, word) in own.items():
        result = run([*command, f"pipeline.{step}.overrides={json.dumps([word])}", "--dry-run"], env=lerobot.env())
        assert result.returncode == 0, result.stderr
        assert word in result.stdout.replace("'", "") and f"{key}={tmp_path}" not in result.stdout, result.stdout
        for other in own.keys() - {key}:
            assert f"{other}={tmp_path}/run/" in result.stdout, "the other steps are given theirs"


def test_a_policy_whose_start_is_the_plugins_default_is_given_the_artifact(command, lerobot, tmp_path):
    word = 'pipeline.lerobot.overrides=["~lerobot.policy.init_mode"]'
    result = run([*command, word, "--dry-run"], env=lerobot.env())
    assert f"lerobot.policy.stage2_artifact={tmp_path}/run/2_vla/artifacts/best" in result.stdout, result.stderr


@pytest.fixture
def other_tree(tmp_path) -> Path:
    """A configuration tree that nothing finds by itself: another primary file, and an experiment of its own."""
    tree = tmp_path / "other tree"
    shutil.copytree(REPO / "config", tree)
    (tree / "config.yaml").rename(tree / "primary.yaml")
    (tree / "experiment/lerobot_tiny.yaml").rename(tree / "experiment/lerobot_mine.yaml")
    return tree


def test_an_experiment_in_a_folder_and_a_cluster_with_another_label_go_to_every_step(
    command, lerobot, other_tree, tmp_path
):
    """A tree below a folder that is called experiment, too, hands on no more than another one."""
    root = tmp_path / "experiment/tree"
    root.parent.mkdir()
    other_tree.rename(root)
    (root / "experiment/mine").mkdir()
    experiment = (root / "experiment/pipeline_tiny.yaml").rename(root / "experiment/mine/pipeline.yaml")
    experiment.write_text(experiment.read_text() + "precision: 32-true\n")
    cluster = root / "cluster/local_dev.yaml"
    cluster.write_text(cluster.read_text().replace("name: local_dev", "name: mybox"))
    words = ["experiment=mine/pipeline" if word.startswith("experiment=") else word for word in command]
    words += ["pipeline.laq=null", "pipeline.vla=null", "pipeline.lerobot.experiment=lerobot_mine"]
    words += ["--config-name=primary", "--config-dir", str(root)]
    shown = run([*words, "--dry-run"], env=lerobot.env())
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("precision=32-true") == 2 == shown.stdout.count("cluster=local_dev"), shown.stdout
    assert "cluster." not in shown.stdout and "logging.level" not in shown.stdout, "no experiment sets these"

    lerobot.behave(exit=5)
    assert run(words, env=lerobot.env()).returncode == 5
    lerobot.behave(exit=None)
    result = run([program("hlrp"), "pipeline", "--resume", str(tmp_path / "run")], env=lerobot.env())
    assert result.returncode == 0, result.stderr


def test_a_record_without_what_all_steps_share_is_damaged(command, lerobot, tmp_path):
    words = [*command, "pipeline.laq=null", "pipeline.vla=null", *ACTIONS_ONLY]
    assert run(words, env=lerobot.env()).returncode == 0
    record = tmp_path / "run/pipeline.json"
    whole = json.loads(record.read_text())
    for key in ["tree", "passed_on"]:
        record.write_text(json.dumps({name: value for name, value in whole.items() if name != key}))
        result = run(words, env=lerobot.env())
        assert result.returncode == 1 and f"{record} is damaged" in result.stderr, result.stderr


@pytest.mark.parametrize("by", ["option", "environment"])
def test_every_step_is_composed_from_the_tree_of_the_pipeline(command, lerobot, other_tree, tmp_path, by):
    run_dir = tmp_path / "run"
    relative = os.path.relpath(other_tree, REPO)
    option, env = ([], {"HLRP_CONFIG_DIR": relative}) if by == "environment" else (["--config-dir", relative], {})
    words = [*command, "pipeline.laq=null", "pipeline.vla=null", "pipeline.lerobot.experiment=lerobot_mine"]
    words += ["--config-name=primary", *option]
    shown = run([*words, "--dry-run"], env=lerobot.env(**env))
    assert shown.stdout.count("--config-dir") == 2 == shown.stdout.count(f"'{other_tree}'"), shown.stdout

    lerobot.behave(exit=5)
    assert run(words, env=lerobot.env(**env)).returncode == 5
    lerobot.behave(exit=None)
    result = run([program("hlrp"), "pipeline", "--resume", str(run_dir)], env=lerobot.env())
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (
            ["pipeline.rollouts.button_press.overrides=['lerobot_eval.seeed=1']"],
            ["pipeline.rollouts.button_press", "lerobot_eval.seed"],
        ),
        (["pipeline.laq.overrides=['logging.run_dir=x']"], ["pipeline.laq.overrides", "logging.run_dir"]),
        (["pipeline.vla.experiment=laq_tiny"], ["pipeline.vla.experiment", "laq"]),
        (["pipeline.lerobot.experiment=lerobot_tinny"], ["pipeline.lerobot", "lerobot_tinny"]),
        (
            ["pipeline.laq=null", "pipeline.vla=null", "pipeline.lerobot=null", "~pipeline.rollouts.button_press"],
            ["pipeline", "no step"],
        ),
    ],
    ids=lambda value: value[0],
)
def test_a_mistake_in_any_step_is_found_before_the_first(command, lerobot, tmp_path, words, names):
    result = run([*command, *words], env=lerobot.env())
    assert result.returncode == 2 and result.stderr.count("error:") == 1, result.stderr
    for name in names:
        assert name in result.stderr, result.stderr
    assert not (tmp_path / "run").exists()


def test_help_teaches():
    help_teaches("pipeline", "75")


def test_everything_real_from_video_to_rollouts(tmp_path):
    run_dir = tmp_path / "run"
    data = ["lerobot.dataset_repo_id=local/pusht", f"lerobot.dataset_root={DATA / 'pusht_scripted'}"]
    train = [*data, "lerobot.steps=4", "lerobot.batch_size=2", "lerobot.log_freq=2", "lerobot.save_freq=2"]
    rollout = ["lerobot_eval.eval_n_episodes=2", "lerobot_eval.env_settings.episode_length=10"]
    pusht = ["data=pusht_scripted", "data.request.image_deltas=[0, 5]"]
    words = [f"pipeline.laq.overrides={json.dumps([*MINI[1:], *pusht])}"]
    words.append(f"pipeline.vla.overrides={json.dumps([*VLA_MINI[1:], pusht[0]])}")
    words.append("pipeline.rollouts.button_press.experiment=rollout_tiny")  # PushT: a few seconds an episode
    result = run(pipeline(run_dir, train, rollout, *words), env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert result.returncode == 0, result.stderr[-4000:]
    assert {name: step["status"] for name, step in state(run_dir).items()} == dict.fromkeys(NAMES, "done")
    rows = [json.loads(line) for line in (run_dir / "3_lerobot/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4] and all(row["train/loss"] > 0 for row in rows)
    [task] = json.loads((run_dir / "4_rollout_button_press/rollouts.json").read_text())
    assert (task["task"], task["num_episodes"]) == ("pusht/0", 2)
    page = (run_dir / "summary.html").read_text()
    assert page.count("data:video/mp4;base64,") == 2 and all(Path(video).exists() for video in task["videos"])
