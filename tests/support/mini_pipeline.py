"""A pipeline whose stages 1 and 2 are of mini size."""

import json
from pathlib import Path

from conftest import MINI, VLA_MINI, program

NAMES = ["1_laq", "2_vla", "3_lerobot", "4_rollout_door_close"]


def pipeline(run_dir: Path, lerobot: list[str], rollout: list[str], *words: str) -> list[str]:
    """The command that runs mini models through all stages."""

    def overrides(step: str, given: list[str]) -> str:
        return f"pipeline.{step}.overrides={json.dumps(given)}"

    steps = [overrides("laq", MINI[1:]), overrides("vla", VLA_MINI[1:])]
    steps += [overrides("lerobot", lerobot), overrides("rollouts.door_close", rollout)]
    shared = ["experiment=pipeline_tiny", f"logging.run_dir={run_dir}", "logging.min_free_gb=0.01"]
    return [program("hlrp"), "pipeline", *shared, *steps, *words]
