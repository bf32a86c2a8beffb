"""W&B while a run goes on: what the service gets, what a failing service changes (nothing), and how a run is resumed and stopped."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import MINI, REPO, one_error, read_metrics, run, train_laq_command
from interruption import INTERRUPTED, kill, last_step, wait_for
from wandb_world import FAST, KEY, PROJECT, Recorder, assert_whole, expected_rows, resume, rows, scalars, sync, train

# A run of the same content, recorded by the official client.
OFFICIAL = """
import json, sys, wandb
settings = json.loads(sys.argv[1])
run = wandb.init(project="hlrp", config=settings["config"], name=settings["name"], **settings["init"])
for row in settings["rows"]:
    step = row.pop("_step", None)
    run.log(row, step=step)
run.finish(exit_code=settings["exit_code"])
"""


def official(recorder: Recorder, rows: list[dict], folder: Path, config: dict | None = None, **init: object) -> None:
    settings = {"rows": rows, "config": config or {}, "name": "laq_tiny", "init": init, "exit_code": 0}
    command = [sys.executable, "-c", OFFICIAL, json.dumps(settings)]
    result = run(command, env=recorder.env(WANDB_DIR=str(folder)))
    assert result.returncode == 0, result.stdout + result.stderr


def without_empty_sections(value: object) -> object:
    """The official client drops them."""
    if not isinstance(value, dict):
        return value
    return {key: without_empty_sections(inner) for key, inner in value.items() if inner != {}}


def start(recorder: Recorder, *words: object, **env: str) -> subprocess.Popen:
    env = recorder.env(**env)
    command = train_laq_command(*words)
    return subprocess.Popen(command, cwd=REPO, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> list[dict]:
    """The metrics of a run that is not recorded on W&B."""
    run_dir = tmp_path_factory.mktemp("plain") / "run"
    result = run(train_laq_command(*MINI, f"logging.run_dir={run_dir}"))
    assert result.returncode == 0, result.stderr
    return read_metrics(run_dir)


def test_a_run_is_as_the_official_client_records_it(recorder, tmp_path, plain):
    """Field by field; the differences that are meant are in docs/wandb.md."""
    run_dir = tmp_path / "run"
    words = ["logging.wandb.tags=[a,b]", "logging.wandb.group=group", "logging.wandb.notes=notes"]
    result = train(recorder, run_dir, *words, WANDB_RUN_ID="ours1234", WANDB_JOB_TYPE="train")
    assert result.returncode == 0, result.stderr
    assert f"{recorder.url}/testuser/hlrp/runs/ours1234" in result.stderr
    ours = recorder.only_run()
    assert_whole(ours, run_dir)
    assert read_metrics(run_dir) == plain
    assert any("checkpoint " in line for line in ours["output"])
    assert any("system.cpu" in event for event in ours["events"])
    images = [name for name in ours["files"] if name.startswith("media/images/validation/")]
    assert len(images) == len(list((run_dir / "validation").glob("*/*.png"))) > 0
    metadata = next((run_dir / "wandb").glob("run-*/files/wandb-metadata.json"))
    assert json.loads(metadata.read_text())["program"].endswith("hlrp-train-laq")

    config = {key: entry["value"] for key, entry in ours["config"].items() if key not in ("_wandb", "hlrp")}
    init = {"id": "theirs12", "group": "group", "notes": "notes", "job_type": "train", "tags": ["a", "b"]}
    official(recorder, scalars(ours), tmp_path, config, **init)
    theirs = recorder.runs()["theirs12"]
    assert scalars(theirs) == scalars(ours)
    assert rows(theirs)[0].keys() == {key for key in rows(ours)[0] if "image" not in key}
    every_row = theirs["history"] + ours["history"]
    assert all(json.loads(row).keys() >= {"_step", "_runtime", "_timestamp"} for row in every_row)
    ours_config = {key: value for key, value in ours["config"].items() if key not in ("_wandb", "hlrp")}
    their_config = {key: value for key, value in theirs["config"].items() if key != "_wandb"}
    assert without_empty_sections(ours_config) == without_empty_sections(their_config)
    assert ours["config"]["_wandb"]["value"].keys() >= {"t", "m", "e", "cli_version"}
    for name in ("state", "exitcode", "tags", "displayName", "entity", "project"):
        assert ours[name] == theirs[name], name
    for name in ("groupName", "notes", "jobType", "host", "commit"):
        assert ours["fields"].get(name) == theirs["fields"].get(name), name
    numbers = {key: value for key, value in ours["summary"].items() if isinstance(value, float | int) and key[0] != "_"}
    assert {key: value for key, value in numbers.items() if not key.startswith(("time/", "perf/"))} == {
        key: value for key, value in theirs["summary"].items() if isinstance(value, float | int) and key[0] != "_"
    }
    assert {"_step", "_runtime", "_timestamp", "_wandb"} <= ours["summary"].keys() & theirs["summary"].keys()
    event = json.loads(ours["events"][-1]).keys()
    official_keys = {"system.cpu", "system.memory_percent", "system.proc.memory.rssMB", "system.disk./.usagePercent"}
    assert official_keys <= event
    assert {"wandb-metadata.json", "config.yaml", "wandb-summary.json", "output.log"} <= ours["files"].keys()


PASSING = {
    "rate limit": [("file_stream", {"status": 429, "headers": {"Retry-After": "1"}, "times": 2})],
    "errors": [("file_stream", {"status": 500, "times": 3}), ("UpsertBucket", {"status": 502, "times": 2})],
    "dropped connections": [("POST", {"drop": True, "times": 8})],
    "silence": [("file_stream", {"status": 503, "delay": 1.0, "times": 3})],
    "conflict": [("UpsertBucket", {"status": 409})],
    "files": [("PUT", {"status": 503, "times": 3}), ("CreateRunFiles", {"status": 500, "times": 2})],
    "expired address": [("PUT", {"status": 403})],
    "garbage": [("file_stream", {"status": 200, "body": "<html>login</html>", "times": 3})],
    "garbage of GraphQL": [("UpsertBucket", {"status": 200, "body": ["?"], "times": 3})],
}


@pytest.mark.parametrize("faults", PASSING.values(), ids=PASSING.keys())
def test_a_fault_that_passes_changes_nothing(recorder, tmp_path, plain, faults):
    for match, fault in faults:
        recorder.fail(match, **fault)
    result = train(recorder, tmp_path / "run")
    assert result.returncode == 0, result.stderr
    assert_whole(recorder.only_run(), tmp_path / "run")
    assert read_metrics(tmp_path / "run") == plain
    assert any(request.get("fault") for request in recorder.requests())


def test_a_training_goes_on_while_the_service_is_silent(recorder, tmp_path):
    """Steps, validations and checkpoints come and go while one request has no answer; what it kept back is uploaded later."""
    run_dir = tmp_path / "run"
    hour = 3600
    recorder.fail("file_stream", delay=hour, times=1000)
    words = [
        *MINI,
        *FAST,
        "training.max_steps=100000",
        "logging.wandb.finish_timeout_s=1",
        f"logging.run_dir={run_dir}",
    ]
    process = start(recorder, *words)
    wait_for(process, lambda: recorder.holds() == 1)
    silent_from = last_step(run_dir)
    wait_for(process, lambda: last_step(run_dir) >= silent_from + 50)
    assert recorder.holds() == 1 and recorder.only_run()["history"] == []
    checkpoints = [int(path.name.removeprefix("step-")) for path in (run_dir / "checkpoints").glob("step-*")]
    assert max(checkpoints) > silent_from
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == INTERRUPTED
    assert f"hlrp runs sync {run_dir}" in process.stderr.read()
    recorder.heal()
    result = sync(recorder, run_dir)
    assert result.returncode == 0, result.stderr
    assert_whole(recorder.only_run(), run_dir, exit_code=INTERRUPTED)


LASTING = {
    "no permission any more": {"match": "file_stream", "status": 401, "times": 1},
    "the run was deleted": {"match": "file_stream", "status": 404, "times": 1},
    "an outage to the end": {"match": "", "status": 500, "times": 10_000},
}


@pytest.mark.parametrize("fault", LASTING.values(), ids=LASTING.keys())
def test_what_a_fault_kept_from_the_service_is_uploaded_later(recorder, tmp_path, plain, fault):
    run_dir = tmp_path / "run"
    recorder.fail(**fault)
    result = train(recorder, run_dir, "logging.wandb.finish_timeout_s=2")
    assert result.returncode == 0, result.stderr
    assert f"hlrp runs sync {run_dir}" in result.stderr
    assert read_metrics(run_dir) == plain
    recorder.heal()
    result = sync(recorder, run_dir)
    assert result.returncode == 0, result.stderr
    assert_whole(recorder.only_run(), run_dir)


def test_a_service_that_is_not_there_ends_no_run(recorder, tmp_path, plain):
    run_dir = tmp_path / "run"
    result = train(recorder, run_dir, "logging.wandb.finish_timeout_s=1", WANDB_BASE_URL="http://127.0.0.1:9")
    assert result.returncode == 0, result.stderr
    assert "cannot be reached" in result.stderr and "hlrp runs sync" in result.stderr
    assert read_metrics(run_dir) == plain
    assert sync(recorder, run_dir).returncode == 0
    assert_whole(recorder.only_run(), run_dir)


def test_a_run_keeps_its_id_and_every_step_is_there_once(recorder, tmp_path):
    """Interrupted, killed, resumed, while the service is asked what it has."""
    run_dir = tmp_path / "run"
    process = start(recorder, *MINI, *FAST, f"logging.run_dir={run_dir}")
    wait_for(process, lambda: last_step(run_dir) >= 7)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == INTERRUPTED
    interrupted = recorder.only_run()
    assert (interrupted["state"], interrupted["exitcode"], interrupted["preempting"]) == ("failed", INTERRUPTED, True)
    process = start(recorder, "--resume", run_dir)
    wait_for(process, lambda: last_step(run_dir) >= 13)
    kill(process)
    result = resume(recorder, run_dir)
    assert result.returncode == 0, result.stderr
    assert_whole(recorder.only_run(), run_dir)
    times = [json.loads(row)["_runtime"] for row in recorder.only_run()["history"]]
    assert times == sorted(times)
    one_error(resume(recorder, run_dir, WANDB_RUN_ID="another1"), 2, ["WANDB_RUN_ID", "a run keeps its id"])


def test_the_official_client_continues_our_run_and_we_continue_its(recorder, tmp_path):
    run_dir = tmp_path / "run"
    first = [{"_step": step, "loss": 1.0 / (step + 1)} for step in range(5)]
    official(recorder, first, tmp_path, {"theirs": 1}, id="shared12")
    result = train(recorder, run_dir, WANDB_RUN_ID="shared12", WANDB_RESUME="must")
    assert result.returncode == 0, result.stderr
    shared = recorder.only_run()
    ours = [{**row, "_step": row["_step"] + 4} for row in expected_rows(run_dir)]
    assert scalars(shared) == first + ours and shared["violations"] == []
    assert shared["config"]["theirs"]["value"] == 1 and "training" in shared["config"]
    official(recorder, [{"loss": 0.5}], tmp_path, id="shared12", resume="must")
    assert scalars(recorder.only_run())[-1] == {"_step": 29, "loss": 0.5}, "the step after our last one"
    assert recorder.only_run()["violations"] == []


def test_a_user_stops_a_run_on_its_page(recorder, tmp_path):
    run_dir = tmp_path / "run"
    process = start(recorder, *MINI, *FAST, f"logging.run_dir={run_dir}", "training.max_steps=100000")
    wait_for(process, lambda: any(run["history"] for run in recorder.runs().values()))
    recorder.ask(f"stop/testuser/{PROJECT}/{recorder.only_run()['name']}", {})
    assert process.wait(60) == INTERRUPTED
    assert "a user has stopped this run" in process.stderr.read()
    assert (run_dir / "checkpoints" / "last").exists()
    stopped = recorder.only_run()
    assert (stopped["state"], stopped["exitcode"], stopped["preempting"]) == ("failed", 255, False)
    assert stopped["violations"] == []


def test_a_quiet_run_gives_signs_of_life(recorder, tmp_path):
    words = [
        "logging.wandb.stats_interval_s=null",
        "training.log_every_n_steps=1000000",
        "validation.check_interval=100000",
    ]
    words += [
        "training.max_steps=100000",
        "training.checkpoint.every_n_steps=100000",
        f"logging.run_dir={tmp_path / 'run'}",
    ]
    words += ["model.quantizer.nsvq.refresh_schedule=[]"]
    process = start(recorder, *MINI, *FAST, *words, WANDB_CONSOLE="off")
    deadline = time.monotonic() + 60
    while not any(run["heartbeats"] > 1 for run in recorder.runs().values()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == INTERRUPTED
    assert recorder.only_run()["violations"] == [] and recorder.only_run()["output"] == []


def test_requests_keep_to_the_rate(recorder, tmp_path):
    """At most one request with data in an interval, but for the first, the last and a preemption."""
    result = train(recorder, tmp_path / "run", "logging.wandb.upload_interval_s=2", "training.max_steps=60")
    assert result.returncode == 0, result.stderr
    times = [request["t"] for request in recorder.requests() if (request.get("body") or {}).get("files")]
    gaps = [after - before for before, after in zip(times, times[1:], strict=False)]
    assert all(gap >= 1.95 for gap in gaps[:-2]), gaps


BAD = [
    ({"WANDB_API_KEY": ""}, ["logging.use_wandb", "no W&B API key", "logging.wandb.mode=offline"]),
    ({"WANDB_API_KEY": "Pl4nted-short"}, ["WANDB_API_KEY", "does not have the form", "logging.wandb.mode=offline"]),
    ({"WANDB_API_KEY": "b" * 40}, ["logging.use_wandb", "refuses this client", "401"]),
    ({"WANDB_API_KEY": "c" * 40}, ["logging.use_wandb", "refuses this client", "403"]),
    ({"WANDB_MODE": "onlin"}, ["logging.wandb.mode", "unknown mode 'onlin'"]),
    ({"WANDB_BASE_URL": "localhost"}, ["logging.wandb.base_url", "'localhost' is not a URL"]),
    ({"WANDB_RUN_ID": "a/b"}, ["WANDB_RUN_ID", "'a/b' is not the id of a W&B run"]),
    ({"WANDB_TAGS": "x" * 65}, ["logging.wandb.tags", "at most 64"]),
    ({"WANDB_INIT_TIMEOUT": "soon"}, ["WANDB_INIT_TIMEOUT", "'soon' is not a number of seconds"]),
    ({"WANDB_PROJECT": "a/b"}, ["logging.wandb.project", "'a/b' is not a project of W&B"]),
    ({"WANDB_RUN_ID": "missing1", "WANDB_RESUME": "must"}, ["WANDB_RUN_ID", "WANDB_RESUME=must"]),
]


@pytest.mark.parametrize(
    ("env", "names"), BAD, ids=lambda value: next(iter(value.items()))[1] if isinstance(value, dict) else ""
)
def test_a_bad_setting_is_one_error_before_anything_is_written(recorder, tmp_path, env, names):
    result = train(recorder, tmp_path / "run", **env)
    message = one_error(result, 2, names)
    assert "hint:" in message and "Pl4nted" not in message
    assert not (tmp_path / "run").exists()


def test_credentials_are_found_where_the_official_client_has_them(recorder, tmp_path):
    host = recorder.url.removeprefix("http://")
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {host}\n  login user\n  password {KEY}\n")
    words = ["training.max_steps=4", "logging.wandb.finish_timeout_s=20"]
    result = train(recorder, tmp_path / "a", *words, WANDB_API_KEY="", NETRC=str(netrc))
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "config"
    folder.mkdir()
    text = f"[default]\nbase_url = {recorder.url}\napi_key = {KEY}\nentity = team\n"
    (folder / "settings").write_text(text)
    env = {"WANDB_API_KEY": "", "WANDB_BASE_URL": "", "WANDB_CONFIG_DIR": str(folder)}
    result = train(recorder, tmp_path / "b", *words, **env)
    assert result.returncode == 0, result.stderr
    assert {run["entity"] for run in recorder.runs().values()} == {"testuser", "team"}


@pytest.mark.parametrize("env", [{"WANDB_MODE": "disabled"}, {"WANDB_DISABLED": "true"}], ids=str)
def test_a_variable_switches_it_off(recorder, tmp_path, env):
    result = train(recorder, tmp_path / "run", "training.max_steps=4", **env)
    assert result.returncode == 0, result.stderr
    assert recorder.requests() == [] and not (tmp_path / "run/wandb").exists()


def test_variables_say_how_much_is_heard(recorder, tmp_path):
    words = ["training.max_steps=4", "training.scheduler.warmup_steps=1"]
    heard = {
        name: train(recorder, tmp_path / name, *words, **{name: "true"}) for name in ("WANDB_QUIET", "WANDB_SILENT")
    }
    assert all("W&B: http" not in result.stderr and result.returncode == 0 for result in heard.values()), heard
    nowhere = {"WANDB_BASE_URL": "http://127.0.0.1:9"}
    words += ["logging.wandb.finish_timeout_s=0.5"]
    quiet = train(recorder, tmp_path / "quiet", *words, WANDB_QUIET="1", **nowhere)
    silent = train(recorder, tmp_path / "silent", *words, WANDB_SILENT="1", **nowhere)
    assert "cannot be reached" in quiet.stderr and "W&B" not in silent.stderr, silent.stderr
    assert quiet.returncode == silent.returncode == 0


def test_a_training_waits_for_the_service_as_long_as_a_variable_says(recorder, tmp_path):
    words = ["training.max_steps=4", "training.scheduler.warmup_steps=1"]
    recorder.fail("Viewer", delay=2.0, times=1)
    result = train(recorder, tmp_path / "short", *words, WANDB_INIT_TIMEOUT="0.5")
    assert result.returncode == 0 and "cannot be reached" in result.stderr, result.stderr
    recorder.fail("Viewer", delay=2.0, times=1)
    result = train(recorder, tmp_path / "long", *words, WANDB_INIT_TIMEOUT="60")
    assert result.returncode == 0 and "cannot be reached" not in result.stderr, result.stderr


def test_files_that_a_variable_names_are_not_uploaded(recorder, tmp_path):
    result = train(recorder, tmp_path / "run", WANDB_IGNORE_GLOBS="media/*, *.yaml")
    assert result.returncode == 0, result.stderr
    assert set(recorder.only_run()["files"]) == {"wandb-metadata.json", "wandb-summary.json", "output.log"}


def test_a_validation_has_histograms(recorder, tmp_path):
    run_dir = tmp_path / "run"
    assert train(recorder, run_dir).returncode == 0
    recorded = recorder.only_run()
    last = rows(recorded)[-1]
    for slot in range(2):
        histogram = last[f"val/slot{slot}_codes"]
        assert histogram["_type"] == "histogram" and len(histogram["bins"]) == len(histogram["values"]) + 1 <= 513
        assert sum(count > 0 for count in histogram["values"]) == last[f"val/slot{slot}_unique_codes"]
        assert sum(histogram["values"]) == last["val/total_val_samples"]
        assert recorded["summary"][f"val/slot{slot}_codes"] == histogram


def test_no_request_and_no_file_has_a_secret(recorder, tmp_path):
    run_dir = tmp_path / "run"
    described = f"""experiment.description='"with hf_Pl4ntedAbCdEfGhIjKlMnOpQrStUvWxYz and {KEY}"'"""
    result = train(recorder, run_dir, described, HF_TOKEN="hf_Pl4ntedOfTheEnvironment00000")
    assert result.returncode == 0, result.stderr
    assert_whole(recorder.only_run(), run_dir)
    assert "Pl4nted" not in result.stdout + result.stderr
    requests = recorder.requests()
    assert all(request["auth"] == {"scheme": "Basic", "user": "api", "key_len": 40} for request in requests[:1])
    assert all(request["auth"] is None for request in requests if request["method"] == "PUT")
    assert "Pl4nted" not in json.dumps(requests) and "Pl4nted" not in json.dumps(recorder.runs())
    for path in run_dir.rglob("*"):
        assert not path.is_file() or b"Pl4nted" not in path.read_bytes(), path
