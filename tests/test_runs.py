"""`hlrp runs list | show | compare | table`: what they say of run directories, compared with what is computed from the files here."""

import csv
import fcntl
import io
import json
import re
import statistics

import pytest
from conftest import one_error, read_metrics
from made_runs import LR, RATES, SEEDS, best_of, change_record, make_run, output, runs, write_rows

# Listing


def test_runs_are_listed_with_stage_status_steps_and_score(made, uninterrupted_vla):
    folder, _ = made
    listed = json.loads(output("list", folder, uninterrupted_vla, "--json", "--sort", "name"))
    by_name = {row["name"]: row for row in listed}
    assert by_name.keys() == {f"{rate}-{seed}" for rate in RATES for seed in SEEDS} | {"run"}
    assert by_name["0.001-2"]["stage"] == "laq" and by_name["run"]["stage"] == "vla"
    assert {(row["status"], row["step"]) for row in listed} == {("finished", 24)}
    score = by_name["run"]["score"]
    best = min(row["val/loss"] for row in read_metrics(uninterrupted_vla) if "val/loss" in row)
    assert score == {"metric": "val/loss", "value": best, "is_best": True}
    assert output("list", folder).count("finished") == len(RATES) * len(SEEDS)


def test_a_run_that_nobody_holds_was_killed(one):
    change_record(one, lambda manifest: manifest["sessions"][0].update(status="running", ended_at=None))

    def status() -> str:
        [row] = json.loads(output("list", one, "--json"))
        return row["status"]

    assert status() == "killed"
    with (one / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert status() == "running"
    assert status() == "killed"


def test_a_pipeline_and_its_steps_are_runs(tmp_path, uninterrupted):
    pipeline = make_run(uninterrupted, tmp_path / "pipeline", {}, [0.3, 0.2, 0.1])
    make_run(uninterrupted, pipeline / "1_laq", {}, [0.3, 0.2, 0.1])
    names = [row["name"] for row in json.loads(output("list", tmp_path, "--json", "--sort", "name"))]
    assert names == ["pipeline", "pipeline/1_laq"]


def test_an_empty_folder_has_no_runs(tmp_path):
    assert output("list", tmp_path) == "no runs\n"
    one_error(runs("table", tmp_path), 1, ["no run in", str(tmp_path), "hint: a run is a folder with run.json"])


# Tables


def test_a_table_has_the_best_value_of_each_run_and_statistics_over_seeds(made):
    folder, losses = made
    table = json.loads(output("table", folder, "--metric", "val/loss", "--keys", f"{LR},seed", "--format", "json"))
    best = {key: best_of(values) for key, values in losses.items()}
    found = {
        (float(row["settings"][LR]), int(row["settings"]["seed"])): row["metrics"]["val/loss"]["value"]
        for row in table["runs"]
    }
    assert found == best
    assert [row["name"] for row in table["runs"] if row["is_best"]] == ["{}-{}".format(*min(best, key=best.get))]
    means = {rate: statistics.mean(best[rate, seed] for seed in SEEDS) for rate in RATES}
    for group in table["groups"]:
        rate = float(group["settings"][LR])
        values = [best[rate, seed] for seed in SEEDS]
        assert group["metrics"]["val/loss"]["mean"] == pytest.approx(statistics.mean(values), rel=1e-12)
        assert group["metrics"]["val/loss"]["std"] == pytest.approx(statistics.stdev(values), rel=1e-12)
        assert (group["metrics"]["val/loss"]["num"], len(group["runs"])) == (len(SEEDS), len(SEEDS))
    assert [float(group["settings"][LR]) for group in table["groups"]] == sorted(RATES, key=means.get)
    assert [group["is_best"] for group in table["groups"]] == [True, False, False]


def test_the_newest_values_can_be_compared_instead(made):
    folder, losses = made
    rows = list(
        csv.DictReader(io.StringIO(output("table", folder, "--at", "last", "--metric", "val/loss", "--format", "csv")))
    )
    assert {(float(row[LR]), int(row["seed"])): float(row["val/loss"]) for row in rows} == {
        key: values[-1] for key, values in losses.items()
    }
    [best] = [row["run"] for row in rows if row["best"] == "true"]
    assert best == "{}-{}".format(*min(losses, key=lambda key: losses[key][-1]))


def test_other_metrics_are_those_of_the_step_that_counts(made):
    folder, losses = made
    table = json.loads(output("table", folder, "--metric", "val/loss,val/pixel_loss", "--format", "json"))
    for row in table["runs"]:
        values = losses[float(row["settings"][LR]), int(row["settings"]["seed"])]
        step = [10, 20, 24][values.index(min(values))]
        assert row["metrics"]["val/loss"]["step"] == row["metrics"]["val/pixel_loss"]["step"] == step


def test_markdown_has_one_row_for_each_run_and_marks_the_best(made):
    folder, losses = made
    words = [
        "table",
        folder,
        "--metric",
        "val/loss",
        "--keys",
        "model.dim,training.optimizer.lr",
        "--format",
        "markdown",
    ]
    text = output(*words)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == ["run", "model.dim", LR, "val/loss", "step", "status"]
    of_runs = [row for row in rows if re.fullmatch(r"[\d.e-]+-\d", row[0])]
    assert len(of_runs) == len(losses)
    smallest = min(best_of(values) for values in losses.values())
    assert [row[3] for row in of_runs if "**" in row[3]] == [f"**{smallest:.4f}**"]


def test_groups_can_be_chosen(made):
    folder, losses = made
    text = output("table", folder, "--metric", "val/loss", "--group-by", "seed", "--format", "csv")
    rows = {int(row["seed"]): row for row in csv.DictReader(io.StringIO(text))}
    for seed in SEEDS:
        values = [best_of(losses[rate, seed]) for rate in RATES]
        assert float(rows[seed]["val/loss mean"]) == pytest.approx(statistics.mean(values), rel=1e-12)
        assert float(rows[seed]["val/loss std"]) == pytest.approx(statistics.stdev(values), rel=1e-12)


def test_runs_of_two_stages_are_ranked_apart_and_a_missing_metric_is_explained(uninterrupted, uninterrupted_vla, one):
    text = output("table", uninterrupted, one, uninterrupted_vla, "--metric", "val/pixel_loss")
    [line] = [line for line in text.splitlines() if line.strip().startswith(str(uninterrupted_vla))]
    assert line.split()[-3:] == ["–", "–", "finished"]
    assert "stage vla does not record val/pixel_loss" in text and "several stages" in text


def test_a_diverged_run_is_not_the_best(made, one, tmp_path):
    rows = [json.loads(line) for line in (one / "metrics.jsonl").read_text().splitlines()]
    write_rows(one, [row | {"val/loss": None} if "val/loss" in row else row for row in rows])
    other = make_run(one, tmp_path / "other", {"seed": 8}, [0.9, 0.8, 0.7])
    table = json.loads(output("table", one, other, "--metric", "val/loss", "--format", "json"))
    assert [(row["name"], row["is_best"]) for row in table["runs"]] == [("other", True), ("one", False)]
    assert "NaN" in output("table", one, other, "--metric", "val/loss")


# Two runs, and one


def test_a_comparison_shows_settings_beside_metrics(made):
    folder, losses = made
    compared = json.loads(output("compare", folder / "0.0001-1", folder / "0.003-2", "--json"))
    assert compared["settings"] == {
        "seed": {"left": "1", "right": "2"},
        LR: {"left": "0.0001", "right": "0.003"},
    }
    text = output("compare", folder / "0.0001-1", folder / "0.003-2")
    assert LR in text and "val/pixel_loss" in text
    assert "no setting differs" in output("compare", folder / "0.001-1", folder / "0.001-1")


def test_one_run_is_shown_at_a_glance(uninterrupted):
    text = output("show", uninterrupted)
    for word in [
        "laq_tiny (laq)",
        "finished",
        "libtorch 2.11",
        "metaworld_mt5",
        "fingerprint",
        "checkpoints/best",
        "val/pixel_loss",
    ]:
        assert word in text, word
    shown = json.loads(output("show", uninterrupted, "--json"))
    last = [row["val/pixel_loss"] for row in read_metrics(uninterrupted) if "val/pixel_loss" in row][-1]
    assert shown["results"]["val/pixel_loss"]["last"] == {"value": last, "step": 24}


# Bad input


def test_a_corrupt_line_is_named_with_its_file(one):
    path = one / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], "not a row\n", *lines[3:]]))
    for words in [["table", one], ["show", one], ["plot", one], ["compare", one, one], ["report", one], ["watch", one]]:
        one_error(runs(*words), 1, [str(path), "line 4", "not a metrics row"])


def test_a_damaged_record_is_named(one):
    (one / "run.json").write_text("{")
    one_error(runs("list", one), 1, [str(one / "run.json"), "line 1"])


@pytest.mark.parametrize("damaged", ["run.json", "config.yaml", "metrics.jsonl"])
def test_a_run_that_cannot_be_read_is_left_out_of_a_folder(damaged, tmp_path, uninterrupted):
    """The others are shown, one warning names the file, and the exit code says that something is missing."""
    folder = tmp_path / "runs"
    for name in ("broken", "first", "second"):
        make_run(uninterrupted, folder / name, {}, [0.3, 0.2, 0.25])
    (folder / "broken" / damaged).write_text("{\n{\n")
    table, plot, report = ["table", folder], ["plot", folder], ["report", folder]
    commands = [table, [*plot, "--out", tmp_path / "plot.png"], [*report, "--out", tmp_path / "report.html"]]
    if damaged == "run.json":
        commands += [["list", folder], ["watch", folder]]
    for words in commands:
        result = runs(*words)
        assert result.returncode == 1, result.stderr
        assert result.stderr.count("WARN") == 1 and "error:" not in result.stderr, result.stderr
        assert str(folder / "broken" / damaged) in result.stderr and "hint:" in result.stderr
    for words in ([*table, "--format", "json"], ["list", folder, "--json"]):
        rows = json.loads(runs(*words).stdout)
        names = {row["name"] for row in (rows["runs"] if isinstance(rows, dict) else rows)}
        assert names >= {"first", "second"}
    page = (tmp_path / "report.html").read_text()
    assert "first" in page and "second" in page and (tmp_path / "plot.png").exists()


@pytest.mark.parametrize("command", ["show", "note"])
def test_a_folder_that_is_not_a_run(command, tmp_path):
    one_error(runs(command, tmp_path), 1, [str(tmp_path), "not a run directory", "run.json", "hint:"])


def test_a_folder_that_does_not_exist(tmp_path):
    one_error(runs("list", tmp_path / "no"), 2, [str(tmp_path / "no"), "there is no folder"])


def test_an_unknown_metric_or_setting_has_a_suggestion(made, tmp_path):
    folder, _ = made
    one_error(runs("table", folder, "--metric", "val/los"), 2, ["val/los", "did you mean 'val/loss'?"])
    one_error(runs("plot", folder, "--metric", "pixel_loss"), 2, ["pixel_loss", "did you mean"])
    one_error(runs("table", folder, "--keys", "optimizer.lr"), 2, ["optimizer.lr", f"did you mean '{LR}'?"])
    one_error(runs("table", folder, "--metric", "val/loss", "--better", "higher"), 2, ["--better", "val/loss"])


def test_an_output_that_cannot_be_written(made, tmp_path):
    folder, _ = made
    file = tmp_path / "file"
    file.write_text("")
    one_error(
        runs("plot", folder / "0.001-1", "--metric", "val/loss", "--out", file / "a.png"), 1, [str(file / "a.png")]
    )
    one_error(runs("report", folder / "0.001-1", "--out", file / "a.html"), 1, [str(file / "a.html")])
    one_error(runs("note", folder / "0.001-1", "--out", file / "notes"), 1, [str(file / "notes")])
    one_error(
        runs("plot", folder / "0.001-1", "--metric", "val/loss", "--out", tmp_path / "a.txt"), 2, ["--out", "PNG"]
    )
