"""`hlrp jobs status`: how a job ended, from accounting, the controller, or the run's own record."""

import json
import re
import time
from pathlib import Path

import pytest
from conftest import one_error
from jobs_commands import UNKNOWN_JOB, as_json, fake_commands, jobs, printed, submit
from private_slurm import PrivateSlurm

RECORDED = Path(__file__).parent / "support" / "slurm" / "recorded"


def test_status_without_accounting_comes_from_the_controller_and_is_kept(slurm, tmp_path):
    job = submit(slurm, "exit 3", tmp_path)
    slurm.wait_for(job)
    *row, elapsed = printed(slurm, "status", job).split()
    assert row == [job, "FAILED", "3:0", "lrz-v100x2"] and re.fullmatch(r"00:00:\d\d", elapsed)
    kept = json.loads((tmp_path / "submit/final.json").read_text())
    assert kept[job] == {
        "state": "FAILED",
        "exit": {"code": 3, "signal": 0},
        "partition": "lrz-v100x2",
        "elapsed": elapsed,
    }
    status = as_json(slurm, "status", job)
    assert list(status) == ["job", "source", "starts"]
    assert (status["source"], status["starts"][0]["run_dir"]) == ("scontrol", str(tmp_path))
    assert list(status["starts"][0]) == ["job", "state", "exit", "partition", "elapsed", "run_dir"]


def test_status_of_a_running_job_is_not_final(slurm, tmp_path):
    job = submit(slurm, "sleep 300", tmp_path)
    slurm.wait_for(job, "RUNNING")
    assert printed(slurm, "status", job).split()[:3] == [job, "RUNNING", "-"]
    assert not (tmp_path / "submit/final.json").exists()
    slurm.output("scancel", job)


def test_status_of_a_forgotten_job_comes_from_the_run_s_own_record(slurm, tmp_path):
    job = submit(slurm, "exit 3", tmp_path)
    slurm.wait_for(job)
    before = printed(slurm, "status", job)
    path = fake_commands(tmp_path / "bin", scontrol=UNKNOWN_JOB)
    later = slurm.env(PATH=path)
    one_error(jobs(slurm, "status", job, env=later), 1, [f"does not know job {job}", "--run-dir"])
    assert printed(slurm, "status", job, "--run-dir", tmp_path, env=later) == before
    out = printed(slurm, "logs", job, "--run-dir", tmp_path, env=later)
    assert out == (tmp_path / f"{job}.out").read_text()


def test_status_of_a_forgotten_job_without_a_final_state_comes_from_run_json(slurm, tmp_path, uninterrupted):
    manifest = json.loads((uninterrupted / "run.json").read_text())
    manifest["sessions"][0]["slurm"] = {"id": "4711", "cluster": "lrz", "partition": "lrz-cpu", "nodes": "n1"}
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    env = slurm.env(PATH=fake_commands(tmp_path / "bin", scontrol=UNKNOWN_JOB))
    assert printed(slurm, "status", "4711", "--run-dir", tmp_path, env=env).split() == [
        "4711",
        "finished",
        "-",
        "lrz-cpu",
    ]
    one_error(jobs(slurm, "status", "4712", "--run-dir", tmp_path, env=env), 1, ["job 4712"])


def test_a_folder_that_is_no_run_is_refused(slurm, tmp_path):
    one_error(jobs(slurm, "status", "1", "--run-dir", tmp_path), 1, [str(tmp_path), "run directory"])
    assert list(tmp_path.iterdir()) == []


def test_status_with_accounting_shows_every_start(slurm, tmp_path):
    """The recording is what sacct printed for a job that was requeued twice (`test_accounting_is_read_for_real`)."""
    recording = RECORDED / "sacct_requeued.txt"
    commands = {"scontrol": UNKNOWN_JOB, "sacct": f"cat {recording}"}
    path = fake_commands(tmp_path / "bin", **commands)
    (tmp_path / "submit").mkdir()
    result = printed(slurm, "status", "2", "--run-dir", tmp_path, env=slurm.env(PATH=path))
    rows = [line.split() for line in result.splitlines()]
    assert [row[:3] for row in rows] == [["2", "REQUEUED", "0:0"], ["2", "COMPLETED", "0:0"]]
    assert json.loads((tmp_path / "submit/final.json").read_text())["2"]["state"] == "COMPLETED"


@pytest.mark.parametrize("known", ["REQUEUED RUNNING", "REQUEUED"])
def test_the_end_that_accounting_does_not_have_yet_comes_from_the_controller(slurm, tmp_path, known):
    """It hears of it a moment later. Every start is listed all the same."""
    job = submit(slurm, "true", tmp_path)
    slurm.wait_for(job)
    row = (RECORDED / "sacct_requeued.txt").read_text().splitlines()[0]
    rows = [row.replace("2\x1fREQUEUED", f"{job}\x1f{state}") for state in known.split()]
    (tmp_path / "rows").write_text("".join(f"{row}\n" for row in rows))
    env = slurm.env(PATH=fake_commands(tmp_path / "bin", sacct=f"cat {tmp_path}/rows"))
    result = printed(slurm, "status", job, env=env)
    assert [line.split()[:2] for line in result.splitlines()] == [[job, "REQUEUED"], [job, "COMPLETED"]]
    assert json.loads((tmp_path / "submit/final.json").read_text())[job]["state"] == "COMPLETED"


def test_a_start_that_another_followed_is_not_the_end_of_the_job(slurm, tmp_path):
    """Its node failed, and Slurm has put it back into the queue."""
    row = (RECORDED / "sacct_requeued.txt").read_text().splitlines()[0]
    (tmp_path / "rows").write_text("".join(row.replace("REQUEUED", state) + "\n" for state in ["NODE_FAIL", "PENDING"]))
    (tmp_path / "submit").mkdir()
    env = slurm.env(PATH=fake_commands(tmp_path / "bin", scontrol=UNKNOWN_JOB, sacct=f"cat {tmp_path}/rows"))
    result = printed(slurm, "status", "2", "--run-dir", tmp_path, env=env)
    assert [line.split()[1] for line in result.splitlines()] == ["NODE_FAIL", "PENDING"]
    assert not (tmp_path / "submit/final.json").exists()


@pytest.mark.slow  # slurmdbd and MariaDB take ten seconds to start
def test_accounting_is_read_for_real(slurm_with_accounting, tmp_path):
    slurm = slurm_with_accounting
    failed = submit(slurm, "exit 3", tmp_path)
    requeued = submit(
        slurm,
        '[ "${SLURM_RESTART_COUNT:-0}" != 0 ] || { scontrol requeue $SLURM_JOB_ID; sleep 60; }',
        tmp_path,
        "--requeue",
    )
    slurm.wait_for(failed)
    slurm.wait_for(requeued)
    wait_for_accounting(slurm, requeued)
    assert printed(slurm, "status", failed).split()[:4] == [failed, "FAILED", "3:0", "lrz-v100x2"]
    assert as_json(slurm, "status", failed)["source"] == "sacct"
    rows = [line.split()[:3] for line in printed(slurm, "status", requeued).splitlines()]
    assert rows == [[requeued, "REQUEUED", "0:0"], [requeued, "COMPLETED", "0:0"]]
    # A controller that has forgotten them leaves it to accounting.
    env = slurm.env(PATH=fake_commands(tmp_path / "bin", scontrol=UNKNOWN_JOB))
    assert printed(slurm, "status", failed, env=env).split()[:3] == [failed, "FAILED", "3:0"]
    one_error(jobs(slurm, "status", "99999", env=env), 1, ["job 99999"])
    # The recording that the fast test reads has the form that sacct prints here.
    recorded = (RECORDED / "sacct_requeued.txt").read_text().splitlines()
    fields = "JobID,State,ExitCode,Partition,Elapsed,Timelimit,Cluster,User,JobName,NodeList,Start,WorkDir,Comment"
    options = ["--noheader", "--parsable2", "--delimiter=\x1f", f"--format={fields}", "--allocations", "--duplicates"]
    now = slurm.output("sacct", *options, f"--jobs={requeued}").splitlines()
    form = [[re.sub(r"\d+", "0", field) for field in line.split("\x1f")[1:7]] for line in now]
    assert form == [[re.sub(r"\d+", "0", field) for field in line.split("\x1f")[1:7]] for line in recorded]


def wait_for_accounting(slurm: PrivateSlurm, job: str) -> None:
    """Accounting hears of an end a moment after the controller."""
    for _ in range(300):
        if slurm.output("sacct", "-X", "-n", "-j", job, "-o", "State").split() == ["COMPLETED"]:
            return
        time.sleep(0.1)
    raise AssertionError(f"accounting does not know the end of job {job}")
