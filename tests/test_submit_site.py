"""What `hlrp submit` does besides training: a site is checked, an image imported; and what stops a run that could never end."""

import hashlib
import json
import subprocess
import time

import pytest
from conftest import MINI, REPO, one_error, program, read_metrics, run
from submission import inventory, job_ids, on_cluster, shellcheck, stand_in, stub_programs, submit


def test_a_site_is_checked_by_two_jobs_that_race_and_one_that_reports(slurm, tmp_path):
    words = [program("hlrp"), "submit", "acceptance", *MINI, "cluster=lrz_cpu_only", *on_cluster(tmp_path)]
    result = slurm.run(*words, f"logging.run_dir={tmp_path}/site", cwd=REPO)
    assert result.returncode == 0, result.stderr
    report = tmp_path / "site" / "acceptance.md"
    end = time.monotonic() + 60
    while not report.exists():
        assert time.monotonic() < end, result.stdout
        time.sleep(0.1)
    for script in (tmp_path / "site" / "submit").glob("*.sbatch"):
        shellcheck(script.read_text())
    text = report.read_text()
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.count("|") > 3}
    for check in ["claim", "Slurm from a compute node", "libtorch", "run directory", "cache directory", "credentials"]:
        assert " ok " in rows[check], text
    assert {"gpu", "rendering", "runs"} <= set(rows), "what a node has is in the report, whether a run needs it or not"
    assert "1 of 2 jobs ran" in rows["claim"]
    assert "The site does what a run needs." in text


def test_a_dry_run_of_a_check_or_an_import_has_its_jobs(tmp_path):
    site = [*MINI, "cluster=lrz_cpu_only", *on_cluster(tmp_path), f"cluster.images.dir={tmp_path}/enroot"]
    site += [f"logging.run_dir={tmp_path}/run", "submit.dry_run=true"]
    others = [
        (["acceptance"], ["lrz_cpu_only", "lrz_cpu_only.report"]),
        (["image-import", "docker://image:1"], ["lrz_cpu_only"]),
    ]
    for other, names in others:
        command = [program("hlrp"), "submit", *other, *site]
        paths = [f"{tmp_path}/run/submit/{name}.sbatch" for name in names]
        text = run(command).stdout
        assert [line.split()[1] for line in text.splitlines() if line.startswith("── ")] == paths
        jobs = json.loads(run([*command, "submit.print=json"]).stdout)["jobs"]
        assert [job["script_path"] for job in jobs] == paths
        for job in jobs:
            shellcheck(job["script"])
            assert text.count(job["script"].partition("#SBATCH --chdir")[2]) == 1, "but for the token in the comment"
    assert not (tmp_path / "run").exists()


def test_a_check_or_an_import_never_writes_over_the_scripts_of_a_run(slurm, tmp_path):
    assert submit(slurm, tmp_path, "cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run").returncode == 0
    before = (tmp_path / "run" / "submit" / "lrz_cpu_only.sbatch").read_text()
    site = [*MINI, "cluster=lrz_cpu_only", *on_cluster(tmp_path), f"cluster.images.dir={tmp_path}/enroot"]
    for other in [["acceptance"], ["image-import", "docker://image:1"]]:
        result = slurm.run(program("hlrp"), "submit", *other, *site, f"logging.run_dir={tmp_path}/run", cwd=REPO)
        one_error(result, 2, ["logging.run_dir", "belongs to another submission"])
    assert (tmp_path / "run" / "submit" / "lrz_cpu_only.sbatch").read_text() == before
    (job,) = job_ids(tmp_path / "run")
    slurm.output("scancel", job)
    slurm.wait_for(job)


def test_a_check_or_an_import_leaves_a_folder_with_other_files_alone(slurm, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
    site = [*MINI, "cluster=lrz_cpu_only", *on_cluster(tmp_path), f"cluster.images.dir={tmp_path}/enroot"]
    before = (inventory(tmp_path), slurm.ids())
    for other in [["acceptance"], ["image-import", "docker://image:1"]]:
        result = slurm.run(program("hlrp"), "submit", *other, *site, f"logging.run_dir={tmp_path}/thesis", cwd=REPO)
        one_error(result, 2, ["logging.run_dir", "not empty"])
    assert (inventory(tmp_path), slurm.ids()) == before


def test_an_image_is_imported_on_a_compute_node_with_enough_memory(slurm, tmp_path):
    command = [program("hlrp"), "submit", "image-import", "docker://ghcr.io/you/hlrp:1", "--name", "hlrp"]
    words = ["cluster=lrz_cpu_only", *on_cluster(tmp_path), f"cluster.images.dir={tmp_path}/enroot"]
    dry = slurm.run(*command, *words, "submit.dry_run=true", cwd=REPO)
    assert dry.returncode == 0, dry.stderr
    assert "#SBATCH --mem=128G" in dry.stdout
    assert f"containers/import.sh docker://ghcr.io/you/hlrp:1 {tmp_path}/enroot hlrp" in dry.stdout
    enroot = '#!/bin/bash\n[[ $2 == --output ]] && echo image > "$3"\n'
    env = stand_in(slurm.env(), tmp_path / "bin", "enroot", enroot)
    result = slurm.run(*command, *words, f"logging.run_dir={tmp_path}/import", cwd=REPO, env=env)
    assert result.returncode == 0, result.stderr
    (job,) = job_ids(tmp_path / "import")
    assert slurm.wait_for(job) == "COMPLETED", (tmp_path / "import" / f"{job}.err").read_text()
    (image,) = (tmp_path / "enroot").glob("hlrp_*.sqsh")
    assert image.name in (tmp_path / "enroot" / "activation_log.tsv").read_text()


def test_an_import_without_a_stated_memory_is_refused(slurm, tmp_path):
    command = [
        program("hlrp"),
        "submit",
        "image-import",
        "docker://image:1",
        "cluster=lrz_cpu_only",
        *on_cluster(tmp_path),
    ]
    words = ["cluster.compute.mem_gb=null", f"cluster.images.dir={tmp_path}/enroot"]
    one_error(slurm.run(*command, *words, cwd=REPO), 2, ["cluster.compute.mem_gb", "128"])


@pytest.mark.parametrize(
    "source, name, said",
    [
        ("ftp://image:1", "hlrp", ["'ftp://image:1'", "docker://"]),
        ("docker://", "hlrp", ["'docker://'"]),
        ("docker://image:1", "../hlrp", ["'../hlrp'", "plain name"]),
        ("docker://image:1", "hlrp.sqsh", ["'hlrp.sqsh'", "date and .sqsh are added"]),
        ("docker://user:hf_abcDEF123456789@host#image:1", "hlrp", ["source", "secret"]),
    ],
)
def test_an_import_that_cannot_work_is_refused_before_it_waits(slurm, tmp_path, source, name, said):
    command = [program("hlrp"), "submit", "image-import", source, "--name", name, "cluster=lrz_cpu_only"]
    words = [*on_cluster(tmp_path), f"cluster.images.dir={tmp_path}/enroot"]
    one_error(slurm.run(*command, *words, "submit.dry_run=true", cwd=REPO), 1, said)


def test_a_check_or_an_import_needs_space_and_its_image(slurm, tmp_path):
    site = [*MINI, "cluster=lrz_cpu_only", *on_cluster(tmp_path), f"cluster.images.dir={tmp_path}/enroot"]
    site.append(f"logging.run_dir={tmp_path}/run")
    before = (inventory(tmp_path), slurm.ids())
    for other in [["acceptance"], ["image-import", "docker://image:1"]]:
        full = slurm.run(program("hlrp"), "submit", *other, *site, 'cluster.quota_command=[echo,"0 1000000"]', cwd=REPO)
        one_error(full, 74, ["0.00 GiB free in its quota"])
    missing = ["cluster.container.runtime=pyxis", "cluster.container.image=/nothing/image.sqsh"]
    result = slurm.run(program("hlrp"), "submit", "acceptance", *site, *missing, cwd=REPO)
    one_error(result, 2, ["cluster.container.image", "/nothing/image.sqsh"])
    assert (inventory(tmp_path), slurm.ids()) == before


def test_an_image_goes_to_an_allowed_folder_only(slurm, tmp_path):
    command = [program("hlrp"), "submit", "image-import", "docker://image:1", "cluster=lrz_cpu_only"]
    words = [*on_cluster(tmp_path / "mine"), f"cluster.images.dir={tmp_path}/others"]
    words.append("submit.dry_run=true")
    one_error(slurm.run(*command, *words, cwd=REPO), 2, ["cluster.images.dir", "cluster.allowed_roots"])
    words[-2] = f"cluster.images.dir={tmp_path}/mine/a b"
    one_error(slurm.run(*command, *words, cwd=REPO), 2, ["cluster.images.dir", "blank"])


STAGE3 = ["experiment=lerobot_hlrp_smoke", "cluster=lrz_x100", "cluster.allowed_roots=null", "submit.dry_run=true"]


def test_a_stop_of_stage_3_has_its_price_printed():
    result = run([program("hlrp"), "submit", *STAGE3, "lerobot.save_freq=20"])
    assert result.returncode == 0, result.stderr
    assert "a stop costs up to 20 steps (lerobot.save_freq); set submit.seconds_per_step" in result.stdout
    pipeline = [word.replace("lerobot_hlrp_smoke", "pipeline_local") for word in STAGE3]
    assert "note: a stop costs up to" in run([program("hlrp"), "submit", *pipeline]).stdout
    timed = run([program("hlrp"), "submit", *STAGE3, "lerobot.save_freq=20", "submit.seconds_per_step=6"])
    assert "a stop costs up to 20 steps, 2 minutes" in timed.stdout


def test_a_stage_3_that_could_never_save_is_refused():
    result = run([program("hlrp"), "submit", *STAGE3, "lerobot.steps=2000", "submit.seconds_per_step=2"])
    one_error(result, 2, ["lerobot.save_freq", "1000 steps", "00:30:00"])


def test_several_machines_are_for_stages_that_train_on_them(tmp_path):
    """LeRobot trains on all GPUs of one machine."""
    others = [
        ["experiment=lerobot_hlrp_smoke"],
        ["experiment=rollout_local", "lerobot_eval.policy_path=/storage/policy"],
        ["experiment=pipeline_local"],
        ["experiment=laq_token_analysis", "checkpoint=/storage/laq"],
    ]
    site = [*on_cluster(tmp_path, gpus=4)[:5], "submit.dry_run=true", f"logging.run_dir={tmp_path}/run"]
    for other in others:
        result = run([program("hlrp"), "submit", *other, "cluster=lrz_h100_multinode", *site])
        one_error(result, 2, ["cluster.compute.num_nodes", "one machine"])
    alone = run([program("hlrp"), "submit", *others[0], "cluster=lrz_h100", *site])
    assert alone.returncode == 0, alone.stderr
    assert "#SBATCH --gres=gpu:4" in alone.stdout and "#SBATCH --ntasks-per-node=1\n" in alone.stdout


@pytest.mark.parametrize("is_installed", [True, False])
def test_the_check_of_stage_3_asks_the_python_that_is_configured(slurm, lerobot, tmp_path, is_installed):
    """Not the one that comes first on PATH. Without LeRobot there, the run leaves the queue."""
    lerobot.behave(lerobot="0.6.1" if is_installed else None)
    python = lerobot.bin / "python"
    words = ["experiment=lerobot_hlrp_smoke", "cluster=lrz_cpu_only", *on_cluster(tmp_path)[:6]]
    words += [f"lerobot.command={lerobot.bin}/lerobot-train", f"lerobot.python={python}", "submit.preflight=true"]
    words += [f"logging.run_dir={tmp_path}/run", "logging.min_free_gb=0.1"]
    env = stand_in(slurm.env(), tmp_path / "first", "python3", f"#!/bin/sh\ntouch {tmp_path}/asked\n")
    result = slurm.run(program("hlrp"), "submit", *words, cwd=REPO, env=env)
    assert result.returncode == 0, result.stderr
    check, job = job_ids(tmp_path / "run")
    if is_installed:
        slurm.output("scancel", job)
    assert slurm.wait_for(check) == ("COMPLETED" if is_installed else "FAILED")
    assert slurm.wait_for(job) == "CANCELLED"
    report = json.loads((tmp_path / "run" / "submit" / "lrz_cpu_only.preflight.report.json").read_text())
    said = {line["name"]: (line["status"], line["text"]) for line in report["findings"]}
    if is_installed:
        assert said["interpreter"] == ("ok", f"{python}, Python 3.12.0, LeRobot 0.6.1")
        assert any("libEGL" in " ".join(call["arguments"]) for call in lerobot.calls("python"))
    else:
        assert said["interpreter"] == ("problem", f"{python} has no LeRobot")
    assert not (tmp_path / "asked").exists()


def test_the_check_of_a_step_asks_the_python_of_that_step(slurm, lerobot, tmp_path):
    """The configuration of the pipeline is composed for the step; stage 1 has no Python."""
    python, run_dir = lerobot.bin / "python", tmp_path / "run"
    words = ["experiment=pipeline_tiny", "cluster=lrz_cpu_only", *on_cluster(tmp_path), f"logging.run_dir={run_dir}"]
    words += ["logging.min_free_gb=0.1", "submit.preflight=true"]
    words.append(f"pipeline.lerobot.overrides=[lerobot.command={lerobot.bin}/lerobot-train,lerobot.python={python}]")
    held = slurm.submit("sleep 300", "--exclusive", "--nodes=2", "--partition=lrz-cpu")
    slurm.wait_for(held, "RUNNING")
    result = slurm.run(program("hlrp"), "submit", *words, cwd=REPO)
    assert result.returncode == 0, result.stderr
    slurm.output("scancel", *job_ids(run_dir), held)
    for step, expected in [("1_laq", None), ("3_lerobot", f"{python}, Python 3.12.0, LeRobot 0.6.1")]:
        plan = run_dir / "submit" / step / "lrz_cpu_only.json"
        start = json.loads(plan.read_text())["start"]
        arguments = start[1 : start.index("--step")]
        slurm.run(program("hlrp"), "job", "preflight", plan, *arguments, cwd=REPO)
        report = json.loads(plan.with_name("lrz_cpu_only.preflight.report.json").read_text())
        said = {line["name"]: line["text"] for line in report["findings"]}
        assert said.get("interpreter") == expected


def test_wandb_without_credentials_is_refused_before_hours_in_a_queue(slurm, tmp_path):
    env = slurm.env(HOME=str(tmp_path))
    env.pop("WANDB_API_KEY", None)
    words = [
        program("hlrp"),
        "submit",
        "experiment=lerobot_hlrp_smoke",
        "cluster=lrz_x100",
        *on_cluster(tmp_path, gpus=1)[:4],
    ]
    words += ["lerobot.wandb_enable=true", f"logging.run_dir={tmp_path}/run"]
    result = slurm.run(*words, cwd=REPO, env=env)
    one_error(result, 2, ["lerobot.wandb_enable", "WANDB_API_KEY", "wandb login"])


@pytest.mark.parametrize("step, switch", [("lerobot", "lerobot.wandb_enable"), ("vla", "logging.use_wandb")])
def test_the_steps_of_a_pipeline_need_their_credentials_too(slurm, tmp_path, step, switch):
    env = slurm.env(HOME=str(tmp_path))
    env.pop("WANDB_API_KEY", None)
    words = [program("hlrp"), "submit", "experiment=pipeline_tiny", "cluster=lrz_cpu_only", *on_cluster(tmp_path)[:5]]
    words += [f'pipeline.{step}.overrides=["{switch}=true"]', f"logging.run_dir={tmp_path}/run"]
    before = inventory(tmp_path)
    one_error(slurm.run(*words, cwd=REPO, env=env), 2, [switch, "WANDB_API_KEY"])
    assert inventory(tmp_path) == before


def test_a_secret_that_a_command_would_have_is_refused(slurm, tmp_path):
    """`${oc.env:NAME}` would put the value into script and output; what the shell of the node reads is not in them."""
    command = 'submit.pre_commands=["export WANDB_API_KEY={}"]'
    words = ["cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run"]
    env = slurm.env(MY_KEY="0123456789abcdef0123456789abcdef01234567")
    before = inventory(tmp_path)
    result = submit(slurm, tmp_path, *words, command.format("${oc.env:MY_KEY}"), env=env)
    one_error(result, 2, ["submit.pre_commands", "a command contains a secret", "source ~/.my_keys"])
    assert inventory(tmp_path) == before and env["MY_KEY"] not in result.stderr
    fine = 'submit.pre_commands=["source ~/.my_keys"]'
    fine = submit(slurm, tmp_path, *words, fine, "submit.dry_run=true", env=env)
    assert fine.returncode == 0, fine.stderr


def test_a_task_that_left_no_record_has_failed(slurm, tmp_path):
    """Of two tasks one ended well and one was killed: srun's code is that of the job."""
    held = slurm.submit("sleep 300", "--exclusive", "--nodes=2", "--partition=lrz-cpu")
    slurm.wait_for(held, "RUNNING")
    two = ["cluster.compute.num_nodes=2", f"logging.run_dir={tmp_path}/run"]
    assert submit(slurm, tmp_path, "cluster=lrz_cpu_only", *two).returncode == 0
    (job,) = job_ids(tmp_path / "run")
    plan = tmp_path / "run" / "submit" / "lrz_cpu_only.json"
    exits = plan.with_name("exit")
    exits.mkdir()
    env = slurm.env(SLURM_JOB_ID=job)

    def code_of(codes: list[int], of_srun: int) -> int:
        for rank, code in enumerate(codes):
            record = {"code": code, "at": "2026-01-31T12:00:00+01:00"}
            (exits / f"{job}.0.{rank}.json").write_text(json.dumps(record))
        return slurm.run(program("hlrp"), "job", "end", plan, str(of_srun), cwd=REPO, env=env).returncode

    assert code_of([0], 137) == 137
    assert code_of([0, 0], 137) == 0, "both have ended well"
    assert code_of([0, 65], 143) == 65, "the cause, not its consequence"
    slurm.output("scancel", held, job)


def test_a_token_that_others_may_read_is_a_warning(slurm, tmp_path):
    token = tmp_path / ".cache" / "huggingface" / "token"
    token.parent.mkdir(parents=True)
    token.write_text("hf_abcDEF123456789\n")
    token.chmod(0o644)
    words = ["cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run", "training.max_steps=4"]
    result = submit(slurm, tmp_path, *words, env=slurm.env(HOME=str(tmp_path)))
    assert result.returncode == 0, result.stderr
    assert f"other users may read {token}: chmod 600" in result.stderr
    (job,) = job_ids(tmp_path / "run")
    assert slurm.wait_for(job) == "COMPLETED"
    everything = [path.read_text(errors="ignore") for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not any("hf_abcDEF123456789" in text for text in everything)


@pytest.mark.parametrize("place", [".cache/huggingface/token", ".huggingface/token"])
def test_the_token_of_hugging_face_is_read_inside_the_job(slurm, tmp_path, place):
    """From the user's file, under both names; no file of the run has it."""
    token = tmp_path / "home" / place
    token.parent.mkdir(parents=True)
    token.write_text("hf_abcDEF123456789\n")
    token.chmod(0o600)
    digest = 'printf "%s %s" "$HF_TOKEN" "$HUGGINGFACE_HUB_TOKEN" | sha256sum > "$run_dir/digest"'
    words = 'for word in "$@"; do case $word in logging.run_dir=*) run_dir=${word#*=} ;; esac; done'
    stub = stub_programs(tmp_path / "bin", f"{words}\n{digest}")
    env = {name: value for name, value in slurm.env(HOME=f"{tmp_path}/home").items() if "TOKEN" not in name}
    result = submit(slurm, tmp_path, "cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run", hlrp=stub, env=env)
    assert result.returncode == 0, result.stderr
    (job,) = job_ids(tmp_path / "run")
    assert slurm.wait_for(job) == "COMPLETED", (tmp_path / "run" / f"{job}.err").read_text()
    expected = hashlib.sha256(b"hf_abcDEF123456789 hf_abcDEF123456789").hexdigest()
    assert (tmp_path / "run" / "digest").read_text().split()[0] == expected
    everything = [path.read_text(errors="ignore") for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not any("hf_abcDEF123456789" in text for text in everything)


@pytest.mark.slow
def test_a_job_that_meets_its_time_limit_goes_on_to_the_end(slurm, tmp_path):
    """Slurm itself sends the warning, a minute or more before the limit: minutes, with more starts on a slower machine."""
    words = ["cluster.compute.time_limit='00:02:00'", "submit.save_before_limit='00:01:30'"]
    words += ["training.max_steps=4000", "validation.check_interval=4000", "training.checkpoint.every_n_steps=4000"]
    words += ["training.log_every_n_steps=500", "submit.max_restarts=200"]
    result = submit(slurm, tmp_path, "cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run", *words)
    assert result.returncode == 0, result.stderr
    (job,) = job_ids(tmp_path / "run")
    assert slurm.wait_for(job, "COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", timeout=3600) == "COMPLETED"
    sessions = json.loads((tmp_path / "run" / "run.json").read_text())["sessions"]
    assert len(sessions) > 1
    assert {session["status"] for session in sessions[:-1]} == {"interrupted"}
    assert read_metrics(tmp_path / "run")[-1]["step"] == 4000
    steps = [line["step"] for line in read_metrics(tmp_path / "run") if "train/loss" in line]
    assert steps == sorted(set(steps))


@pytest.mark.slow
def test_a_pipeline_runs_as_dependent_jobs_from_video_to_rollouts(slurm, tmp_path):
    """All five steps, each its own job: as long as `make demo`."""
    words = ["experiment=pipeline_tiny", "cluster=lrz_cpu_only", *on_cluster(tmp_path), "logging.min_free_gb=0.1"]
    command = [
        program("hlrp"),
        "submit",
        *words,
        f"logging.run_dir={tmp_path}/pipeline",
        "cluster.compute.time_limit='01:00:00'",
    ]
    env = slurm.env()
    env["PATH"] = f"{REPO}/.venv/bin:{env['PATH']}"
    result = subprocess.run(command, capture_output=True, text=True, cwd=REPO, env=env, timeout=300)
    assert result.returncode == 0, result.stderr
    ids = job_ids(tmp_path / "pipeline")
    states = [slurm.wait_for(job, timeout=3000) for job in ids]
    errors = "".join((tmp_path / "pipeline" / f"{job}.err").read_text()[-2000:] for job in ids)
    assert states == ["COMPLETED"] * 5, errors
    state = json.loads((tmp_path / "pipeline" / "pipeline.json").read_text())
    assert [step["status"] for step in state["steps"]] == ["done"] * 5
    assert (tmp_path / "pipeline" / "summary.html").is_file()
