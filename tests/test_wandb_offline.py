"""W&B without a network: the logs of a run are those of the official client, survive a kill, and are uploaded later."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import MINI, REPO, one_error, program, read_metrics, run, train_laq_command
from interruption import INTERRUPTED, freeze, kill, last_step, wait_for
from wandb_world import (
    FAST,
    KEY,
    OFFICIAL_0_27,
    OFFICIAL_0_31,
    Recorder,
    assert_whole,
    expected_rows,
    resume,
    rows,
    scalars,
    sync,
    train,
)

OFFLINE = "logging.wandb.mode=offline"


@pytest.fixture(scope="module")
def offline_run(tmp_path_factory) -> Path:
    """A run that was recorded offline, without a key."""
    folder = tmp_path_factory.mktemp("offline")
    idle = Recorder(folder)
    result = train(idle, folder / "run", OFFLINE, WANDB_API_KEY="")
    assert result.returncode == 0, result.stderr
    assert "hlrp runs sync" in result.stderr
    assert idle.requests() == []
    idle.stop()
    return folder / "run"


def copy_of(run_dir: Path, folder: Path) -> Path:
    """An upload leaves notes in a run directory: each test has its own."""
    subprocess.run(["cp", "-a", str(run_dir), str(folder / "run")], check=True)
    return folder / "run"


def start(recorder: Recorder, *words: object) -> subprocess.Popen:
    command = train_laq_command(*words)
    env = recorder.env()
    return subprocess.Popen(command, cwd=REPO, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_the_official_client_uploads_a_run(recorder, offline_run, tmp_path, official):
    run_dir = copy_of(offline_run, tmp_path)
    printed = official.sync(recorder, run_dir)
    uploaded = recorder.only_run()
    assert uploaded["violations"] == [], printed
    assert scalars(uploaded) == expected_rows(run_dir)
    assert (uploaded["state"], uploaded["exitcode"]) == ("finished", 0)
    last = rows(uploaded)[-1]
    assert {key: uploaded["summary"][key] for key in last} == last
    assert uploaded["summary"]["_wandb"]["runtime"] >= 0
    assert uploaded["config"]["training"]["value"]["max_steps"] == 24
    assert "t" in uploaded["config"]["_wandb"]["value"]
    assert any(name.startswith("media/images/validation/") for name in uploaded["files"])
    assert any("system.proc.memory.rssMB" in event for event in uploaded["events"])
    assert uploaded["displayName"] == "laq_tiny"


def test_our_upload_is_that_of_the_official_client(recorder, offline_run, tmp_path):
    """The same log, uploaded by both: equal runs, but for what each program says about itself."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir(), second.mkdir()
    OFFICIAL_0_27.sync(recorder, copy_of(offline_run, first))
    official = recorder.only_run()
    recorder.reset()
    run_dir = copy_of(offline_run, second)
    result = sync(recorder, run_dir)
    assert result.returncode == 0 and ": uploaded, http" in result.stdout, result.stderr
    ours = recorder.only_run()
    assert_whole(ours, run_dir)
    assert rows(ours) == rows(official)
    assert ours["summary"] == official["summary"]
    for run_of in (ours, official):
        run_of["config"].pop("_wandb")
    # `wandb sync` adds an empty description to every value; the client itself does not, and neither do we.
    values = [{key: entry["value"] for key, entry in run_of["config"].items()} for run_of in (ours, official)]
    assert values[0] == values[1]
    for name in ("name", "displayName", "tags", "state", "exitcode"):
        assert ours[name] == official[name], name
    text = [line.split(" ", 1)[1] for line in ours["output"]]
    theirs = [line.rstrip("\n").split(" ", 1)[1] for line in official["output"]]
    assert text == theirs, "the official client writes its own times"
    made_by_sync = {"config.yaml", "output.log", "wandb-summary.json", "requirements.txt"}
    media = {name: file["sha256"] for name, file in official["files"].items() if name not in made_by_sync}
    assert media == {name: file["sha256"] for name, file in ours["files"].items() if name not in made_by_sync}
    assert len(ours["events"]) == len(official["events"])

    again = sync(recorder, run_dir)
    assert again.returncode == 0 and "was already there" in again.stdout
    assert recorder.only_run() == {**recorder.only_run(), "history": ours["history"], "violations": []}


def test_a_folder_of_runs_is_uploaded(recorder, offline_run, tmp_path):
    copy_of(offline_run, tmp_path)
    result = sync(recorder, tmp_path)
    assert result.returncode == 0 and result.stdout.count(": uploaded") == 1
    assert_whole(recorder.only_run(), tmp_path / "run")
    one_error(sync(recorder, tmp_path / "run" / "checkpoints"), 2, ["contains no run that was recorded for W&B"])


@pytest.mark.parametrize("kill_at", [3, 12])
def test_a_killed_run_is_uploaded_up_to_its_kill(recorder, tmp_path, official, kill_at):
    run_dir = tmp_path / "run"
    process = start(recorder, *MINI, *FAST, OFFLINE, f"logging.run_dir={run_dir}")
    freeze(process, lambda: last_step(run_dir) >= kill_at)
    time.sleep(0.1)
    kill(process)
    copy = tmp_path / "copy"
    copy.mkdir()
    copy_of(run_dir, copy)
    result = sync(recorder, run_dir)
    assert result.returncode == 0 and "no end yet" in result.stdout, result.stderr
    ours = recorder.only_run()
    expected = expected_rows(run_dir)
    # The row of a step is written when the next step begins.
    assert ours["violations"] == [] and len(expected) - len(ours["history"]) <= 2
    assert scalars(ours) == expected[: len(ours["history"])]
    assert ours["state"] == "running", "W&B itself says 'crashed' after five minutes of silence"

    recorder.reset()
    official.sync(recorder, copy / "run")
    theirs = recorder.only_run()
    assert scalars(theirs) == scalars(ours) and theirs["violations"] == []
    assert (theirs["state"], theirs["exitcode"]) == official.without_end


def interrupt_a_run(recorder, run_dir) -> None:
    """A run in `run_dir` that a signal stopped after some steps."""
    process = start(recorder, *MINI, *FAST, OFFLINE, f"logging.run_dir={run_dir}")
    wait_for(process, lambda: last_step(run_dir) >= 7)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == INTERRUPTED


def test_the_exit_code_of_an_interrupted_run_is_uploaded(recorder, tmp_path, official):
    run_dir = tmp_path / "run"
    interrupt_a_run(recorder, run_dir)
    official.sync(recorder, run_dir)
    theirs = recorder.only_run()
    assert scalars(theirs) == expected_rows(run_dir) and theirs["violations"] == []
    assert (theirs["state"], theirs["exitcode"]) == ("failed", INTERRUPTED)
    last = rows(theirs)[-1]
    assert {key: theirs["summary"][key] for key in last} == last


@pytest.mark.slow  # half a minute of runs that are killed and resumed
def test_a_resumed_run_has_one_id_and_every_step_once(recorder, tmp_path, official):
    """Interrupted, killed, resumed: also what a resume repeats is recorded once, by either program."""
    run_dir = tmp_path / "run"
    interrupt_a_run(recorder, run_dir)
    process = start(recorder, "--resume", run_dir)
    wait_for(process, lambda: last_step(run_dir) >= 13)
    kill(process)
    result = resume(recorder, run_dir)
    assert result.returncode == 0, result.stderr
    folders = sorted((run_dir / "wandb").glob("offline-run-*"))
    assert len({path.name[-8:] for path in folders}) == 1 and len(folders) == 3
    copy = tmp_path / "copy"
    copy.mkdir()
    copy_of(run_dir, copy)
    result = sync(recorder, run_dir)
    assert result.returncode == 0, result.stderr
    assert_whole(recorder.only_run(), run_dir)
    recorder.reset()
    official.sync(recorder, copy / "run")
    theirs = recorder.only_run()
    assert scalars(theirs) == expected_rows(run_dir)
    assert (theirs["state"], theirs["exitcode"]) == ("finished", 0)
    last = rows(theirs)[-1]
    assert {key: theirs["summary"][key] for key in last} == last


@pytest.mark.slow
def test_twenty_kills_leave_one_run_with_every_step_once(recorder, tmp_path):
    run_dir = tmp_path / "run"
    words = [*MINI, *FAST, OFFLINE, f"logging.run_dir={run_dir}", "training.max_steps=100"]
    words += ["training.checkpoint.every_n_steps=2"]
    for kill_at in range(4, 84, 4):
        process = start(recorder, *words)
        wait_for(process, lambda at=kill_at: last_step(run_dir) >= at)
        kill(process)
        words = ["--resume", run_dir]
    result = resume(recorder, run_dir)
    assert result.returncode == 0, result.stderr
    assert len(list((run_dir / "wandb").glob("offline-run-*"))) == 21
    result = sync(recorder, run_dir)
    assert result.returncode == 0, result.stderr
    assert_whole(recorder.only_run(), run_dir)
    assert len(expected_rows(run_dir)) == 100


@pytest.mark.slow
def test_an_upload_that_is_killed_again_and_again_sends_everything_once(recorder, tmp_path):
    """As on a login node that ends long processes: no row twice, none missing, whoever goes on."""
    run_dir = tmp_path / "run"
    assert train(recorder, run_dir, OFFLINE, "training.max_steps=200").returncode == 0
    command = [program("hlrp"), "runs", "sync", str(run_dir)]
    for pause in range(20):
        process = subprocess.Popen(command, cwd=REPO, env=recorder.env(), stdout=subprocess.DEVNULL)
        time.sleep(0.01 * pause)
        process.kill()
        process.wait()
    result = sync(recorder, run_dir)
    assert result.returncode == 0, result.stderr
    assert_whole(recorder.only_run(), run_dir)


def test_a_live_run_is_uploaded_while_it_is_recorded(recorder, tmp_path):
    """As on a login node: the run itself has no network; its end is uploaded when it comes. One syncer at a time."""
    run_dir = tmp_path / "run"
    words = [*MINI, *FAST, OFFLINE, f"logging.run_dir={run_dir}", "training.max_steps=400"]
    command = [program("hlrp"), "runs", "sync", "--watch", str(tmp_path)]
    watcher = subprocess.Popen(command, cwd=REPO, env=recorder.env(), stdout=subprocess.PIPE, text=True)
    try:
        process = start(recorder, *words)
        wait_for(process, lambda: any(len(run["history"]) > 10 for run in recorder.runs().values()))
        assert recorder.only_run()["state"] == "running"
        one_error(sync(recorder, run_dir), 73, ["wandb is in use by process"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == INTERRUPTED
        deadline = time.monotonic() + 60
        while recorder.only_run()["state"] == "running":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert_whole(recorder.only_run(), run_dir, exit_code=INTERRUPTED)
        assert recorder.only_run()["preempting"]
    finally:
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(30) == 0
    assert f"{run_dir}: uploaded" in watcher.stdout.read()


@pytest.mark.slow  # ten seconds of writing
def test_a_hundred_thousand_steps_need_little_memory(tmp_path, recorder):
    command = [program("examples/record_wandb"), str(tmp_path / "run"), "0", "100000"]
    result = run(command, env=recorder.env(WANDB_MODE="offline"))
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["peak_kib"] < 60 * 1024, result.stdout
    uploaded = sync(recorder, tmp_path / "run")
    assert uploaded.returncode == 0, uploaded.stderr
    history = recorder.only_run()["history"]
    assert [json.loads(row)["_step"] for row in history] == list(range(1, 100_001))
    assert recorder.only_run()["stream_requests"] < 100


@pytest.mark.slow
def test_the_newest_client_opens_a_run(offline_run, tmp_path):
    """`wandb leet inspect` reads a log without a server; the client of this environment does not have it."""
    leet = OFFICIAL_0_31.path
    assert leet.exists(), f"{leet} is missing: run `make setup SLOW=yes`"
    log = next((offline_run / "wandb").glob("offline-run-*"))
    inspect = [str(leet), "leet", "inspect", "--json"]
    summary = json.loads(run([*inspect, "--summary", str(log)], cwd=tmp_path).stdout)
    assert summary["state"] == "finished" and summary["exit_code"] == 0, summary
    last = expected_rows(offline_run)[-1]
    assert summary["step"] == last["_step"] == 24
    num_records = len(run([*inspect, str(log)], cwd=tmp_path).stdout.splitlines())
    assert num_records > 2 * len(expected_rows(offline_run))


def test_losses_do_not_depend_on_the_recording(offline_run, tmp_path):
    result = run(train_laq_command(*MINI, f"logging.run_dir={tmp_path / 'plain'}"))
    assert result.returncode == 0, result.stderr
    assert read_metrics(offline_run) == read_metrics(tmp_path / "plain")


def test_no_file_has_a_secret(recorder, tmp_path):
    run_dir = tmp_path / "run"
    described = f"""experiment.description='"with hf_Pl4ntedAbCdEfGhIjKlMnOpQrStUvWxYz and {KEY}"'"""
    result = train(recorder, run_dir, OFFLINE, described, HF_TOKEN="hf_Pl4ntedOfTheEnvironment00000")
    assert result.returncode == 0, result.stderr
    assert "Pl4nted" not in result.stdout + result.stderr
    for path in run_dir.rglob("*"):
        assert not path.is_file() or b"Pl4nted" not in path.read_bytes(), path
