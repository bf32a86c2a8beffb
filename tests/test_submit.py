"""`hlrp submit` with a real Slurm: what is queued trains, and what is stopped goes on."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import MINI, REPO, one_error, program, read_metrics, run
from submission import (
    inventory,
    job_ids,
    on_cluster,
    shellcheck,
    stand_in,
    stub_programs,
    submit,
    wait_until,
)


def test_a_run_trains_as_a_job(slurm, tmp_path):
    result = submit(slurm, tmp_path, "cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run")
    assert result.returncode == 0, result.stderr
    run_dir = tmp_path / "run"
    (job,) = job_ids(run_dir)
    assert job in result.stdout
    assert f"hlrp jobs watch {job}" in result.stdout
    assert slurm.wait_for(job) == "COMPLETED", (run_dir / f"{job}.err").read_text()
    assert "start" in (run_dir / f"{job}.err").read_text() or (run_dir / f"{job}.out").stat().st_size > 0
    manifest = json.loads((run_dir / "run.json").read_text())
    assert manifest["sessions"][-1]["status"] == "finished"
    assert manifest["sessions"][-1]["slurm"]["id"] == job
    assert read_metrics(run_dir)[-1]["step"] == 24
    assert {path.name for path in (run_dir / "submit").iterdir()} >= {
        "lrz_cpu_only.sbatch",
        "lrz_cpu_only.json",
        "config",
        "claims",
        "jobs",
        "exit",
    }


def test_a_job_with_two_gpus_trains_in_two_processes(slurm, tmp_path):
    """Slurm's GPUs are pretended ones, and the processes that share them compute on CPUs."""
    run_dir = tmp_path / "run"
    two_gpus = ["cluster.compute.gpus_per_node=2", f"logging.run_dir={run_dir}"]
    result = submit(slurm, tmp_path, "cluster=lrz_h100", *two_gpus, "data.loader.batch_size=4")
    assert result.returncode == 0, result.stderr
    (job,) = job_ids(run_dir)
    log = run_dir / f"{job}.err"
    assert slurm.wait_for(job) == "COMPLETED", log.read_text()
    assert "2 processes with 4 samples per batch each: 8 together" in log.read_text()
    assert read_metrics(run_dir)[-1]["step"] == 24


def test_an_edit_of_the_tree_does_not_reach_a_job_that_waits(slurm, tmp_path):
    """A job composes from the copy in its run directory."""
    tree = tmp_path / "config"
    subprocess.run(["cp", "-r", str(REPO / "config"), str(tree)], check=True)
    held = slurm.submit("sleep 300", "--exclusive", "--nodes=2", "--partition=lrz-cpu")
    slurm.wait_for(held, "RUNNING")
    result = submit(slurm, tmp_path, "cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run", f"--config-dir={tree}")
    assert result.returncode == 0, result.stderr
    experiment = tree / "experiment" / "laq_tiny.yaml"
    experiment.write_text(experiment.read_text().replace("image_deltas: [0, 20]", "image_deltas: [0, 5]"))
    slurm.output("scancel", held)
    (job,) = job_ids(tmp_path / "run")
    assert slurm.wait_for(job) == "COMPLETED"
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert "- 20" in config or "[0, 20]" in config


def test_a_dry_run_writes_nothing_and_asks_nobody(tmp_path):
    before = inventory(tmp_path)
    words = ["cluster=lrz_x100", "submit.dry_run=true", f"logging.run_dir={tmp_path}/run"]
    env = {"PATH": "/nowhere", "HOME": str(tmp_path)}
    result = submit(None, tmp_path, *words, env=env)
    assert result.returncode == 0, result.stderr
    assert f"#SBATCH --output={tmp_path}/run/%j.out" in result.stdout
    assert "#SBATCH --partition=lrz-hgx-h100-94x4,lrz-hgx-a100-80x4,lrz-dgx-a100-80x8" in result.stdout
    assert "nothing was written" in result.stdout
    as_json = submit(None, tmp_path, *words, "submit.print=json", env=env)
    (run,) = json.loads(as_json.stdout)["runs"]
    assert run["jobs"][0]["cluster"] == "lrz_x100"
    assert run["jobs"][0]["script"].startswith("#!/usr/bin/env bash\n#SBATCH --job-name=hlrp_laq_tiny\n")
    assert inventory(tmp_path) == before


def test_a_dry_run_shows_the_script_of_the_check_too(tmp_path):
    words = ["cluster=lrz_x100", "submit.dry_run=true", f"logging.run_dir={tmp_path}/run", "submit.preflight=true"]
    text = submit(None, tmp_path, *words).stdout
    assert f"── {tmp_path}/run/submit/lrz_x100.preflight.sbatch ──\n#!/usr/bin/env bash\n" in text
    (run,) = json.loads(submit(None, tmp_path, *words, "submit.print=json").stdout)["runs"]
    check = run["jobs"][0]["preflight"]
    assert check["script_path"] == f"{tmp_path}/run/submit/lrz_x100.preflight.sbatch"
    shellcheck(check["script"])
    (run,) = json.loads(submit(None, tmp_path, *words[:-1], "submit.print=json").stdout)["runs"]
    assert run["jobs"][0]["preflight"] is None


@pytest.mark.parametrize("array", ["false", "true"])
def test_a_sweep_is_one_job_for_each_run_or_an_array(slurm, tmp_path, array):
    sweep = [
        "sweep.params={seed: [1, 2]}",
        f"submit.array={array}",
        "training.max_steps=4",
        "validation.check_interval=4",
    ]
    words = ["cluster=lrz_cpu_only", *sweep, f"logging.run_dir={tmp_path}/${{experiment.name}}", "submit.array_limit=1"]
    result = submit(slurm, tmp_path, *words)
    assert result.returncode == 0, result.stderr
    for seed in [1, 2]:
        run_dir = tmp_path / f"laq_tiny_seed{seed}"
        (job,) = job_ids(run_dir)
        assert ("_" in job) == (array == "true")
        assert slurm.wait_for(job) == "COMPLETED", (run_dir / f"{job}.err").read_text()
        assert f"seed: {seed}\n" in (run_dir / "config.yaml").read_text()
        assert json.loads((run_dir / "run.json").read_text())["sessions"][-1]["status"] == "finished"


def test_a_job_that_is_told_to_stop_continues_to_the_same_losses(slurm, tmp_path):
    """The warning before the time limit is a signal to the batch script; the job saves, ends with 75, and is queued again under its id."""
    slow = ["training.checkpoint.every_n_steps=1000", "data.loader.num_workers=2"]
    result = submit(slurm, tmp_path, "cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run", *slow)
    assert result.returncode == 0, result.stderr
    run_dir = tmp_path / "run"
    (job,) = job_ids(run_dir)
    wait_until(lambda: (run_dir / "metrics.jsonl").is_file() and (run_dir / "metrics.jsonl").stat().st_size > 0)
    slurm.output("scancel", "--batch", "--signal=USR1", job)
    wait_until(lambda: (run_dir / "submit" / "exit" / f"{job}.0.0.json").is_file())
    assert json.loads((run_dir / "submit" / "exit" / f"{job}.0.0.json").read_text())["code"] == 75
    wait_until(lambda: len(json.loads((run_dir / "run.json").read_text())["sessions"]) == 2)
    assert slurm.wait_for(job) == "COMPLETED", (run_dir / f"{job}.err").read_text()
    losses = [(line["step"], line["train/loss"]) for line in read_metrics(run_dir) if "train/loss" in line]
    command = [program("hlrp"), "train-laq", *MINI, *slow, "device=cpu", "num_threads=1"]
    run([*command, f"logging.run_dir={tmp_path}/alone"])
    alone = [(line["step"], line["train/loss"]) for line in read_metrics(tmp_path / "alone") if "train/loss" in line]
    assert losses == alone
    claims = sorted(path.name for path in (run_dir / "submit" / "claims").iterdir())
    assert claims == ["1", "2"]


def test_the_exit_code_of_a_failing_job_arrives(slurm, tmp_path):
    words = [
        "cluster=lrz_cpu_only",
        f"logging.run_dir={tmp_path}/run",
        f"data.sources.metaworld_mt5.root={tmp_path}/nothing",
    ]
    result = submit(slurm, tmp_path, *words)
    assert result.returncode == 0, result.stderr
    (job,) = job_ids(tmp_path / "run")
    assert slurm.wait_for(job) == "FAILED"
    details = slurm.output("scontrol", "show", "job", job)
    code = json.loads((tmp_path / "run" / "submit" / "exit" / f"{job}.0.0.json").read_text())["code"]
    assert code > 1
    assert f"ExitCode={code}:0" in details


def test_a_run_that_left_no_checkpoint_starts_again_and_keeps_what_it_left(slurm, tmp_path):
    """As after a node failure before the first checkpoint."""
    run_dir = tmp_path / "run"
    words = ["cluster=lrz_cpu_only", f"logging.run_dir={run_dir}", "training.checkpoint.every_n_steps=1000"]
    words += ["training.max_steps=300", "validation.check_interval=300"]
    assert submit(slurm, tmp_path, *words).returncode == 0
    (job,) = job_ids(run_dir)
    wait_until(lambda: (run_dir / "metrics.jsonl").is_file() and (run_dir / "metrics.jsonl").stat().st_size > 0)
    subprocess.run(["pkill", "-KILL", "-f", f"hlrp-train-laq.*{run_dir}"], check=True)
    assert slurm.wait_for(job) == "FAILED"
    again = slurm.run(program("hlrp"), "submit", "--resume", run_dir)
    assert again.returncode == 0, again.stderr
    second = job_ids(run_dir)[-1]
    assert second != job
    assert slurm.wait_for(second) == "COMPLETED", (run_dir / f"{second}.err").read_text()
    assert (run_dir / "superseded" / "start-1" / "run.json").is_file()
    assert json.loads((run_dir / "run.json").read_text())["sessions"][-1]["status"] == "finished"


def test_a_pipeline_is_one_job_for_each_step(slurm, tmp_path):
    """Each step waits for the one before and reads the pipeline's own state."""
    stub = stub_programs(tmp_path / "bin", 'exec "$(command -v false)"')
    words = ["submit", "experiment=pipeline_tiny", "cluster=lrz_cpu_only", *on_cluster(tmp_path), "submit.dry_run=true"]
    dry = slurm.run(program("hlrp"), *words, "submit.print=json", cwd=REPO)
    assert dry.returncode == 0, dry.stderr
    (run,) = json.loads(dry.stdout)["runs"]
    steps = [(job["step"], job["after"]) for job in run["jobs"]]
    assert steps == [
        ("1_laq", None),
        ("2_vla", "1_laq"),
        ("3_lerobot", "2_vla"),
        ("4_rollout_button_press", "3_lerobot"),
        ("4_rollout_button_press_blind", "4_rollout_button_press"),
    ]
    # The first step fails: those after it say so and train nothing.
    words = [*words[:-1], f"logging.run_dir={tmp_path}/pipeline", "logging.min_free_gb=0.1"]
    result = slurm.run(stub, *words, cwd=REPO)
    assert result.returncode == 0, result.stderr
    ids = job_ids(tmp_path / "pipeline")
    assert [slurm.wait_for(job) for job in ids] == ["FAILED"] * 5
    assert "1_laq, which 2_vla needs, has failed" in (tmp_path / "pipeline" / f"{ids[1]}.err").read_text()


def test_the_steps_of_a_pipeline_are_submitted_as_it_says(tmp_path):
    """Section `submit` is the pipeline's: its steps have none of their own."""
    words = ["experiment=pipeline_tiny", "cluster=mcml_x100", *on_cluster(tmp_path), f"logging.run_dir={tmp_path}/run"]
    words += ["submit.pre_commands=[source keys.sh]", "submit.max_restarts=3", "submit.save_before_limit='00:07:00'"]
    dry = run([program("hlrp"), "submit", *words, "submit.dry_run=true", "submit.print=json"], cwd=REPO)
    for job in json.loads(dry.stdout)["runs"][0]["jobs"]:
        assert job["max_restarts"] == 3
        assert "eval 'source keys.sh' || leave\n" in job["script"]
        assert "#SBATCH --signal=B:USR1@420\n" in job["script"]


@pytest.mark.parametrize("max_restarts", [3, 0])
def test_a_step_that_starts_too_early_waits_for_the_one_before(slurm, tmp_path, max_restarts):
    """As in a race of pipelines, where the first step has started on the other cluster. How often it waits is bounded."""
    stub = stub_programs(tmp_path / "bin", f"while [[ ! -e {tmp_path}/go ]]; do sleep 0.1; done\nexit 1\n")
    words = ["experiment=pipeline_tiny", "cluster=lrz_cpu_only", *on_cluster(tmp_path), "logging.min_free_gb=0.1"]
    words += [f"submit.max_restarts={max_restarts}", f"logging.run_dir={tmp_path}/run"]
    result = slurm.run(stub, "submit", *words, cwd=REPO)
    assert result.returncode == 0, result.stderr
    first, second, *_ = job_ids(tmp_path / "run")
    wait_until((tmp_path / "run" / "pipeline.json").is_file)
    slurm.output("scontrol", "update", f"JobId={second}", "Dependency=")
    if max_restarts == 0:
        assert slurm.wait_for(second) == "FAILED"
        error = (tmp_path / "run" / f"{second}.err").read_text()
        assert "still works on 1_laq, and submit.max_restarts=0 is reached" in error
        (tmp_path / "go").touch()
        assert slurm.wait_for(first) == "FAILED"
        return
    assert slurm.wait_for(second) == "COMPLETED"
    records = (tmp_path / "run" / "submit" / "2_vla" / "jobs").glob("*.json")
    (later,) = {json.loads(path.read_text())["id"] for path in records} - {second}
    assert f"afterany:{first}" in slurm.output("squeue", "--noheader", f"--jobs={later}", "--format=%E")
    (tmp_path / "go").touch()
    assert [slurm.wait_for(job) for job in (first, later)] == ["FAILED", "FAILED"]
    assert "1_laq, which 2_vla needs, has failed" in (tmp_path / "run" / f"{later}.err").read_text()


def test_without_slurm_the_same_plan_runs_here(tmp_path):
    words = ["sweep.params={seed: [1, 2]}", "training.max_steps=4", "validation.check_interval=4"]
    command = [program("hlrp"), "submit", *MINI, *words, f"logging.run_dir={tmp_path}/${{experiment.name}}"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=REPO, timeout=300)
    assert result.returncode == 0, result.stderr
    for seed in [1, 2]:
        assert (
            json.loads((tmp_path / f"laq_tiny_seed{seed}" / "run.json").read_text())["sessions"][-1]["status"]
            == "finished"
        )


def test_what_a_command_before_the_run_exports_reaches_it_without_slurm_too(tmp_path):
    hlrp = stub_programs(tmp_path / "bin", f'echo "$GREETING" > {tmp_path}/said')
    words = ["submit.pre_commands=['export GREETING=hello']", f"logging.run_dir={tmp_path}/run"]
    result = submit(None, tmp_path, "cluster=local_dev", *words, hlrp=hlrp)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "said").read_text() == "hello\n"
    again = subprocess.run([hlrp, "submit", "--resume", tmp_path / "run"], capture_output=True, text=True)
    one_error(again, 2, ["--resume", "without Slurm", f"hlrp train-laq --resume {tmp_path}/run"])


def test_a_node_without_the_gpus_of_the_job_is_noticed_before_the_run(slurm, tmp_path):
    """Slurm's GPUs are pretended ones: nvidia-smi finds none."""
    words = ["cluster=lrz_h100", "cluster.compute.gpus_per_node=1", "submit.preflight=true"]
    result = submit(slurm, tmp_path, *words, f"logging.run_dir={tmp_path}/run")
    assert result.returncode == 0, result.stderr
    check, job = job_ids(tmp_path / "run")
    assert (slurm.wait_for(check), slurm.wait_for(job)) == ("FAILED", "CANCELLED")
    assert "0 on this node, but the job asks for 1" in (tmp_path / "run" / f"{check}.out").read_text()


def test_a_job_checks_its_node_first(slurm, tmp_path):
    words = ["cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run", "submit.preflight=true", "training.max_steps=4"]
    words += [f"paths.runs_dir={tmp_path}/my_runs", f"paths.cache_dir={tmp_path}/my_cache"]
    result = submit(slurm, tmp_path, *words)
    assert result.returncode == 0, result.stderr
    check, job = job_ids(tmp_path / "run")
    assert slurm.wait_for(check) == "COMPLETED", (tmp_path / "run" / f"{check}.err").read_text()
    shellcheck((tmp_path / "run" / "submit" / "lrz_cpu_only.preflight.sbatch").read_text())
    report = json.loads((tmp_path / "run" / "submit" / "lrz_cpu_only.preflight.report.json").read_text())
    said = {line["name"]: line["text"] for line in report["findings"]}
    assert {"libtorch", "run directory", "credentials"} <= set(said)
    assert slurm.wait_for(job) == "COMPLETED"
    # The disks are those of the run's own configuration.
    assert said["runs"].startswith(f"{tmp_path}/my_runs,") and said["cache"].startswith(f"{tmp_path}/my_cache,")
    assert said["cache directory"] == f"{tmp_path}/my_cache is writable"


def test_a_run_whose_check_fails_leaves_the_queue(slurm, tmp_path):
    words = ["cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run", "submit.preflight=true"]
    words.append("submit.pre_commands=['exit 3']")
    result = submit(slurm, tmp_path, *words)
    assert result.returncode == 0, result.stderr
    check, job = job_ids(tmp_path / "run")
    assert slurm.wait_for(check) == "FAILED"
    assert slurm.wait_for(job, timeout=120) == "CANCELLED"


def test_the_working_directory_may_have_any_character_of_a_line(slurm, tmp_path):
    place = tmp_path / 'my "runs" \\n $HOME'
    place.mkdir()
    stub = stub_programs(tmp_path / "bin", "pwd > $SLURM_JOB_ID.pwd")
    words = ["cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run", f"--config-dir={REPO}/config"]
    result = submit(slurm, tmp_path, *words, hlrp=stub, cwd=place)
    assert result.returncode == 0, result.stderr
    (job,) = job_ids(tmp_path / "run")
    assert slurm.wait_for(job) == "COMPLETED", (tmp_path / "run" / f"{job}.err").read_text()
    assert (place / f"{job}.pwd").read_text() == f"{place}\n"


def sbatch_after(folder: Path, line: str) -> str:
    """A PATH on which sbatch is a script that runs a line first; the real one is at `$sbatch`."""
    folder.mkdir()
    fake = folder / "sbatch"
    fake.write_text(f'#!/bin/bash\nsbatch={shutil.which("sbatch")}\n{line}\nexec $sbatch "$@"\n')
    fake.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_what_is_queued_is_listed_when_sbatch_refuses_a_later_job(slurm, tmp_path):
    """The limit of the user is met in the middle of a sweep."""
    count = tmp_path / "count"
    limit = f'echo >> {count}; if [[ $(wc -l < {count}) -gt 2 ]]; then echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1; fi'
    env = slurm.env(PATH=sbatch_after(tmp_path / "bin", limit))
    runs = f"logging.run_dir={tmp_path}/${{experiment.name}}"
    result = submit(slurm, tmp_path, "cluster=lrz_cpu_only", "sweep.params={seed: [1, 2, 3, 4]}", runs, env=env)
    one_error(result, 1, ["QOSMaxSubmitJobPerUserLimit"])
    (first,), (second,) = job_ids(tmp_path / "laq_tiny_seed1"), job_ids(tmp_path / "laq_tiny_seed2")
    assert f"watch with: hlrp jobs watch {first} {second}\n" in result.stdout
    assert job_ids(tmp_path / "laq_tiny_seed3") == job_ids(tmp_path / "laq_tiny_seed4") == []
    left = [line for line in result.stdout.splitlines() if line.startswith("not queued")]
    runs = [f"{tmp_path}/laq_tiny_seed{seed}" for seed in (3, 4)]
    assert left == [f"not queued: {run}; continue with: hlrp submit --resume {run}" for run in runs]
    slurm.output("scancel", first, second)


def test_a_sweep_that_is_interrupted_has_named_each_job(slurm, tmp_path):
    """The client is killed while the second job is submitted."""
    held = f"touch {tmp_path}/at.$$; if [[ $(ls {tmp_path}/at.* | wc -l) -gt 1 ]]; then exec sleep 300; fi"
    words = ["sweep.params={seed: [1, 2]}", f"logging.run_dir={tmp_path}/${{experiment.name}}", "cluster=lrz_cpu_only"]
    command = [program("hlrp"), "submit", *MINI, *on_cluster(tmp_path), *words]
    env = slurm.env(PATH=sbatch_after(tmp_path / "bin", held))
    client = subprocess.Popen(command, cwd=REPO, env=env, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(list(tmp_path.glob("at.*"))) == 2)
    client.kill()
    (job,) = job_ids(tmp_path / "laq_tiny_seed1")
    assert f"job {job} is in the queue of lrz_cpu_only: hlrp_laq_tiny_seed1" in client.communicate(timeout=60)[1]
    slurm.output("scancel", job)


def test_of_two_submissions_into_one_directory_at_once_one_is_queued(slurm, tmp_path):
    for attempt in range(5):
        words = [*on_cluster(tmp_path), "cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run{attempt}"]
        command = [program("hlrp"), "submit", *MINI, *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        clients = [subprocess.Popen(command, cwd=REPO, env=slurm.env(), **pipes) for _ in range(2)]
        results = [(client.communicate(timeout=60)[1], client.returncode) for client in clients]
        assert sorted(code for _, code in results) == [0, 2], results
        assert any("logging.run_dir: " in error for error, code in results if code == 2), results
        (job,) = job_ids(tmp_path / f"run{attempt}")
        slurm.output("scancel", job)


@pytest.mark.parametrize(
    "afterwards",
    [
        "sleep 300",
        "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1",
        "echo 'a note of the site'",
    ],
)
def test_an_sbatch_without_an_answer_is_looked_up_before_a_second_try(slurm, tmp_path, afterwards):
    """The job was taken, but sbatch hangs, says that it does not know, or says something else: there is one job in the end."""
    real = subprocess.run(["which", "sbatch"], capture_output=True, text=True, check=True).stdout.strip()
    env = stand_in(slurm.env(), tmp_path / "bin", "sbatch", f'#!/bin/bash\n{real} "$@" > /dev/null\n{afterwards}\n')
    result = submit(
        slurm,
        tmp_path,
        "cluster=lrz_cpu_only",
        f"logging.run_dir={tmp_path}/run",
        "training.max_steps=4",
        "--timeout=2",
        env=env,
    )
    assert result.returncode == 0, result.stderr
    assert "looking for the job by its comment" in result.stderr
    (job,) = job_ids(tmp_path / "run")
    assert slurm.wait_for(job) == "COMPLETED"
    comment = json.loads((tmp_path / "run" / "submit" / "lrz_cpu_only.json").read_text())["token"]
    found = slurm.output("squeue", "--states=all", "--noheader", "--format=%i %k").splitlines()
    assert sum(f"hlrp:{comment} " in line for line in found) == 1
