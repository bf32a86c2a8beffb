"""A job that is stopped goes on; one that its user cancelled does not. The payload stands in for the trainer."""

import json
import shutil
import time
from pathlib import Path

from conftest import one_error, program
from submission import job_ids, stand_in, stub_programs, submit, wait_until

# Interrupted until its last start, as a trainer is that meets a time limit.
PAYLOAD = """
for word in "$@"; do case $word in logging.run_dir=*) run_dir=${word#*=} ;; esac; done
run_dir=${run_dir:-$2}
echo "$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0} $*" >> "$run_dir/payload"
"""
UNTIL_THE_THIRD = '[[ $(wc -l < "$run_dir/payload") -ge 3 ]] || exit 75\n'


def payloads(run_dir: Path) -> list[str]:
    path = run_dir / "payload"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def started(run_dir: Path, count: int = 1) -> None:
    end = time.monotonic() + 60
    while len(payloads(run_dir)) < count:
        assert time.monotonic() < end, payloads(run_dir)
        time.sleep(0.1)


def test_an_interrupted_job_is_queued_again_under_its_id(slurm, tmp_path):
    stub = stub_programs(tmp_path / "bin", PAYLOAD + UNTIL_THE_THIRD)
    result = submit(slurm, tmp_path, "cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run", hlrp=stub)
    assert result.returncode == 0, result.stderr
    (job,) = job_ids(tmp_path / "run")
    assert slurm.wait_for(job, timeout=120) == "COMPLETED", (tmp_path / "run" / f"{job}.err").read_text()
    assert payloads(tmp_path / "run") == [f"{job}.0", f"{job}.1", f"{job}.2"]
    assert job_ids(tmp_path / "run") == [job]


def test_where_a_job_cannot_be_queued_again_a_new_one_continues(slurm, tmp_path):
    """As on sites without requeueing: the same script, another id, and the claim is handed over."""
    waits = 'while [[ ! -e "$run_dir/go" ]]; do sleep 0.1; done\n'
    stub = stub_programs(tmp_path / "bin", PAYLOAD + waits + '[[ $(wc -l < "$run_dir/payload") -ge 2 ]] || exit 75\n')
    result = submit(slurm, tmp_path, "cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run", hlrp=stub)
    assert result.returncode == 0, result.stderr
    run_dir = tmp_path / "run"
    (job,) = job_ids(run_dir)
    started(run_dir)
    slurm.output("scontrol", "update", f"JobId={job}", "Requeue=0")
    (run_dir / "go").touch()
    end = time.monotonic() + 60
    while len(job_ids(run_dir)) < 2:
        assert time.monotonic() < end, (run_dir / f"{job}.err").read_text()
        time.sleep(0.1)
    second = job_ids(run_dir)[1]
    assert slurm.wait_for(second) == "COMPLETED", (run_dir / f"{second}.err").read_text()
    assert payloads(run_dir) == [f"{job}.0", f"{second}.0"]
    assert (run_dir / "submit" / "claims" / "1" / "released.json").is_file()


def test_the_number_of_restarts_is_bounded(slurm, tmp_path):
    stub = stub_programs(tmp_path / "bin", PAYLOAD + "exit 75\n")
    words = ["cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run", "submit.max_restarts=1"]
    result = submit(slurm, tmp_path, *words, hlrp=stub)
    assert result.returncode == 0, result.stderr
    (job,) = job_ids(tmp_path / "run")
    assert slurm.wait_for(job, timeout=120) == "FAILED"
    assert payloads(tmp_path / "run") == [f"{job}.0", f"{job}.1"]
    assert "submit.max_restarts=1 is reached" in (tmp_path / "run" / f"{job}.err").read_text()


def test_a_job_that_is_told_to_stop_before_its_program_starts_is_queued_again(slurm, tmp_path):
    """As when its node is taken away while a command before the program is at work."""
    stub = stub_programs(tmp_path / "bin", PAYLOAD)
    command = tmp_path / "before.sh"
    # It ends once the script has noticed the signal.
    command.write_text(
        f"touch {tmp_path}/at\nuntil [[ -n $signalled || $SLURM_RESTART_COUNT -gt 0 ]]; do sleep 0.1; done\n"
    )
    words = ["cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run", f"submit.pre_commands=[source {command}]"]
    result = submit(slurm, tmp_path, *words, hlrp=stub)
    assert result.returncode == 0, result.stderr
    (job,) = job_ids(tmp_path / "run")
    wait_until((tmp_path / "at").exists)
    slurm.output("scancel", "--batch", "--signal=TERM", job)
    record = tmp_path / "run" / "submit" / "exit" / f"{job}.0.0.json"
    wait_until(record.is_file)
    assert json.loads(record.read_text())["code"] == 75
    assert slurm.wait_for(job) == "COMPLETED", (tmp_path / "run" / f"{job}.err").read_text()
    assert payloads(tmp_path / "run") == [f"{job}.1"], "the first start ended before the program"
    assert job_ids(tmp_path / "run") == [job]


def test_a_signal_that_comes_before_the_program_listens_reaches_it_later(slurm, tmp_path):
    """srun takes its time, as with a large container."""
    listens = "trap 'exit 75' USR1\nif [[ ${SLURM_RESTART_COUNT:-0} == 0 ]]; then while true; do sleep 0.1; done; fi\n"
    stub = stub_programs(tmp_path / "bin", PAYLOAD + listens)
    slow = f'#!/bin/bash\ntouch {tmp_path}/at\nsleep 2\nexec {shutil.which("srun")} "$@"\n'
    env = stand_in(slurm.env(), tmp_path / "slow", "srun", slow)
    result = submit(slurm, tmp_path, "cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run", hlrp=stub, env=env)
    assert result.returncode == 0, result.stderr
    (job,) = job_ids(tmp_path / "run")
    wait_until((tmp_path / "at").exists)
    slurm.output("scancel", "--batch", "--signal=USR1", job)
    started(tmp_path / "run", 2)
    assert slurm.wait_for(job) == "COMPLETED", (tmp_path / "run" / f"{job}.err").read_text()
    assert payloads(tmp_path / "run") == [f"{job}.0", f"{job}.1"]


def test_a_cancelled_run_is_not_queued_again_until_its_user_says_so(slurm, tmp_path):
    """The payload ends as an interrupted trainer does."""
    waits = "trap 'exit 75' USR1 TERM\nwhile [[ ! -e \"$run_dir/go\" ]]; do sleep 0.1; done\n"
    stub = stub_programs(tmp_path / "bin", PAYLOAD + waits)
    result = submit(slurm, tmp_path, "cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run", hlrp=stub)
    assert result.returncode == 0, result.stderr
    run_dir = tmp_path / "run"
    (job,) = job_ids(run_dir)
    started(run_dir)
    cancel = slurm.run(program("hlrp"), "jobs", "cancel", job, "--yes")
    assert cancel.returncode == 0, cancel.stderr
    assert slurm.wait_for(job) == "CANCELLED"
    time.sleep(2)
    assert job_ids(run_dir) == [job] and payloads(run_dir) == [f"{job}.0"]
    assert json.loads((run_dir / "submit" / "cancelled.json").read_text())["job"] == job
    (run_dir / "go").touch()
    again = slurm.run(stub, "submit", "--resume", run_dir)
    assert again.returncode == 0, again.stderr
    second = job_ids(run_dir)[-1]
    assert slurm.wait_for(second) == "COMPLETED", (run_dir / f"{second}.err").read_text()
    assert not (run_dir / "submit" / "cancelled.json").exists()


def test_a_run_that_is_queued_is_not_queued_twice(slurm, tmp_path):
    stub = stub_programs(tmp_path / "bin", PAYLOAD + 'while [[ ! -e "$run_dir/go" ]]; do sleep 0.1; done\n')
    submit(slurm, tmp_path, "cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run", hlrp=stub)
    (job,) = job_ids(tmp_path / "run")
    started(tmp_path / "run")
    again = slurm.run(stub, "submit", "--resume", tmp_path / "run")
    assert again.returncode == 2
    assert f"job {job} of this run is RUNNING" in again.stderr
    (tmp_path / "run" / "go").touch()
    assert slurm.wait_for(job) == "COMPLETED"


def test_a_silent_slurm_means_that_nothing_is_queued_again(slurm, tmp_path):
    """A job of the run may wait there."""
    stub = stub_programs(tmp_path / "bin", PAYLOAD)
    submit(slurm, tmp_path, "cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run", hlrp=stub)
    env = stand_in(slurm.env(), tmp_path / "fake", "squeue", "#!/bin/sh\nsleep 300\n")
    again = slurm.run(stub, "submit", "--resume", tmp_path / "run", "--timeout", 2, env=env)
    one_error(again, 1, ["whether a job of this run waits", "squeue did not answer within 2 s"])
    (job,) = job_ids(tmp_path / "run")
    assert slurm.wait_for(job) == "COMPLETED"


def test_a_waiting_member_of_an_array_is_not_queued_twice(slurm, tmp_path):
    stub = stub_programs(tmp_path / "bin", PAYLOAD)
    held = slurm.submit("sleep 300", "--exclusive", "--nodes=2", "--partition=lrz-cpu")
    slurm.wait_for(held, "RUNNING")
    words = ["cluster=lrz_cpu_only", "sweep.params={seed: [1, 2]}", "submit.array=true"]
    result = submit(slurm, tmp_path, *words, f"logging.run_dir={tmp_path}/${{experiment.name}}", hlrp=stub)
    assert result.returncode == 0, result.stderr
    run_dir = tmp_path / "laq_tiny_seed2"
    (job,) = job_ids(run_dir)
    one_error(slurm.run(stub, "submit", "--resume", run_dir), 2, [f"job {job} of this run is PENDING"])
    assert job_ids(run_dir) == [job]
    slurm.output("scancel", held, job.split("_")[0])


def test_an_override_beside_resume_is_refused(slurm, tmp_path):
    """It would change nothing: the run has its scripts. A dry run, too, must not queue."""
    stub = stub_programs(tmp_path / "bin", PAYLOAD)
    submit(slurm, tmp_path, "cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run", hlrp=stub)
    (job,) = job_ids(tmp_path / "run")
    assert slurm.wait_for(job) == "COMPLETED"
    for override in ["submit.dry_run=true", "seed=7"]:
        again = slurm.run(stub, "submit", "--resume", tmp_path / "run", override)
        one_error(again, 2, ["--resume", override, "submit a new run"])
    assert job_ids(tmp_path / "run") == [job]


def test_a_submission_that_was_interrupted_early_says_what_to_do(slurm, tmp_path):
    (tmp_path / "run" / "submit").mkdir(parents=True)
    again = slurm.run(program("hlrp"), "submit", "--resume", tmp_path / "run")
    one_error(again, 2, ["--resume", "has no script", "another directory"])
