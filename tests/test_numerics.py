"""Numerics as a test: a change that is not about computation leaves every loss as it was.

`tests/numerics` has a complete configuration for each run, on one CPU thread, so that changes of `config/` do not reach it, and the losses
that the program computed when it was frozen.

A key that the schema gains is added to these files by hand, with the value that keeps the computation; the losses stay. A change that is
about computation, and says so, writes new ones: `HLRP_WRITE_LOSSES=yes pytest tests/test_numerics.py`, then look at the difference.
"""

import json
import os
from pathlib import Path

import pytest
from conftest import REPO, program, read_metrics, run

FOLDER = REPO / "tests" / "numerics"
LOSSES = FOLDER / "losses.json"
# Instruction sets from SSE4 to AVX-512, and a second thread, change the losses of these runs by up to 3e-6; on one machine nothing does.
TOLERANCE = 3e-5
RUNS = ["laq", "expert", "pooled"]


def losses(run_dir: Path) -> list[dict]:
    """Every loss and squared error that a run recorded, by step."""
    lines = (
        {k: v for k, v in line.items() if "loss" in k or "_mse" in k or k == "step"} for line in read_metrics(run_dir)
    )
    return [line for line in lines if len(line) > 1]


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, list[dict]]:
    """The losses of every run, trained now."""
    folder = tmp_path_factory.mktemp("numerics")
    for name in RUNS:
        words = [f"--config-dir={FOLDER}", f"--config-name={name}", f"logging.run_dir={folder / name}"]
        teacher = [] if name == "laq" else [f"policy.teacher.checkpoint={folder / 'laq'}"]
        result = run([program("hlrp"), "train-laq" if name == "laq" else "train-vla", *words, *teacher])
        assert result.returncode == 0, result.stderr
    found = {name: losses(folder / name) for name in RUNS}
    if os.environ.get("HLRP_WRITE_LOSSES"):
        runs = (f' "{name}": [\n  ' + ",\n  ".join(map(json.dumps, lines)) + "\n ]" for name, lines in found.items())
        LOSSES.write_text("{\n" + ",\n".join(runs) + "\n}\n")
    return found


@pytest.mark.parametrize("name", RUNS)
def test_losses_are_those_of_before(found, name):
    stored = json.loads(LOSSES.read_text())[name]
    assert [line.keys() for line in found[name]] == [line.keys() for line in stored], (
        "the same losses at the same steps"
    )
    assert len([line for line in stored if "train/loss" in line]) == 20
    for now, before in zip(found[name], stored, strict=True):
        assert now == pytest.approx(before, rel=TOLERANCE, abs=1e-12)
