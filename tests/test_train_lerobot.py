"""`hlrp train-lerobot`: what it starts, with which words, and how it takes what happens.

LeRobot itself is a stand-in here (tests/support/fake_lerobot.py), except where its own parser reads the flags.
"""

import json
import math
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import REPO, program, run
from fake_lerobot import PLUGIN, FakeLerobot
from lerobot_commands import flags_of, help_teaches, parsed, refused, session, train, words_of

TRAIN = ["experiment=lerobot_tiny", "lerobot.steps=30", "lerobot.log_freq=10", "logging.min_free_gb=0.01"]


# The command line


def test_lerobot_reads_the_flags_as_they_are_meant(lerobot, tmp_path):
    words = [
        "experiment=lerobot_tiny",
        "lerobot.policy_type=act",
        "+lerobot.policy.pretrained_backbone_weights=null",
        "+lerobot.policy.chunk_size=16",
        "+lerobot.policy.n_action_steps=8",
        "+lerobot.policy.kl_weight=inf",
        r"""+lerobot.policy.normalization_mapping='{"VISUAL": "IDENTITY"}'""",
        "lerobot.dataset_episodes=[0,3]",
        "+lerobot.dataset.image_transforms={enable: true}",
        "lerobot.env_type=pusht",
        "+lerobot.env_settings.episode_length=60",
        "+lerobot.eval.n_episodes=2",
        "+lerobot.optimizer={type: adamw, lr: 2e-4, betas: [0.9, 0.95]}",
        "+lerobot.scheduler={type: cosine_decay_with_warmup, num_warmup_steps: 5, num_decay_steps: 50, peak_lr: 2e-4, decay_lr: 1e-6}",
        "lerobot.env_eval_freq=25",
        "lerobot.extra_args=['--tolerance_s=0.01','']",
        f"logging.run_dir={tmp_path}/a run",
    ]
    result = train(lerobot, *words, "--dry-run")
    assert result.returncode == 0, result.stderr
    config = parsed(result.stdout)
    assert (config.policy.type, config.policy.chunk_size, config.policy.n_action_steps) == ("act", 16, 8)
    assert config.policy.kl_weight == math.inf
    assert config.policy.pretrained_backbone_weights is None and config.policy.push_to_hub is False
    assert config.policy.normalization_mapping == {"VISUAL": "IDENTITY"}
    assert (config.dataset.root, config.dataset.episodes) == ("tests/data/pusht_scripted", [0, 3])
    assert config.dataset.image_transforms.enable is True
    assert (config.env.type, config.env.episode_length, config.eval.n_episodes) == ("pusht", 60, 2)
    assert (config.optimizer.lr, config.optimizer.betas) == (2e-4, (0.9, 0.95))
    assert config.scheduler.num_warmup_steps == 5 and config.use_policy_training_preset is False
    assert (config.steps, config.seed, config.env_eval_freq, config.tolerance_s) == (100, 42, 25, 0.01)
    assert (config.output_dir, config.job_name) == (tmp_path / "a run/lerobot", "lerobot_tiny")


@pytest.mark.parametrize("policy", ["hlrp_smoke", "hlrp_smolvla_shared"])
def test_lerobot_reads_the_flags_of_the_cluster_experiments(lerobot, plugin, policy):
    experiment = {"hlrp_smoke": "lerobot_hlrp_smoke", "hlrp_smolvla_shared": "lerobot_hlrp_smolvla_shared_smoke"}[
        policy
    ]
    words = [f"experiment={experiment}", "cluster=lrz_x100", "lerobot.policy_device=cpu"]
    config = parsed(train(lerobot, *words, "--dry-run").stdout)
    assert config.policy.type == policy
    assert (config.dataset.repo_id, config.dataset.episodes) == ("HuggingFaceVLA/libero", [0])
    assert (config.steps, config.batch_size, config.num_workers, config.log_freq) == (50, 2, 2, 10)


def test_lerobot_reads_a_dataset_of_ones_own_in_the_local_experiment(lerobot, plugin, tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    words = ["experiment=lerobot_local", f"lerobot.policy.stage2_artifact={tmp_path}", "lerobot.policy_device=cpu"]
    libero = parsed(train(lerobot, *words, "--dry-run").stdout)
    assert (libero.dataset.repo_id, libero.batch_size) == ("HuggingFaceVLA/libero", 16)
    assert libero.policy.camera_map == {"primary": "observation.images.image"}
    words += ["lerobot.dataset_repo_id=me/mine", "lerobot.dataset_root=/data/mine"]
    words += [r'lerobot.policy.camera_map="{\"primary\": \"observation.images.top\"}"']
    own = parsed(train(lerobot, *words, "--dry-run").stdout)
    assert (own.dataset.repo_id, str(own.dataset.root)) == ("me/mine", "/data/mine")
    assert own.policy.camera_map == {"primary": "observation.images.top"}


@pytest.mark.parametrize("arm", ["", "_random", "_actions"])
def test_lerobot_reads_the_arms_of_the_co_training(lerobot, plugin, tmp_path, arm):
    words = [f"experiment=lerobot_cotrain{arm}", "cluster=local_dev", "lerobot.policy_device=cpu"]
    (tmp_path / "manifest.json").write_text("{}")
    words += [f"lerobot.policy.stage2_artifact={tmp_path}", f"lerobot.policy.laq_checkpoint_path={tmp_path}"]
    config = parsed(train(lerobot, *words, "--dry-run").stdout)
    labelled = config.dataset.episodes if arm == "_actions" else config.policy.labelled_episodes
    assert len(labelled) == 170 and labelled[:3] == [0, 10, 20], "a tenth of 1693"
    assert config.policy.stage3_training_mode == ("action" if arm == "_actions" else "multitask")
    assert config.policy.laq_weights == ("random" if arm == "_random" else "trained")
    assert (config.dataset.episodes is None) == (arm != "_actions")


def test_a_job_with_wandb_takes_the_name_that_is_given(lerobot):
    words = "experiment=lerobot_hlrp_smoke cluster=lrz_x100 experiment.name=lerobot_hlrp_smoke_wandb"
    result = train(lerobot, *words.split(), "logging.use_wandb=true", "lerobot.wandb_enable=true", "--dry-run")
    flags = flags_of(result.stdout)
    assert result.stdout.startswith("MUJOCO_GL=egl "), result.stdout
    assert (flags["wandb.enable"], flags["job_name"]) == ("true", "lerobot_hlrp_smoke_wandb")
    assert flags["output_dir"].endswith("_lerobot_hlrp_smoke_wandb/lerobot_smoke")


@pytest.mark.parametrize("ours", ["true", "false"])
@pytest.mark.parametrize("lerobots", ["true", "false"])
def test_the_two_switches_of_wandb_are_independent(lerobot, ours, lerobots):
    """Whether this project records the run there, and whether LeRobot does."""
    words = ["experiment=lerobot_hlrp_smoke", "cluster=lrz_x100", f"logging.use_wandb={ours}"]
    words.append(f"lerobot.wandb_enable={lerobots}")
    assert flags_of(train(lerobot, *words, "--dry-run").stdout)["wandb.enable"] == lerobots
    shown = run([program("hlrp"), "config", "show", *words])
    assert f"use_wandb: {ours}\n" in shown.stdout and f"wandb_enable: {lerobots}\n" in shown.stdout


def test_a_dry_run_writes_nothing(lerobot, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    result = train(lerobot, *TRAIN, f"logging.run_dir={tmp_path}/run", "--dry-run")
    assert result.returncode == 0 and sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_needs_what_the_policy_starts_from(lerobot):
    words = ["+lerobot.policy={init_mode: artifact, stage2_artifact: /nowhere}", "--dry-run"]
    refused(train(lerobot, *TRAIN, *words), 2, "lerobot.policy.stage2_artifact", "/nowhere")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (
            ["+lerobot.policy.stage3_training_mode=multitask"],
            ["policy.laq_checkpoint_path", "stage3_training_mode=multitask"],
        ),
        (["+lerobot.policy.init_mode=smolvla"], ["lerobot.policy.smolvla_checkpoint", "is smolvla"]),
        (["+lerobot.policy.smolvla_checkpoint=x"], ["lerobot.policy.smolvla_checkpoint", "is scratch"]),
        (
            ["+lerobot.policy.init_mode=smolvla", "+lerobot.policy.smolvla_checkpoint=/nowhere"],
            ["lerobot.policy.smolvla_checkpoint", "/nowhere does not exist"],
        ),
        (
            ["+lerobot.policy.init_mode=smolvla", "+lerobot.policy.smolvla_checkpoint=tests/data"],
            ["lerobot.policy.smolvla_checkpoint", "config.json"],
        ),
        (["lerobot.policy={}"], ["lerobot.policy.stage2_artifact", "is artifact"]),
        (
            ["+lerobot.policy={init_mode: artifact, stage2_artifact: tests/data}"],
            ["lerobot.policy.stage2_artifact", "tests/data contains no artifact.json"],
        ),
        (["lerobot.dataset_episodes='[0,'"], ["lerobot.dataset_episodes", "[0,"]),
    ],
    ids=lambda value: value[-1],
)
def test_a_dry_run_finds_what_the_plugin_would_refuse(lerobot, words, names):
    if not any("init_mode" in word or word == "lerobot.policy={}" for word in words):
        words = ["+lerobot.policy.init_mode=scratch", *words]
    words = ["lerobot.policy_type=hlrp_smolvla_shared", *words, "--dry-run"]
    refused(train(lerobot, *TRAIN, *words), 2, *names)


def test_several_processes_go_through_accelerate(lerobot):
    result = train(
        lerobot, *TRAIN, "lerobot.num_processes=2", "lerobot.accelerate_args=['--main_process_port=0']", "--dry-run"
    )
    words = words_of(result.stdout)
    assert words[0] == str(lerobot.bin / "python")
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes=2", "--num_machines=1"]
    assert words[1:6] == launch and "--main_process_port=0" in words
    assert words.index(str(lerobot.bin / "lerobot-train")) < words.index("--policy.type=hlrp_smoke")
    gpus = train(lerobot, *TRAIN, "cluster.compute.gpus_per_node=4", "lerobot.policy_device=cuda", "--dry-run")
    assert {"--multi_gpu", "--num_processes=4"} <= set(words_of(gpus.stdout))


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["lerobot.policy_type=null"], ["lerobot.policy_type", "lerobot.policy_path"]),
        (["lerobot.policy_path=runs/x"], ["lerobot.policy_type", "one of"]),
        (["+lerobot.policy.device=cpu"], ["lerobot.policy.device", "policy_device"]),
        (["lerobot.steps=0"], ["lerobot.steps"]),
        (["lerobot.dataset_episodes={a: 1}"], ["lerobot.dataset_episodes"]),
        (["+lerobot.optimizer={type: adamw}"], ["lerobot.optimizer", "lr"]),
        (["lerobot.env.MUJOCO_GL=[a]"], ["lerobot.env.MUJOCO_GL"]),
        (["~lerobot.steps"], ["lerobot.steps", "missing"]),
        (["+lerobot.policy.init_mode=artifact"], ["lerobot.policy.stage2_artifact", "artifacts/best"]),
        (["+lerobot.policy={init_mode: scratch, stage2_artifact: x}"], ["lerobot.policy.stage2_artifact", "scratch"]),
        (["lerobot.dataset_root=/nowhere"], ["lerobot.dataset_root", "/nowhere"]),
        (["+lerobot.policy.laq_checkpoint_path=/nowhere"], ["lerobot.policy.laq_checkpoint_path", "/nowhere"]),
        (["lerobot.policy_type=null", "lerobot.policy_path=/nowhere"], ["lerobot.policy_path", "/nowhere"]),
    ],
    ids=lambda value: value[-1],
)
def test_a_mistake_is_found_before_anything_is_written(lerobot, tmp_path, words, names):
    refused(train(lerobot, *TRAIN, f"logging.run_dir={tmp_path}/run", *words), 2, *names)
    assert not (tmp_path / "run").exists() and lerobot.calls("lerobot-train") == []


def test_help_teaches():
    help_teaches("train-lerobot", "75")


# Running it


WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "2000"}


@pytest.mark.parametrize("decided", [{}, {"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}])
def test_threads_wait_as_the_user_says_or_sleep_soon(lerobot, tmp_path, decided):
    env = {name: value for name, value in lerobot.env().items() if name not in WAITING}
    assert train(lerobot, *TRAIN, f"logging.run_dir={tmp_path}/run", env=env | decided).returncode == 0
    [call] = lerobot.calls("lerobot-train")
    expected = {**dict.fromkeys(WAITING), **decided} if decided else WAITING
    assert {name: call["env"][name] for name in WAITING} == expected


def test_a_run_keeps_configuration_log_and_metrics(lerobot, tmp_path):
    run_dir = tmp_path / "run"
    words = [f"logging.run_dir={run_dir}", "num_threads=1", "lerobot.env.MUJOCO_GL=null"]
    result = train(lerobot, *TRAIN, *words, env=lerobot.env(MUJOCO_GL="mine"))
    assert result.returncode == 0, result.stderr
    assert "step:30 " in result.stdout, "what LeRobot prints is passed through"
    assert "lerobot/checkpoints/000030/pretrained_model" in result.stdout, "the closing table names the policy"
    [call] = lerobot.calls("lerobot-train")
    variables = {"MUJOCO_GL": "mine", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    assert call["env"].items() >= (variables | {"LIBERO_CONFIG_PATH": None}).items()
    log = (run_dir / "unified.log").read_text()
    assert "step:30 " in log and "--policy.type=hlrp_smoke" in log and "Training 20/30" not in log
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["train/loss"]) for row in rows] == [(10, 0.1), (20, 0.05), (30, 0.033)]
    assert (run_dir / "plots/loss.png").exists() and (run_dir / "config.yaml").exists()
    entry = session(run_dir)
    own = {name: entry["versions"].pop(name) for name in ("hlrp", "build")}
    assert entry["status"] == "finished" and all(own.values())
    assert entry["versions"] == {"lerobot": "0.6.1", PLUGIN: "1.0", "python": "3.12.0", "torch": "2.11.0"}


def test_the_exit_code_of_a_failed_training_is_passed_on(lerobot, tmp_path):
    lerobot.behave(exit=3)
    result = train(lerobot, *TRAIN, f"logging.run_dir={tmp_path}/run")
    refused(result, 3, "exit code 3", str(tmp_path / "run/unified.log"))
    assert "something is wrong inside LeRobot" in result.stderr
    assert session(tmp_path / "run")["reason"] == "lerobot-train ended with exit code 3"


EXCEPTION = """Traceback (most recent call last):
  File "modeling.py", line 7, in __init__
    raise ValueError(message)
ValueError: the artifact has no tokenizer
hint: export it again
"""


def test_the_exception_of_a_failed_training_is_repeated(lerobot, tmp_path):
    lerobot.behave(exit=1, error=EXCEPTION)
    result = train(lerobot, *TRAIN, f"logging.run_dir={tmp_path}/run")
    own = result.stderr[result.stderr.rindex("error:") :]
    assert own.startswith("error: lerobot-train ended with exit code 1: ValueError: the artifact has no tokenizer\n")
    assert "\nhint: export it again\n" in own and str(tmp_path / "run/unified.log") in own, own


def interrupted(lerobot: FakeLerobot, run_dir: Path) -> subprocess.CompletedProcess:
    """A training that gets Ctrl-C after 20 steps."""
    lerobot.behave(wait_at=20)
    words = [*TRAIN, f"logging.run_dir={run_dir}", f"lerobot.install_policy_editable={lerobot.plugin}"]
    command = [program("hlrp"), "train-lerobot", *words]
    process = subprocess.Popen(
        command, cwd=REPO, env=lerobot.env(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while "waiting" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def test_an_interrupted_training_continues(lerobot, tmp_path):
    run_dir = tmp_path / "run"
    stopped = interrupted(lerobot, run_dir)
    assert stopped.returncode == 75, stopped.stderr
    assert f"hlrp train-lerobot --resume {run_dir}" in stopped.stdout
    assert session(run_dir)["status"] == "interrupted"

    moved = run_dir.rename(tmp_path / "moved")
    lerobot.behave(wait_at=None)
    resumed = train(lerobot, "--resume", moved, "lerobot.steps=50")
    assert resumed.returncode == 0, resumed.stderr
    flags = dict(word[2:].split("=", 1) for word in lerobot.calls("lerobot-train")[-1]["arguments"])
    assert flags["config_path"] == str(moved / "lerobot/checkpoints/000020/pretrained_model/train_config.json")
    assert (flags["resume"], flags["steps"], flags["output_dir"]) == ("true", "50", str(moved / "lerobot"))
    assert not any(name.startswith(("policy.", "dataset.")) for name in flags), "the checkpoint holds these"
    assert session(moved)["start_step"] == 20 and session(moved)["status"] == "finished"


def test_a_training_stopped_before_its_first_checkpoint_cannot_continue(lerobot, tmp_path):
    lerobot.behave(checkpoints=False)
    stopped = interrupted(lerobot, tmp_path / "run")
    refused(stopped, 130, "no checkpoint to continue from")
    assert session(tmp_path / "run")["status"] == "failed"
    refused(train(lerobot, "--resume", tmp_path / "run"), 1, "no checkpoint to continue from")


def test_a_continued_training_keeps_what_its_checkpoint_holds(lerobot, tmp_path):
    assert train(lerobot, *TRAIN, f"logging.run_dir={tmp_path}/run").returncode == 0
    result = train(lerobot, "--resume", tmp_path / "run", "lerobot.batch_size=4")
    refused(result, 2, "lerobot.batch_size", "lerobot.policy_path")
    changeable = result.stderr.split("changeable below lerobot: ")[1].split(";")[0]
    text = run([program("hlrp"), "train-lerobot", "--help"]).stdout
    assert changeable in " ".join(text.split()), "the help has the same list"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["seed=7"], ["seed was 42, is 7"]),
        (["device=cuda"], ["device was auto, is cuda"]),
        (["experiment.name=x", "logging.run_dir=/elsewhere"], ["experiment.name", "logging.run_dir"]),
        (["lerobot={batch_size: 7}"], ["lerobot.batch_size was 8, is 7"]),
        (["+lerobot.policy.n_action_steps=1"], ["lerobot.policy.n_action_steps was absent, is 1"]),
        (["lerobot.steps=5"], ["lerobot.steps: 5", "step 30"]),
        (["lerobot.num_workers=1"], ["lerobot.steps: 30", "above 30"]),
    ],
    ids=lambda value: value[0],
)
def test_a_change_that_a_continued_training_would_ignore_is_refused(lerobot, tmp_path, words, names):
    assert train(lerobot, *TRAIN, f"logging.run_dir={tmp_path}/run").returncode == 0
    refused(train(lerobot, "--resume", tmp_path / "run", *words), 2, *names)
    assert len(lerobot.calls("lerobot-train")) == 1


def test_a_continued_training_takes_what_belongs_to_the_machine(lerobot, tmp_path):
    assert train(lerobot, *TRAIN, f"logging.run_dir={tmp_path}/run").returncode == 0
    words = ["num_threads=1", "logging={level: warn}", "cluster.login_nodes=[]", "+lerobot.env.X=1", "lerobot.steps=40"]
    assert train(lerobot, "--resume", tmp_path / "run", *words).returncode == 0
    assert lerobot.calls("lerobot-train")[-1]["env"]["OMP_NUM_THREADS"] == "1"


def test_a_training_killed_after_its_last_checkpoint_is_ended_in_order(lerobot, tmp_path):
    assert train(lerobot, *TRAIN, f"logging.run_dir={tmp_path}/run").returncode == 0
    record = tmp_path / "run/run.json"
    record.write_text(record.read_text().replace('"finished"', '"running"'))
    assert train(lerobot, "--resume", tmp_path / "run").returncode == 0
    assert session(tmp_path / "run")["status"] == "finished"


def test_a_killed_command_takes_lerobot_with_it(lerobot, tmp_path):
    lerobot.behave(wait_at=20)
    words = [*TRAIN, f"logging.run_dir={tmp_path}/run", f"lerobot.install_policy_editable={lerobot.plugin}"]
    command = [program("hlrp"), "train-lerobot", *words]
    process = subprocess.Popen(command, cwd=REPO, env=lerobot.env(), text=True, stdout=subprocess.PIPE)
    while "waiting" not in process.stdout.readline():
        assert process.poll() is None
    [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while is_running(child):
        assert time.monotonic() < deadline, "LeRobot goes on alone"
        time.sleep(0.05)


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_without_lerobot_there_is_one_error_with_a_hint(tmp_path):
    command = [program("hlrp"), "train-lerobot", *TRAIN, f"logging.run_dir={tmp_path}/run"]
    env = {**os.environ, "PATH": "/usr/bin:/bin", "HLRP_CONFIG_DIR": str(REPO / "config")}
    data = f"lerobot.dataset_root={REPO}/tests/data/pusht_scripted"
    refused(
        run([*command, data], cwd=tmp_path, env=env),
        1,
        "lerobot-train",
        "pip install lerobot==0.6.1",
        "lerobot.command",
    )
    assert not (tmp_path / "run").exists()


def test_a_python_without_lerobot_is_named(lerobot, tmp_path):
    lerobot.behave(lerobot=None)
    refused(train(lerobot, *TRAIN, f"logging.run_dir={tmp_path}/run"), 1, str(lerobot.bin / "python"), "lerobot.python")


# The plugin

NO_PIP = "/usr/bin/python: No module named pip"


def test_a_plugin_that_is_there_is_not_installed_again(lerobot, tmp_path):
    assert train(lerobot, *TRAIN, f"logging.run_dir={tmp_path}/run").returncode == 0
    assert lerobot.installs() == []


@pytest.mark.parametrize(
    ("behaviour", "programs", "ways"),
    [
        ({"pip": "ok"}, [], ["python -m pip"]),
        ({"pip": NO_PIP, "ensurepip": "ok"}, [], ["python -m pip", "python -m ensurepip", "python -m pip"]),
        (
            {"pip": NO_PIP, "ensurepip": "no wheel", "uv on PATH": "ok"},
            ["uv"],
            ["python -m pip", "python -m ensurepip", "uv pip"],
        ),
        ({"pip": "broken", "uv on PATH": "ok"}, ["uv"], ["python -m pip", "uv pip"]),
        (
            {"pip": "broken", "uv on PATH": "broken", "pip on PATH": "ok"},
            ["uv", "pip"],
            ["python -m pip", "uv pip", "pip install"],
        ),
    ],
    ids=["pip", "ensurepip", "uv without pip", "uv", "pip on PATH"],
)
def test_the_plugin_is_installed_in_the_first_way_that_works(tmp_path, behaviour, programs, ways):
    fake = FakeLerobot(tmp_path / "fake", ("python", "lerobot-train", *programs), **behaviour)
    fake.behave(plugin=False)
    result = train(fake, *TRAIN, f"logging.run_dir={tmp_path}/run")
    assert result.returncode == 0, result.stderr
    installs = fake.installs()
    assert len(installs) == len(ways), installs
    assert all(line.startswith(way) for line, way in zip(installs, ways, strict=True)), installs
    assert installs[-1].endswith(f"--no-deps --no-build-isolation -e {fake.plugin}")
    assert len(fake.calls("lerobot-train")) == 1


def test_when_no_way_works_each_is_listed_with_its_reason(tmp_path):
    behaviour = {"pip": "externally managed", "uv on PATH": "no such index", "pip on PATH": "elsewhere"}
    fake = FakeLerobot(tmp_path / "fake", ("python", "lerobot-train", "uv", "pip"), **behaviour)
    fake.behave(plugin=False)
    result = train(fake, *TRAIN, f"logging.run_dir={tmp_path}/run")
    refused(
        result,
        1,
        "externally managed",
        "no such index",
        f"succeeded, but {fake.bin}/python still cannot import {PLUGIN}",
    )
    assert result.stderr.count("\n  - ") == 3 and not (tmp_path / "run").exists()


def test_a_missing_program_is_one_of_the_reasons(tmp_path):
    fake = FakeLerobot(tmp_path / "fake", ("python", "lerobot-train"), pip="broken")
    fake.behave(plugin=False)
    env = {**fake.env(), "PATH": str(fake.bin)}
    refused(train(fake, *TRAIN, f"logging.run_dir={tmp_path}/run", env=env), 1, "uv: not on PATH", "pip: not on PATH")


def test_an_installed_plugin_needs_no_folder(lerobot, tmp_path):
    words = [*TRAIN, f"logging.run_dir={tmp_path}/run", f"lerobot.install_policy_editable={tmp_path}/nowhere/{PLUGIN}"]
    result = run([program("hlrp"), "train-lerobot", *words], env=lerobot.env())
    assert result.returncode == 0, result.stderr
    assert not lerobot.installs()


def test_a_folder_without_a_plugin_is_refused(lerobot, tmp_path):
    lerobot.behave(plugin=False)
    command = [program("hlrp"), "train-lerobot", *TRAIN, f"lerobot.install_policy_editable={tmp_path}/{PLUGIN}"]
    refused(run(command, env=lerobot.env()), 2, "lerobot.install_policy_editable", "pyproject.toml", "pip install")
