"""How the benchmarks run a program and read its figures."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
EXAMPLES = Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target")) / "release" / "examples"


def output_of(command: list, environment: dict[str, str] | None = None) -> bytes:
    """What a program prints."""
    environment = os.environ | (environment or {})
    result = subprocess.run([str(word) for word in command], cwd=REPO, capture_output=True, env=environment)
    if result.returncode:
        sys.exit(f"error: {' '.join(map(str, command))} failed:\n{result.stderr.decode(errors='replace')}")
    return result.stdout


def json_of(command: list, environment: dict[str, str] | None = None) -> dict:
    """Runs a program and reads the JSON object in its last line."""
    return json.loads(output_of(command, environment).splitlines()[-1])


def median(rounds: list[dict], key: str) -> float | None:
    values = [figures[key] for figures in rounds if key in figures]
    return statistics.median(values) if values else None
