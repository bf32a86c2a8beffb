"""The wheel in other systems: Debian 12 without any FFmpeg, and Debian 13 with its newer one. Each system is made for the test."""

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


@pytest.fixture(scope="module")
def here(installed, tmp_path_factory) -> list[dict]:
    """Metrics of the run on this machine."""
    folder = tmp_path_factory.mktemp("here")
    result = run(
        [str(installed / "hlrp"), "train-laq", *WORDS, "logging.run_dir=run"],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "2"},
    )
    assert result.returncode == 0, result.stderr
    return read_metrics(folder / "run")


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
    assert read_metrics(tmp_path / "run") == here


def test_a_model_is_trained_from_a_frame_cache_with_the_same_losses(system, installed, here, tmp_path):
    words = ["train-laq", *WORDS, "data.cache.enabled=true", "paths.cache_dir=cache", "logging.run_dir=run"]
    result = system.run(installed / "hlrp", *words, writable=tmp_path, readable=[installed.parent, DATASET])
    assert result.returncode == 0, result.stderr
    assert any((tmp_path / "cache").rglob("*")), "the frames are in the cache"
    assert read_metrics(tmp_path / "run") == here
