"""A submission whose client is killed before everything is queued: `hlrp submit --resume` adds what is missing, and nothing twice."""

import itertools
import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import REPO, one_error
from submission import job_ids, on_cluster, stand_in, stub_programs, submit, wait_until

RACE = ["cluster=lrz_cpu_only", "submit.race=[lrz_cpu_only,mcml_x100]"]
# Leaves a line.
PAYLOAD = """
for word in "$@"; do case $word in logging.run_dir=*) run_dir=${word#*=} ;; esac; done
echo "$SLURM_JOB_ID" >> "$run_dir/payload"
"""


@pytest.fixture
def stub(tmp_path) -> str:
    return stub_programs(tmp_path / "bin", PAYLOAD)


@pytest.fixture
def occupied(slurm):
    """Both nodes are busy until the test cancels this job."""
    job = slurm.submit("sleep 600", "--exclusive", "--nodes=2", "--partition=lrz-cpu")
    slurm.wait_for(job, "RUNNING")
    yield job
    slurm.run("scancel", job)


def cut_off(slurm, folder: Path, script: str, *, is_taken: bool = False) -> dict[str, str]:
    """The environment in which the client is killed when it submits `script`, before Slurm has taken the job or right after."""
    real = shutil.which("sbatch")
    take = f'{real} "$@" > /dev/null; ' if is_taken else ""
    text = f'#!/bin/bash\n[[ "${{@: -1}}" != */{script} ]] || {{ {take}kill -KILL $PPID; exit 1; }}\nexec {real} "$@"\n'
    return stand_in(slurm.env(), folder, "sbatch", text)


def queued(slurm, run_dir: Path) -> list[str]:
    """The comments of the run's jobs in the queue, without the token: every job that there is, recorded or not."""
    (plan,) = {json.loads(path.read_text())["token"] for path in run_dir.glob("submit/**/*.json") if has_token(path)}
    lines = slurm.output("squeue", "--noheader", "--sort=i", "--format=%k").splitlines()
    return [line.split(maxsplit=1)[1] for line in lines if line.startswith(f"hlrp:{plan} ")]


def has_token(path: Path) -> bool:
    return "token" in json.loads(path.read_text())


def dependency(slurm, job: str) -> str:
    return slurm.output("scontrol", "show", "job", job).split("Dependency=")[1].split()[0]


@pytest.mark.parametrize("moment", ["before the second job", "before the id of the first is noted"])
def test_the_other_cluster_of_a_race_is_added(slurm, occupied, tmp_path, stub, moment):
    run_dir = tmp_path / "run"
    if moment == "before the second job":
        env = cut_off(slurm, tmp_path / "sbatch", "mcml_x100.sbatch")
    else:
        env = cut_off(slurm, tmp_path / "sbatch", "lrz_cpu_only.sbatch", is_taken=True)
    client = submit(slurm, tmp_path, *RACE, f"logging.run_dir={run_dir}", hlrp=stub, env=env)
    assert client.returncode == -signal.SIGKILL
    assert queued(slurm, run_dir) == ["lrz_cpu_only"]
    again = slurm.run(stub, "submit", "--resume", run_dir)
    assert again.returncode == 0, again.stderr
    assert queued(slurm, run_dir) == ["lrz_cpu_only", "mcml_x100"]
    first, second = sorted(job_ids(run_dir), key=int)
    assert f"watch with: hlrp jobs watch {second}\n" in again.stdout
    # Everything is there: a second time there is nothing to add.
    one_error(slurm.run(stub, "submit", "--resume", run_dir), 2, [f"job {first} of this run is PENDING"])
    assert queued(slurm, run_dir) == ["lrz_cpu_only", "mcml_x100"]
    slurm.output("scancel", occupied)
    assert sorted(slurm.wait_for(job) for job in [first, second]) in (["CANCELLED", "COMPLETED"], ["COMPLETED"] * 2)
    assert len((run_dir / "payload").read_text().split()) == 1


def test_of_two_clients_at_once_one_queues(slurm, occupied, tmp_path, stub):
    """The other is told to wait while the first is at work, which a slow `sbatch` draws out."""
    run_dir = tmp_path / "run"
    env = cut_off(slurm, tmp_path / "cut", "lrz_cpu_only.sbatch")
    assert (
        submit(slurm, tmp_path, *RACE, f"logging.run_dir={run_dir}", hlrp=stub, env=env).returncode == -signal.SIGKILL
    )
    slow = f'#!/bin/bash\ntouch {tmp_path}/started\nsleep 3\nexec {shutil.which("sbatch")} "$@"\n'
    command = [stub, "submit", "--resume", str(run_dir)]
    first = subprocess.Popen(command, env=stand_in(slurm.env(), tmp_path / "slow", "sbatch", slow))
    wait_until((tmp_path / "started").exists)
    one_error(slurm.run(*command), 73, [f"{run_dir}/submit is in use by process {first.pid}"])
    assert first.wait(60) == 0
    assert queued(slurm, run_dir) == ["lrz_cpu_only", "mcml_x100"]
    slurm.output("scancel", *job_ids(run_dir))


def test_a_cluster_whose_job_was_cancelled_is_added_again(slurm, occupied, tmp_path, stub):
    """The other jobs of the race wait on."""
    run_dir = tmp_path / "run"
    assert submit(slurm, tmp_path, *RACE, f"logging.run_dir={run_dir}", hlrp=stub).returncode == 0
    first, second = job_ids(run_dir)
    cancelled = slurm.run(stub, "jobs", "cancel", first, "--yes")
    assert cancelled.returncode == 0, cancelled.stderr
    again = slurm.run(stub, "submit", "--resume", run_dir)
    assert again.returncode == 0, again.stderr
    assert sorted(queued(slurm, run_dir)) == ["lrz_cpu_only", "mcml_x100"]
    ends = json.loads((run_dir / "submit/final.json").read_text())
    assert {job: end["state"] for job, end in ends.items()} == {first: "CANCELLED"}, "how it ended is kept"
    assert {slurm.state(second), slurm.state(job_ids(run_dir)[-1])} == {"PENDING"}
    slurm.output("scancel", *job_ids(run_dir))


def test_a_run_is_added_behind_its_check(slurm, occupied, tmp_path, stub):
    """Killed between the job that checks the node and the run: the check alone would start nothing."""
    run_dir = tmp_path / "run"
    env = cut_off(slurm, tmp_path / "sbatch", "lrz_cpu_only.sbatch")
    words = [*RACE, "submit.preflight=true", f"logging.run_dir={run_dir}"]
    assert submit(slurm, tmp_path, *words, hlrp=stub, env=env).returncode == -signal.SIGKILL
    (check,) = job_ids(run_dir)
    again = slurm.run(stub, "submit", "--resume", run_dir)
    assert again.returncode == 0, again.stderr
    expected = ["lrz_cpu_only preflight", "lrz_cpu_only", "mcml_x100 preflight", "mcml_x100"]
    assert queued(slurm, run_dir) == expected
    ids = sorted(job_ids(run_dir), key=int)
    assert ids[0] == check
    assert dependency(slurm, ids[1]).startswith(f"afterok:{check}")
    assert dependency(slurm, ids[3]).startswith(f"afterok:{ids[2]}")
    slurm.output("scancel", *ids)


def test_the_other_steps_of_a_pipeline_are_added(slurm, occupied, tmp_path, stub):
    run_dir = tmp_path / "pipeline"
    env = cut_off(slurm, tmp_path / "sbatch", "3_lerobot/lrz_cpu_only.sbatch")
    words = ["submit", "experiment=pipeline_tiny", "cluster=lrz_cpu_only", *on_cluster(tmp_path)]
    words += [f"logging.run_dir={run_dir}", "logging.min_free_gb=0.1"]
    assert slurm.run(stub, *words, cwd=REPO, env=env).returncode == -signal.SIGKILL
    first, second = job_ids(run_dir)
    again = slurm.run(stub, "submit", "--resume", run_dir)
    assert again.returncode == 0, again.stderr
    steps = ["1_laq", "2_vla", "3_lerobot", "4_rollout_button_press", "4_rollout_button_press_blind"]
    assert queued(slurm, run_dir) == [f"lrz_cpu_only {step}" for step in steps]
    jobs = sorted(job_ids(run_dir), key=int)
    assert jobs[:2] == [first, second]
    for before, job in itertools.pairwise(jobs[1:]):
        assert dependency(slurm, job).startswith(f"afterany:{before}")
    slurm.output("scancel", *jobs)


def test_scripts_that_were_not_all_written_are_not_queued(slurm, tmp_path, stub):
    """Nothing was queued then, and the plan of the other cluster is not known."""
    run_dir = tmp_path / "run"
    held = slurm.submit("sleep 600", "--exclusive", "--nodes=2", "--partition=lrz-cpu")
    slurm.wait_for(held, "RUNNING")
    assert submit(slurm, tmp_path, *RACE, f"logging.run_dir={run_dir}", hlrp=stub).returncode == 0
    slurm.output("scancel", *job_ids(run_dir), held)
    (run_dir / "submit" / "mcml_x100.sbatch").rename(tmp_path / "elsewhere")
    before = job_ids(run_dir)
    one_error(slurm.run(stub, "submit", "--resume", run_dir), 2, ["--resume", "has no script for 'mcml_x100'"])
    assert job_ids(run_dir) == before


@pytest.mark.parametrize("moment", ["sbatch hangs", "the client is killed"])
def test_the_members_of_an_array_are_queued_once(slurm, occupied, tmp_path, stub, moment):
    """Slurm has taken the array, but its client does not hear of it."""
    words = ["cluster=lrz_cpu_only", "sweep.params={seed: [1, 2]}", "submit.array=true", "--timeout=2"]
    words.append(f"logging.run_dir={tmp_path}/${{experiment.name}}")
    run_dirs = [tmp_path / f"laq_tiny_seed{seed}" for seed in (1, 2)]
    real = shutil.which("sbatch")
    after = "sleep 300" if moment == "sbatch hangs" else "kill -KILL $PPID"
    env = stand_in(slurm.env(), tmp_path / "sbatch", "sbatch", f'#!/bin/bash\n{real} "$@" > /dev/null\n{after}\n')
    before = slurm.ids()
    client = submit(slurm, tmp_path, *words, hlrp=stub, env=env)
    if moment == "sbatch hangs":
        assert client.returncode == 0, client.stderr
    else:
        assert client.returncode == -signal.SIGKILL
    (array,) = {job.split("_")[0] for job in slurm.ids() - before}
    for number, run_dir in enumerate(run_dirs):
        one_error(slurm.run(stub, "submit", "--resume", run_dir), 2, [f"job {array}_{number} of this run is PENDING"])
        assert job_ids(run_dir) == [f"{array}_{number}"]
    slurm.output("scancel", occupied)
    assert [slurm.wait_for(f"{array}_{number}") for number in (0, 1)] == ["COMPLETED", "COMPLETED"]


def test_a_member_of_an_array_that_slurm_has_forgotten_is_queued_again(slurm, tmp_path, stub):
    """The array is still there: then Slurm does not say that the id is invalid."""
    words = ["cluster=lrz_cpu_only", "sweep.params={seed: [1, 2]}", "submit.array=true"]
    result = submit(slurm, tmp_path, *words, f"logging.run_dir={tmp_path}/${{experiment.name}}", hlrp=stub)
    assert result.returncode == 0, result.stderr
    run_dir = tmp_path / "laq_tiny_seed1"
    (member,) = job_ids(run_dir)
    assert slurm.wait_for(member) == "COMPLETED"
    real = shutil.which("scontrol")
    forgets = (
        f'#!/bin/bash\nif [[ $* == *{member}* ]]; then echo "Job {member} not found"; exit 1; fi\nexec {real} "$@"\n'
    )
    env = stand_in(slurm.env(), tmp_path / "scontrol", "scontrol", forgets)
    again = slurm.run(stub, "submit", "--resume", run_dir, env=env)
    assert again.returncode == 0, again.stderr
    assert len(job_ids(run_dir)) == 2
