"""A stand-in for the W&B service, and what programs need to find it and nothing else."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import MINI, REPO, program, read_metrics, run, train_laq_command

RECORDER = Path(__file__).with_name("wandb_recorder.py")
ENTITY, PROJECT = "testuser", "hlrp"
# The form of a key; every key works but forty times 'b' (401) and 'c' (403).
KEY = "Pl4ntedKey" * 4

# Times of the service, scaled to a test's: the ratios are those of the defaults.
FAST = [
    "logging.use_wandb=true",
    "logging.wandb.upload_interval_s=0.3",
    "logging.wandb.heartbeat_interval_s=0.6",
    "logging.wandb.stats_interval_s=0.3",
    "logging.wandb.retry_min_s=0.05",
    "logging.wandb.retry_max_s=0.5",
]


class Recorder:
    """The stand-in, in a process of its own."""

    def __init__(self, folder: Path, *options: str):
        self.folder = folder
        port_file = folder / "port"
        command = [sys.executable, str(RECORDER), "--port", "0", "--port-file", str(port_file), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not (port_file.exists() and port_file.read_text().strip()):
            assert time.monotonic() < deadline and self.process.poll() is None, "the recorder did not start"
            time.sleep(0.02)
        self.url = f"http://127.0.0.1:{port_file.read_text().strip()}"

    def ask(self, path: str, body: dict | None = None):
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.url}/__recorder/{path}", data, timeout=30) as answer:
            return json.loads(answer.read())

    def fail(self, match: str, **fault: object) -> None:
        """The next requests whose method, path and operation contain `match` get this answer."""
        self.ask("faults", {"match": match, **fault})

    def holds(self) -> int:
        """Requests that have arrived and have no answer yet, because of a fault with a delay."""
        return self.ask("health")["held"]

    def heal(self) -> None:
        self.ask("faults", {"clear": True})

    def reset(self) -> None:
        self.ask("reset", {})

    def runs(self) -> dict[str, dict]:
        """Every run by its id."""
        state = self.ask("state")
        return {run["name"]: run for run in state["runs"]}

    def only_run(self) -> dict:
        runs = self.runs()
        assert len(runs) == 1, list(runs)
        return next(iter(runs.values()))

    def requests(self) -> list[dict]:
        return self.ask("requests")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()

    def env(self, **changes: str) -> dict[str, str]:
        """The environment of a program that reaches the stand-in, with a home of its own."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        own = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "NETRC"))}
        mine = {"HOME": str(home), "WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY}
        return {**own, **mine, **changes}


@pytest.fixture
def recorder(tmp_path_factory):
    recorder = Recorder(tmp_path_factory.mktemp("recorder"))
    yield recorder
    recorder.stop()


def train(recorder: Recorder, run_dir: Path, *words: object, **env: str) -> subprocess.CompletedProcess:
    """Trains the mini model, recorded for W&B."""
    command = train_laq_command(*MINI, *FAST, f"logging.run_dir={run_dir}", *words)
    return run(command, env=recorder.env(**env))


def resume(recorder: Recorder, run_dir: Path, *words: object, **env: str) -> subprocess.CompletedProcess:
    return run(train_laq_command("--resume", run_dir, *words), env=recorder.env(**env))


def sync(recorder: Recorder, *words: object, **env: str) -> subprocess.CompletedProcess:
    return run([program("hlrp"), "runs", "sync", *map(str, words)], env=recorder.env(**env))


@dataclass(frozen=True)
class OfficialClient:
    """A release of the official client."""

    path: Path
    # What a run without an end becomes: state and exit code.
    without_end: tuple[str, int]
    # Whether one call uploads several sessions of a run; else each later one has to be appended.
    has_sessions: bool

    def sync(self, recorder: Recorder, run_dir: Path) -> str:
        """Uploads the sessions of a run, and returns what it prints."""
        assert self.path.exists(), f"{self.path} is missing: run `make setup SLOW=yes`"
        folders = sorted(path for path in (run_dir / "wandb").iterdir() if path.is_dir() and "run-" in path.name)
        calls = [folders] if self.has_sessions else [[folder] for folder in folders]
        printed = ""
        for number, call in enumerate(calls):
            append = ["--append"] if number > 0 else []
            command = [str(self.path), "sync", *append, *map(str, call)]
            # The client writes its own logs into the folder that it is started in.
            result = run(command, cwd=recorder.folder, env=recorder.env())
            assert result.returncode == 0, result.stdout + result.stderr
            printed += result.stdout + result.stderr
        return printed


# The client of this environment, and the newest one.
OFFICIAL_0_27 = OfficialClient(REPO / ".venv/bin/wandb", ("finished", 0), has_sessions=False)
OFFICIAL_0_31 = OfficialClient(REPO / "target/newest-wandb/bin/wandb", ("failed", 1), has_sessions=True)


@pytest.fixture(params=[OFFICIAL_0_27, pytest.param(OFFICIAL_0_31, marks=pytest.mark.slow)], ids=["0.27", "0.31"])
def official(request) -> OfficialClient:
    return request.param


def rows(run: dict) -> list[dict]:
    """The rows of the history without what depends on the clock."""
    clock = ("_runtime", "_timestamp")
    return [
        {key: value for key, value in json.loads(row).items() if key not in clock and not is_time(key)}
        for row in run["history"]
    ]


def is_time(key: str) -> bool:
    return key.startswith(("time/", "perf/"))


def expected_rows(run_dir: Path) -> list[dict]:
    """What `metrics.jsonl` says the scalars of the history are: all lines of a step are one row."""
    merged: dict[int, dict] = {}
    for line in read_metrics(run_dir):
        step = line.pop("step")
        merged.setdefault(step, {"_step": step}).update(line)
    return list(merged.values())


def scalars(run: dict) -> list[dict]:
    """The rows without images."""
    return [{key: value for key, value in row.items() if not isinstance(value, dict)} for row in rows(run)]


def assert_whole(run: dict, run_dir: Path, exit_code: int = 0) -> None:
    """The service has everything that the run recorded, once, and no request broke a rule."""
    assert run["violations"] == []
    assert scalars(run) == expected_rows(run_dir)
    assert (run["state"], run["exitcode"]) == ("finished" if exit_code == 0 else "failed", exit_code)
    last = rows(run)[-1]
    assert {key: run["summary"][key] for key in last} == last
    assert not {None} & set(run["output"]) and len(run["output"]) > 3
    assert set(run["uploaded_reported"]) == set(run["files"])
