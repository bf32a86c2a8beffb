"""`hlrp rollout-lerobot`: what it starts, with which words, and what it makes of the results.

LeRobot itself is a stand-in here (tests/support/fake_lerobot.py), except where its own parser reads the flags.
"""

import json
from pathlib import Path

import pytest
from conftest import program, run
from fake_lerobot import FakeLerobot
from lerobot_commands import flags_of, help_teaches, parsed, refused, rollout, session

ROLLOUT = ["experiment=rollout_tiny", "lerobot_eval.eval_n_episodes=4", "logging.min_free_gb=0.01"]


def test_lerobot_reads_the_flags_of_a_rollout(lerobot, tmp_path):
    from lerobot.policies.act.configuration_act import ACTConfig

    (tmp_path / "model").mkdir()
    ACTConfig(device="cpu", push_to_hub=False)._save_pretrained(tmp_path / "model")
    words = [
        f"lerobot_eval.policy_path={tmp_path}/model",
        "+lerobot_eval.policy.n_action_steps=7",
        "lerobot_eval.seed=3",
    ]
    result = rollout(lerobot, *ROLLOUT, *words, "--dry-run")
    config = parsed(result.stdout, "lerobot.configs.eval.EvalPipelineConfig")
    assert (config.policy.type, config.policy.n_action_steps, config.policy.use_amp) == ("act", 7, False)
    assert (config.env.type, config.env.episode_length) == ("pusht", 60)
    assert (config.eval.n_episodes, config.eval.batch_size, config.eval.use_async_envs) == (4, 1, False)
    assert (config.seed, config.job_name, config.trust_remote_code) == (3, "rollout_tiny", False)


def test_lerobot_reads_the_flags_of_a_rollout_on_a_workstation(lerobot):
    words = ["experiment=rollout_local", "lerobot_eval.policy_path=me/policy", "--dry-run"]
    flags = flags_of(rollout(lerobot, *words).stdout)
    assert (flags["env.type"], flags["env.task"], flags["policy.device"]) == ("libero", "libero_object", "cuda")
    assert (flags["eval.n_episodes"], flags["env.max_parallel_tasks"]) == ("5", "1")


@pytest.fixture
def policy(tmp_path) -> Path:
    """The run directory of a training in a simulator of an unusual size."""
    model = tmp_path / "policy/lerobot/checkpoints/000100/pretrained_model"
    model.mkdir(parents=True)
    (model.parent.parent / "last").symlink_to("000100")
    (model / "config.json").write_text("{}")
    env = {"type": "libero", "task": "libero_goal", "fps": 20, "observation_height": 512, "observation_width": 512}
    env |= {"camera_name_mapping": {"agentview_image": "image"}, "control_mode": "absolute", "episode_length": None}
    (model / "train_config.json").write_text(json.dumps({"env": env}))
    return tmp_path / "policy"


def rollout_flags(lerobot: FakeLerobot, policy: Path, *words: str) -> dict[str, str]:
    result = rollout(
        lerobot,
        *ROLLOUT,
        "~lerobot_eval.env_settings.episode_length",
        f"lerobot_eval.policy_path={policy}",
        *words,
        "--dry-run",
    )
    assert result.returncode == 0, result.stderr
    return {name: value for name, value in flags_of(result.stdout).items() if name.startswith(("env.", "policy.path"))}


def test_a_rollout_has_the_simulator_of_the_training(lerobot, policy):
    path = str(policy / "lerobot/checkpoints/000100/pretrained_model")
    inherited = {
        "policy.path": path,
        "env.type": "libero",
        "env.task": "libero_goal",
        "env.observation_height": "512",
        "env.observation_width": "512",
        "env.camera_name_mapping": '{"agentview_image":"image"}',
        "env.control_mode": "absolute",
    }
    assert rollout_flags(lerobot, policy, "lerobot_eval.env_type=null") == inherited
    own = rollout_flags(
        lerobot,
        policy,
        "lerobot_eval.env_type=libero",
        "lerobot_eval.env_task=libero_10",
        "+lerobot_eval.env_settings.observation_height=64",
    )
    assert own == inherited | {"env.task": "libero_10", "env.observation_height": "64"}


def test_another_simulator_inherits_nothing(lerobot, policy):
    assert set(rollout_flags(lerobot, policy, "lerobot_eval.env_type=pusht")) == {"policy.path", "env.type"}
    off = rollout_flags(lerobot, policy, "lerobot_eval.env_type=libero", "lerobot_eval.inherit_env_settings=false")
    assert set(off) == {"policy.path", "env.type"}


@pytest.mark.parametrize(
    "inside", ["", "lerobot", "lerobot/checkpoints/last", "lerobot/checkpoints/000100/pretrained_model"]
)
def test_a_policy_is_found_from_any_folder_above_it(lerobot, policy, inside):
    found = rollout_flags(lerobot, policy / inside)["policy.path"]
    assert Path(found).resolve() == policy / "lerobot/checkpoints/000100/pretrained_model"


def test_rollouts_end_with_counts_and_intervals(lerobot, policy, tmp_path):
    result = rollout(lerobot, *ROLLOUT, f"lerobot_eval.policy_path={policy}", f"logging.run_dir={tmp_path}/run")
    assert result.returncode == 0, result.stderr
    rows = [line.split("  ") for line in result.stdout.splitlines()[2:] if " of " in line]
    table = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert [row[:3] for row in table] == [
        ["push-v3/0", "1 of 4", "5 – 70 %"],
        ["reach-v3/0", "4 of 4", "51 – 100 %"],
        ["all tasks", "5 of 8", "31 – 86 %"],
    ]
    assert table[0][4].endswith("push-v3.mp4")
    [push, _, _] = json.loads((tmp_path / "run/rollouts.json").read_text())
    assert (push["num_successes"], push["num_episodes"], push["mean_max_reward"]) == (1, 4, 0.5)
    assert session(tmp_path / "run")["status"] == "finished"


def test_rollouts_appear_in_the_tables_of_runs(lerobot, policy, tmp_path):
    """The stand-in succeeds in one of four episodes of the first task and in all four of the second."""
    (policy / "lerobot/checkpoints/000100/training_state").mkdir()
    (policy / "lerobot/checkpoints/000100/training_state/training_step.json").write_text('{"step": 100}')
    run_dir = tmp_path / "run"
    words = [f"lerobot_eval.policy_path={policy}", "lerobot_eval.env_type=pusht", f"logging.run_dir={run_dir}"]
    result = rollout(lerobot, *ROLLOUT, *words)
    assert result.returncode == 0, result.stderr
    metrics = "rollout/success_rate,rollout/push-v3/0/success_rate"
    table = run([program("hlrp"), "runs", "table", str(run_dir), "--metric", metrics, "--format", "json"])
    assert table.returncode == 0, table.stderr
    [row] = json.loads(table.stdout)["runs"]
    values = {name: (found["value"], found["step"]) for name, found in row["metrics"].items()}
    assert values == {"rollout/success_rate": (5 / 8, 100), "rollout/push-v3/0/success_rate": (1 / 4, 100)}
    assert row["stage"] == "lerobot_rollout"


def test_libero_finds_a_configuration_and_asks_nobody(lerobot, policy, tmp_path):
    (lerobot.bin / "libero/libero").mkdir(parents=True)
    words = [f"lerobot_eval.policy_path={policy}", f"logging.run_dir={tmp_path}/run", "lerobot_eval.env_type=libero"]
    plugin = f"lerobot_eval.install_policy_editable={lerobot.plugin}"
    command = [program("hlrp"), "rollout-lerobot", *ROLLOUT, *words, plugin]
    result = run(command, env=lerobot.env(HOME=str(tmp_path)))
    assert result.returncode == 0, result.stderr
    [call] = lerobot.calls("lerobot-eval")
    assert call["env"]["LIBERO_CONFIG_PATH"] == str(tmp_path / "run/libero")
    text = (tmp_path / "run/libero/config.yaml").read_text()
    entries = dict(line.split(": ") for line in text.splitlines())
    assert set(entries) == {"assets", "bddl_files", "benchmark_root", "datasets", "init_states"}
    assert entries["benchmark_root"] == str(lerobot.bin / "libero/libero")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], ["lerobot_eval.policy_path"]),
        (["lerobot_eval.policy_path=runs/nowhere"], ["lerobot_eval.policy_path", "runs/nowhere", "does not exist"]),
        (["lerobot_eval.policy_path=tests/data"], ["lerobot_eval.policy_path", "contains no checkpoint"]),
        (["lerobot_eval.policy_path=lerobot/some_policy"], ["lerobot_eval.policy_path", "does not exist"]),
    ],
    ids=["none", "missing", "no policy", "offline"],
)
def test_a_rollout_without_a_policy_is_refused(lerobot, tmp_path, words, names):
    refused(rollout(lerobot, *ROLLOUT, *words, f"logging.run_dir={tmp_path}/run"), 2, *names)
    assert not (tmp_path / "run").exists()


def test_a_policy_on_the_hub_goes_by_its_name(lerobot):
    words = ["lerobot_eval.policy_path=lerobot/some_policy", "lerobot_eval.env.HF_HUB_OFFLINE=0", "--dry-run"]
    assert flags_of(rollout(lerobot, *ROLLOUT, *words).stdout)["policy.path"] == "lerobot/some_policy"


def test_a_rollout_needs_a_simulator(lerobot, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    words = [f"lerobot_eval.policy_path={tmp_path}/model", "lerobot_eval.env_type=null"]
    refused(rollout(lerobot, *ROLLOUT, *words), 2, "lerobot_eval.env_type", "pusht")


def test_the_exit_code_of_failed_rollouts_is_passed_on(lerobot, policy, tmp_path):
    lerobot.behave(exit=4)
    result = rollout(lerobot, *ROLLOUT, f"lerobot_eval.policy_path={policy}", f"logging.run_dir={tmp_path}/run")
    refused(result, 4, "lerobot-eval ended with exit code 4")


def test_help_teaches():
    help_teaches("rollout-lerobot", "0")
