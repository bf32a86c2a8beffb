"""Several processes train one model: what they compute is what one process computes on the whole batch."""

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import DATA, MINI, REPO, VLA_MINI, one_error, read_metrics, run, train_laq_command, train_vla_command
from failing_ranks import LONG, command
from interruption import INTERRUPTED, assert_same_run, last_step, start, wait_for
from made_datasets import CAMERA, encoded, make, picture
from mini_pipeline import pipeline
from ranks import (
    EXACT,
    PAIR,
    SHORT,
    assert_equal_runs,
    end_of,
    free_port,
    policy_words,
    rank_variables,
    results,
    torchrun,
    trainer,
)
from submission import job_ids, submit
from wandb_world import FAST, sync

LAST = "step-000020"


def laq(run_dir, *words) -> subprocess.CompletedProcess:
    result = run(train_laq_command(*SHORT, f"logging.run_dir={run_dir}", *words))
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process with a batch of 8."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    laq(run_dir, "data.loader.batch_size=8")
    return run_dir


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The run of two processes with batches of 4, and what it printed."""
    run_dir = tmp_path_factory.mktemp("pair") / "run"
    result = laq(run_dir, *PAIR)
    return run_dir, result


def test_two_processes_compute_what_one_does(pair, alone):
    """The codebook's refresh and the validation included: counts are summed, donors and noise are those of the one process."""
    run_dir, result = pair
    assert_equal_runs(run_dir, alone)
    assert "codebook refreshed" in result.stderr
    measured = results(alone)[20]
    assert {
        "val/loss",
        "val/copy_frame_loss",
        "val/latent_signal_to_noise",
        "val/probe_random_codes_r2",
    } <= measured.keys()
    key = "train/latent_signal_to_noise"
    ours, theirs = ([line[key] for line in read_metrics(of) if key in line] for of in (run_dir, alone))
    assert ours and ours == pytest.approx(theirs, rel=1e-5)


TRIPLETS = ["model.triplets.additivity_weight=1", "model.triplets.reversal_weight=1"]
LABELS = ["model.label_head.weight=1", "data.sources.metaworld_mt5.labelled_episodes=[0,10,20]"]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["model.decoders.pixel.motion_weight=3"], id="motion weights"),
        pytest.param(
            [
                "model.decoders.difference.enabled=true",
                "model.decoders.difference.depth=1",
                "model.decoders.difference.motion_weight=20",
                "model.decoders.difference.motion_threshold=0.05",
            ],
            id="motion mask",
        ),
        pytest.param([*TRIPLETS, "model.quantizer.normalization=layer_norm"], id="triplets"),
        pytest.param(LABELS, id="label head"),
    ],
)
def test_statistics_of_a_batch_are_those_of_all_processes(tmp_path, words):
    """What a loss divides by, and its gradient: on two processes with half the batch each a run computes what one computes on the whole."""
    steps = ["training.max_steps=6", "training.scheduler.warmup_steps=1"]
    laq(tmp_path / "alone", *steps, *words, "data.loader.batch_size=8")
    laq(tmp_path / "pair", *steps, *words, *PAIR)
    # In a validation the weights of motion are relative to each process's part of a batch.
    keys = ("train/",) if any("motion" in word for word in words) else ("train/", "val/")
    assert_equal_runs(tmp_path / "pair", tmp_path / "alone", keys, tolerance=1e-4)


def test_the_first_process_speaks_as_one_alone_does(pair):
    run_dir, result = pair
    assert "2 processes with 4 samples per batch each: 8 together" in result.stderr
    assert result.stderr.count("run directory") == 1 and "rank 1" not in result.stderr
    assert result.stdout.count("fraction of time waiting for data") == 1
    assert json.loads((run_dir / "run.json").read_text())["sessions"][0]["status"] == "finished"
    assert len((run_dir / "metrics.jsonl").read_text().splitlines()) == len({*map(str, read_metrics(run_dir))})


def test_torchrun_starts_the_program_as_it_is(tmp_path, alone):
    """The time in the name of the run directory is that of the first process."""
    words = [*SHORT, f"paths.runs_dir={tmp_path}"]
    result = run(torchrun(2, *trainer("hlrp-train-laq", *words)))
    assert result.returncode == 0, result.stderr
    (run_dir,) = tmp_path.iterdir()
    assert_equal_runs(run_dir, alone)


def test_srun_starts_the_program_as_it_is(slurm, tmp_path, alone):
    """Within a batch script, whose own process number 0 is no process of a run."""
    run_dir = tmp_path / "run"
    words = " ".join(f"'{word}'" for word in [*SHORT, f"logging.run_dir={run_dir}"])
    program = trainer("hlrp-train-laq")[0]
    job = slurm.submit(
        f"cd {REPO}; {program} --print-config > {tmp_path}/printed && srun --ntasks=2 {program} {words}",
        "--nodes=1",
        "--ntasks=2",
        f"--output={tmp_path}/out",
    )
    assert slurm.wait_for(job, timeout=240) == "COMPLETED", (tmp_path / "out").read_text()
    assert "max_steps" in (tmp_path / "printed").read_text()
    assert_equal_runs(run_dir, alone)


@pytest.fixture(scope="module")
def policy_alone(tmp_path_factory, alone):
    """The policy of one process with a batch of 4."""
    run_dir = tmp_path_factory.mktemp("policy_alone") / "run"
    result = run(train_vla_command(*policy_words(alone, run_dir, 4)))
    assert result.returncode == 0, result.stderr
    return run_dir


def test_torchrun_starts_a_policy(tmp_path, alone, policy_alone):
    result = run(torchrun(2, *trainer("hlrp-train-vla", *policy_words(alone, tmp_path / "run", 2))))
    assert result.returncode == 0, result.stderr
    assert_equal_runs(tmp_path / "run", policy_alone)


@pytest.mark.slow  # a Slurm and two processes
def test_srun_starts_a_policy(slurm, tmp_path, alone, policy_alone):
    command = trainer("hlrp-train-vla", *policy_words(alone, tmp_path / "run", 2))
    job = slurm.submit(
        f"cd {REPO}; srun --ntasks=2 {shlex.join(command)}", "--nodes=1", "--ntasks=2", f"--output={tmp_path}/out"
    )
    assert slurm.wait_for(job, timeout=240) == "COMPLETED", (tmp_path / "out").read_text()
    assert_equal_runs(tmp_path / "run", policy_alone)


@pytest.mark.slow  # four processes share two cores
def test_four_processes_train_the_policy_that_one_does(tmp_path, alone, policy_alone):
    result = run(train_vla_command(*policy_words(alone, tmp_path / "run", 1), "num_processes=4"))
    assert result.returncode == 0, result.stderr
    assert_equal_runs(tmp_path / "run", policy_alone)


def test_both_stages_of_a_pipeline_have_several_processes(tmp_path, lerobot):
    words = [[f"{stage}.install_policy_editable={lerobot.plugin}"] for stage in ("lerobot", "lerobot_eval")]
    short = ["training.max_steps=6", "validation.check_interval=6"]
    minis = {"laq": MINI, "vla": VLA_MINI}
    stages = [f"pipeline.{stage}.overrides={json.dumps([*mini[1:], *short])}" for stage, mini in minis.items()]
    command = pipeline(tmp_path / "run", *words, *stages, *PAIR, "device=cpu")
    result = run(command, env=lerobot.env())
    assert result.returncode == 0, result.stderr
    for stage in ("1_laq", "2_vla"):
        assert "2 processes with 4 samples per batch each" in (tmp_path / "run" / stage / "unified.log").read_text()


@pytest.mark.slow  # network namespaces, which only root may make
def test_a_job_on_two_machines(slurm_of_two_hosts, recorder, tmp_path, alone):
    """`hlrp submit` starts a process on each of two hosts, which meet at the first by its name; W&B has the system metrics of both."""
    slurm, run_dir = slurm_of_two_hosts, tmp_path / "runs" / "two_hosts"
    words = [*SHORT, "cluster=lrz_cpu_only", "cluster.compute.num_nodes=2", f"logging.run_dir={run_dir}"]
    words += [*FAST, "logging.wandb.mode=offline", "logging.wandb.stats_interval_s=0.05"]
    result = submit(slurm, tmp_path, *words)
    assert result.returncode == 0, result.stderr
    (job,) = job_ids(run_dir)
    assert slurm.wait_for(job, timeout=240) == "COMPLETED", [path.read_text() for path in run_dir.rglob("*.out")]
    assert "NumNodes=2" in slurm.output("scontrol", "show", "job", job)
    assert_equal_runs(run_dir, alone)
    result = sync(recorder, run_dir)
    assert result.returncode == 0, result.stderr
    assert machines(recorder.only_run()) == {"n1", "n2"}


def machines(run: dict) -> set[str]:
    """The machines whose memory the system metrics of a run on W&B show."""
    names = {key for event in run["events"] for key in json.loads(event)}
    prefix = "system.memory_percent"
    return {key.removeprefix(prefix).removeprefix("/l:") for key in names if key.startswith(prefix)}


def test_each_machine_reports_its_system_metrics(recorder, tmp_path):
    """Two processes with different host names: the first records both, under the names that the official client uses."""
    run_dir = tmp_path / "run"
    line = command(run_dir, *FAST, "logging.wandb.stats_interval_s=0.1", of=LONG, timeout=60)
    port = free_port()
    processes = [
        subprocess.Popen(
            ["unshare", "--map-root-user", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', f"node{rank}"] + line,
            cwd=REPO,
            env=recorder.env(**rank_variables(rank, 2, port)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    wait_for(processes[0], lambda: any(machines(run) == {"node0", "node1"} for run in recorder.runs().values()))
    processes[0].terminate()
    codes, texts = end_of(processes)
    assert codes == [INTERRUPTED, INTERRUPTED], texts
    assert recorder.only_run()["violations"] == []
    # A row has both; a machine without a new sample is absent, its last one is not repeated.
    rows = [json.loads(event) for event in recorder.only_run()["events"]]
    assert any({"system.cpu/l:node0", "system.cpu/l:node1"} <= row.keys() for row in rows)
    assert all("system.cpu/l:node0" in row and "system.cpu" not in row for row in rows)


def test_processes_on_one_machine_report_it_once(recorder, tmp_path):
    command = train_laq_command(*SHORT, *PAIR, *FAST, f"logging.run_dir={tmp_path / 'run'}")
    result = run([*command, "logging.wandb.stats_interval_s=0.05"], env=recorder.env())
    assert result.returncode == 0, result.stderr
    assert machines(recorder.only_run()) == {""}


def test_accumulated_batches_of_two_processes(tmp_path):
    """Rates, which are meant for steps of two samples here, are those of all eight; a step of four would need others."""
    both = ["training.gradient.accumulate_steps=2"]
    both += ["training.scheduler.lr_base_size=2", "training.scheduler.lr_base_scale=sqrt"]
    result = laq(tmp_path / "pair", *both, *PAIR, "data.loader.batch_size=2")
    assert "a step has 8 samples: training.optimizer.lr=0.001 of 2 samples becomes 2.000e-3" in result.stderr
    rates = [line["train/lr"] for line in read_metrics(tmp_path / "pair") if "train/lr" in line]
    assert max(rates) == pytest.approx(2e-3)
    laq(tmp_path / "alone", *both, "data.loader.batch_size=4")
    assert_equal_runs(tmp_path / "pair", tmp_path / "alone")
    refused = run(train_laq_command("--resume", tmp_path / "pair", "num_processes=1", "data.loader.batch_size=2"))
    one_error(refused, 2, ["data.loader.batch_size", "on 2 processes"])


@pytest.mark.slow  # four processes share two cores
def test_accumulated_batches_of_four_processes(tmp_path):
    both = ["training.gradient.accumulate_steps=2"]
    laq(tmp_path / "four", *both, "num_processes=4", "data.loader.batch_size=1")
    laq(tmp_path / "alone", *both, "data.loader.batch_size=4")
    assert_equal_runs(tmp_path / "four", tmp_path / "alone")


# Every second sample has no action: the first process has none at all.
HALF = ["data.sources.metaworld_mt5.labelled_episodes=[0,12,20,31]", "data.loader.labelled_fraction=0.5"]


# A robot of two dimensions beside one of four.
TWO_ROBOTS = [
    f"+data.sources.pusht={{root: {DATA}/pusht_scripted, cameras: {{primary: observation.image}}, state_key: observation.state, action_key: action, num_val_episodes: 2, weight: 0.5}}"
]


@pytest.mark.parametrize(
    ("num_processes", "accumulate", "more"), [(2, 1, HALF), (2, 2, []), (2, 1, TWO_ROBOTS), (4, 2, HALF)]
)
def test_a_policy_with_unequal_numbers_of_supervised_values(tmp_path, alone, num_processes, accumulate, more):
    """Latent and real actions; samples near the end of an episode have fewer actions, and robots have other numbers of dimensions, so the
    processes' means are of unequal numbers."""
    words = [*VLA_MINI, *EXACT, f"policy.teacher.checkpoint={alone}", "data.loader.num_workers=1"]
    words += [
        "training.max_steps=20",
        f"training.gradient.accumulate_steps={accumulate}",
        "policy.model.arch.expert.chunk_size=40",
        *more,
    ]
    for name, number in [("several", num_processes), ("alone", 1)]:
        size = [f"num_processes={number}", f"data.loader.batch_size={4 // number}"]
        result = run(train_vla_command(*words, *size, f"logging.run_dir={tmp_path / name}"))
        assert result.returncode == 0, result.stderr
    assert_equal_runs(tmp_path / "several", tmp_path / "alone")


def test_a_validation_whose_last_batch_is_not_for_all_processes(tmp_path, alone):
    """One more sample than a multiple of the batches: the second process has none of the last one, and noise is still that of each sample."""
    words = ["training.max_steps=4", "validation.check_interval=4", "training.scheduler.warmup_steps=1"]
    words += ["data.sources.metaworld_mt5.episodes=[2,6]", "data.sources.metaworld_mt5.num_val_episodes=1"]
    words += ["validation.limit_batches=null"]
    sizes = {"pair": [*PAIR, "data.loader.batch_size=2"], "alone": ["data.loader.batch_size=4"]}
    for name, size in sizes.items():
        laq(tmp_path / name, *words, *size)
        policy = [*policy_words(alone, tmp_path / f"policy_{name}", 1), *words, *size]
        result = run(train_vla_command(*policy))
        assert result.returncode == 0, result.stderr
    assert results(tmp_path / "alone")[4]["val/total_val_samples"] % 4 == 1
    assert_equal_runs(tmp_path / "pair", tmp_path / "alone")
    assert_equal_runs(tmp_path / "policy_pair", tmp_path / "policy_alone")


@pytest.mark.parametrize("stage", ["laq", "actions", "multitask"])
def test_a_process_without_a_sample_of_the_validation_takes_part_in_it(tmp_path, alone, stage):
    """The only episode that is held out has two frames, and there are three processes."""
    images = [encoded(picture(number), "PNG") for number in range(26)]
    root = make(tmp_path / "dataset", [12, 12, 2], images=images)
    source = f"{{root: {root}, cameras: {{primary: {CAMERA}}}, state_key: observation.state, action_key: action, num_val_episodes: 0, val_episodes: [2]}}"
    words = ["~data.sources.metaworld_mt5", f"+data.sources.made={source}"]
    words += ["training.max_steps=4", "validation.check_interval=4", "training.scheduler.warmup_steps=1"]
    words += ["data.request.image_deltas=[0,1]"] if stage == "laq" else []
    for name, size in {
        "several": ["num_processes=3", "data.loader.batch_size=1"],
        "single": ["data.loader.batch_size=3"],
    }.items():
        run_dir = tmp_path / name
        if stage == "laq":
            laq(run_dir, *words, *size)
        else:
            policy = [*policy_words(alone, run_dir, 1), f"policy.objective.mode={stage}"]
            result = run(train_vla_command(*policy, *words, *size))
            assert result.returncode == 0, result.stderr
    measured = results(tmp_path / "single")[4]
    assert 0 < measured["val/total_val_samples"] < 3 if stage == "laq" else measured["val/action_mse"] > 0
    # Biases are still near the zeros with which they began.
    assert_equal_runs(tmp_path / "several", tmp_path / "single", tolerance=1e-5)


@pytest.fixture
def damaged(tmp_path) -> Path:
    """The Meta-World demonstrations with a hole in their video."""
    root = tmp_path / "damaged"
    shutil.copytree(DATA / "metaworld_mt5", root)
    video = next(root.glob("videos/**/*.mp4"))
    content = bytearray(video.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 500_000] = bytes(500_000)
    video.write_bytes(content)
    return root


def position(run_dir) -> dict:
    """That of the last checkpoint."""
    return json.loads((run_dir / "checkpoints" / LAST / "state.json").read_text())["position"]


def test_bad_samples_are_those_of_all_processes(tmp_path, damaged):
    """Any number of processes replaces them by the same ones; their limit and what a checkpoint says are of the run."""
    words = [f"data.sources.metaworld_mt5.root={damaged}", "validation.probes.enabled=false"]
    tolerant = [*words, "data.loader.max_bad_samples=1000"]
    laq(tmp_path / "alone", *tolerant, "data.loader.batch_size=8")
    laq(tmp_path / "pair", *tolerant, *PAIR)
    assert_equal_runs(tmp_path / "pair", tmp_path / "alone")
    found = position(tmp_path / "alone")["num_bad_samples"]
    assert position(tmp_path / "pair")["num_bad_samples"] == found > 1

    checkpoint = f"training.resume_from_checkpoint={tmp_path}/pair/checkpoints/step-000010"
    result = run(train_laq_command("--resume", tmp_path / "pair", checkpoint))
    assert result.returncode == 0, result.stderr
    assert position(tmp_path / "pair")["num_bad_samples"] == found

    strict = [
        *SHORT,
        *words,
        *PAIR,
        f"data.loader.max_bad_samples={found - 1}",
        f"logging.run_dir={tmp_path / 'strict'}",
    ]
    names = [f"{found} samples of all processes could not be decoded", f"max_bad_samples allows {found - 1}"]
    result = run(train_laq_command(*strict))
    one_error(result, 65, names)
    assert "rank 1: sample replaced" in result.stderr, "rank 1 shows which samples it replaced"


@pytest.mark.slow  # four processes share two cores
def test_four_processes_compute_what_one_does(tmp_path, alone, pair):
    """Also those that continue the run of two."""
    four = ["num_processes=4", "data.loader.batch_size=2"]
    laq(tmp_path / "four", *four)
    assert_equal_runs(tmp_path / "four", alone)
    shutil.copytree(pair[0], tmp_path / "resumed")
    checkpoint = f"training.resume_from_checkpoint={tmp_path}/resumed/checkpoints/step-000010"
    result = run(train_laq_command("--resume", tmp_path / "resumed", checkpoint, *four))
    assert result.returncode == 0, result.stderr
    assert_equal_runs(tmp_path / "resumed", alone)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, pair):
    """On as many processes to the last bit; on one process with the same samples, which compute the same."""
    run_dir = tmp_path / "run"
    process = start(train_laq_command(*SHORT, *PAIR, f"logging.run_dir={run_dir}"))
    wait_for(process, lambda: last_step(run_dir) >= 7)
    process.terminate()
    assert process.wait(timeout=60) == INTERRUPTED, process.stderr.read()
    for name in ("alone", "divided"):
        shutil.copytree(run_dir, tmp_path / name)
    result = run(train_laq_command("--resume", run_dir))
    assert result.returncode == 0, result.stderr
    assert_same_run(run_dir, pair[0], LAST)

    refused = run(train_laq_command("--resume", tmp_path / "alone", "num_processes=1", "data.loader.batch_size=6"))
    one_error(refused, 2, ["data.loader.batch_size", "on 2 processes"])
    result = run(train_laq_command("--resume", tmp_path / "alone", "num_processes=1", "data.loader.batch_size=8"))
    assert result.returncode == 0, result.stderr
    assert_equal_runs(tmp_path / "alone", pair[0])

    result = run(
        train_laq_command("--resume", tmp_path / "divided", "num_processes=1", "training.gradient.accumulate_steps=2")
    )
    assert result.returncode == 0 and "the same samples in a step" in result.stderr, result.stderr
    assert position(tmp_path / "divided") == position(pair[0])


def test_auto_without_gpus_is_one_process(tmp_path):
    result = laq(tmp_path / "run", "num_processes=auto", "training.max_steps=4", "training.scheduler.warmup_steps=1")
    assert "processes with" not in result.stderr
