"""A job that makes way for another: Slurm warns it, it saves within the grace time, and it goes on when its node is free again."""

import json
import time
from pathlib import Path

import pytest
from conftest import MINI, program, read_metrics, run
from private_slurm import PrivateSlurm, start
from submission import job_ids, stub_programs, submit

# Seconds between the warning and the end of a job.
GRACE = 120
# Long enough to be met in the middle; without a stop nothing is saved before the end.
STEPS = 600
LENGTH = [f"training.max_steps={STEPS}", f"validation.check_interval={STEPS}", "data.loader.num_workers=2"]
# Options of a job that comes first by its quality of service.
BY_QOS = ["--partition=lrz-cpu", "--qos=mcml"]
RARE = ["training.checkpoint.every_n_steps=100000"]

pytestmark = pytest.mark.slow  # half a minute each, and a start of Slurm


@pytest.fixture(params=[f"REQUEUE:{GRACE}", f"CANCEL:{GRACE}", f"CANCEL:{GRACE}:preempt_send_user_signal"])
def preempting(request, tmp_path):
    """A Slurm whose jobs on lrz-cpu make way: at the end of the grace time it would queue them again itself, or cancel them. Its warning is
    TERM to the tasks of the step, or the signal that the job asked for to the batch script."""
    yield from start(tmp_path / "slurm", "--preempt", request.param)


@pytest.fixture(params=["REQUEUE", "CANCEL"])
def preempting_by_qos(request, tmp_path):
    """A Slurm with accounting, where the quality of service decides who makes way, on whatever partition."""
    yield from start(tmp_path / "slurm", "--accounting", "--preempt", f"{request.param}:{GRACE}", "--by-qos")


@pytest.fixture
def preempting_at_once(tmp_path):
    """A Slurm that gives no time but the seconds between TERM and KILL."""
    yield from start(tmp_path / "slurm", "--preempt", "REQUEUE:0")


@pytest.fixture
def cancelling(request, tmp_path):
    """A Slurm with accounting that cancels who makes way: TERM, and KILL after these seconds."""
    options = ["--accounting", "--preempt", "CANCEL:0", "--by-qos", "--kill-wait", request.param]
    yield from start(tmp_path / "slurm", *options)


@pytest.fixture(scope="module")
def losses_alone(tmp_path_factory) -> list[tuple]:
    """Losses of the run without Slurm."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    words = [*MINI, *LENGTH, *RARE, "device=cpu", "num_threads=1", f"logging.run_dir={run_dir}"]
    result = run([program("hlrp"), "train-laq", *words])
    assert result.returncode == 0, result.stderr
    return losses(run_dir)


def losses(run_dir: Path) -> list[tuple]:
    return [(line["step"], line["train/loss"]) for line in read_metrics(run_dir) if "train/loss" in line]


def trains(slurm: PrivateSlurm, root: Path, *words: object) -> tuple[str, Path]:
    """Queues the run and waits until it trains; returns its job and its directory."""
    run_dir = root / "run"
    result = submit(slurm, root, "cluster=lrz_cpu_only", f"logging.run_dir={run_dir}", *LENGTH, *words)
    assert result.returncode == 0, result.stderr
    (job,) = job_ids(run_dir)
    end = time.monotonic() + 60
    metrics = run_dir / "metrics.jsonl"
    while not metrics.is_file() or metrics.read_text().count("\n") < 20:
        assert time.monotonic() < end, (run_dir / f"{job}.err").read_text()
        time.sleep(0.1)
    return job, run_dir


def take_the_node(slurm: PrivateSlurm, *options: str) -> float:
    """A job that comes first uses the whole node for a second; returns how long it waited for it."""
    begin = time.monotonic()
    options = options or ("--partition=lrz-hgx-h100-94x4",)
    job = slurm.submit("sleep 1", *options, "--exclusive", "--time=1")
    slurm.wait_for(job, "RUNNING", "COMPLETED", timeout=GRACE + 60)
    waited = time.monotonic() - begin
    assert slurm.wait_for(job) == "COMPLETED"
    return waited


def test_a_preempted_job_saves_within_the_grace_time_and_continues_to_the_same_losses(
    preempting, losses_alone, tmp_path
):
    saves_makes_way_and_continues(preempting, losses_alone, tmp_path, "--partition=lrz-hgx-h100-94x4")


def test_a_job_that_its_quality_of_service_makes_give_way_continues_to_the_same_losses(
    preempting_by_qos, losses_alone, tmp_path
):
    slurm = preempting_by_qos
    (job, *_) = saves_makes_way_and_continues(slurm, losses_alone, tmp_path, *BY_QOS)
    said = slurm.run(program("hlrp"), "jobs", "status", job, "--json")
    assert said.returncode == 0, said.stderr
    states = [start["state"] for start in json.loads(said.stdout)["starts"]]
    assert states[-1] == "COMPLETED" and len(states) == 2, states


def saves_makes_way_and_continues(slurm: PrivateSlurm, losses_alone, root: Path, *options: str) -> list[str]:
    """Trains, is sent away by a job with these options, and goes on; returns the ids of the run's jobs."""
    job, run_dir = trains(slurm, root, *RARE)
    waited = take_the_node(slurm, *options)
    assert waited < GRACE / 2, "the job has left by itself, not at the end of the grace time"
    code = json.loads((run_dir / "submit" / "exit" / f"{job}.0.0.json").read_text())["code"]
    assert code == 75
    assert slurm.wait_for(job, "COMPLETED", timeout=600) == "COMPLETED", (run_dir / f"{job}.err").read_text()
    assert job_ids(run_dir) == [job], "it was queued again under its own id"
    sessions = json.loads((run_dir / "run.json").read_text())["sessions"]
    assert [session["status"] for session in sessions] == ["interrupted", "finished"]
    assert 0 < sessions[1]["start_step"] < STEPS, "it went on where it had saved"
    assert losses(run_dir) == losses_alone
    return job_ids(run_dir)


def test_a_job_that_is_preempted_without_a_grace_time_continues_from_its_last_checkpoint(
    preempting_at_once, losses_alone, tmp_path
):
    """Slurm itself queues it again, whether it could still save or was killed."""
    job, run_dir = trains(preempting_at_once, tmp_path, "training.checkpoint.every_n_steps=10")
    take_the_node(preempting_at_once)
    state = preempting_at_once.wait_for(job, "COMPLETED", timeout=600)
    assert state == "COMPLETED", (run_dir / f"{job}.err").read_text()
    sessions = json.loads((run_dir / "run.json").read_text())["sessions"]
    assert [session["status"] for session in sessions] in (["interrupted", "finished"], ["killed", "finished"])
    assert 0 < sessions[1]["start_step"] < STEPS
    assert job_ids(run_dir) == [job]
    assert losses(run_dir) == losses_alone


@pytest.mark.parametrize("cancelling", [60], indirect=True)
def test_where_preemption_cancels_and_nothing_is_requeued_another_job_continues(cancelling, losses_alone, tmp_path):
    """As on sites that allow no requeueing: the job saves after TERM, and queues its successor before it is over."""
    slurm = cancelling
    job, run_dir = trains(slurm, tmp_path, *RARE)
    slurm.output("scontrol", "update", f"JobId={job}", "Requeue=0")
    assert take_the_node(slurm, *BY_QOS) < 60, "the job has left by itself"
    assert slurm.wait_for(job) == "PREEMPTED"
    assert how_it_ended(slurm, job, run_dir) == "PREEMPTED"
    first, second = job_ids(run_dir)
    assert first == job
    assert slurm.wait_for(second, timeout=600) == "COMPLETED", (run_dir / f"{second}.err").read_text()
    sessions = json.loads((run_dir / "run.json").read_text())["sessions"]
    assert [(session["status"], session["slurm"]["id"]) for session in sessions] == [
        ("interrupted", first),
        ("finished", second),
    ]
    assert losses(run_dir) == losses_alone


# Stands in for a trainer that is deep in a system call when it is told to stop; its second start ends well.
DEAF = """
for word in "$@"; do case $word in logging.run_dir=*) run_dir=${word#*=} ;; esac; done
echo "$SLURM_JOB_ID" >> "$run_dir/payload"
trap '' TERM USR1
while [[ $(wc -l < "$run_dir/payload") -lt 2 ]]; do sleep 1; done
"""


@pytest.mark.parametrize("cancelling", [1], indirect=True)
def test_a_job_that_preemption_kills_is_continued_by_its_user(cancelling, tmp_path):
    """Nothing of it is left that could queue the run again; its end is recorded."""
    slurm, run_dir = cancelling, tmp_path / "run"
    stub = stub_programs(tmp_path / "bin", DEAF)
    result = submit(slurm, tmp_path, "cluster=lrz_cpu_only", f"logging.run_dir={run_dir}", hlrp=stub)
    assert result.returncode == 0, result.stderr
    (job,) = job_ids(run_dir)
    slurm.wait_for(job, "RUNNING")
    end = time.monotonic() + 60
    while not (run_dir / "payload").is_file():
        assert time.monotonic() < end
        time.sleep(0.1)
    take_the_node(slurm, *BY_QOS)
    assert slurm.wait_for(job) == "PREEMPTED"
    assert how_it_ended(slurm, job, run_dir) == "PREEMPTED"
    assert job_ids(run_dir) == [job]
    again = slurm.run(stub, "submit", "--resume", run_dir)
    assert again.returncode == 0, again.stderr
    second = job_ids(run_dir)[-1]
    assert slurm.wait_for(second) == "COMPLETED", (run_dir / f"{second}.err").read_text()
    assert (run_dir / "payload").read_text().split() == [job, second]


def how_it_ended(slurm: PrivateSlurm, job: str, run_dir: Path) -> str:
    """The job's last state, as `hlrp jobs status` says it and keeps it."""
    said = slurm.run(program("hlrp"), "jobs", "status", job, "--json")
    assert said.returncode == 0, said.stderr
    last = json.loads(said.stdout)["starts"][-1]["state"]
    assert json.loads((run_dir / "submit" / "final.json").read_text())[job]["state"] == last
    return last
