"""`hlrp jobs logs`: what a job prints, at its end, while it runs, and across its starts."""

import subprocess

import pytest
from conftest import one_error, program
from jobs_commands import as_json, jobs, printed, submit, wait_for_text


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
