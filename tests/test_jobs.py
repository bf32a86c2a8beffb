"""`hlrp jobs` as a user of a cluster sees it, against a Slurm of the tests' own: what waits and runs, also from a workstation."""

import json
import re
import shutil

import pytest
from conftest import REPO, program
from jobs_commands import as_json, fake_commands, printed, submit

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
    [found] = json.loads(lines.removeprefix(shown.replace("--json", "--json --yes")))
    assert found["id"] == job
    slurm.output("scancel", job)


@pytest.mark.parametrize("command", ["list", "show", "watch", "logs", "status", "cancel"])
def test_help_teaches(slurm, command):
    text = printed(slurm, command, "--help")
    assert "--json" in text and "--clusters" in text
