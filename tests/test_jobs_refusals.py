"""`hlrp jobs` where Slurm, the id or the answer is not as expected: one clear error each."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import one_error
from jobs_commands import fake_commands, jobs


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
