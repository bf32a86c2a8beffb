"""A study: runs that differ in what is studied, labels between them, and one table of arms over seeds."""

import copy
import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import MINI, REPO, VLA_MINI, one_error, program, read_metrics, run

DATA = "tests/data/metaworld_mt5"
LABELLED = ["data.sources.metaworld_mt5.labelled_episodes=[0,10]", "data.loader.labelled_fraction=1"]


def policy(*words: str, **inputs: str) -> dict:
    """A run for each seed, of the mini policy."""
    overrides = [*VLA_MINI[1:], "training.max_steps=6", "validation.check_interval=6", *words]
    return {
        "experiment": "vla_tiny",
        "overrides": overrides,
        "inputs": {key.replace("__", "."): name for key, name in inputs.items()},
        "per_seed": True,
    }


ACTIONS = ["policy.objective.mode=actions", *LABELLED]
START = "policy__model__arch__expert__smolvla_checkpoint"
STUDY = {
    "seeds": [3, 5],
    "metric": "val/action_mse",
    "control": "nothing",
    "ceiling": "sums",
    "labels": {"sums": {"checkpoint": "teacher", "dataset": DATA, "source": "action-as-latent"}},
    "runs": {
        "teacher": {
            "experiment": "laq_tiny",
            "overrides": [*MINI[1:], "training.max_steps=6"],
            "inputs": {},
            "per_seed": False,
        },
        "latents": policy("policy.objective.mode=latent", policy__teacher__checkpoint="teacher"),
        "sum_latents": policy(
            "policy.objective.mode=latent",
            "policy.teacher.label_prefix=latent_labels",
            data__sources__metaworld_mt5__root="sums",
        ),
        "nothing": policy(*ACTIONS),
        "after_latents": policy(*ACTIONS, **{START: "latents"}),
        "after_sums": policy(*ACTIONS, **{START: "sum_latents"}),
    },
    "arms": [
        {"name": "nothing", "run": "nothing"},
        {"name": "codes", "run": "after_latents"},
        {"name": "sums", "run": "after_sums"},
    ],
}


def command(tmp_path: Path, study: dict) -> list[str]:
    """`hlrp pipeline` with a study in a tree of its own."""
    tree = tmp_path / "config"
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(REPO / "config", tree)
    text = (tree / "experiment/pipeline_tiny.yaml").read_text().split("pipeline:\n")[0]
    (tree / "experiment/mini_study.yaml").write_text(text + "pipeline:\n  study: " + json.dumps(study) + "\n")
    words = ["experiment=mini_study", f"logging.run_dir={tmp_path / 'run'}"]
    return [program("hlrp"), "pipeline", "--config-dir", str(tree), *words]


def rows(run_dir: Path) -> dict[str, list[str]]:
    """The table of the arms in `summary.md`, by arm."""
    lines = (run_dir / "summary.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells[2 : 2 + len(STUDY["arms"])]}


def last(run_dir: Path) -> float:
    return next(row["val/action_mse"] for row in reversed(read_metrics(run_dir)) if "val/action_mse" in row)


def test_every_arm_is_compared_with_the_control_seed_by_seed(tmp_path):
    result = run(command(tmp_path, STUDY))
    assert result.returncode == 0, result.stderr
    run_dir = tmp_path / "run"
    steps = [step["name"] for step in json.loads((run_dir / "pipeline.json").read_text())["steps"]]
    assert steps[:2] == ["teacher", "sums"], "what all arms share is made once"
    assert all(name.endswith("_seed3") for name in steps[2:7]), "then every arm of one seed: a table from the start"
    assert all(name.endswith("_seed5") for name in steps[7:]) and len(steps) == 12
    values = {
        arm: [last(run_dir / f"{name}_seed{seed}") for seed in STUDY["seeds"]]
        for arm, name in [("nothing", "nothing"), ("codes", "after_latents"), ("sums", "after_sums")]
    }
    gains = {arm: [a - b for a, b in zip(values["nothing"], values[arm], strict=True)] for arm in ["codes", "sums"]}
    table = rows(run_dir)
    for arm, row in table.items():
        assert row[0] == "2 of 2"
        assert float(row[1].split(" ± ")[0]) == pytest.approx(sum(values[arm]) / 2, abs=1e-4)
        if arm == "nothing":
            assert row[2:] == ["", "", ""]
            continue
        difference = sum(gains[arm]) / 2
        assert float(row[2].split(" ± ")[0]) == pytest.approx(-difference, abs=1e-4)
        # Student's t of one degree of freedom.
        half = 12.706 * abs(gains[arm][0] - gains[arm][1]) / 2
        assert float(row[2].split(" ± ")[1]) == pytest.approx(half, abs=2e-4)
        assert row[3] == f"{sum(gain > 0 for gain in gains[arm])} of 2"
    assert "codes" in result.stdout and "val/action_mse" in result.stdout
    page = (run_dir / "summary.html").read_text()
    assert "Arms" in page and "against nothing" in page
    # Arms of one seed begin with the same weights, whoever labels: their first losses differ by their targets alone.
    first = [
        read_metrics(run_dir / f"{name}_seed3")[0]["train/num_action_samples"] for name in ["nothing", "after_sums"]
    ]
    assert first == [4.0, 4.0], "every sample of a batch is of a labelled episode"


def test_a_study_that_was_stopped_continues(tmp_path):
    words, run_dir = command(tmp_path, STUDY), tmp_path / "run"
    process = subprocess.Popen(words, cwd=REPO, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 180
    while not (run_dir / "after_latents_seed3/artifacts/final").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 75, stderr
    assert "1 of 2" in stdout or "0 of 2" in stdout, "the table so far"
    before = (run_dir / "teacher/run.json").stat().st_mtime_ns
    result = run([program("hlrp"), "pipeline", "--resume", str(run_dir), "--config-dir", str(tmp_path / "config")])
    assert result.returncode == 0, result.stderr
    assert (run_dir / "teacher/run.json").stat().st_mtime_ns == before, "what was done is not repeated"
    assert all(row[0] == "2 of 2" for row in rows(run_dir).values())


@pytest.mark.parametrize(
    "change, names",
    [
        (lambda s: s["arms"].append({"name": "x", "run": "missing"}), ["arms[3].run", "missing"]),
        (lambda s: s.update(control="missing"), ["pipeline.study.control", "missing"]),
        (lambda s: s.update(seeds=[1, 1]), ["pipeline.study.seeds"]),
        (lambda s: s["runs"]["teacher"]["inputs"].update({"a.b": "nothing"}), ["runs.teacher.inputs", "each seed"]),
        (lambda s: s["runs"]["latents"]["inputs"].update({"a.b": "gone"}), ["runs.latents.inputs.a.b", "gone"]),
        (lambda s: s["runs"]["latents"]["inputs"].update({"a.b": "after_latents"}), ["need each other"]),
        (lambda s: s["runs"]["nothing"]["overrides"].append("seed=1"), ["runs.nothing.overrides", "seed=1"]),
        (lambda s: s["runs"]["nothing"]["overrides"].append("training.max_stepz=1"), ["max_stepz"]),
    ],
)
def test_a_study_that_cannot_be_made_is_refused_whole(tmp_path, change, names):
    study = copy.deepcopy(STUDY)
    change(study)
    one_error(run(command(tmp_path, study)), 2, [*names, "hint:"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("study, num_teachers, num_labels", [("few_labels", 3, 2), ("rollouts", 2, 1)])
def test_the_studies_that_ship_are_valid_and_their_arms_learn_actions_at_one_rate(study, num_teachers, num_labels):
    result = run([program("hlrp"), "pipeline", f"experiment=study/{study}", "--dry-run"])
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("train-laq") == num_teachers and result.stdout.count("label \\") == num_labels
    steps = [step for step in result.stdout.split("hlrp \\\n") if "train-vla" in step]
    rates = [
        {word for word in step.split() if word.startswith("training.optimizer.lr=")}
        for step in steps
        if "policy.objective.mode=latent" not in step
    ]
    assert len(rates) >= 15 and all(rate == {"training.optimizer.lr=3e-4"} for rate in rates)
