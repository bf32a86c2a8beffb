"""`hlrp reproduce`: a run comes out again, drifts, or cannot be run again."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import REPO, one_error, program, read_metrics, run
from fake_lerobot import FakeLerobot
from lerobot_commands import train as train_lerobot
from made_runs import change_record, write_rows
from mini_pipeline import NAMES, pipeline


def reproduce(folder: Path, *words: object, **kwargs) -> subprocess.CompletedProcess:
    return run([program("hlrp"), "reproduce", str(folder), *map(str, words)], **kwargs)


def test_a_run_comes_out_again_to_the_last_bit(uninterrupted, tmp_path):
    result = reproduce(uninterrupted, "--out", tmp_path / "again")
    assert result.returncode == 0, result.stdout + result.stderr
    assert (
        "match      bit-exact" in result.stdout and "the weights (checkpoints/best, checkpoints/last)" in result.stdout
    )
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


def scale_from(folder: Path, metric: str, step: int, factor: float) -> None:
    """Changes what a run says it measured."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    changed = [row | {metric: row[metric] * factor} if metric in row and row["step"] >= step else row for row in rows]
    write_rows(folder, changed)


def test_a_run_of_stage_2_comes_out_again_or_drifts(uninterrupted_vla, tmp_path):
    result = reproduce(uninterrupted_vla, "--out", tmp_path / "again")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "match      bit-exact" in result.stdout and "the weights (artifacts/best," in result.stdout
    assert read_metrics(tmp_path / "again") == read_metrics(uninterrupted_vla)
    then = tmp_path / "then"
    shutil.copytree(uninterrupted_vla, then)
    scale_from(then, "train/action_loss", 9, 1.01)
    result = reproduce(then, "--out", tmp_path / "now")
    assert result.returncode == 70, result.stdout + result.stderr
    assert "drift      train/action_loss differs from step 9 on" in result.stdout


def test_another_build_is_named_beside_the_verdict(uninterrupted, tmp_path):
    then = tmp_path / "then"
    shutil.copytree(uninterrupted, then)
    change_record(then, lambda m: m["sessions"][0]["versions"].update(build="c0ffee123456"))
    result = reproduce(then, "--out", tmp_path / "now")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "changed    build: c0ffee123456 → " in result.stdout, result.stdout


def test_a_run_of_stage_3_comes_out_again_drifts_or_cannot(lerobot, tmp_path):
    """The trainer is a stand-in, whose losses are those of its steps."""
    then = tmp_path / "then"
    words = ["experiment=lerobot_tiny", "lerobot.steps=30", "lerobot.log_freq=10", "logging.min_free_gb=0.01"]
    words += ["lerobot.wandb_enable=false", f"logging.run_dir={then}"]
    assert train_lerobot(lerobot, *words).returncode == 0
    result = reproduce(then, "--out", tmp_path / "again", env=lerobot.env())
    assert result.returncode == 0, result.stdout + result.stderr
    assert "match      bit-exact" in result.stdout
    assert read_metrics(tmp_path / "again") == read_metrics(then)
    assert flags_of_last_training(lerobot)["output_dir"] == f"{tmp_path}/again/lerobot"
    scale_from(then, "train/loss", 20, 1.5)
    result = reproduce(then, "--out", tmp_path / "now", env=lerobot.env())
    assert result.returncode == 70 and "train/loss differs from step 20 on" in result.stdout, result.stdout
    num_trainings = len(lerobot.calls("lerobot-train"))
    change_record(then, lambda m: next(iter(m["sessions"][0]["data"].values())).update(fingerprint="0" * 32))
    result = reproduce(then, "--out", tmp_path / "never", env=lerobot.env())
    assert result.returncode == 66 and "has other content" in result.stdout, result.stdout + result.stderr
    assert len(lerobot.calls("lerobot-train")) == num_trainings and not (tmp_path / "never").exists()


def flags_of_last_training(lerobot) -> dict[str, str]:
    return dict(word[2:].split("=", 1) for word in lerobot.calls("lerobot-train")[-1]["arguments"])


@pytest.mark.slow
def test_lerobots_own_training_comes_out_again(tmp_path):
    """Also its weights: worth two short trainings, because nobody else says so."""
    then = tmp_path / "then"
    words = ["experiment=lerobot_tiny", "lerobot.steps=8", "lerobot.log_freq=2", "logging.min_free_gb=0.01"]
    words += ["num_threads=1", "lerobot.num_workers=0", "lerobot.env.HF_HUB_OFFLINE=1", f"logging.run_dir={then}"]
    result = run([program("hlrp"), "train-lerobot", *words])
    assert result.returncode == 0, result.stdout + result.stderr
    result = reproduce(then, "--out", tmp_path / "again")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "match      bit-exact" in result.stdout and "the weights (policy)" in result.stdout, result.stdout


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory) -> tuple[FakeLerobot, Path]:
    """A LeRobot that is a stand-in, and a mini pipeline that has run with it."""
    folder = tmp_path_factory.mktemp("pipelines")
    lerobot = FakeLerobot(folder / "fake")
    training = [f"lerobot.install_policy_editable={lerobot.plugin}", "lerobot.steps=30", "lerobot.log_freq=10"]
    rollout = [f"lerobot_eval.install_policy_editable={lerobot.plugin}"]
    result = run(pipeline(folder / "then", training, rollout), env=lerobot.env())
    assert result.returncode == 0, result.stderr
    return lerobot, folder / "then"


def verdicts(folder: Path) -> dict[str, str]:
    record = json.loads((folder / "reproduction.json").read_text())
    return {step["step"]: step["verdict"] for step in record["steps"]}


def test_every_step_of_a_pipeline_comes_out_again(pipelines, tmp_path):
    lerobot, then = pipelines
    result = reproduce(then, "--out", tmp_path / "again", env=lerobot.env())
    assert result.returncode == 0, result.stdout + result.stderr
    assert verdicts(tmp_path / "again") == dict.fromkeys(NAMES, "match")
    assert list(verdicts(tmp_path / "again")) == NAMES
    for name in NAMES:
        assert read_metrics(tmp_path / "again" / name) == read_metrics(then / name) != []
        assert json.loads((tmp_path / "again" / name / "reproduction.json").read_text())["verdict"] == "match"
    assert "the weights (artifacts/best, artifacts/final, checkpoints/best, checkpoints/last)" in result.stdout


def test_each_step_of_a_pipeline_has_a_verdict_of_its_own(pipelines, tmp_path):
    """Step 1 cannot be run again, step 2 drifts, and the others match nevertheless: each has the inputs that it had."""
    lerobot, original = pipelines
    then = tmp_path / "then"
    shutil.copytree(original, then)
    change_record(then / "1_laq", lambda m: m["sessions"][0]["data"]["metaworld_mt5"].update(fingerprint="0" * 32))
    scale_from(then / "2_vla", "train/action_loss", 9, 1.01)
    result = reproduce(then, "--out", tmp_path / "now", env=lerobot.env())
    assert result.returncode == 70, result.stdout + result.stderr
    assert list(verdicts(tmp_path / "now").values()) == ["cannot", "drift", "match", "match"], result.stdout
    assert "dataset metaworld_mt5" in result.stdout
    assert "train/action_loss differs from step 9 on" in result.stdout
    assert not (tmp_path / "now/1_laq").exists()
    again = reproduce(then, "--out", tmp_path / "now", env=lerobot.env())
    one_error(again, 2, ["--out", "is not empty"])
    ready = reproduce(then, "--out", tmp_path / "never", "--dry-run", env=lerobot.env())
    assert ready.returncode == 66 and ready.stdout.count("\nready ") == 3, ready.stdout + ready.stderr
    assert not (tmp_path / "never").exists()


def test_the_exit_code_of_a_pipeline_is_that_of_a_step_that_fails(pipelines, tmp_path):
    lerobot, then = pipelines
    lerobot.behave(exit=5)
    result = reproduce(then, "--out", tmp_path / "now", env=lerobot.env())
    lerobot.behave(exit=None)
    assert result.returncode == 5, result.stdout + result.stderr
    assert list(verdicts(tmp_path / "now").values()) == ["match", "match", "failed", "failed"], result.stdout


def test_a_pipeline_that_was_stopped_is_compared_as_far_as_it_went(tmp_path, lerobot):
    words = pipeline(tmp_path / "then", [], [], "--step", "1_laq")
    assert run(words, env=lerobot.env()).returncode == 0
    result = reproduce(tmp_path / "then", env=lerobot.env())
    assert result.returncode == 0, result.stdout + result.stderr
    assert list(verdicts(tmp_path / "then_reproduced").values()) == ["match", "–", "–", "–"], result.stdout
    change_pipeline = json.loads((tmp_path / "then/pipeline.json").read_text())
    change_pipeline["steps"][0]["run_dir"] = None
    (tmp_path / "then/pipeline.json").write_text(json.dumps(change_pipeline))
    one_error(reproduce(tmp_path / "then"), 1, ["no step of this pipeline has run", "hlrp pipeline --resume"])


def test_a_signal_ends_the_reproduction_of_a_pipeline_after_its_step(pipelines, tmp_path):
    lerobot, then = pipelines
    words = [program("hlrp"), "reproduce", str(then), "--out", str(tmp_path / "now")]
    process = subprocess.Popen(words, cwd=REPO, env=lerobot.env(), stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "now/1_laq/checkpoints/last").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 75, stdout
    assert list(verdicts(tmp_path / "now").values()) == ["failed", "ready", "ready", "ready"], stdout
