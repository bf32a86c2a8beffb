"""`hlrp runs note | index | report`: pages about runs."""

import re
import shutil

import pytest
from conftest import REPO, one_error, read_metrics, run
from made_runs import LR, RATES, SEEDS, best_of, change_record, output, runs


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
