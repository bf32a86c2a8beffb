"""`make gpu-kit` packs what proves and times hlrp on a machine with a GPU; `run.sh --cpu` does the same checks without one."""

import subprocess
import tarfile
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
# It builds the programs once more, without FFmpeg, and trains eight short runs: ten minutes, worth it because a GPU is rarely at hand and
# the kit must work at once when one is.
pytestmark = pytest.mark.slow

LARGEST = 20 << 20


@pytest.fixture(scope="module")
def kit() -> Path:
    subprocess.run(["make", "gpu-kit"], cwd=REPO, check=True)
    return REPO / "target" / "gpu-kit"


def test_the_kit_is_small_and_needs_no_ffmpeg(kit):
    archive = kit.with_suffix(".tar.xz")
    assert archive.stat().st_size < LARGEST
    with tarfile.open(archive) as files:
        names = set(files.getnames())
    assert {"gpu-kit/run.sh", "gpu-kit/bin/hlrp-golden", "gpu-kit/python/hlrp_rs/_core.abi3.so"} <= names
    for program in (kit / "bin").iterdir():
        libraries = subprocess.run(["readelf", "-d", program], capture_output=True, text=True, check=True).stdout
        assert "libav" not in libraries, program


def test_every_check_passes_without_a_gpu(kit, tmp_path):
    done = subprocess.run(
        ["bash", kit / "run.sh", "--cpu", "--out", tmp_path, "--minutes", "20", "--only", "golden,train,laq"],
        env={"PYTHON": str(REPO / ".venv/bin/python"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    report = (tmp_path / "results.md").read_text()
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (
        "golden-32-true: ok",
        "golden-bf16-mixed: ok",
        "laq_tiny: ok",
        "vla_tiny: ok",
        "resume after SIGKILL: ok",
        "gradients through Gloo: ok",
    ):
        assert line in report
    assert "| laq_tiny, 32-true |" in report and "no check failed" in report


def test_a_machine_without_a_gpu_is_named(kit, tmp_path):
    done = subprocess.run(
        ["bash", kit / "run.sh", "--out", tmp_path],
        env={"PYTHON": str(REPO / ".venv/bin/python"), "PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "torch sees no GPU" in done.stderr and "hint: " in done.stderr
