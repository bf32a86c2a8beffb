"""`hlrp runs`: what it says of run directories, compared with what is computed from the files here."""

import csv
import fcntl
import hashlib
import io
import json
import os
import pty
import re
import shutil
import statistics
import subprocess
from pathlib import Path
from random import Random

import pytest
from conftest import MINI, REPO, one_error, program, read_metrics, run, train_laq_command
from made_runs import change_record, make_run, sweep, write_rows

RATES, SEEDS = [1e-4, 1e-3, 3e-3], [1, 2, 3, 4]
LR = "training.optimizer.lr"


def runs(*words: object, **kwargs) -> subprocess.CompletedProcess:
    return run([program("hlrp"), "runs", *map(str, words)], **kwargs)


def output(*words: object, **kwargs) -> str:
    result = runs(*words, **kwargs)
    assert result.returncode == 0, result.stderr
    return result.stdout


def made_losses(rate: float, seed: int) -> list[float]:
    random = Random(f"{rate} {seed}")
    return [random.uniform(0.1, 1.0) for _ in range(3)]


@pytest.fixture(scope="module")
def made(tmp_path_factory, uninterrupted):
    """A folder of a sweep, and the values of val/loss of each run by learning rate and seed."""
    folder = tmp_path_factory.mktemp("sweep")
    return folder, sweep(uninterrupted, folder, RATES, SEEDS, made_losses)


@pytest.fixture
def one(tmp_path, uninterrupted) -> Path:
    """A run of its own, to be changed."""
    return make_run(uninterrupted, tmp_path / "one", {"seed": 7}, [0.3, 0.2, 0.25])


# What a run records


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_run_records_its_data_what_it_ran_on_and_what_it_left(uninterrupted):
    manifest = json.loads((uninterrupted / "run.json").read_text())
    [session] = manifest["sessions"]
    assert (manifest["format"], session["status"], session["working_dir"]) == (3, "finished", str(REPO))
    shown = run([program("hlrp"), "data", "show", session["data"]["metaworld_mt5"]["root"]]).stdout
    assert session["data"]["metaworld_mt5"]["fingerprint"] in shown
    assert session["data"]["metaworld_mt5"]["num_episodes"] == 50
    assert session["devices"]["num_cores"] == len(os.sched_getaffinity(0)) and session["devices"]["cpu"]
    outputs = {output["role"]: output for output in session["outputs"]}
    assert outputs.keys() == {"checkpoints/last", "checkpoints/best"}
    for artifact in outputs.values():
        assert artifact["sha256"] == sha256(Path(artifact["path"]) / "model.safetensors")


def test_an_input_is_recorded_with_the_digest_of_its_weights(uninterrupted_vla, uninterrupted):
    [session] = json.loads((uninterrupted_vla / "run.json").read_text())["sessions"]
    [teacher] = session["inputs"]
    last = (uninterrupted / "checkpoints/last").read_text().strip()
    assert teacher["sha256"] == sha256(uninterrupted / "checkpoints" / last / "model.safetensors")
    roles = {output["role"] for output in session["outputs"]}
    assert roles >= {"checkpoints/last", "artifacts/final"}


def test_a_run_keeps_the_changes_of_the_code_without_secrets(tmp_path):
    repository = tmp_path / "code"
    repository.mkdir()
    git = ["git", "-C", repository, "-c", "user.name=a", "-c", "user.email=a@b.c"]
    (repository / "model.py").write_text("depth = 1\n")
    for words in [["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]]:
        assert run([*git, *words]).returncode == 0
    secret = "hf_Pl4ntedInTheCode"
    (repository / "model.py").write_text(f'depth = 2\nhub = "{secret}"\n')
    (repository / "new.py").write_text("")
    data = [f"data.sources.metaworld_mt5.root={REPO}/tests/data/metaworld_mt5", "training.max_steps=2"]
    words = [*MINI, *data, "training.scheduler.warmup_steps=1", f"logging.run_dir={tmp_path}/run"]
    env = os.environ | {"HLRP_CONFIG_DIR": str(REPO / "config")}
    result = run(train_laq_command(*words), cwd=repository, env=env)
    assert result.returncode == 0, result.stderr
    [session] = json.loads((tmp_path / "run/run.json").read_text())["sessions"]
    assert session["git"]["dirty"] is True
    patch = (tmp_path / "run" / session["git"]["patch"]).read_text()
    assert "-depth = 1\n+depth = 2\n" in patch and "  new.py\n" in patch
    assert secret not in patch and "***" in patch


def test_a_failed_run_records_its_exit_code(tmp_path):
    folder = tmp_path / "run"
    words = [*MINI, "training.optimizer.lr=1e9", "training.gradient.clip_norm=null", f"logging.run_dir={folder}"]
    result = run(train_laq_command(*words))
    assert result.returncode == 1, result.stderr
    [session] = json.loads((folder / "run.json").read_text())["sessions"]
    assert (session["status"], session["exit_code"]) == ("failed", 1)
    assert "exit code 1" in output("show", folder)


def test_a_run_of_an_older_format_is_read(one):
    def as_format_2(manifest):
        manifest["format"] = 2
        for session in manifest["sessions"]:
            for key in ("data", "outputs", "devices", "working_dir"):
                session.pop(key, None)

    change_record(one, as_format_2)
    [listed] = json.loads(output("list", one, "--json"))
    assert (listed["status"], listed["step"]) == ("finished", 24)


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


def best_of(losses: list[float]) -> float:
    return min(losses)


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


# Plots


def pixels(path: Path) -> set[tuple[int, ...]]:
    from PIL import Image

    image = Image.open(path).convert("RGB")
    assert image.width == 1200
    return set(image.getdata())


def test_each_run_has_a_colour_and_a_group_a_band(made, tmp_path):
    folder, _ = made
    out = tmp_path / "plot.png"
    two = [folder / "0.0001-1", folder / "0.001-1"]
    assert f"{out} has 2 curves" in output("plot", *two, "--metric", "val/loss", "--out", out)
    assert {(0, 114, 178), (213, 94, 0)} <= pixels(out)
    assert (0, 158, 115) not in pixels(out)
    text = output("plot", folder, "--metric", "val/loss", "--group-by", LR, "--log-y", "--out", out)
    assert "3 curves" in text
    band = (204, 227, 240)  # a fifth of the first colour on white
    assert any(all(abs(a - b) <= 2 for a, b in zip(pixel, band, strict=True)) for pixel in pixels(out))


def test_more_curves_than_can_be_told_apart_are_refused(tmp_path, uninterrupted):
    sweep(uninterrupted, tmp_path / "many", [1e-4, 2e-4], list(range(11)), made_losses)
    refused = runs("plot", tmp_path / "many", "--metric", "val/loss", "--out", tmp_path / "plot.png")
    one_error(refused, 2, ["22 curves", "21", "--group-by"])
    assert not (tmp_path / "plot.png").exists()


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


# Notes and their index


def test_a_note_has_the_figures_and_never_replaces_what_was_written(one, tmp_path):
    out = tmp_path / "docs/runs"
    output("note", one, "--out", out)
    path = out / "one.md"
    text = path.read_text()
    assert "| status" in text and "val/pixel_loss" in text and f"hlrp reproduce {one}" in text
    mine = text.replace("_To be written._", "It learns to predict the flow.", 1)
    path.write_text(mine)
    assert "up to date" in output("note", one, "--out", out) and path.read_text() == mine
    change_record(one, lambda manifest: manifest["sessions"][0].update(host="another"))
    assert "what you wrote is unchanged" in output("note", one, "--out", out)
    assert "another" in path.read_text() and "It learns to predict the flow." in path.read_text()
    path.write_text(path.read_text().replace("another", "edited"))
    change_record(one, lambda manifest: manifest["sessions"][0].update(host="third"))
    one_error(runs("note", one, "--out", out), 2, ["one.md", "figures have been edited", "hint:"])
    assert "edited" in path.read_text()


def test_the_index_leads_to_notes_and_tables(one, tmp_path):
    docs = tmp_path / "docs"
    output("note", one, "--out", docs / "runs")
    path = docs / "runs/one.md"
    path.write_text(path.read_text().replace("## Outcome\n\n_To be written._", "## Outcome\n\nIt learns."))
    (docs / "results").mkdir()
    (docs / "results/laq.md").write_text("# Latents\n\n## Sizes\n\n## Decoders\n")
    one_error(runs("index", docs / "runs", "--check"), 1, ["experiments.md is not up to date", "hlrp runs index"])
    output("index", docs / "runs")
    text = (docs / "experiments.md").read_text()
    assert "[one](runs/one.md)" in text and "It learns." in text and "laq_tiny (laq)" in text
    assert "[Latents](results/laq.md): Sizes; Decoders" in text
    output("index", docs / "runs", "--check")


def test_the_index_of_this_repository_is_current():
    output("index", "docs/runs", "--check")
    for target in re.findall(r"\]\(([^)]+)\)", (REPO / "docs/experiments.md").read_text()):
        assert (REPO / "docs" / target).is_file(), target


# Watching


def test_a_run_is_watched_until_it_ends(tmp_path):
    folder = tmp_path / "run"
    training = subprocess.Popen(
        train_laq_command(*MINI, f"logging.run_dir={folder}"),
        cwd=REPO,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    while not (folder / "run.json").exists():
        assert training.poll() is None, training.stderr.read()
    text = output("watch", folder, "--metric", "train/loss", "--interval", "0.1")
    assert training.wait() == 0
    assert [int(step) for step in re.findall(r"^run step=(\d+) train/loss=\d", text, re.MULTILINE)] == list(
        range(1, 25)
    )
    assert text.endswith("run: finished after 24 steps\n")


def test_a_terminal_shows_curves(uninterrupted):
    ours, theirs = pty.openpty()
    command = [program("hlrp"), "runs", "watch", str(uninterrupted), "--metric", "train/loss,val/loss"]
    watching = subprocess.Popen(command, cwd=REPO, stdout=theirs, stderr=subprocess.PIPE, text=True)
    os.close(theirs)
    text = b""
    while chunk := read_terminal(ours):
        text += chunk
    assert watching.wait() == 0, watching.stderr.read()
    shown = text.decode()
    assert "train/loss = " in shown and "val/loss = " in shown
    assert sum("\u2801" <= char <= "\u28ff" for char in shown) > 100, "braille dots"


def read_terminal(handle: int) -> bytes:
    try:
        return os.read(handle, 4096)
    except OSError:  # the other side is closed
        return b""


# The page


def test_a_report_is_one_self_contained_page(made, uninterrupted, tmp_path):
    folder, losses = made
    out = tmp_path / "report.html"
    output("report", folder, uninterrupted, "--metric", "val/loss,train/loss", "--out", out)
    page = out.read_text()
    sources = re.findall(r'(?:src|href)="([^"]{0,22})', page)
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    smallest = min(best_of(values) for values in losses.values())
    assert (
        f"★ {smallest:.4f}" in page
        or min(row["val/loss"] for row in read_metrics(uninterrupted) if "val/loss" in row) < smallest
    )
    assert page.count('<figure class="large">') == 2
    assert "Settings that differ" in page and LR in page
    for name in [f"{rate}-{seed}" for rate in RATES for seed in SEEDS]:
        assert f"<h2>{name} (finished)</h2>" in page


@pytest.mark.slow
def test_chromium_shows_the_report(made, uninterrupted, tmp_path):
    from PIL import Image

    folder, _ = made
    out, picture = tmp_path / "report.html", tmp_path / "report.png"
    output("report", folder, uninterrupted, "--metric", "val/loss", "--out", out)
    browser = shutil.which("chromium")
    assert browser, "chromium is missing: run `make setup SLOW=yes`"
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --window-size=1200,1600"
    command = [browser, *flags.split(), f"--user-data-dir={tmp_path}/profile"]
    assert run([*command, f"--screenshot={picture}", f"file://{out}"]).returncode == 0
    image = Image.open(picture).convert("RGB")
    assert image.size == (1200, 1600)
    colours = set(image.getdata())
    assert {(34, 34, 34), (0, 114, 178), (213, 94, 0)} <= colours, "text and two curves are drawn"
    shown = run([*command, "--dump-dom", f"file://{out}"]).stdout
    assert "Settings that differ" in shown and shown.count("<tr>") > 20


# Reproduction


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


def test_an_unwritable_run_directory_is_one_error_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file/run"
    one_error(run(train_laq_command(*MINI, f"logging.run_dir={folder}")), 1, [str(folder), "Not a directory"])


def test_two_processes_on_one_run_directory(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    with (folder / ".lock").open("w") as lock:
        lock.write("process 1 on here\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = run(
            train_laq_command("--resume", folder, "training.resume_from_checkpoint=" + first_checkpoint(folder))
        )
    one_error(result, 73, [str(folder), "in use by process 1 on here"])


def first_checkpoint(folder: Path) -> str:
    return str(min(path for path in (folder / "checkpoints").iterdir() if path.name.startswith("step-")))
