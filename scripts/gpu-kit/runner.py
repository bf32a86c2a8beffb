"""Runs the programs of the kit, keeps their logs and writes the report."""

import json
import os
import subprocess
import time
import traceback
from collections.abc import Callable
from pathlib import Path

REPO = Path(os.environ["HLRP_REPO"])


class Kit:
    """A run of the kit: its output folder, its folder for what programs write, its device, its time, and the batch of its benchmarks."""

    def __init__(self, out: Path, work: Path, device: str, seconds: float, batch_size: int = 2):
        self.out, self.work, self.device, self.batch_size = out, work, device, batch_size
        self.end = self.deadline = time.monotonic() + seconds
        self.failed, self.left_out = [], []
        out.mkdir(parents=True, exist_ok=True)
        self.report = (out / "results.md").open("w")

    def line(self, text: str = "") -> None:
        """Prints a line and makes it durable."""
        print(text, flush=True)
        self.report.write(text + "\n")
        self.report.flush()
        os.fsync(self.report.fileno())

    @property
    def is_tiny(self) -> bool:
        """Whether benchmarks have tiny sizes: on the CPU."""
        return self.device == "cpu"

    def left(self) -> float:
        """Seconds until the time of the part is up."""
        return self.deadline - time.monotonic()

    def part(self, name: str, of: Callable[["Kit"], None], fraction: float) -> None:
        """One part, within its fraction of the time that is left: neither an error nor a program that hangs takes the other parts along."""
        self.deadline = time.monotonic() + fraction * (self.end - time.monotonic())
        try:
            of(self)
        except Exception as error:
            (self.out / f"{name}.log").write_text(traceback.format_exc())
            self.check(name, False, f"{type(error).__name__}: {error}")

    def run(self, name: str, command: list, expected: tuple[int, ...] = (0,)) -> str | None:
        """Standard output of a program; none when it failed or the time is up."""
        left = self.left()
        if left < 5:
            return self.leave_out(name, "left out, the time is up")
        log = self.out / f"{name}.log"
        words = [str(part) for part in command]
        try:
            with log.open("w") as errors:
                done = subprocess.run(
                    words, cwd=REPO, stdout=subprocess.PIPE, stderr=errors, text=True, timeout=left, check=False
                )
        except subprocess.TimeoutExpired:
            return self.leave_out(name, "stopped, the time is up")
        if done.returncode in expected:
            return done.stdout
        with log.open("a") as errors:
            errors.write(done.stdout)
        tail = " / ".join(log.read_text().strip().splitlines()[-3:])
        self.check(name, False, f"exit code {done.returncode}: {tail[-400:]}")
        return None

    def leave_out(self, name: str, how: str) -> None:
        """Reports and remembers what there was no time for."""
        self.line(f"- {name}: {how}")
        self.left_out.append(name)

    def outcome(self) -> str:
        """What failed and what was left out."""
        failed = f"failed: {', '.join(self.failed)}" if self.failed else "no check failed"
        return failed + (f"; not done: {', '.join(self.left_out)}" if self.left_out else "")

    def said(self, name: str, text: str) -> bool:
        """Whether the log of a program has that text."""
        return text in (self.out / f"{name}.log").read_text()

    def check(self, name: str, passed: bool, what: str) -> None:
        """A check's line."""
        self.line(f"- {name}: {'ok' if passed else 'FAILED'}, {what}")
        if not passed:
            self.failed.append(name)

    def figures(self, name: str, command: list) -> dict | None:
        """The JSON object on the last line of a benchmark; also kept as a file."""
        text = self.run(name, command)
        if not text:
            return None
        figures = json.loads(text.strip().splitlines()[-1])
        (self.out / f"{name}.json").write_text(json.dumps(figures, indent=1))
        return figures
