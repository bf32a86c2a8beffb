"""LeRobot finds the plugin from its wheel, and the check command says what LeRobot would only log."""

import importlib
import json
import sys

from conftest import run
from lerobot_world import PUSHT, lerobot_eval, lerobot_train, pretrained, train_command


def test_the_wheel_bears_the_literal_name(plugin_site):
    (metadata,) = plugin_site.glob("*.dist-info/METADATA")
    assert "Name: lerobot_policy_hlrp\n" in metadata.read_text()
    assert (
        "lerobot-policy-hlrp-check = lerobot_policy_hlrp.check:main"
        in (metadata.parent / "entry_points.txt").read_text()
    )


def test_the_check_passes_where_everything_is_installed(plugin, capsys):
    assert importlib.import_module("lerobot_policy_hlrp.check").main() == 0
    assert "ok      policies hlrp_smoke, hlrp_smolvla_shared" in capsys.readouterr().out


def test_the_check_says_what_is_wrong_with_a_hyphen(plugin_site, lerobot_environment, tmp_path):
    """A distribution named with hyphens installs the same package, and LeRobot overlooks it."""
    (tmp_path / "lerobot_policy_hlrp").symlink_to(plugin_site / "lerobot_policy_hlrp")
    metadata = tmp_path / "lerobot_policy_hlrp-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lerobot-policy-hlrp\nVersion: 0.1.0\n")
    result = run(
        [sys.executable, "-S", "-c", WITHOUT_SITE_PACKAGES.format(folder=tmp_path)],
        env=lerobot_environment | {"PYTHONPATH": ""},
    )
    assert "['lerobot-policy-hlrp'] is, which LeRobot overlooks" in result.stdout


# Only the folder under test holds distributions.
WITHOUT_SITE_PACKAGES = """
import importlib.util, sys
sys.path.insert(0, "{folder}")
spec = importlib.util.spec_from_file_location("check", "{folder}/lerobot_policy_hlrp/check.py")
check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check)
try:
    check.check_name()
except RuntimeError as error:
    print(error)
"""


def test_the_check_names_what_fails(plugin, tmp_path, monkeypatch, capsys):
    """LeRobot would log this and then report an unknown policy type."""
    (tmp_path / "hlrp_rs.py").write_text(
        "raise ImportError('hlrp_rs was built for torch 2.11.0, but this is 2.10.0')\n"
    )
    for name in [name for name in sys.modules if name.split(".")[0] == "hlrp_rs"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.import_module("lerobot_policy_hlrp.check").main() == 1
    told = capsys.readouterr()
    assert "FAILED  The Rust half loads into this torch." in told.out
    assert told.err.startswith("error: ImportError: hlrp_rs was built for torch 2.11.0, but this is 2.10.0\nhint: ")
    assert "Traceback" not in told.err


def test_lerobot_trains_the_smoke_policy_as_a_user_does(lerobot_environment, tmp_path):
    """The console script in a process of its own: discovery, training, checkpoint."""
    program = [sys.executable, "-c", "from lerobot.scripts.lerobot_train import main; main()"]
    command = train_command(PUSHT, tmp_path / "run", 10, "--policy.type=hlrp_smoke", "--save_freq=10")
    result = run([*program, *command], env=lerobot_environment)
    assert result.returncode == 0, result.stderr
    assert "action_loss:" in result.stderr
    config = json.loads((pretrained(tmp_path / "run") / "config.json").read_text())
    assert config["type"] == "hlrp_smoke"


def test_the_smoke_policy_is_evaluated(plugin, tmp_path):
    lerobot_train(*train_command(PUSHT, tmp_path / "run", 5, "--policy.type=hlrp_smoke", "--save_freq=5"))
    lerobot_eval(
        f"--policy.path={pretrained(tmp_path / 'run')}",
        "--policy.device=cpu",
        "--env.type=pusht",
        "--env.episode_length=5",
        "--eval.n_episodes=1",
        "--eval.batch_size=1",
        "--eval.use_async_envs=false",
        f"--output_dir={tmp_path / 'eval'}",
    )
    info = json.loads((tmp_path / "eval" / "eval_info.json").read_text())
    assert info["overall"]["n_episodes"] == 1
