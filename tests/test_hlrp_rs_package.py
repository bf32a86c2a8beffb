"""The Python package as a user gets it: stubs, wheel, installation, commands, and what it says about torch."""

import importlib.util
import inspect
import json
import re
import subprocess
import sys
import textwrap
import tomllib
import zipfile
from pathlib import Path

import hlrp_rs
import pytest
import torch
from conftest import DATA, MINI, REPO, run
from hlrp_rs import _core, _torch
from lerobot_world import PUSHT, flags, pretrained, train_command
from safetensors.torch import load_file

PACKAGE = REPO / "python" / "hlrp_rs"
PROGRAMS = ["hlrp", "hlrp-data", "hlrp-train-laq", "hlrp-train-vla"]


def test_the_stubs_are_generated_from_the_extension():
    spec = importlib.util.spec_from_file_location("stubs", REPO / "scripts" / "stubs.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert generator.PATH.read_text() == generator.generate(_core), "make stubs"


def test_everything_in_the_extension_is_documented():
    for thing in (thing for name, thing in vars(_core).items() if not name.startswith("_") and callable(thing)):
        members = vars(thing).items() if isinstance(thing, type) else ()
        own = [member for name, member in members if not name.startswith("_")]
        assert all(inspect.getdoc(one) for one in [thing, *own]), thing.__name__


def test_the_package_offers_what_it_lists():
    assert all(getattr(hlrp_rs, name) is not None for name in hlrp_rs.__all__)
    assert set(hlrp_rs.__all__) <= set(dir(hlrp_rs))
    with pytest.raises(AttributeError, match="has no attribute 'Polices'"):
        _ = hlrp_rs.Polices


def test_the_versions_of_all_parts_agree():
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    cargo = tomllib.loads((REPO / "Cargo.toml").read_text())
    assert hlrp_rs.__version__ == cargo["workspace"]["package"]["version"]
    assert hlrp_rs.LIBTORCH_VERSION == _torch.BUILT_FOR == torch.__version__.split("+")[0]
    assert f"torch=={_torch.BUILT_FOR}" in project["dependencies"]


def python(code: str, *flags: str, **kwargs) -> subprocess.CompletedProcess:
    return run([sys.executable, *flags, "-c", textwrap.dedent(code)], **kwargs)


def test_importing_takes_no_torch_until_something_is_used():
    code = """
        import sys, hlrp_rs, hlrp_rs.cli
        assert "torch" not in sys.modules
        hlrp_rs.Policy
        assert "torch" in sys.modules
    """
    assert python(code).returncode == 0


@pytest.mark.parametrize("name", ["hlrp_rs", "hlrp_rs.cli"])
def test_another_torch_in_the_process_is_named_in_one_sentence(name):
    code = f"""
        import sys, types
        sys.modules["torch"] = types.ModuleType("torch")
        sys.modules["torch"].__version__ = "2.10.1+cpu"
        import {name}
    """
    result = python(code)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "ImportError: hlrp_rs was built for torch 2.11.0, but this Python has torch 2.10.1+cpu: "
        "pip install torch==2.11.0, or install a hlrp_rs that was built for torch 2.10.1+cpu"
    )


def test_another_torch_on_disk_is_named_without_importing_it(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "torch" / "version.py").write_text("__version__ = '2.12.0'\n")
    result = python(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import hlrp_rs")
    assert "but this Python has torch 2.12.0: pip install torch==2.11.0" in result.stderr


def test_a_python_without_torch_is_told_what_to_install(tmp_path):
    result = python(f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); import hlrp_rs", "-I", "-S")
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("ImportError: hlrp_rs needs torch 2.11.0, and ")
    assert last.endswith("has none: pip install torch==2.11.0")


@pytest.mark.slow
def test_the_wheel_holds_everything_under_the_right_names(wheel):
    # The tag says the newest glibc whose functions are used.
    assert re.fullmatch(rf"hlrp_rs-{hlrp_rs.__version__}-cp312-abi3-manylinux_2_\d+_x86_64\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(n for n in names if n.endswith(".dist-info/METADATA"))).decode().splitlines()
        entry_points = archive.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
        modes = {name: archive.getinfo(f"hlrp_rs/bin/{name}").external_attr >> 16 & 0o111 for name in PROGRAMS}
    assert "Name: hlrp_rs" in metadata
    assert "Requires-Dist: torch==2.11.0" in metadata
    assert all(f"{name}=hlrp_rs.cli:" in entry_points.replace(" ", "") for name in PROGRAMS)
    assert all(modes.values()), "programs are executable"
    tracked = run(["git", "ls-files", "config"]).stdout.split()
    assert {f"hlrp_rs/{path}" for path in tracked} <= names
    assert names >= {"hlrp_rs/_core.abi3.so", "hlrp_rs/_core.pyi", "hlrp_rs/py.typed", "hlrp_rs/types.py"}
    assert not [name for name in names if "libtorch" in name or name.endswith("user_config/local.yaml")]
    carried = {name.split("/")[1].split("-")[0] for name in names if name.startswith("hlrp_rs.libs/lib")}
    assert carried == {"libavcodec", "libavformat", "libavutil", "libswscale", "libdav1d"}
    assert {"hlrp_rs/licenses/ffmpeg.txt", "hlrp_rs/licenses/dav1d.txt"} <= names


@pytest.mark.slow
def test_the_extension_links_the_torch_of_its_process(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        library = archive.extract("hlrp_rs/_core.abi3.so", tmp_path)
    dynamic = run(["readelf", "--dynamic", library]).stdout
    assert "libtorch_python.so" in dynamic
    assert "libpython" not in dynamic
    assert str(REPO) not in dynamic


@pytest.mark.slow
def test_the_installed_package_computes(installed, tmp_path):
    code = "import hlrp_rs, torch; print(hlrp_rs.__file__, hlrp_rs.Policy, hlrp_rs.config_folder())"
    result = run([str(installed / "python"), "-c", code], cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(str(installed.parent))
    assert result.stdout.count(str(installed.parent)) == 2


@pytest.mark.slow
def test_the_installed_commands_run_without_the_repository(installed, tmp_path):
    version = run([str(installed / "hlrp"), "--version"], cwd=tmp_path)
    assert (version.returncode, version.stdout) == (0, f"hlrp {hlrp_rs.__version__}\n")
    shown = run([str(installed / "hlrp"), "train-laq", "--help"], cwd=tmp_path)
    assert "Usage: hlrp-train-laq" in shown.stdout
    direct = run([str(installed / "hlrp-train-vla"), "--help"], cwd=tmp_path)
    assert "Usage: hlrp-train-vla" in direct.stdout
    wrong = run([str(installed / "hlrp-train-laq"), "no.such.key=1"], cwd=tmp_path)
    assert wrong.returncode == 2, "the exit code is the program's own"
    assert "hint:" in wrong.stderr


@pytest.mark.slow
def test_the_installed_commands_train(installed, tmp_path):
    words = [
        *MINI,
        f"data.sources.metaworld_mt5.root={DATA / 'metaworld_mt5'}",
        "training.max_steps=2",
        "training.scheduler.warmup_steps=1",
    ]
    result = run([str(installed / "hlrp"), "train-laq", *words, "logging.run_dir=run"], cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    manifest = json.loads((tmp_path / "run" / "checkpoints" / "step-000002" / "checkpoint.json").read_text())
    assert manifest["libtorch"] == _torch.BUILT_FOR


# `lerobot-train`, and then where what it used comes from.
TRAIN = """
import sys
from lerobot.scripts.lerobot_train import main
main()
print(*(sys.modules[name].__file__ for name in ("hlrp_rs", "hlrp_rs._core", "lerobot_policy_hlrp")), sep="\\n")
"""


@pytest.mark.slow
def test_lerobot_trains_with_what_is_installed(installed, plugin, lerobot_environment, pusht_artifact, tmp_path):
    # LeRobot is compiled once for both programs, outside of what is shared.
    bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode")}
    env = lerobot_environment | bytecode | {"PYTHONPATH": ""}
    check = run([str(installed / "lerobot-policy-hlrp-check")], cwd=tmp_path, env=env)
    assert check.returncode == 0, check.stderr
    assert f"ok      hlrp_rs {hlrp_rs.__version__} for libtorch {_torch.BUILT_FOR}\n" in check.stdout
    assert check.stdout.endswith("LeRobot will find these policies.\n")

    options = flags(type="hlrp_smolvla_shared", stage2_artifact=pusht_artifact)
    command = train_command(PUSHT, tmp_path / "run", 2, *options, "--save_freq=2")
    result = run([str(installed / "python"), "-c", TRAIN, *command], cwd=tmp_path, env=env)
    assert result.returncode == 0, result.stderr
    modules = result.stdout.splitlines()[-3:]
    assert all(Path(module).is_relative_to(installed.parent / "lib") for module in modules), modules
    before, after = (
        load_file(folder / "model.safetensors") for folder in (pusht_artifact, pretrained(tmp_path / "run"))
    )
    name = "model.action_out_proj.weight"
    assert not torch.equal(before[name], after[name])


def test_an_installation_without_programs_says_so(tmp_path, monkeypatch, capsys):
    from hlrp_rs import cli

    monkeypatch.setattr(cli, "PROGRAMS", tmp_path)
    with pytest.raises(SystemExit, match="1"):
        cli.hlrp()
    assert "this installation of hlrp_rs has no program" in capsys.readouterr().err
