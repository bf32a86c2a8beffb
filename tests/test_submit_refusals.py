"""What `hlrp submit` refuses before anything is queued, and what it asks first."""

import os
import shutil
import time
from pathlib import Path

import pytest
from conftest import one_error
from submission import inventory, job_ids, path_without, stand_in, submit

REFUSED = {
    "an unknown cluster": (["cluster=lrz_x200"], 2, ["lrz_x200", "lrz_x100"]),
    "a list of clusters": (["cluster=lrz_x100,mcml_x100"], 2, ["'submit.race=[lrz_x100,mcml_x100]'"]),
    "a race of one": (["submit.race=[lrz_x100]"], 2, ["submit.race"]),
    "a race with a machine that has no Slurm": (
        ["submit.race=[lrz_x100,local_dev]"],
        2,
        ["submit.race", "'local_dev' has no Slurm"],
    ),
    "an array in a race": (["submit.race=[lrz_x100,mcml_x100]", "submit.array=true"], 2, ["submit.array"]),
    "no memory": (["cluster=lrz_cpu_only", "cluster.compute.mem_gb=0"], 2, ["cluster.compute.mem_gb", "0 is below 1"]),
    "a time without quotes": (
        ["cluster=lrz_cpu_only", "cluster.compute.time_limit=43200"],
        2,
        ["cluster.compute.time_limit"],
    ),
    "no time to save": (
        ["cluster=lrz_cpu_only", "cluster.compute.time_limit=00:05:00"],
        2,
        ["submit.save_before_limit"],
    ),
    "an unknown key in a sweep": (
        ["cluster=lrz_cpu_only", "sweep.params={sed: [1, 2]}"],
        2,
        ["unknown key 'sed' in sweep.params", "did you mean 'seed'?"],
    ),
    "a value twice in a sweep": (
        ["cluster=lrz_cpu_only", "sweep.params={seed: [1, 1]}"],
        2,
        ["'seed' has the value 1 twice"],
    ),
    "a missing image": (
        ["cluster=lrz_cpu_only", "cluster.container.runtime=pyxis", "cluster.container.image=/nothing/image.sqsh"],
        2,
        ["cluster.container.image", "/nothing/image.sqsh", "image-import"],
    ),
    "a full quota": (
        ["cluster=lrz_cpu_only", 'cluster.quota_command=[echo,"0 1000000"]'],
        74,
        ["0.00 GiB free in its quota"],
    ),
    "an array of runs that ask for different things, in a dry run": (
        [
            *["cluster=lrz_cpu_only", "submit.array=true", "submit.dry_run=true"],
            "sweep.params={cluster.compute.mem_gb: [8, 16]}",
            "logging.run_dir=${cluster.storage_root}/${experiment.name}",
        ],
        2,
        ["submit.array", "other resources"],
    ),
    "a sweep over how it is submitted": (
        [
            *["cluster=lrz_cpu_only", "sweep.params={submit.preflight: [false, true]}"],
            "logging.run_dir=${cluster.storage_root}/${experiment.name}",
        ],
        2,
        ["sweep.params", "section 'submit'"],
    ),
    "a sweep over a cluster and this machine": (
        [
            "sweep.params={cluster: [lrz_cpu_only, local_dev]}",
            "logging.run_dir=${cluster.storage_root}/${experiment.name}",
        ],
        2,
        ["sweep.params", "with or without Slurm"],
    ),
    "a GPU that the job does not have": (
        ["cluster=lrz_cpu_only", "device=cuda"],
        2,
        ["cluster.compute.gpus_per_node", "device=cuda"],
    ),
    "a name that leaves the run directory": (
        ["cluster=lrz_cpu_only", "cluster.name=../../escaped"],
        2,
        ["cluster.name", "letters, digits"],
    ),
    "processes of several machines that nothing starts": (
        ["cluster=lrz_h100_multinode", "num_processes=4"],
        2,
        ["num_processes", "srun"],
    ),
    "a secret": (
        ["cluster=lrz_cpu_only", "experiment.description='hf_abcDEF123456789'"],
        2,
        ["experiment.description", "secret"],
    ),
    "a root that is not allowed": (
        ["cluster=lrz_cpu_only", "logging.run_dir=/var/run_of_hlrp"],
        2,
        ["allowed_roots", "logging.run_dir"],
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_run_is_refused_before_anything_is_queued(slurm, tmp_path, what):
    overrides, code, names = REFUSED[what]
    before = (inventory(tmp_path), slurm.ids())
    words = (
        overrides
        if any("logging.run_dir" in word for word in overrides)
        else [*overrides, f"logging.run_dir={tmp_path}/run"]
    )
    one_error(submit(slurm, tmp_path, *words), code, names)
    assert (inventory(tmp_path), slurm.ids()) == before


def test_a_secret_among_slurms_values_is_refused(slurm, tmp_path):
    words = ["cluster=lrz_cpu_only", "cluster.slurm.account=${oc.env:MY_ACCOUNT}", f"logging.run_dir={tmp_path}/run"]
    env = slurm.env(MY_ACCOUNT="hf_abcDEF123456789")
    one_error(submit(slurm, tmp_path, *words, env=env), 2, ["cluster.slurm.account", "secret"])
    assert not (tmp_path / "run").exists()


def test_many_jobs_of_a_sweep_over_the_cluster_are_asked_for(slurm, tmp_path):
    seeds = ",".join(map(str, range(60)))
    words = [
        f"sweep.params={{seed: [{seeds}], cluster: [lrz_cpu_only]}}",
        "logging.run_dir=/nowhere/${experiment.name}",
    ]
    one_error(submit(slurm, tmp_path, *words), 1, ["60 jobs were not queued", "--yes"])


def test_a_host_without_slurm_is_told_so_and_nothing_is_written(tmp_path):
    before = inventory(tmp_path)
    env = os.environ | {"PATH": path_without("sbatch", "squeue")}
    words = ["cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run"]
    one_error(submit(None, tmp_path, *words, env=env), 1, ["sbatch is not on PATH", "--remote"])
    assert inventory(tmp_path) == before


def test_many_jobs_are_queued_only_after_a_question(slurm, tmp_path):
    words = [
        "cluster=lrz_cpu_only",
        f"sweep.params={{seed: {list(range(60))}}}",
        f"logging.run_dir={tmp_path}/${{experiment.name}}",
    ]
    one_error(submit(slurm, tmp_path, *words), 1, ["60 jobs were not queued", "--yes"])


def test_ten_thousand_jobs_are_a_question_before_they_are_planned(slurm, tmp_path):
    """The answer comes at once: nothing is composed ten thousand times first."""
    hundred = list(range(1, 101))
    sweep = f"sweep.params={{seed: {hundred}, data.loader.batch_size: {hundred}}}"
    words = ["cluster=lrz_cpu_only", sweep, f"logging.run_dir={tmp_path}/${{experiment.name}}"]
    start = time.monotonic()
    one_error(submit(slurm, tmp_path, *words), 1, ["10000 jobs were not queued"])
    assert time.monotonic() - start < 5


def site_with_limits(slurm, folder: Path, *, of_user: int, of_qos: int, max_array_size: int = 1001) -> dict[str, str]:
    """The environment of a site that limits jobs: five of this user are in the queue, three of them under `cpu`."""
    scontrol, squeue = shutil.which("scontrol"), shutil.which("squeue")
    settings = f"s/^AccountingStorageType.*/AccountingStorageType = accounting_storage\\/slurmdbd/; s/^MaxArraySize.*/MaxArraySize = {max_array_size}/"
    env = stand_in(slurm.env(), folder, "scontrol", f'#!/bin/bash\n{scontrol} "$@" | sed "{settings}"\n')
    env = stand_in(
        env, folder, "sacctmgr", f"#!/bin/bash\n[[ $* == *assoc* ]] && echo {of_user} || echo 'cpu|{of_qos}'\n"
    )
    counts = "[[ $* == *--qos=cpu* ]] && exec seq 3\n[[ $* == *--array* ]] && exec seq 5\n"
    return stand_in(env, folder, "squeue", f'#!/bin/bash\n{counts}exec {squeue} "$@"\n')


FOUR_RUNS = ["cluster=lrz_cpu_only", "sweep.params={seed: [1, 2, 3, 4]}"]


@pytest.mark.parametrize(
    "limits, words, said",
    [
        (
            {"of_user": 8, "of_qos": 100},
            FOUR_RUNS,
            "4 jobs would exceed the 8 that you may have in the queue; 5 are there",
        ),
        (
            {"of_user": 100, "of_qos": 6},
            FOUR_RUNS,
            "4 jobs would exceed the 6 that you may have in the queue under cpu; 3 are there",
        ),
        (
            {"of_user": 12, "of_qos": 7},
            [*FOUR_RUNS, "submit.preflight=true"],
            "8 jobs would exceed the 12 that you may have in the queue; 5 are there",
        ),
        # Both clusters are partitions of one Slurm, which counts the jobs of both.
        (
            {"of_user": 12, "of_qos": 7},
            [*FOUR_RUNS, "submit.race=[lrz_cpu_only,mcml_x100]"],
            "8 jobs would exceed the 12 that you may have in the queue; 5 are there",
        ),
        (
            {"of_user": 100, "of_qos": 100, "max_array_size": 3},
            [*FOUR_RUNS, "submit.array=true"],
            "4 runs, but an array has at most 3 members here (MaxArraySize)",
        ),
    ],
)
def test_more_jobs_than_the_site_allows_are_refused_before_the_first(slurm, tmp_path, limits, words, said):
    env = site_with_limits(slurm, tmp_path / "bin", **limits)
    before = inventory(tmp_path)
    result = submit(slurm, tmp_path, *words, f"logging.run_dir={tmp_path}/${{experiment.name}}", env=env)
    one_error(result, 2, [said])
    assert inventory(tmp_path) == before


def test_as_many_jobs_as_the_site_allows_are_queued(slurm, tmp_path):
    env = site_with_limits(slurm, tmp_path / "bin", of_user=9, of_qos=7)
    result = submit(slurm, tmp_path, *FOUR_RUNS, f"logging.run_dir={tmp_path}/${{experiment.name}}", env=env)
    assert result.returncode == 0, result.stderr
    slurm.output("scancel", *(job for seed in range(1, 5) for job in job_ids(tmp_path / f"laq_tiny_seed{seed}")))


@pytest.mark.parametrize("key", ["logging.run_dir=/tmp/{}", "cluster.slurm.partition={}", "cluster.slurm.qos={}"])
def test_what_slurm_would_misread_is_refused(slurm, tmp_path, key):
    for text in ['"a\\\\j"', '"a\nb"']:
        result = submit(slurm, tmp_path, "cluster=lrz_cpu_only", "cluster.allowed_roots=null", key.format(text))
        one_error(result, 2, [key.split("=")[0]])


def test_an_occupied_run_directory_is_refused(slurm, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    result = submit(slurm, tmp_path, "cluster=lrz_cpu_only", f"logging.run_dir={tmp_path}/run")
    one_error(result, 2, ["logging.run_dir", "not empty", "--resume"])
