"""The wheel in other systems: Debian 12 without any FFmpeg, and Debian 13 with its newer one. Each system is made for the test."""

import hashlib
import os
from pathlib import Path

import pytest
from conftest import DATA, MINI, read_metrics, run
from debian import Debian

pytestmark = pytest.mark.slow

DATASET = DATA / "metaworld_mt5"
WORDS = [
    *MINI,
    f"data.sources.metaworld_mt5.root={DATASET}",
    "training.max_steps=3",
    "training.scheduler.warmup_steps=1",
]
CACHED = ["data.cache.enabled=true", "paths.cache_dir=cache"]

IMPORT = """
import hlrp_rs
print(hlrp_rs.Policy.__name__)
libraries = {line.split()[-1] for line in open("/proc/self/maps") if "libav" in line or "libdav1d" in line}
print(*sorted(libraries), sep="\\n")
"""


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def system(request, tmp_path_factory) -> Debian:
    """Debian 12 without FFmpeg; Debian 13 with FFmpeg 7, whose libraries the wheel must leave alone."""
    packages = {"bookworm": [], "trixie": ["libavformat61", "libswscale8"]}
    return Debian(tmp_path_factory.mktemp("system"), request.param, *packages[request.param])


def train_here(installed: Path, folder: Path, *words: str) -> Path:
    """Trains on this machine and returns the folder."""
    command = [str(installed / "hlrp"), "train-laq", *WORDS, *words, "logging.run_dir=run"]
    result = run(command, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "2"})
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def here(installed, tmp_path_factory) -> list[dict]:
    """Metrics of the run on this machine."""
    return read_metrics(train_here(installed, tmp_path_factory.mktemp("here")) / "run")


@pytest.fixture(scope="module")
def frames_here(installed, tmp_path_factory) -> dict[str, str]:
    """The frame cache that this machine makes."""
    return digests(train_here(installed, tmp_path_factory.mktemp("frames_here"), *CACHED) / "cache")


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder that has content."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size > 0]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def assert_same_metrics(system: Debian, tmp_path: Path, here: list[dict]) -> None:
    """Equal to the last digit with the C library of this machine. Another release of it rounds `erff` and `tanhf`, of which the model is
    made, otherwise: then equal but for what a float32 rounds."""
    found = read_metrics(tmp_path / "run")
    version = system.run("/usr/bin/getconf", "GNU_LIBC_VERSION", writable=tmp_path, readable=[]).stdout.strip()
    if version == os.confstr("CS_GNU_LIBC_VERSION"):
        assert found == here
    else:
        assert found == [pytest.approx(line, rel=1e-5) for line in here]


def test_the_package_is_imported_with_the_ffmpeg_that_it_brings(system, installed, tmp_path):
    result = system.run(installed / "python", "-c", IMPORT, writable=tmp_path, readable=[installed.parent])
    assert result.returncode == 0, result.stderr
    name, *libraries = result.stdout.splitlines()
    assert name == "Policy"
    assert len(libraries) == 4, libraries
    assert all(Path(library).parent.name == "hlrp_rs.libs" for library in libraries)


def test_a_model_is_trained_from_video_with_the_losses_of_this_machine(system, installed, here, tmp_path):
    words = ["train-laq", *WORDS, "logging.run_dir=run"]
    result = system.run(installed / "hlrp", *words, writable=tmp_path, readable=[installed.parent, DATASET])
    assert result.returncode == 0, result.stderr
    assert_same_metrics(system, tmp_path, here)


def test_a_model_is_trained_from_a_frame_cache_with_the_same_losses(system, installed, here, frames_here, tmp_path):
    words = ["train-laq", *WORDS, *CACHED, "logging.run_dir=run"]
    result = system.run(installed / "hlrp", *words, writable=tmp_path, readable=[installed.parent, DATASET])
    assert result.returncode == 0, result.stderr
    assert frames_here and digests(tmp_path / "cache") == frames_here, "every pixel is the same"
    assert_same_metrics(system, tmp_path, here)
