"""`hlrp jobs cancel`: only jobs that hlrp submitted for this user, and only after a question."""

import json
import shutil
import subprocess

import pytest
import submission
from conftest import REPO, one_error
from jobs_commands import as_json, jobs, on_terminal, printed, submit, wait_for_text
from submission import stub_programs


@pytest.mark.slow  # slurmdbd and MariaDB take ten seconds to start, and there is a second cluster
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


@pytest.mark.slow  # two Slurms, as above
def test_a_waiting_job_of_a_race_over_two_slurms_leaves_the_run_to_the_other(
    slurm_with_accounting, second_slurm, tmp_path
):
    slurms = {"lrz": slurm_with_accounting, "mcml": second_slurm}
    tree, run_dir = tmp_path / "config", tmp_path / "run"
    shutil.copytree(REPO / "config", tree)
    for option, name in [("lrz_cpu_only", "lrz"), ("mcml_x100", "mcml")]:
        file = tree / "cluster" / f"{option}.yaml"
        assert file.read_text().count("\nslurm:\n") == 1
        file.write_text(file.read_text().replace("\nslurm:\n", f"\nslurm:\n  clusters: {name}\n"))
        slurms[name].output("scontrol", "update", "NodeName=n1", "State=DRAIN", "Reason=test")
    race = ["--config-dir", tree, "submit.race=[lrz_cpu_only,mcml_x100]", f"logging.run_dir={run_dir}"]
    result = submission.submit(slurm_with_accounting, tmp_path, *race)
    assert result.returncode == 0, result.stderr
    records = [json.loads(path.read_text()) for path in sorted((run_dir / "submit/jobs").iterdir())]
    ids = {record["clusters"]: record["id"] for record in records}
    assert f"watch with: hlrp jobs watch '{ids['lrz']};lrz' '{ids['mcml']};mcml'" in result.stdout
    printed(slurm_with_accounting, "cancel", f"{ids['lrz']};lrz", "--yes")
    assert not (run_dir / "submit/cancelled.json").exists()
    assert second_slurm.state(ids["mcml"]) == "PENDING"
    printed(slurm_with_accounting, "cancel", f"{ids['mcml']};mcml", "--yes")
    assert (run_dir / "submit/cancelled.json").exists(), "the last job of the run takes the run with it"
    for each in slurms.values():
        each.output("scontrol", "update", "NodeName=n1", "State=RESUME")


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


def test_a_waiting_member_of_an_array_is_cancelled_alone(slurm, tmp_path):
    """The other members have runs of their own: none of them goes on with this one."""
    hlrp = stub_programs(tmp_path / "bin", "sleep 300")
    blocker = slurm.submit("sleep 600", "--exclusive", "--nodes=2", "--partition=lrz-cpu")
    slurm.wait_for(blocker, "RUNNING")
    words = ["cluster=lrz_cpu_only", "sweep.params={seed: [1, 2]}", "submit.array=true"]
    words.append(f"logging.run_dir={tmp_path}/${{experiment.name}}")
    result = submission.submit(slurm, tmp_path, *words, hlrp=hlrp)
    assert result.returncode == 0, result.stderr
    first, second = (tmp_path / f"laq_tiny_seed{seed}" for seed in (1, 2))
    (job,) = submission.job_ids(second)
    assert printed(slurm, "cancel", job, "--yes") == f"cancelled job {job}\n"
    assert (second / "submit/cancelled.json").exists() and not (first / "submit/cancelled.json").exists()
    slurm.output("scancel", blocker, *submission.job_ids(first))


def test_what_scancel_refuses_is_not_noted_as_cancelled(slurm, tmp_path):
    job = submit(slurm, "sleep 300", tmp_path)
    env = submission.stand_in(slurm.env(), tmp_path / "bin", "scancel", "#!/bin/sh\necho refused >&2\nexit 1\n")
    one_error(jobs(slurm, "cancel", job, "--yes", env=env), 1, ["scancel: refused"])
    assert not (tmp_path / "submit/cancelled.json").exists()
    slurm.output("scancel", job)


def test_job_zero_is_no_job(slurm):
    one_error(jobs(slurm, "cancel", "0", "--yes"), 2, ["0"])
