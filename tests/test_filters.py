"""Filters of anchors through the real programs: what would be dropped is what training drops."""

import hashlib
import os
import re
from pathlib import Path

from conftest import DATA, MINI, one_error, program, run, train_laq_command
from PIL import Image

DATASET = DATA / "metaworld_mt5"
SOURCE = "data.sources.metaworld_mt5"
THRESHOLDS = ["data.filter.motion.low=0.1", "data.filter.motion.high=0.12"]


def data_filter(*words: object, cache: Path) -> list[str]:
    result = run(
        [program("hlrp"), "data", "filter", str(DATASET), *map(str, words)],
        env=os.environ | {"XDG_CACHE_HOME": str(cache)},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_offsets_in_seconds_of_a_format_without_a_rate_need_one(tmp_path):
    """RLDS does not say how many steps a second has: three of them are a second at 3 per second, and drop other anchors than one."""
    root = DATA / "rlds/fractal20220817_data/0.1.0"
    words = ["data.request.unit=seconds", "data.request.image_deltas=[0,1]", "--out"]

    def by(*more: object):
        command = [program("hlrp"), "data", "filter", root, *words, tmp_path / f"{len(more)}.png", *more]
        return run(list(map(str, command)), env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")})

    one_error(by(), 2, ["--fps", "does not say how many frames a second has", "data.request.unit=frames"])
    one_error(by("--fps", 0, "--episodes", 1), 2, ["--fps", "above 0"])
    found = by("--fps", 3)
    assert found.returncode == 0, found.stderr
    in_frames = by("--fps", 3, "data.request.unit=frames", "data.request.image_deltas=[0,3]")
    assert found.stdout.splitlines()[:-1] == in_frames.stdout.splitlines()[:-1]
    assert by("--fps", 1, "--episodes", 4).stdout.splitlines()[:-1] != found.stdout.splitlines()[:-1]
    other = [program("hlrp"), "data", "filter", str(DATASET), *words, str(tmp_path / "other.png"), "--fps", "7"]
    one_error(run(other), 2, ["--fps", "80 frames per second"])


def contents() -> dict[str, str]:
    files = [path for path in DATASET.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_training_drops_what_the_command_prints(tmp_path):
    """The command's totals are those that a run logs; the dataset is as before; scores are read again from the cache."""
    before = contents()
    words = ["--by", "both", *THRESHOLDS, "data.request.image_deltas=[0,20]"]
    lines = data_filter(*words, "--out", tmp_path / "drawing.png", cache=tmp_path / "cache")
    assert contents() == before
    episodes = [
        re.fullmatch(r"episode (\d+): (\d+) of (\d+) anchors kept(?:; dropped: frames (.+))?", line)
        for line in lines[:-2]
    ]
    assert [int(found[1]) for found in episodes] == list(range(50))
    kept, anchors = (sum(int(found[group]) for found in episodes) for group in (2, 3))
    assert lines[-2].startswith(f"{kept} of {anchors} anchors kept; dropped:")
    assert 0 < kept < anchors
    for found in episodes:
        dropped = [tuple(map(int, part.split("-"))) for part in found[4].split(", ")] if found[4] else []
        assert sum(last - first + 1 for first, last in dropped) == int(found[3]) - int(found[2])
    with Image.open(tmp_path / "drawing.png") as image:
        assert image.width > 800
        assert image.height > 8 * 160

    scores = sorted((tmp_path / "cache/hlrp/filters").glob("*.f32"))
    assert [path.name.split("-")[1] for path in scores] == ["action", "motion"]
    times = [path.stat().st_mtime_ns for path in scores]
    assert data_filter(*words, "--out", tmp_path / "again.png", cache=tmp_path / "cache")[:-1] == lines[:-1]
    assert [path.stat().st_mtime_ns for path in scores] == times

    words = [
        *THRESHOLDS,
        "data.request.image_deltas=[0,20]",
        "training.max_steps=4",
        f"logging.run_dir={tmp_path / 'run'}",
    ]
    words += [f"data.cache.dir={tmp_path / 'frames'}", f"{SOURCE}.filter=both"]
    result = run(train_laq_command(*MINI, *words))
    assert result.returncode == 0, result.stderr
    assert f"filter of metaworld_mt5: {kept} of {anchors} anchors kept" in result.stderr


def test_a_filter_that_keeps_nothing_or_has_no_action_is_one_error(tmp_path):
    words = [f"data.cache.dir={tmp_path / 'frames'}", f"logging.run_dir={tmp_path / 'run'}"]
    everything = ["data.filter.motion.low=1", "data.filter.motion.high=1", f"{SOURCE}.filter=motion"]
    result = run(train_laq_command(*MINI, *words, *everything))
    one_error(result, 2, [f"{SOURCE}.filter", "hlrp data filter"])
    result = run(train_laq_command(*MINI, *words, f"{SOURCE}.filter=action", f"{SOURCE}.action_key=null"))
    one_error(result, 2, [f"{SOURCE}.action_key", "filter=motion"])
    result = run(train_laq_command(*MINI, *words, "data.filter.motion.low=0.5", f"{SOURCE}.filter=motion"))
    one_error(result, 2, ["data.filter.motion.low", "is above high"])
