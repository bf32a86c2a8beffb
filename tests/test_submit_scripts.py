"""Scripts of every kind of plan, beside those in tests/submit: a change of a script is seen in its difference.

`HLRP_WRITE_SCRIPTS=yes pytest tests/test_submit_scripts.py` writes them anew.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import REPO, program, run
from private_slurm import container_flags, start
from submission import shellcheck

SCRIPTS = REPO / "tests" / "submit"
IMAGE = "/storage/enroot/lam.sqsh"
BASE = [
    "cluster.storage_root=/storage",
    "cluster.allowed_roots=null",
    "logging.run_dir=/storage/runs/${experiment.name}",
]
PYXIS = [*BASE, f"cluster.images.training={IMAGE}", "cluster.images.lerobot=/storage/enroot/hlrp_libero.sqsh"]
NO_CONTAINER = [*BASE, "cluster.container.runtime=none"]
PLANS = {
    "one_gpu": ["experiment=laq_cluster", "cluster=mcml_h100", *PYXIS],
    "cpu_only": ["experiment=laq_tiny", "cluster=lrz_cpu_only", *PYXIS],
    "every_option": [
        "experiment=laq_cluster",
        "cluster=lrz_h100",
        *PYXIS,
        "cluster.slurm.qos=mcml",
        "cluster.slurm.account=project",
        "cluster.slurm.clusters=lrz",
        "cluster.compute.cpus_per_task=8",
        "cluster.compute.mem_gb=64",
        'submit.pre_commands=["module load slurm","echo it\'s ready"]',
    ],
    "several_gpus": ["experiment=laq_cluster", "cluster=lrz_h100", *PYXIS, "cluster.compute.gpus_per_node=4"],
    "several_nodes": ["experiment=laq_cluster", "cluster=lrz_h100_multinode", *PYXIS],
    "apptainer": [
        "experiment=laq_cluster",
        "cluster=lrz_h100",
        *BASE,
        "cluster.container.runtime=apptainer",
        "cluster.container.image=/storage/images/hlrp.sif",
    ],
    "no_container": ["experiment=laq_tiny", "cluster=lrz_cpu_only", *NO_CONTAINER],
    "sweep": [
        "experiment=laq_lr_sweep",
        "cluster=mcml_h100",
        *PYXIS,
        "sweep.params={training.optimizer.lr: '3e-4,1e-3', seed: [7, 8]}",
    ],
    "array": ["experiment=laq_lr_sweep", "cluster=mcml_h100", *PYXIS, "submit.array=true", "submit.array_limit=2"],
    "race": ["experiment=laq_cluster", "submit.race=[lrz_x100,mcml_x100]", *PYXIS],
    "stage2": ["experiment=vla_cluster", "cluster=mcml_h100", *PYXIS, "policy.teacher.checkpoint=/storage/runs/laq"],
    "stage3": ["experiment=lerobot_hlrp_smoke", "cluster=lrz_x100", *PYXIS, "experiment.name=lerobot_hlrp_smoke_retry"],
    "pipeline": ["experiment=pipeline_local", "cluster=mcml_h100", *PYXIS],
}


def plan(tmp_path: Path, name: str) -> dict:
    """The plan of a dry run, as JSON."""
    command = [program("hlrp"), "submit", *PLANS[name], "submit.dry_run=true", "submit.print=json"]
    env = os.environ | {"HOME": str(tmp_path)}
    result = subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def scripts(document: dict) -> dict[str, str]:
    """Every script of a plan by its path, without what differs between machines and calls."""
    jobs = [job for run in document["runs"] for job in run["jobs"]]
    found = {job["script_path"]: job["script"] for job in jobs}
    if document["array"]:
        found[document["array"]["script_path"]] = document["array"]["script"]

    def neutral(text: str) -> str:
        text = text.replace(program("hlrp"), "/repository/target/release/hlrp").replace(str(REPO), "/repository")
        return re.sub(r"hlrp:[0-9a-f]{16}", "hlrp:0123456789abcdef", text)

    return {path: neutral(text) for path, text in found.items()}


@pytest.mark.parametrize("name", PLANS)
def test_scripts_are_as_they_were(tmp_path, name):
    found = scripts(plan(tmp_path, name))
    text = "".join(f"########## {path}\n{text}\n" for path, text in found.items())
    path = SCRIPTS / f"{name}.txt"
    if os.environ.get("HLRP_WRITE_SCRIPTS"):
        SCRIPTS.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", PLANS)
def test_scripts_have_no_findings_of_shellcheck(tmp_path, name):
    for text in scripts(plan(tmp_path, name)).values():
        shellcheck(text)


@pytest.fixture(scope="module")
def slurm_with_containers(tmp_path_factory):
    """A Slurm that knows the flags of Pyxis, by a stand-in."""
    folder = tmp_path_factory.mktemp("slurm_with_containers")
    yield from start(folder, "--nodes", 4, "--plugstack", f"required {container_flags(folder)}")


@pytest.mark.parametrize("name", [name for name in PLANS if name != "every_option"])
def test_slurm_would_take_the_scripts(slurm_with_containers, tmp_path, name):
    """Every directive and flag is one that Slurm knows; `every_option` names an account and a cluster that this Slurm lacks."""
    for index, text in enumerate(scripts(plan(tmp_path, name)).values()):
        path = tmp_path / f"{index}.sbatch"
        path.write_text(re.sub(r"#SBATCH --(chdir|output|error)=.*", r"#SBATCH --\1=/tmp", text))
        result = slurm_with_containers.run("sbatch", "--test-only", path)
        assert result.returncode == 0, f"{name}: {result.stderr}"


def test_the_values_of_the_users_daily_jobs_are_reproduced(tmp_path):
    """Names, partitions and limits of the jobs that the operating notes describe."""

    def directives(name: str) -> dict[str, str]:
        (text, *_) = scripts(plan(tmp_path, name)).values()
        return dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", text, re.MULTILINE))

    stage3 = directives("stage3")
    assert stage3["job-name"] == "hlrp_lerobot_hlrp_smoke_retry"
    assert stage3["partition"] == "lrz-hgx-h100-94x4,lrz-hgx-a100-80x4,lrz-dgx-a100-80x8"
    assert (stage3["gres"], stage3["cpus-per-task"], stage3["mem"], stage3["time"]) == ("gpu:1", "8", "32G", "00:30:00")
    assert stage3["output"] == "/storage/runs/lerobot_hlrp_smoke_retry/%j.out"
    one = directives("one_gpu")
    assert (one["partition"], one["qos"], one["gres"], one["time"]) == (
        "mcml-hgx-h100-94x4",
        "mcml",
        "gpu:1",
        "15:00:00",
    )
    cpu = directives("cpu_only")
    assert (cpu["partition"], cpu["qos"], cpu["cpus-per-task"], cpu["mem"]) == ("lrz-cpu", "cpu", "16", "128G")
    assert "gres" not in cpu
    nodes = directives("several_nodes")
    assert (nodes["nodes"], nodes["ntasks-per-node"], nodes["gres"], nodes["time"]) == ("4", "4", "gpu:4", "48:00:00")
    names = [Path(path).parent.parent.name for path in scripts(plan(tmp_path, "sweep"))]
    assert names == [f"laq_lr_sweep_lr{lr}_seed{seed}" for lr in ["3e4", "1e3"] for seed in [7, 8]]


def test_every_experiment_of_stage_3_runs_in_its_image():
    experiments = [path.stem for path in sorted((REPO / "config/experiment").glob("*.yaml"))]
    stage3 = [name for name in experiments if name.startswith(("lerobot", "rollout"))]
    assert len(stage3) > 10
    for name in stage3:
        words = [f"experiment={name}", "cluster=lrz_x100", "cluster.images.lerobot=/images/stage3.sqsh"]
        shown = run([program("hlrp"), "config", "explain", "cluster.container.image", *words])
        assert shown.returncode == 0 and "/images/stage3.sqsh" in shown.stdout, (name, shown.stdout, shown.stderr)


def test_a_container_sees_credentials_and_every_path_of_the_configuration(tmp_path):
    """Under their own names, and with the user's home folder as HOME, whatever the image sets."""
    credentials = [tmp_path / ".netrc", tmp_path / ".cache" / "huggingface" / "token"]
    for path in credentials:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("secret\n")
    teacher, notes = tmp_path / "teacher", tmp_path / "notes"
    for folder in [teacher, notes]:
        folder.mkdir()
    words = [*PLANS["stage2"][:-1], f"policy.teacher.checkpoint={teacher}", f"submit.extra_mounts=[{notes}]"]
    command = [program("hlrp"), "submit", *words, "submit.dry_run=true", "submit.print=json"]
    env = os.environ | {"HOME": str(tmp_path)}
    result = subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    (job,) = json.loads(result.stdout)["runs"][0]["jobs"]
    seen = {str(REPO), "/storage/runs", "/storage/cache", *map(str, [*credentials, teacher, notes])}
    assert set(job["container"]["mounts"]) == seen
    assert "--container-env=HOME,HF_TOKEN," in job["script"] and "secret" not in job["script"]
