"""`hlrp jobs` as a user of a cluster sees it, against a Slurm of the tests' own."""

import json
import os
import pty
import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import submission
from conftest import REPO, one_error, program
from private_slurm import PrivateSlurm
from submission import stub_programs

RECORDED = Path(__file__).parent / "support" / "slurm" / "recorded"
# What `squeue` prints to people in this project.
SHOWN = "%.18i %.30P %.20j %.8T %.10M %.9l %R"
# Fields of a job in JSON; scripts depend on them.
JOB_FIELDS = [
    "id",
    "cluster",
    "state",
    "partition",
    "name",
    "user",
    "elapsed",
    "time_limit",
    "reason",
    "nodes",
    "start",
    "work_dir",
    "comment",
]


def jobs(slurm: PrivateSlurm, *words: object, **kwargs) -> subprocess.CompletedProcess:
    """Runs `hlrp jobs …`."""
    return slurm.run(program("hlrp"), "jobs", *words, **kwargs)


def printed(slurm: PrivateSlurm, *words: object, **kwargs) -> str:
    """What `hlrp jobs …` prints; it must succeed."""
    result = jobs(slurm, *words, **kwargs)
    assert result.returncode == 0, result.stderr
    return result.stdout


def as_json(slurm: PrivateSlurm, *words: object):
    return json.loads(printed(slurm, *words, "--json"))


def submit(slurm: PrivateSlurm, script: str, run_dir: Path, *options: str, token: str = "hlrp:0123456789abcdef") -> str:
    """A job as `hlrp submit` makes them: its comment has a token, and its output is in the run's directory."""
    (run_dir / "submit").mkdir(parents=True, exist_ok=True)
    files = [f"--output={run_dir}/%j.out", f"--error={run_dir}/%j.err", "--open-mode=append"]
    return slurm.submit(script, f"--comment={token} lrz_x100", "--mem=1G", *files, *options)


def fake_commands(folder: Path, **scripts: str) -> str:
    """A PATH on which some of Slurm's commands are shell scripts."""
    folder.mkdir(exist_ok=True)
    for name, script in scripts.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def wait_for_text(path: Path, text: str) -> None:
    for _ in range(600):
        if path.exists() and text in path.read_text():
            return
        time.sleep(0.1)
    raise AssertionError(f"{text!r} is not in {path}")


UNKNOWN_JOB = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"


def test_list_and_show_print_what_squeue_prints(slurm, tmp_path):
    job = submit(slurm, "sleep 300", tmp_path, "--job-name=hlrp_listed", "--time=10")
    slurm.wait_for(job, "RUNNING")
    line = next(line for line in printed(slurm, "list").splitlines() if line.split()[0] == job)
    assert line.split()[1:4] == ["lrz-v100x2", "hlrp_listed", "RUNNING"]
    ours = printed(slurm, "show", job).splitlines()
    theirs = slurm.output("squeue", "-j", job, "-o", SHOWN).splitlines()
    assert ours[0] == theirs[0]
    without_time = lambda line: [word for word in line.split() if not re.fullmatch(r"\d+:\d\d", word)]  # noqa: E731
    assert without_time(ours[1]) == without_time(theirs[1])
    slurm.output("scancel", job)


def test_json_has_stable_fields(slurm, tmp_path):
    job = submit(slurm, "sleep 300", tmp_path, "--hold", "--job-name=a|b c", f"--chdir={tmp_path}")
    [found] = [entry for entry in as_json(slurm, "list") if entry["id"] == job]
    assert list(found) == JOB_FIELDS
    assert (found["state"], found["reason"], found["name"]) == ("PENDING", "JobHeldUser", "a|b c")
    assert found["work_dir"] == str(tmp_path)
    assert as_json(slurm, "show", job) == [found]
    slurm.output("scancel", job)


def test_an_allocation_s_settings_do_not_change_the_answer(slurm, tmp_path):
    """In an interactive job SQUEUE_FORMAT, SLURM_CLUSTERS and the like are set: a child of ours must not follow them."""
    job = submit(slurm, "sleep 300", tmp_path)
    leaked = slurm.env(SQUEUE_FORMAT="%u", SQUEUE_PARTITION="lrz-cpu", SLURM_CLUSTERS="nowhere", SLURM_TIME_FORMAT="%s")
    found = json.loads(printed(slurm, "list", "--json", env=leaked))
    assert job in [entry["id"] for entry in found]
    slurm.output("scancel", job)


def test_watch_prints_each_change_until_all_jobs_are_over(slurm, tmp_path):
    first = submit(slurm, "sleep 2", tmp_path)
    second = submit(slurm, "exit 3", tmp_path, f"--dependency=afterok:{first}", token="hlrp:other")
    lines = printed(slurm, "watch", first, second, "--interval", 1).splitlines()
    states = {
        job: [re.search(r": (\w+) \(", line)[1] for line in lines if f"job {job} " in line] for job in [first, second]
    }
    assert states[first][-1] == "COMPLETED"
    assert states[second][0] == "PENDING" and states[second][-1] == "FAILED"
    assert "NonZeroExitCode" in lines[-1] or "n1" in lines[-1] or "n2" in lines[-1]


def test_watch_shows_a_race(slurm, tmp_path):
    """Two jobs of one run: the first start cancels the other, and the watch names the winner."""
    waiting = submit(slurm, "exit 1", tmp_path, "--begin=now+1hour")
    winner = submit(slurm, f"sleep 2; scancel --state=PENDING {waiting}; sleep 3", tmp_path)
    lines = printed(slurm, "watch", waiting, winner, "--interval", 1).splitlines()
    assert any(
        f"job {waiting} " in line and "CANCELLED" in line and f"job {winner} has the run" in line for line in lines
    )
    assert "COMPLETED" in lines[-1]


def test_watch_without_ids_takes_all_of_the_user_s_jobs(slurm, tmp_path):
    for job in slurm.ids():
        slurm.output("scancel", job)
        slurm.wait_for(job)
    assert printed(slurm, "watch") == "no jobs wait or run\n"
    job = submit(slurm, "sleep 2", tmp_path)
    changes = [json.loads(line) for line in printed(slurm, "watch", "--interval", 1, "--json").splitlines()]
    assert {change["id"] for change in changes} == {job}
    assert changes[-1]["state"] == "COMPLETED"


def test_watch_goes_on_while_slurm_does_not_answer(slurm, tmp_path):
    """The second look fails; the third finds the job over."""
    job = submit(slurm, "sleep 3", tmp_path)
    squeue = shutil.which("squeue")
    count = tmp_path / "looks"
    script = f'echo x >> {count}; [ "$(wc -l < {count})" != 2 ] || {{ echo "Unable to contact slurm controller" >&2; exit 1; }}'
    path = fake_commands(tmp_path / "bin", squeue=f'{script}; exec {squeue} "$@"')
    result = jobs(slurm, "watch", job, "--interval", 1, env=slurm.env(PATH=path))
    assert result.returncode == 0, result.stderr
    assert "COMPLETED" in result.stdout.splitlines()[-1]
    assert len(count.read_text().splitlines()) > 2


def test_watch_redraws_on_a_terminal(slurm, tmp_path):
    job = submit(slurm, "sleep 2", tmp_path)
    text, code = on_terminal(slurm, "watch", job, "--interval", "1")
    assert code == 0
    assert "\x1b[2A\x1b[J" in text, "the two lines of the table are drawn over"
    assert "RUNNING" in text and "COMPLETE" in text.splitlines()[-1]


def on_terminal(slurm: PrivateSlurm, *words: str, answer: str | None = None) -> tuple[str, int]:
    """Runs `hlrp jobs …` on a terminal and types an answer; returns what it shows, and the exit code."""
    ours, theirs = pty.openpty()
    command = [program("hlrp"), "jobs", *words]
    child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=slurm.env())
    os.close(theirs)
    if answer is not None:
        os.write(ours, answer.encode())
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the terminal's other side is closed
            break
    os.close(ours)
    return shown.decode(), child.wait(timeout=60)


def test_logs_of_a_job_that_is_over(slurm, tmp_path):
    job = submit(slurm, "echo one; echo two >&2; echo three; printf 'no newline'", tmp_path)
    slurm.wait_for(job)
    wait_for_text(tmp_path / f"{job}.out", "no newline")
    result = jobs(slurm, "logs", job)
    assert (result.returncode, result.stdout, result.stderr) == (0, "one\nthree\nno newline", "two\n")
    assert printed(slurm, "logs", job, "--lines", 1) == "three\nno newline"
    files = as_json(slurm, "logs", job)
    assert files == {
        "job": job,
        "state": "COMPLETED",
        "stdout": f"{tmp_path}/{job}.out",
        "stderr": f"{tmp_path}/{job}.err",
    }


def test_logs_follow_a_running_job_to_its_end(slurm, tmp_path):
    script = f"echo begin; until [ -e {tmp_path}/go ]; do sleep 0.1; done; echo failed >&2; printf 'cut he'; sleep 1; echo re; exit 1"
    job = submit(slurm, script, tmp_path)
    wait_for_text(tmp_path / f"{job}.out", "begin")
    command = [program("hlrp"), "jobs", "logs", job, "--follow"]
    follower = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=slurm.env())
    assert follower.stdout.readline() == "begin\n"
    (tmp_path / "go").touch()
    out, err = follower.communicate(timeout=60)
    assert (follower.returncode, out, err) == (0, "cut here\n", "failed\n")


@pytest.mark.slow  # Slurm takes seven seconds to start a requeued job again
def test_logs_follow_a_job_across_its_starts(slurm, tmp_path):
    """What the second start appends is what a user waits for."""
    script = 'echo "start ${SLURM_RESTART_COUNT:-0}"; [ "${SLURM_RESTART_COUNT:-0}" != 0 ] || { scontrol requeue $SLURM_JOB_ID; sleep 60; }'
    job = submit(slurm, script, tmp_path, "--requeue")
    wait_for_text(tmp_path / f"{job}.out", "start 0")
    assert printed(slurm, "logs", job, "--follow") == "start 0\nstart 1\n"
    assert slurm.wait_for(job) == "COMPLETED"


def test_logs_of_a_job_that_has_not_started_say_so(slurm, tmp_path):
    job = submit(slurm, "true", tmp_path, "--hold")
    result = jobs(slurm, "logs", job)
    assert (result.returncode, result.stdout) == (0, "")
    assert "PENDING" in result.stderr and str(tmp_path / f"{job}.out") in result.stderr
    slurm.output("scancel", job)


def test_logs_of_an_array_want_a_member(slurm, tmp_path):
    array = slurm.submit(
        "echo member $SLURM_ARRAY_TASK_ID", "--array=0-1", "--mem=1G", f"--output={tmp_path}/%A_%a.out"
    )
    for member in [f"{array}_0", f"{array}_1"]:
        slurm.wait_for(member)
    one_error(jobs(slurm, "logs", array), 1, ["is an array", f"{array}_0", f"{array}_1"])
    wait_for_text(tmp_path / f"{array}_1.out", "member")
    assert printed(slurm, "logs", f"{array}_1") == "member 1\n"


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


@pytest.mark.slow  # as above, and a second cluster
def test_a_site_with_two_slurms(slurm_with_accounting, second_slurm, tmp_path):
    """Both number their jobs from 1: an id alone may mean two jobs."""
    slurm, run_dirs = slurm_with_accounting, {name: tmp_path / name for name in ["lrz", "mcml"]}
    submit(second_slurm, "sleep 300", run_dirs["mcml"])
    highest = {name: int(submit(each, "true", tmp_path)) for name, each in [("lrz", slurm), ("mcml", second_slurm)]}
    for _ in range(max(highest.values()) - highest["mcml"]):
        submit(second_slurm, "true", tmp_path)
    for _ in range(max(highest.values()) - highest["lrz"]):
        submit(slurm, "true", tmp_path)
    jobs_of = {name: submit(slurm, "sleep 300", run_dirs[name], f"--clusters={name}") for name in run_dirs}
    assert jobs_of["lrz"] == jobs_of["mcml"]
    job = jobs_of["lrz"]
    both = ["--clusters", "lrz,mcml"]
    found = {(entry["cluster"], entry["id"]) for entry in as_json(slurm, "list", *both)}
    assert {("lrz", job), ("mcml", job)} <= found
    message = one_error(jobs(slurm, "cancel", job, "--yes", *both), 1, [f"each of lrz, mcml has a job {job}"])
    assert f"'{job};lrz'" in message
    second_slurm.wait_for(job, "RUNNING")
    assert printed(slurm, "cancel", f"{job};mcml", "--yes") == f"cancelled job {job}\n"
    assert second_slurm.wait_for(job) == "CANCELLED"
    slurm.wait_for(job, "RUNNING")
    assert (run_dirs["mcml"] / "submit/cancelled.json").exists()
    assert not (run_dirs["lrz"] / "submit/cancelled.json").exists()
    slurm.output("scancel", job)
    lines = printed(slurm, "watch", f"{job};lrz", f"{job};mcml", "--interval", 1).splitlines()
    assert any(line.startswith(f"job {job} of mcml") and "CANCELLED" in line for line in lines)


def wait_for_accounting(slurm: PrivateSlurm, job: str) -> None:
    """Accounting hears of an end a moment after the controller."""
    for _ in range(300):
        if slurm.output("sacct", "-X", "-n", "-j", job, "-o", "State").split() == ["COMPLETED"]:
            return
        time.sleep(0.1)
    raise AssertionError(f"accounting does not know the end of job {job}")


def test_cancel_stops_a_job_of_ours_and_says_so_in_its_run(slurm, tmp_path):
    job = submit(slurm, "sleep 300", tmp_path)
    slurm.wait_for(job, "RUNNING")
    assert printed(slurm, "cancel", job, "--yes") == f"cancelled job {job}\n"
    assert slurm.wait_for(job) == "CANCELLED"
    record = json.loads((tmp_path / "submit/cancelled.json").read_text())
    assert record["job"] == job and set(record) == {"job", "at", "by"}
    assert printed(slurm, "cancel", job, "--yes") == f"job {job} is over already: CANCELLED\n"


def test_cancel_of_a_waiting_job_leaves_the_run_to_its_rival(slurm, tmp_path):
    one, other = (submit(slurm, "true", tmp_path, "--hold", token="hlrp:race") for _ in range(2))
    [report] = as_json(slurm, "cancel", one, "--yes")
    assert report == {"job": one, "state": "PENDING", "cancelled": True, "run_dirs": [str(tmp_path)]}
    assert not (tmp_path / "submit/cancelled.json").exists()
    assert slurm.state(other) == "PENDING"
    printed(slurm, "cancel", other, "--yes")
    assert (tmp_path / "submit/cancelled.json").exists(), "the last job of the run takes the run with it"


def test_a_member_of_an_array_is_one_run(slurm, tmp_path):
    """Output, final state and cancellation of a member belong to its own run's directory."""
    hlrp = stub_programs(tmp_path / "bin", f'echo "seed $*"; until [ -e {tmp_path}/go ]; do sleep 0.1; done; exit 3')
    sweep = ["sweep.params={seed: [1, 2]}", "submit.array=true"]
    words = ["cluster=lrz_cpu_only", *sweep, f"logging.run_dir={tmp_path}/${{experiment.name}}"]
    result = submission.submit(slurm, tmp_path, *words, hlrp=hlrp)
    assert result.returncode == 0, result.stderr
    first, second = sorted(path for path in tmp_path.glob("laq_tiny_*") if not path.name.endswith("_array"))
    [array] = {job.split("_")[0] for run in [first, second] for job in submission.job_ids(run)}
    for member, run in [(f"{array}_0", first), (f"{array}_1", second)]:
        slurm.wait_for(member, "RUNNING")
        wait_for_text(run / f"{member}.out", "seed ")
        assert f"{run}" in printed(slurm, "logs", member)
    printed(slurm, "cancel", f"{array}_1", "--yes")
    assert json.loads((second / "submit/cancelled.json").read_text())["job"] == f"{array}_1"
    assert not (first / "submit/cancelled.json").exists()
    (tmp_path / "go").touch()
    assert slurm.wait_for(f"{array}_0") == "FAILED"
    assert slurm.wait_for(f"{array}_1") == "CANCELLED"
    states = {line.split()[0]: line.split()[1] for line in printed(slurm, "status", array).splitlines()}
    assert states == {f"{array}_0": "FAILED", f"{array}_1": "CANCELLED"}
    for member, run in [(f"{array}_0", first), (f"{array}_1", second)]:
        assert list(json.loads((run / "submit/final.json").read_text())) == [member]


def test_cancel_never_touches_a_job_that_hlrp_did_not_submit(slurm, tmp_path):
    ours = submit(slurm, "sleep 300", tmp_path)
    bystander = slurm.submit("sleep 300", "--mem=1G", "--output=/dev/null", "--comment=thesis", "--job-name=bystander")
    message = one_error(jobs(slurm, "cancel", ours, bystander, "--yes"), 1, [bystander, "not submitted by hlrp"])
    assert "hint:" in message
    slurm.wait_for(ours, "RUNNING")
    slurm.wait_for(bystander, "RUNNING")
    assert not (tmp_path / "submit/cancelled.json").exists()
    for job in [ours, bystander]:
        slurm.output("scancel", job)


def test_cancel_asks_first(slurm, tmp_path):
    job = submit(slurm, "sleep 300", tmp_path, "--job-name=hlrp_asked")
    slurm.wait_for(job, "RUNNING")
    one_error(jobs(slurm, "cancel", job, stdin=subprocess.DEVNULL), 1, [job, "--yes"])
    text, code = on_terminal(slurm, "cancel", job, answer="n\n")
    assert code == 1 and "hlrp_asked" in text and "nothing was cancelled" in text
    assert slurm.state(job) == "RUNNING"
    text, code = on_terminal(slurm, "cancel", job, answer="y\n")
    assert code == 0, text
    assert slurm.wait_for(job) == "CANCELLED"


@pytest.mark.parametrize("command", ["show", "logs", "status", "watch", "cancel"])
def test_an_unknown_id_is_one_clear_error(slurm, command):
    one_error(jobs(slurm, command, "99999"), 1, ["does not know job 99999", "hint:"])


@pytest.mark.parametrize("bad", ["12x", "--me", "1,2", ""])
def test_an_invalid_id_is_refused_before_slurm_is_asked(slurm, bad):
    result = jobs(slurm, "show", "--", bad, env=slurm.env(PATH="/nonexistent"))
    one_error(result, 2, ["invalid job id"])


@pytest.mark.parametrize(
    ("command", "program_name"),
    [
        (["list"], "squeue"),
        (["watch", "1"], "squeue"),
        (["status", "1"], "scontrol"),
        (["cancel", "1", "--yes"], "scontrol"),
    ],
)
def test_without_slurm_the_hint_says_where_to_go(slurm, command, program_name):
    result = jobs(slurm, *command, env=slurm.env(PATH="/nonexistent"))
    one_error(result, 1, [f"{program_name} is not on PATH", "--remote"])


def test_from_a_workstation_the_command_goes_over_ssh(slurm, tmp_path):
    """`ssh` here runs what it is asked to in a repository of this machine, where `hlrp` is the real one."""
    (tmp_path / "repository").mkdir()
    path = fake_commands(tmp_path / "bin", ssh=f'cd {tmp_path}; shift; [ "$1" = ai ] || shift; eval "$2"')
    (tmp_path / "bin" / "hlrp").symlink_to(program("hlrp"))
    tree = tmp_path / "config"
    shutil.copytree(REPO / "config", tree, ignore=shutil.ignore_patterns("local.yaml"))
    base = tree / "cluster" / "_lrz.yaml"
    base.write_text(re.sub(r"repository: .*", f"repository: {tmp_path}/repository", base.read_text()))
    job = submit(slurm, "sleep 300", tmp_path / "run")
    env = slurm.env(PATH=path, HLRP_CONFIG_DIR=str(tree))
    shown = printed(slurm, "show", job, "--json", "--remote", env=env)
    assert shown == f"ssh ai 'cd {tmp_path}/repository && hlrp jobs show {job} --json'\n"
    lines = printed(slurm, "show", job, "--json", "--remote", "--yes", env=env)
    [found] = json.loads(lines.removeprefix(shown))
    assert found["id"] == job
    slurm.output("scancel", job)


def test_a_slurm_that_hangs_is_one_error_after_the_time_limit(slurm, tmp_path):
    env = slurm.env(PATH=fake_commands(tmp_path / "bin", squeue="sleep 60", scontrol="sleep 60"))
    commands = [["list"], ["show", "1"], ["watch", "1"], ["logs", "1"], ["status", "1"], ["cancel", "1", "--yes"]]
    start = time.monotonic()
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda command: jobs(slurm, *command, "--timeout", 1, env=env), commands))
    assert time.monotonic() - start < 50, "nobody waits for the command to end"
    for result in results:
        one_error(result, 1, ["did not answer within 1 s", "hint:"])


def test_a_message_of_the_site_is_not_taken_for_jobs(slurm, tmp_path):
    env = slurm.env(PATH=fake_commands(tmp_path / "bin", squeue="echo maintenance until noon"))
    one_error(jobs(slurm, "list", "--json", env=env), 1, ["cannot read what squeue printed", "maintenance until noon"])


def test_a_controller_that_is_down_is_named(slurm, tmp_path):
    env = slurm.env(
        PATH=fake_commands(
            tmp_path / "bin", squeue="echo 'squeue: error: Unable to contact slurm controller' >&2; exit 1"
        )
    )
    one_error(
        jobs(slurm, "list", env=env), 1, ["squeue: Unable to contact slurm controller", "hint: the controller is down"]
    )


def test_a_cluster_that_does_not_exist_is_named(slurm):
    one_error(jobs(slurm, "list", "--clusters", "nowhere"), 1, ["nowhere", "hint:"])


@pytest.mark.parametrize("command", ["list", "show", "watch", "logs", "status", "cancel"])
def test_help_teaches(slurm, command):
    text = printed(slurm, command, "--help")
    assert "--json" in text and "--clusters" in text
