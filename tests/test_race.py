"""One run queued on several clusters: the first start trains, and nobody has to watch."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from conftest import MINI, REPO, program
from submission import job_ids, on_cluster, stub_programs, submit

RACE = "submit.race=[lrz_cpu_only,mcml_x100]"
# A payload in place of the trainer: leaves a line, and a run that is finished.
PAYLOAD = """
for word in "$@"; do case $word in logging.run_dir=*) run_dir=${word#*=} ;; esac; done
echo "$SLURM_JOB_ID" >> "$run_dir/payload"
sleep "${PAYLOAD_SECONDS:-0}"
"""
# Both jobs of a race wait for each other before they claim.
BARRIER = """
: > {folder}/at.$SLURM_JOB_ID
for _ in $(seq 1 600); do [[ $(find {folder} -name 'at.*' | wc -l) -ge 2 ]] && break; sleep 0.02; done
"""


def wait_for_all(slurm, jobs: list[str]) -> list[str]:
    return [slurm.wait_for(job, timeout=120) for job in jobs]


def payloads(run_dir: Path) -> list[str]:
    path = run_dir / "payload"
    return path.read_text().split() if path.exists() else []


@pytest.fixture
def stub(tmp_path) -> str:
    return stub_programs(tmp_path / "bin", PAYLOAD)


def occupy(slurm, partition: str) -> str:
    """A job that keeps both nodes busy."""
    job = slurm.submit("sleep 600", "--exclusive", "--nodes=2", f"--partition={partition}")
    slurm.wait_for(job, "RUNNING")
    return job


def test_the_first_start_trains_and_the_sibling_that_waits_is_cancelled(slurm, tmp_path, stub):
    blocker = occupy(slurm, "lrz-cpu")
    bystander = slurm.submit("true", "--partition=lrz-cpu", "--comment=hlrp:somebody else")
    result = submit(slurm, tmp_path, RACE, f"logging.run_dir={tmp_path}/run", hlrp=stub)
    assert result.returncode == 0, result.stderr
    first, second = job_ids(tmp_path / "run")
    assert {slurm.state(job) for job in [first, second, bystander]} == {"PENDING"}
    slurm.output("scontrol", "hold", second, bystander)
    slurm.output("scancel", blocker)
    assert slurm.wait_for(first) == "COMPLETED"
    assert slurm.wait_for(second) == "CANCELLED"
    assert payloads(tmp_path / "run") == [first]
    assert slurm.state(bystander) == "PENDING", "it is not of this run"
    slurm.output("scancel", bystander)


def race_at_once(slurm, root: Path, stub: str, adapted: Callable[[str], str] = str) -> None:
    """Two jobs that start at the same moment, with a bystander; exactly one payload runs. `adapted` changes their scripts."""
    root.mkdir()
    submit_dir = root / "run" / "submit"
    blocker = occupy(slurm, "lrz-cpu")
    result = submit(slurm, root, RACE, f"logging.run_dir={root}/run", hlrp=stub)
    assert result.returncode == 0, result.stderr
    for job in job_ids(root / "run"):
        slurm.output("scancel", job)
    barrier = root / "barrier"
    barrier.mkdir()
    scripts = [submit_dir / f"{cluster}.sbatch" for cluster in ["lrz_cpu_only", "mcml_x100"]]
    for script in scripts:
        text = script.read_text()
        assert text.count("\n# One job trains") == 1
        text = text.replace("\n# One job trains", BARRIER.format(folder=barrier) + "\n# One job trains")
        script.write_text(adapted(text))
    bystander = slurm.submit("sleep 600", "--partition=lrz-cpu", "--comment=hlrp:somebody else")
    jobs = [slurm.output("sbatch", "--parsable", script).strip() for script in scripts]
    slurm.output("scancel", blocker)
    states = wait_for_all(slurm, jobs)
    assert states == ["COMPLETED", "COMPLETED"], states
    assert len(payloads(root / "run")) == 1, payloads(root / "run")
    claims = sorted(path.name.split(".")[0] for path in (submit_dir / "claims").iterdir())
    assert claims == ["1", "lost"]
    assert not set(jobs) & slurm.ids(), "no job of the race is left"
    assert slurm.state(bystander) in {"PENDING", "RUNNING"}
    slurm.output("scancel", bystander)


def test_of_two_starts_at_the_same_moment_one_trains(slurm, tmp_path, stub):
    for index in range(3):
        race_at_once(slurm, tmp_path / str(index), stub)


@pytest.mark.slow  # a minute of delays
def test_on_a_slow_file_system_one_trains(slurm, tmp_path):
    """Every step of the claim takes up to two thirds of a second, another time for each job and each round. The winner trains until the loser
    has decided: whoever comes after its end would take over what it has not finished."""
    lost = 'for _ in $(seq 600); do compgen -G "$run_dir/submit/claims/lost.*" > /dev/null && break; sleep 0.1; done\n'
    stub = stub_programs(tmp_path / "bin", PAYLOAD + lost)
    slow, trace = tmp_path / "slow_hlrp", tmp_path / "trace"
    calls = "mkdir,mkdirat,rename,renameat,renameat2,fsync,fdatasync,getdents64"
    delay = f"inject={calls}:delay_enter=$((RANDOM * 10)):delay_exit=$((RANDOM * 10))"
    slow.write_text(
        "#!/usr/bin/env bash\n"
        f'[[ $2 == begin ]] || exec {stub} "$@"\n'
        f'exec strace --follow-forks --output={trace}.$SLURM_JOB_ID --trace={calls} -e "{delay}" {stub} "$@"\n'
    )
    slow.chmod(0o755)

    def on_slow_disk(script: str) -> str:
        assert script.count(f"hlrp={stub}\n") == 1
        return script.replace(f"hlrp={stub}\n", f"hlrp={slow}\n")

    for index in range(3):
        race_at_once(slurm, tmp_path / str(index), stub, on_slow_disk)
    traces = [path.read_text() for path in tmp_path.glob("trace.*")]
    assert len(traces) == 6 and all("rename" in text and "(DELAYED)" in text for text in traces)


DAY = 86400


@pytest.fixture
def skewed(tmp_path) -> Callable[[str], str]:
    """Gives a script a clock that is a day ahead on LRZ and a day behind on MCML: that of its host, not that of the file server."""
    library = tmp_path / "skewed_clock.so"
    source = REPO / "tests" / "support" / "skewed_clock.c"
    subprocess.run(["gcc", "-shared", "-fPIC", source, "-o", library], check=True, timeout=60)

    def change(script: str) -> str:
        skew = DAY if "/lrz_cpu_only.json" in script else -DAY
        assert script.count("\nhlrp=") == 1
        return script.replace("\nhlrp=", f"\nexport LD_PRELOAD={library} CLOCK_SKEW={skew}\nhlrp=")

    return change


def days_off(owner: Path) -> int:
    """How many days the claim of a job is ahead of this host's clock."""
    claimed = datetime.fromisoformat(json.loads((owner / "owner.json").read_text())["at"])
    return round((claimed.timestamp() - time.time()) / DAY)


def test_of_two_starts_on_hosts_whose_clocks_disagree_one_trains(slurm, tmp_path, stub, skewed):
    for index in range(3):
        race_at_once(slurm, tmp_path / str(index), stub, skewed)
        claims = list((tmp_path / str(index) / "run" / "submit" / "claims").iterdir())
        assert sorted(days_off(claim) for claim in claims) == [-1, 1]


@pytest.mark.parametrize("order", [("lrz_cpu_only", "mcml_x100"), ("mcml_x100", "lrz_cpu_only")])
def test_a_takeover_does_not_ask_the_clock(slurm, tmp_path, stub, skewed, order):
    """The claim of the job that has ended is from tomorrow, or from yesterday, for the one that follows."""
    held = occupy(slurm, "lrz-cpu")
    result = submit(slurm, tmp_path, RACE, f"logging.run_dir={tmp_path}/run", hlrp=stub)
    assert result.returncode == 0, result.stderr
    slurm.output("scancel", *job_ids(tmp_path / "run"), held)
    jobs = []
    for cluster in order:
        script = tmp_path / "run" / "submit" / f"{cluster}.sbatch"
        script.write_text(skewed(script.read_text()))
        jobs.append(slurm.output("sbatch", "--parsable", script).strip())
        assert slurm.wait_for(jobs[-1]) == "COMPLETED"
    assert payloads(tmp_path / "run") == jobs
    assert "this job takes it over" in (tmp_path / "run" / f"{jobs[1]}.err").read_text()
    claims = tmp_path / "run" / "submit" / "claims"
    ahead = {"lrz_cpu_only": 1, "mcml_x100": -1}
    assert [days_off(claims / "1"), days_off(claims / "2")] == [ahead[cluster] for cluster in order]


def test_where_compute_nodes_have_no_slurm_commands_the_claim_decides(slurm, tmp_path, stub):
    """Nobody can ask or cancel: the loser ends by itself."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ["squeue", "scontrol", "scancel", "sbatch", "sacct"]:
        (bare / name).write_text(f'#!/bin/sh\necho "{name}: command not found" >&2\nexit 127\n')
        (bare / name).chmod(0o755)
    race_at_once(
        slurm, tmp_path / "race", stub, lambda script: script.replace("\nhlrp=", f"\nPATH={bare}:$PATH\nhlrp=")
    )
    said = "".join(path.read_text() for path in (tmp_path / "race" / "run").glob("*.err"))
    assert "the siblings on mcml_x100 are not cancelled" in said and "they end by themselves" in said


@pytest.mark.slow
def test_of_a_hundred_simultaneous_starts_each_has_one_winner(slurm, tmp_path, stub):
    """A hundred rounds: what goes wrong in one of fifty is found. Minutes."""
    for index in range(100):
        race_at_once(slurm, tmp_path / str(index), stub)


def test_the_race_needs_no_client(slurm, tmp_path, stub):
    """The client is killed as soon as the first job is in the queue; then as soon as both are."""
    for num_jobs in [1, 2]:
        run_dir = tmp_path / f"run{num_jobs}"
        blocker = occupy(slurm, "lrz-cpu")
        words = [stub, "submit", *MINI, *on_cluster(tmp_path), RACE, f"logging.run_dir={run_dir}"]
        client = subprocess.Popen(
            words, cwd=REPO, env=slurm.env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 60
        while time.monotonic() < end and len(list(run_dir.glob("submit/jobs/*.json"))) < num_jobs:
            time.sleep(0.002)
        client.kill()
        client.wait()
        token = json.loads((run_dir / "submit" / "lrz_cpu_only.json").read_text())["token"]
        slurm.output("scancel", blocker)

        def active(token=token) -> list[str]:
            lines = slurm.output("squeue", "--noheader", "--format=%i %k").splitlines()
            return [line for line in lines if f"hlrp:{token} " in line]

        while active():
            assert time.monotonic() < end, active()
            time.sleep(0.1)
        assert len(payloads(run_dir)) == 1


def test_the_requeued_winner_keeps_the_run_when_its_node_fails(slurm, tmp_path):
    stub = stub_programs(tmp_path / "bin", PAYLOAD + "if [[ ${SLURM_RESTART_COUNT:-0} == 0 ]]; then sleep 600; fi\n")
    result = submit(slurm, tmp_path, "cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run", hlrp=stub)
    assert result.returncode == 0, result.stderr
    (job,) = job_ids(tmp_path / "run")
    slurm.wait_for(job, "RUNNING")
    end = time.monotonic() + 60
    while not payloads(tmp_path / "run"):
        assert time.monotonic() < end
        time.sleep(0.1)
    node = slurm.output("squeue", "--noheader", "--jobs", job, "--format=%N").strip()
    try:
        slurm.output("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
        assert slurm.wait_for(job, "COMPLETED", timeout=120) == "COMPLETED"
    finally:
        # Refused where the node has come back by itself.
        slurm.run("scontrol", "update", f"NodeName={node}", "State=RESUME")
    assert payloads(tmp_path / "run") == [job, job]
    claims = tmp_path / "run" / "submit" / "claims"
    assert json.loads((claims / "2" / "owner.json").read_text())["restart"] == 1


def test_a_sibling_takes_over_when_the_winner_has_ended_without_finishing(slurm, tmp_path, stub):
    """The winner failed; a sibling that could not be cancelled starts later."""
    result = submit(slurm, tmp_path, RACE, f"logging.run_dir={tmp_path}/run", hlrp=stub)
    assert result.returncode == 0, result.stderr
    wait_for_all(slurm, job_ids(tmp_path / "run"))
    before = payloads(tmp_path / "run")
    late = slurm.output("sbatch", "--parsable", tmp_path / "run" / "submit" / "mcml_x100.sbatch").strip()
    assert slurm.wait_for(late) == "COMPLETED"
    assert payloads(tmp_path / "run") == [*before, late]
    assert "this job takes it over" in (tmp_path / "run" / f"{late}.err").read_text()


def test_a_race_that_failed_is_queued_again_on_every_cluster(slurm, tmp_path):
    """The claim of the job that failed is still there: it keeps nobody out."""
    run_dir = tmp_path / "run"
    stub = stub_programs(tmp_path / "bin", PAYLOAD + '[[ $(wc -l < "$run_dir/payload") -ge 3 ]] || exit 3\n')
    assert submit(slurm, tmp_path, RACE, f"logging.run_dir={run_dir}", hlrp=stub).returncode == 0
    wait_for_all(slurm, job_ids(run_dir))
    before = len(payloads(run_dir))
    blocker = occupy(slurm, "lrz-cpu")
    again = slurm.run(stub, "submit", "--resume", run_dir)
    assert again.returncode == 0, again.stderr
    jobs = sorted(job_ids(run_dir), key=int)[-2:]
    assert [slurm.state(job) for job in jobs] == ["PENDING", "PENDING"]
    slurm.output("scancel", blocker)
    wait_for_all(slurm, jobs)
    assert len(payloads(run_dir)) > before


def test_a_sibling_of_a_finished_run_finds_nothing_to_do(slurm, tmp_path):
    words = [RACE, f"logging.run_dir={tmp_path}/run", "training.max_steps=4", "validation.check_interval=4"]
    result = submit(slurm, tmp_path, *words)
    assert result.returncode == 0, result.stderr
    wait_for_all(slurm, job_ids(tmp_path / "run"))
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [session["status"] for session in manifest["sessions"]] == ["finished"]
    late = slurm.output("sbatch", "--parsable", tmp_path / "run" / "submit" / "mcml_x100.sbatch").strip()
    assert slurm.wait_for(late) == "COMPLETED"
    assert "the run is finished" in (tmp_path / "run" / f"{late}.err").read_text()
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == manifest


@pytest.mark.slow  # half a minute until the silence is noticed
def test_a_silent_slurm_means_no_takeover(slurm, tmp_path, stub):
    """The owner may be running: a job that cannot ask leaves the run alone, and ends well."""
    result = submit(slurm, tmp_path, "cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run", hlrp=stub)
    assert result.returncode == 0, result.stderr
    wait_for_all(slurm, job_ids(tmp_path / "run"))
    before = payloads(tmp_path / "run")
    # However old the claim is.
    owner = tmp_path / "run" / "submit" / "claims" / "1" / "owner.json"
    owner.write_text(json.dumps(json.loads(owner.read_text()) | {"at": "2001-01-01T00:00:00+00:00"}))
    for path in [owner, owner.parent]:
        os.utime(path, (0, 0))
    plan = tmp_path / "run" / "submit" / "lrz_cpu_only.json"
    env = slurm.env(SLURM_JOB_ID="999999", SLURM_CLUSTER_NAME="lrz", SLURM_CONF="/nothing/slurm.conf")
    begin = slurm.run(program("hlrp"), "job", "begin", plan, env=env)
    assert begin.returncode == 0, begin.stderr
    assert begin.stdout.strip() == "nothing"
    assert "Slurm does not say whether" in begin.stderr
    assert payloads(tmp_path / "run") == before


def test_a_job_of_another_slurm_is_not_judged_by_this_one(slurm, tmp_path, stub):
    """Both Slurms number their jobs from 1: what this one says about the number is about another job."""
    result = submit(slurm, tmp_path, "cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run", hlrp=stub)
    assert result.returncode == 0, result.stderr
    wait_for_all(slurm, job_ids(tmp_path / "run"))
    plan = tmp_path / "run" / "submit" / "lrz_cpu_only.json"
    env = slurm.env(SLURM_JOB_ID="999999", SLURM_CLUSTER_NAME="mcml")
    begin = slurm.run(program("hlrp"), "job", "begin", plan, env=env)
    assert begin.returncode == 0, begin.stderr
    assert begin.stdout.strip() == "nothing"
    assert "another Slurm" in begin.stderr
