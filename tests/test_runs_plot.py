"""`hlrp runs plot | watch`: curves in a file and in the terminal."""

import os
import pty
import re
import subprocess
from pathlib import Path

from conftest import MINI, REPO, one_error, program, train_laq_command
from made_runs import LR, made_losses, output, runs, sweep


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
