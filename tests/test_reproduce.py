"""`hlrp reproduce`: a run comes out again, drifts, or cannot be run again."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import program, read_metrics, run
from made_runs import change_record, write_rows


def reproduce(folder: Path, *words: object) -> subprocess.CompletedProcess:
    return run([program("hlrp"), "reproduce", str(folder), *map(str, words)])


def test_a_run_comes_out_again_to_the_last_bit(uninterrupted, tmp_path):
    result = reproduce(uninterrupted, "--out", tmp_path / "again")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "match      bit-exact" in result.stdout and "the last weights" in result.stdout
    assert read_metrics(tmp_path / "again") == read_metrics(uninterrupted)
    assert json.loads((tmp_path / "again/reproduction.json").read_text())["verdict"] == "match"


def test_a_drift_names_the_metric_the_step_and_the_size(uninterrupted, tmp_path):
    then = tmp_path / "then"
    shutil.copytree(uninterrupted, then)
    rows = [json.loads(line) for line in (then / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if "train/pixel_loss" in row and row["step"] >= 12:
            row["train/pixel_loss"] *= 1.001
    write_rows(then, rows)
    result = reproduce(then, "--out", tmp_path / "now")
    assert result.returncode == 70, result.stdout + result.stderr
    assert "drift      train/pixel_loss differs from step 12 on" in result.stdout
    verdict = json.loads((tmp_path / "now/reproduction.json").read_text())
    [found] = verdict["differences"]
    assert (found["metric"], found["step"]) == ("train/pixel_loss", 12)
    assert found["largest_relative_difference"] == pytest.approx(0.001 / 1.001, rel=1e-6)
    tolerant = reproduce(then, "--out", tmp_path / "tolerant", "--tolerance", "0.01")
    assert tolerant.returncode == 0 and "match      within 1e-2" in tolerant.stdout, tolerant.stdout


def test_what_cannot_be_reproduced_is_named_before_anything_runs(uninterrupted, uninterrupted_vla, one, tmp_path):
    change_record(one, lambda m: m["sessions"][0]["data"]["metaworld_mt5"].update(fingerprint="0" * 32))
    result = reproduce(one)
    assert result.returncode == 66 and "cannot" in result.stdout, result.stdout + result.stderr
    assert "dataset metaworld_mt5" in result.stdout and "0" * 32 in result.stdout
    vla = tmp_path / "vla"
    shutil.copytree(uninterrupted_vla, vla)
    change_record(vla, lambda m: m["sessions"][0]["inputs"][0].update(sha256="1" * 64))
    result = reproduce(vla)
    assert result.returncode == 66 and "has other weights" in result.stdout, result.stdout
    assert str(uninterrupted) in result.stdout
    change_record(vla, lambda m: m["sessions"][0]["inputs"][0].update(path="/nowhere"))
    assert "/nowhere does not exist any more" in reproduce(vla).stdout
    assert not list(tmp_path.glob("*_reproduced"))


def test_other_versions_have_to_be_accepted(one):
    change_record(one, lambda m: m["sessions"][0]["versions"].update(libtorch="2.10.0"))
    result = reproduce(one, "--dry-run")
    assert result.returncode == 66 and "then it was 2.10.0" in result.stdout, result.stdout
    result = reproduce(one, "--dry-run", "--accept-other-versions")
    assert result.returncode == 0 and "ready" in result.stdout and "train-laq" in result.stdout, result.stdout
