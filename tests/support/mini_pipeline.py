"""A pipeline whose stages 1 and 2 are of mini size."""

import json
from pathlib import Path

from conftest import MINI, VLA_MINI, program

NAMES = ["1_laq", "2_vla", "3_lerobot", "4_rollout_button_press"]


def pipeline(run_dir: Path, lerobot: list[str], rollout: list[str], *words: str) -> list[str]:
    """The command that runs mini models through all stages, with one evaluation."""

    def overrides(step: str, given: list[str]) -> str:
        return f"pipeline.{step}.overrides={json.dumps(given)}"

    steps = [overrides("laq", MINI[1:]), overrides("vla", VLA_MINI[1:])]
    steps += [overrides("lerobot", lerobot), overrides("rollouts.button_press", rollout)]
    shared = ["experiment=pipeline_tiny", f"logging.run_dir={run_dir}", "logging.min_free_gb=0.01"]
    shared.append("~pipeline.rollouts.button_press_blind")
    return [program("hlrp"), "pipeline", *shared, *steps, *words]
