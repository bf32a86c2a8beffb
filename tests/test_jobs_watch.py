"""`hlrp jobs watch`: what changes, until it is over."""

import json
import re
import shutil

from jobs_commands import fake_commands, jobs, on_terminal, printed, submit


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
    ends = json.loads((tmp_path / "submit/final.json").read_text())
    assert {job: (end["state"], end["exit"]["code"]) for job, end in ends.items()} == {
        first: ("COMPLETED", 0),
        second: ("FAILED", 3),
    }


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
