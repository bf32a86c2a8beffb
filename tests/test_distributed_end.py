"""One of several processes fails: all of them end, one reports, and what it says is true.

Most of them meet at a port, as under torchrun and `srun`: the store is in the first of them, and may hang or be gone itself.
"""

import json
import random
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conftest import REPO, read_metrics, run, train_laq_command
from failing_ranks import LONG, SILENCE, TIMEOUT, command, started
from interruption import INTERRUPTED, assert_same_run, last_step, start, wait_for
from ranks import PAIR, SHORT, end_of, free_port, processes_of, send, start_ranks, trainer

# Exit code of a run that lost a process before its first checkpoint.
RANK_LOST = 69


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_the_others(tmp_path, rank):
    run_dir = tmp_path / "run"
    process, ranks = started(run_dir)
    send(ranks[rank], "SIGKILL")
    began = time.monotonic()
    _, text = process.communicate(timeout=60)
    assert time.monotonic() - began < TIMEOUT + 10
    assert process.returncode == INTERRUPTED, text
    assert text.count("error:") == 1 and f"rank {rank} is gone" in text and "last checkpoint:" in text, text


@pytest.mark.slow  # half a minute of waiting
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_hangs_ends_the_others_within_the_time(tmp_path, rank):
    """And itself, by the one that started it, which does not wait for it longer than the others and five seconds."""
    run_dir = tmp_path / "run"
    process, ranks = started(run_dir)
    send(ranks[rank], "SIGSTOP")
    began = time.monotonic()
    _, text = process.communicate(timeout=90)
    assert time.monotonic() - began < TIMEOUT + 15
    assert process.returncode == INTERRUPTED, text
    assert text.count("error:") == 1 and f"rank {rank} is gone or does not answer" in text, text
    if rank == 1:
        session = json.loads((run_dir / "run.json").read_text())["sessions"][-1]
        assert session["status"] == "failed" and "rank 1" in session["reason"]


def test_a_first_process_that_hangs_with_the_store_ends_the_others(tmp_path):
    run_dir = tmp_path / "run"
    first, second = start_ranks(*[command(run_dir, of=LONG)] * 2)
    wait_for(first, lambda: last_step(run_dir) >= 7)
    send(first.pid, "SIGSTOP")
    try:
        codes, [text] = end_of([second], within=TIMEOUT + SILENCE + 15)
    finally:
        first.kill()
    assert codes == [INTERRUPTED], text
    assert text.count("error:") == 1 and "rank 0 is gone or does not answer" in text and "step-000005" in text, text


def test_a_port_where_another_program_is_silent(tmp_path):
    """The first process says so, and the others of its machine need not wait."""
    port = free_port()
    with socket.create_server(("", port)):
        codes, texts = end_of(start_ranks(*[command(tmp_path / "run", timeout=60)] * 4, port=port), within=30)
    assert codes == [1] * 4 and texts[1:] == [""] * 3 and texts[0].count("error:") == 1, texts
    assert f"port {port} cannot be opened" in texts[0] and "set MASTER_PORT to a free port" in texts[0], texts


@pytest.mark.parametrize("host", ["nosuch.invalid", "10.255.255.1"])
def test_a_master_that_is_not_the_machine_of_the_first_process(tmp_path, host):
    codes, texts = end_of(
        start_ranks(*[command(tmp_path / "run", timeout=3)] * 3, all={"MASTER_ADDR": host}), within=40
    )
    assert codes == [1] * 3 and texts[1:] == [""] * 2 and texts[0].count("error:") == 1, texts
    assert f"rank 0 cannot reach itself at {host}:" in texts[0] and "hint: set MASTER_ADDR" in texts[0], texts


def test_a_first_process_that_does_not_come(tmp_path):
    codes, texts = end_of(start_ranks(["sleep", "0"], *[command(tmp_path / "run", timeout=3)] * 2))
    text = "".join(texts)
    assert codes[1:] == [1, 1] and text.count("error:") == 1, text
    assert "does not answer" in text and "MASTER_ADDR" in text, text


def test_a_process_that_does_not_come(tmp_path):
    codes, texts = end_of(start_ranks(*[command(tmp_path / "run", timeout=3)] * 2, size=3))
    text = "".join(texts)
    assert codes == [1, 1] and text.count("error:") == 1, text
    assert "rank 2 did not join" in text, text


def test_processes_that_resume_different_checkpoints(tmp_path, uninterrupted):
    for name in "01":
        shutil.copytree(uninterrupted, tmp_path / name)
    (tmp_path / "1/checkpoints/last").write_text("step-000005\n")
    words = [f"training.distributed.timeout_s={TIMEOUT}", "data.loader.batch_size=2"]
    resumes = [trainer("hlrp-train-laq", "--resume", tmp_path / name, *words) for name in "01"]
    codes, texts = end_of(start_ranks(*resumes), within=60)
    assert codes == [2, 2] and texts[0].count("error:") == 0 and texts[1].count("error:") == 1, texts
    assert "rank 1 has a different checkpoint than rank 0: step 5 (" in texts[1] and "step 24 (" in texts[1], texts


def test_a_wrong_setting_of_one_process_is_reported_by_it(tmp_path):
    words = ["training.max_steps=0"]
    began = time.monotonic()
    codes, texts = end_of(start_ranks(command(tmp_path / "run"), command(tmp_path / "run", *words)), within=60)
    assert codes == [2, 2] and texts[0] == "" and texts[1].count("error:") == 1, texts
    assert "training.max_steps" in texts[1] and "hint:" in texts[1], texts
    # The others may have a long timeout: nobody waits for it.
    codes, texts = end_of(
        start_ranks(command(tmp_path / "run", *words), *[command(tmp_path / "run", timeout=600)] * 2), within=60
    )
    assert codes == [2, 2, 2] and texts[0].count("error:") == 1 and texts[1:] == ["", ""], texts
    assert time.monotonic() - began < 40


def test_without_the_first_two_processes_another_one_reports(tmp_path):
    processes = start_ranks(*[command(tmp_path / "run", timeout=3)] * 2, size=4, first=2)
    codes, texts = end_of(processes, within=30)
    text = "".join(texts)
    assert codes == [1, 1] and text.count("error:") == 1 and "does not answer" in text, text


def test_without_a_network_the_first_process_says_so(tmp_path):
    command_line = command(tmp_path / "run", timeout=600)
    codes, texts = end_of(start_ranks(*[command_line] * 3, all={"GLOO_SOCKET_IFNAME": "nosuch"}), within=40)
    text = "".join(texts)
    assert codes == [1, 1, 1] and text.count("error:") == 1 == texts[0].count("error:"), text
    assert "GLOO_SOCKET_IFNAME=nosuch" in text and "hint:" in text, text
    # A machine without that interface: the others hear it at once.
    codes, texts = end_of(start_ranks(*[command_line] * 2, rank1={"GLOO_SOCKET_IFNAME": "nosuch"}), within=40)
    assert codes == [1, 1] and texts[0] == "" and texts[1].count("error:") == 1, texts


def test_a_wrong_variable_is_reported_once(tmp_path):
    codes, texts = end_of(start_ranks(*[command(tmp_path / "run")] * 3, all={"MASTER_PORT": "abc"}), within=30)
    text = "".join(texts)
    assert codes == [2, 2, 2] and text.count("error:") == 1 and "MASTER_PORT" in text and "abc" in text, text


@pytest.mark.slow  # two jobs that wait for their own
def test_two_jobs_that_use_one_port_do_not_meet(tmp_path):
    """The first process of one job and the second of another: neither takes the other for one of its own."""
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost", "RANK": "", "WORLD_SIZE": ""}
    place = [{**step, "SLURM_PROCID": f"{rank}", "SLURM_LOCALID": f"{rank}"} for rank in range(2)]
    jobs = {"rank0": {**place[0], "SLURM_JOB_ID": "1876"}, "rank1": {**place[1], "SLURM_JOB_ID": "1"}}
    codes, texts = end_of(start_ranks(*[command(tmp_path / "run", timeout=4)] * 2, **jobs), within=40)
    assert codes == [1, 1], texts
    assert "rank 1 did not join the run" in texts[0], texts
    assert "rank 0" in texts[1] or "does not answer" in texts[1], texts


def preloaded(folder: Path, name: str) -> dict[str, str]:
    """The environment of a program that loads that file of `tests/support` first."""
    library = folder / f"{name}.so"
    source = REPO / "tests" / "support" / f"{name}.c"
    subprocess.run(["gcc", "-shared", "-fPIC", source, "-o", library], check=True, timeout=60)
    return {"LD_PRELOAD": str(library)}


@pytest.fixture
def slow_disk(tmp_path):
    """The environment in which the weights of a checkpoint take that many seconds."""
    library = preloaded(tmp_path, "slow_disk")
    return lambda seconds: library | {"SLOW_DISK_S": str(seconds)}


def being_written(run_dir: Path, step: int) -> bool:
    """Whether the weights of that checkpoint are on their way to the disk."""
    return any((run_dir / "checkpoints").glob(f".step-{step:06}*/model.safetensors"))


def test_a_process_lost_while_the_first_writes_a_checkpoint(tmp_path, slow_disk):
    """The third waits for what the first has to say, which is where the run can go on."""
    run_dir = tmp_path / "run"
    line = command(run_dir, "training.checkpoint.every_n_steps=12", of=LONG, timeout=60)
    first, second, third = start_ranks(*[line] * 3, rank0=slow_disk(SILENCE + 4))
    wait_for(first, lambda: being_written(run_dir, 12))
    time.sleep(0.5)
    second.kill()
    codes, texts = end_of([first, third, second], within=60)
    assert codes[:2] == [INTERRUPTED, INTERRUPTED], texts
    assert texts[0].count("error:") == 1 and texts[1] == "", texts
    assert "rank 1 is gone" in texts[0] and "step-000012" in texts[0], texts


@pytest.mark.slow  # five checkpoints of three seconds
def test_the_others_know_every_whole_checkpoint(tmp_path, slow_disk):
    run_dir = tmp_path / "run"
    first, second = start_ranks(*[command(run_dir, of=LONG, timeout=20)] * 2, rank0=slow_disk(3))
    wait_for(first, lambda: being_written(run_dir, 20))
    time.sleep(1)
    first.kill()
    codes, [text, _] = end_of([second, first], within=60)
    assert codes[0] == INTERRUPTED, text
    assert text.count("error:") == 1 and "rank 0 is gone" in text and "step-000015" in text, text


@pytest.mark.slow  # three processes share two cores
def test_one_of_three_processes_that_is_killed_ends_the_others(tmp_path):
    run_dir = tmp_path / "run"
    processes = start_ranks(*[command(run_dir, of=LONG)] * 3)
    wait_for(processes[0], lambda: last_step(run_dir) >= 7)
    began = time.monotonic()
    send(processes[2].pid, "SIGKILL")
    codes, texts = end_of(processes, within=60)
    text = "".join(texts)
    assert codes[:2] == [INTERRUPTED, INTERRUPTED] and text.count("error:") == 1, text
    assert "rank 2 is gone" in text and time.monotonic() - began < TIMEOUT + SILENCE + 10, text


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_in_a_reduction_before_the_first_checkpoint(tmp_path, rank):
    """While it writes its part of a gradient. There is nothing to resume, so a job does not try again."""
    run_dir, mark = tmp_path / "run", tmp_path / "writing"
    slow = preloaded(tmp_path, "slow_network") | {"NETWORK_MB_PER_S": "1", "NETWORK_MARK": str(mark)}
    line = command(run_dir, "training.checkpoint.every_n_steps=100000", of=LONG, timeout=30)
    processes = start_ranks(*[line] * 2, **{f"rank{rank}": slow})
    wait_for(processes[0], lambda: last_step(run_dir) >= 2)
    wait_for(processes[rank], mark.exists)
    processes[rank].kill()
    codes, texts = end_of(processes, within=60)
    code, text = codes[1 - rank], texts[1 - rank]
    assert code == RANK_LOST and text.count("error:") == 1, texts
    assert mark.exists(), "it was writing"
    assert f"rank {rank} is gone" in text and "last checkpoint: none yet" in text and "resume" not in text, text


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_in_a_validation_ends_the_other(tmp_path, rank):
    run_dir = tmp_path / "run"
    words = ["validation.check_interval=8", "validation.limit_batches=null", "data.loader.batch_size=1"]
    processes = start_ranks(*[command(run_dir, *words, of=LONG, timeout=60)] * 2)
    wait_for(processes[0], lambda: last_step(run_dir) >= 8)
    time.sleep(0.3)
    processes[rank].kill()
    codes, texts = end_of(processes, within=120)
    text = texts[1 - rank]
    assert codes[1 - rank] == INTERRUPTED and text.count("error:") == 1, texts
    assert f"rank {rank} is gone" in text and "step-000005" in text, text
    rows = read_metrics(run_dir)
    assert max(row["step"] for row in rows) == 8 and not any("val/loss" in row for row in rows)


def named_checkpoint(text: str) -> str:
    """The checkpoint that an error names."""
    return re.search(r"last checkpoint: \S*/(step-\d+)", text)[1]


def newest_checkpoints(run_dir) -> set[str]:
    """The newest that is whole, and the one that the pointer names: a kill may come between the two."""
    checkpoints = run_dir / "checkpoints"
    return {max(path.name for path in checkpoints.glob("step-*")), (checkpoints / "last").read_text().strip()}


@pytest.mark.slow  # eleven starts
def test_a_process_that_is_killed_at_any_moment_ends_the_others(tmp_path):
    """In steps, in validations and in checkpoints. Resumed each time, the run is in the end the one that nobody disturbed."""
    run_dir, moments = tmp_path / "run", random.Random(0)
    words = [*PAIR, "training.max_steps=200", "validation.check_interval=6"]
    result = run(command(tmp_path / "undisturbed", *words, of=SHORT))
    assert result.returncode == 0, result.stderr
    process = start(command(run_dir, *words, of=SHORT))
    for number in range(10):
        step = last_step(run_dir)
        wait_for(process, lambda at=step: last_step(run_dir) >= at + 6)
        time.sleep(moments.uniform(0, 0.1))
        send(processes_of(process)[number % 2], "SIGKILL")
        _, text = process.communicate(timeout=60)
        assert process.returncode == INTERRUPTED and text.count("error:") == 1, text
        assert f"rank {number % 2} is gone" in text
        assert named_checkpoint(text) in newest_checkpoints(run_dir), text
        process = start(train_laq_command("--resume", run_dir))
    _, text = process.communicate(timeout=300)
    assert process.returncode == 0, text
    assert_same_run(run_dir, tmp_path / "undisturbed", "step-000200")
