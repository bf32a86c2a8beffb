"""The wheels of `make wheel`, and an environment into which they are installed."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import run

# How the files of our own distributions begin in site-packages, and what leads Python to their sources.
OURS = ("hlrp_rs", "lerobot_policy_hlrp", "__editable__")


@pytest.fixture(scope="session")
def wheels(tmp_path_factory) -> Path:
    """Folder of both wheels."""
    folder = tmp_path_factory.mktemp("wheels")
    result = run(["make", "--no-print-directory", "wheel", f"WHEELS={folder}"])
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="session")
def wheel(wheels) -> Path:
    """The wheel of hlrp_rs."""
    (path,) = wheels.glob("hlrp_rs*.whl")
    return path


@pytest.fixture(scope="session")
def installed(wheels, tmp_path_factory) -> Path:
    """Folder of the commands of an environment that shares torch and LeRobot with this one, and into which both wheels were installed.

    The installer finds what the wheels depend on among what is shared, or fails.
    """
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    shared = folder / "shared"
    shared.mkdir()
    for path in Path(torch.__file__).resolve().parents[1].iterdir():
        if not path.name.startswith(OURS):
            (shared / path.name).symlink_to(path)
    (site / "shared.pth").write_text(str(shared))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(folder / "bin" / "python")]
    result = run([*pip, "install", "--quiet", "--no-index", *map(str, sorted(wheels.glob("*.whl")))])
    assert result.returncode == 0, result.stderr
    return folder / "bin"
