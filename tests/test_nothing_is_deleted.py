"""On a cluster profile nothing is deleted: whatever a run replaces is found in `superseded/` of its run directory.

Real trainings run under `strace` (support/system_calls.py says why) with the profile of a cluster, are killed, and continue.
"""

import re
import subprocess
from pathlib import Path

import pytest
import system_calls
from conftest import MINI, VLA_MINI, program, run, train_laq_command, train_vla_command
from interruption import last_step
from system_calls import strace, taken

# Files of a run's state that the run itself writes anew, each in one step by a rename: what they said before is in the files behind them.
STATE = [
    r"checkpoints/(last|best)",  # names of folders, which stay
    r"run\.json",  # gains sessions, loses none
    r"metrics\.jsonl",  # a resume moves lines to metrics.superseded.jsonl first
    r"plots/[^/]+\.png",  # drawn from metrics.jsonl
    r"validation/step-[0-9]+/[^/]+\.png",  # a validation that a resumed run repeats has the same images
    r"\.lock",
]
# What LeRobot itself removes: a link that it makes anew at each save. The folders that it names stay.
OF_LEROBOT = r"runs/[^/]+/lerobot/checkpoints/last"
EVERY_STEP = {5, 10, 15, 20, 24}


def on_cluster(root: Path) -> list[str]:
    """The profile of a cluster with `root` in the place of the site's storage, as inside an allocation."""
    return [
        "cluster=lrz_x100",
        f"cluster.storage_root={root}",
        f"cluster.allowed_roots=[{root}]",
        "cluster.login_nodes=[]",
    ]


def assert_nothing_is_lost(logs: list[Path], root: Path, num_calls: int) -> None:
    found = taken(logs, root)
    assert [path for path in found.removed if not re.fullmatch(OF_LEROBOT, str(Path(path).relative_to(root)))] == []
    state = re.compile("|".join(f"runs/[^/]+/({name})" for name in STATE))
    assert [path for path in found.replaced if not state.fullmatch(str(Path(path).relative_to(root)))] == []
    assert sum(len(system_calls.successful(log)) for log in logs) > num_calls, "the calls are seen"


def steps(folder: Path) -> set[int]:
    return {int(path.name.removeprefix("step-").split("-")[0]) for path in folder.glob("step-*[0-9]")}


def test_strace_sees_what_is_deleted_and_what_is_replaced(tmp_path):
    """The measuring instrument itself, on a program that does all of it."""
    script = f"""
import os, pathlib, shutil
root = pathlib.Path({str(tmp_path)!r})
(root / "a").write_text("1")
(root / "b").write_text("2")
os.rename(root / "a", root / "b")
(root / "b").write_text("3")
(root / "d").mkdir()
(root / "d/f").write_text("4")
shutil.rmtree(root / "d")
"""
    log = tmp_path / "trace"
    subprocess.run(strace(log, ["python3", "-c", script]), check=True, timeout=60)
    found = taken(list(tmp_path.glob("trace.*")), tmp_path)
    assert found.removed == [f"{tmp_path}/d/f", f"{tmp_path}/d"]
    assert found.replaced == [f"{tmp_path}/b", f"{tmp_path}/b"]


@pytest.fixture(scope="module")
def laq(tmp_path_factory) -> tuple[Path, list[Path]]:
    """Storage root and traces of a training that builds a cache, is killed twice and prunes its checkpoints."""
    folder = tmp_path_factory.mktemp("cluster")
    root, log = folder / "storage", folder / "trace"
    root.mkdir()
    run_dir = root / "runs/laq"
    words = [*MINI, *on_cluster(root), f"logging.run_dir={run_dir}", "training.checkpoint.keep_last=1"]
    words += ["data.cache.enabled=true", "data.loader.num_workers=1", "model.image_size=128", "model.patch_size=16"]

    process = system_calls.start(log, train_laq_command(*words))
    system_calls.wait_for(process, lambda: list(root.glob("cache/frames/*.partial")))
    system_calls.kill(process)
    assert not list(root.glob("cache/frames/*.frames")) and not run_dir.exists()

    process = system_calls.start(log, train_laq_command(*words))
    system_calls.wait_for(process, lambda: last_step(run_dir) >= 13)
    system_calls.kill(process)
    # A writer that is killed leaves a part of the checkpoint that is written again.
    partial = run_dir / "checkpoints/.step-000015.partial"
    partial.mkdir(exist_ok=True)
    (partial / "model.safetensors").write_text("half")

    result = run(strace(log, train_laq_command("--resume", run_dir)))
    assert result.returncode == 0, result.stderr
    return root, list(folder.glob("trace.*"))


def test_a_run_that_prunes_and_is_killed_deletes_nothing(laq):
    root, logs = laq
    assert_nothing_is_lost(logs, root, num_calls=100)
    run_dir = root / "runs/laq"
    kept, superseded = steps(run_dir / "checkpoints"), steps(run_dir / "superseded/checkpoints")
    assert kept | superseded >= EVERY_STEP and kept & superseded == set()
    assert 24 in kept and len(kept) <= 2, "pruned as on a workstation"
    assert (run_dir / "superseded/checkpoints/step-000015.partial/model.safetensors").read_text() == "half"
    assert (run_dir / "superseded/checkpoints/step-000005/model.safetensors").stat().st_size > 1000
    assert len(list(root.glob("cache/frames/*.frames"))) == 1
    everything = [str(path) for path in root.rglob("*")]
    assert not any(path.count("superseded/superseded") or path.endswith(".removed") for path in everything)


def test_a_superseded_checkpoint_is_one_that_resumes(laq):
    """What was pruned is whole: training continues from it in another directory."""
    root, _ = laq
    words = [
        f"logging.run_dir={root}/runs/again",
        f"training.resume_from_checkpoint={root}/runs/laq/superseded/checkpoints/step-000005",
    ]
    config = ["--config-dir", str(root / "runs/laq"), "--config-name", "config"]
    result = run([program("hlrp"), "train-laq", *config, *words])
    assert result.returncode == 0, result.stderr


def test_artifacts_that_a_better_one_replaces_are_kept(tmp_path, uninterrupted):
    root, log = tmp_path / "storage", tmp_path / "trace"
    root.mkdir()
    run_dir = root / "runs/vla"
    words = [*VLA_MINI, *on_cluster(root), f"logging.run_dir={run_dir}", f"policy.teacher.checkpoint={uninterrupted}"]
    words += ["validation.check_interval=4", "training.optimizer.lr=1e-3", "training.max_steps=16"]
    result = run(strace(log, train_vla_command(*words)))
    assert result.returncode == 0, result.stderr
    assert_nothing_is_lost(list(tmp_path.glob("trace.*")), root, num_calls=50)
    former = sorted((run_dir / "superseded/artifacts").glob("best*"))
    num_best = result.stderr.count("artifacts/best") + result.stdout.count("artifacts/best")
    assert former and len(former) >= num_best - 2
    for artifact in [*former, run_dir / "artifacts/best"]:
        assert (artifact / "model.safetensors").exists() and (artifact / "artifact.json").exists()
    assert len({(artifact / "model.safetensors").read_bytes() for artifact in former}) == len(former), "each is another"


def test_on_a_workstation_what_is_replaced_is_removed(tmp_path):
    """The profile decides: the same training without a cluster keeps one checkpoint, and the test above would see the difference."""
    root, log = tmp_path / "storage", tmp_path / "trace"
    words = [*MINI, f"logging.run_dir={root}/runs/laq", "training.checkpoint.keep_last=1", "training.max_steps=12"]
    result = run(strace(log, train_laq_command(*words)))
    assert result.returncode == 0, result.stderr
    assert not (root / "runs/laq/superseded").exists()
    removed = taken(list(tmp_path.glob("trace.*")), root).removed
    assert any("step-000005" in path for path in removed)


def test_lerobot_is_started_without_deleting_anything(tmp_path, lerobot):
    """Our part of stage 3. LeRobot itself replaces one link, `checkpoints/last`."""
    root, log = tmp_path / "storage", tmp_path / "trace"
    root.mkdir()
    words = [
        "experiment=lerobot_tiny",
        *on_cluster(root),
        f"logging.run_dir={root}/runs/lerobot",
        "logging.min_free_gb=0.01",
    ]
    words += [f"lerobot.install_policy_editable={lerobot.plugin}", "lerobot.steps=30", "lerobot.log_freq=10"]
    result = run(strace(log, [program("hlrp"), "train-lerobot", *words]), env=lerobot.env())
    assert result.returncode == 0, result.stderr
    assert_nothing_is_lost(list(tmp_path.glob("trace.*")), root, num_calls=5)
