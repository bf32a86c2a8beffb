"""Bad input: one clear error that names the file or key and what to do, exit code not 0, nothing written or lost."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet
import pytest
from conftest import DATA, MINI, one_error, read_metrics, run, train_laq_command

CONFIG_ERROR = 2
DATA_ERROR = 65
DISK_FULL = 74
VIDEO = "videos/observation.image/chunk-000/file-000.mp4"
TABLE = "data/chunk-000/file-000.parquet"


@pytest.fixture
def dataset(tmp_path) -> Path:
    """A copy of a good dataset, to be damaged."""
    return Path(shutil.copytree(DATA / "metaworld_mt5", tmp_path / "dataset"))


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(run_dir: Path, *words: object, code: int = 1, names: list[str]) -> str:
    """Trains, expects one error that contains every word of `names`, and returns it."""
    result = run(train_laq_command(*MINI, f"logging.run_dir={run_dir}", *words))
    return one_error(result, code, names)


def refused_before_the_run(tmp_path: Path, *words: object, code: int, names: list[str]) -> None:
    run_dir = tmp_path / "run"
    refused(run_dir, *words, code=code, names=names)
    assert not run_dir.exists(), "a refused run leaves nothing behind"


def test_missing_dataset(tmp_path):
    missing = tmp_path / "nowhere"
    words = f"data.sources.metaworld_mt5.root={missing}"
    names = ["data.sources.metaworld_mt5.root", str(missing), "hint:"]
    refused_before_the_run(tmp_path, words, code=CONFIG_ERROR, names=names)


def test_v20_dataset_says_how_to_convert(tmp_path, dataset):
    info = json.loads((dataset / "meta/info.json").read_text())
    (dataset / "meta/info.json").write_text(json.dumps(info | {"codebase_version": "v2.0"}))
    words = f"data.sources.metaworld_mt5.root={dataset}"
    refused_before_the_run(tmp_path, words, code=DATA_ERROR, names=["v2.0", str(dataset), "hint:"])


def test_truncated_video(tmp_path, dataset):
    content = (dataset / VIDEO).read_bytes()
    (dataset / VIDEO).write_bytes(content[: len(content) // 2])
    refused(tmp_path / "run", f"data.sources.metaworld_mt5.root={dataset}", code=DATA_ERROR, names=[VIDEO])


def test_parquet_with_a_missing_column(tmp_path, dataset):
    table = pyarrow.parquet.read_table(dataset / TABLE).drop_columns(["action"])
    pyarrow.parquet.write_table(table, dataset / TABLE)
    words = f"data.sources.metaworld_mt5.root={dataset}"
    refused_before_the_run(tmp_path, words, code=DATA_ERROR, names=[TABLE, "action"])


@pytest.mark.parametrize(
    ("key", "existing"),
    [("cameras.primary", "observation.image"), ("state_key", "observation.state"), ("action_key", "action")],
)
def test_feature_that_is_not_there(tmp_path, key, existing):
    key = f"data.sources.metaworld_mt5.{key}"
    refused_before_the_run(tmp_path, f"{key}=nowhere", code=CONFIG_ERROR, names=[key, "`nowhere`", "hint:", existing])


@pytest.mark.parametrize("num_episodes", [0, 100])
def test_none_or_all_episodes_held_out(tmp_path, num_episodes):
    key = "data.sources.metaworld_mt5.num_val_episodes"
    refused_before_the_run(tmp_path, f"{key}={num_episodes}", code=CONFIG_ERROR, names=[key, "hint:"])


def test_directory_of_another_run(uninterrupted):
    before = snapshot(uninterrupted)
    refused(uninterrupted, code=CONFIG_ERROR, names=["logging.run_dir", str(uninterrupted), "--resume"])
    assert snapshot(uninterrupted) == before


def test_unknown_key(tmp_path):
    refused_before_the_run(tmp_path, "training.optimizer.lrr=1", code=CONFIG_ERROR, names=["training.optimizer.lrr"])


def test_unknown_key_that_was_added(tmp_path):
    refused_before_the_run(tmp_path, "+training.optimizer.lrr=1", code=CONFIG_ERROR, names=["training.optimizer.lrr"])


def test_missing_key(tmp_path):
    refused_before_the_run(tmp_path, "~training.optimizer.lr", code=CONFIG_ERROR, names=["training.optimizer.lr"])


def test_batch_size_of_zero(tmp_path):
    refused_before_the_run(tmp_path, "data.loader.batch_size=0", code=CONFIG_ERROR, names=["data.loader.batch_size"])


def test_a_cache_that_would_fill_the_disk(tmp_path):
    """`min_free_gb` holds for the frame cache: not one byte of it is written, and no run directory is made."""
    cache = tmp_path / "cache"
    words = ["data.cache.enabled=true", f"data.cache.dir={cache}", "logging.min_free_gb=1e6"]
    refused_before_the_run(tmp_path, *words, code=DISK_FULL, names=["must leave 1000000.00 GiB"])
    assert not list(cache.glob("*.partial"))


def test_a_batch_that_exceeds_its_budget(tmp_path):
    words = ["data.loader.batch_size=1048576", "data.loader.memory_budget_mb=1"]
    refused_before_the_run(
        tmp_path, *words, code=CONFIG_ERROR, names=["data.loader.memory_budget_mb", "one batch takes"]
    )


HUGE = 2**62
OUT_OF_RANGE = [
    "seed=-1",
    "device=gpu",
    f"data.loader.batch_size={HUGE}",
    f"data.loader.memory_budget_mb={HUGE}",
    "data.request.image_deltas=[0,nan]",
    f"model.dim={HUGE}",
    "model.patch_size=0",
    "model.attn_dropout=1.5",
    f"training.max_steps={HUGE}",
    "training.optimizer.lr=nan",
    "training.ema.decay=-1",
    f"validation.limit_batches={HUGE}",
]


@pytest.mark.parametrize("setting", OUT_OF_RANGE)
def test_value_out_of_range(tmp_path, setting):
    """A few of all settings, which rust/schema/tests/out_of_range.rs walks: one error for the key, one hint, exit code 2."""
    key = setting.split("=")[0]
    message = refused(tmp_path / "run", setting, code=CONFIG_ERROR, names=[f"error: {key}"])
    assert message.count("hint: ") == 1, message
    assert not (tmp_path / "run").exists(), "a refused run leaves nothing behind"


def test_monitor_that_no_validation_gives(tmp_path, uninterrupted):
    """It is found before the first step, and the error lists exactly what validations record."""
    error = refused(tmp_path / "run", "training.checkpoint.monitor=val/foo", code=CONFIG_ERROR, names=["val/foo"])
    assert not (tmp_path / "run").exists()
    known = error.split("choose one of ")[1].strip().split(", ")
    assert sorted(known) == sorted(key for key in read_metrics(uninterrupted)[-1] if key.startswith("val/"))


def test_disk_too_full_to_begin(tmp_path):
    refused_before_the_run(tmp_path, "logging.min_free_gb=1e9", code=DISK_FULL, names=["logging.min_free_gb", "hint:"])


def test_disk_that_fills_up_keeps_the_last_checkpoint(tmp_path):
    """A real small disk: the run stops with a clean error, and what it wrote before is whole and resumes elsewhere."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = train_laq_command(*MINI, f"logging.run_dir={disk}/run", "logging.min_free_gb=0.0")
    script = 'mount -t tmpfs -o size=3m none "$0" && { "$@"; code=$?; cp -r "$0"/run "$0"-kept; exit $code; }'
    result = run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(disk), *command])
    assert result.returncode == DISK_FULL, result.stderr
    assert result.stderr.count("error:") == 1 and "space" in result.stderr, result.stderr
    kept = tmp_path / "disk-kept"
    assert (kept / "checkpoints" / "last").exists(), "the disk holds at least one checkpoint"
    resumed = run(train_laq_command("--resume", kept))
    assert resumed.returncode == 0, resumed.stderr


def test_a_full_quota_is_a_full_disk(tmp_path):
    """Bytes and files count; a command that does not answer is a warning."""
    for told, error in [("0 1000000", "0.00 GiB free in its quota"), ("- 7", "7 may still be made in its quota")]:
        command = f'cluster.quota_command=[echo,"{told}"]'
        refused_before_the_run(tmp_path, command, code=DISK_FULL, names=[error, "hint:"])
    result = run(
        train_laq_command(
            *MINI, f"logging.run_dir={tmp_path}/run", "training.max_steps=4", "cluster.quota_command=[/bin/false]"
        )
    )
    assert result.returncode == 0 and "cluster.quota_command does not tell the quota" in result.stderr, result.stderr


def test_a_quota_that_fills_up_keeps_the_last_checkpoint(tmp_path):
    """Asked before each checkpoint: the third question, for the second checkpoint, finds it full."""
    quota = tmp_path / "quota"
    quota.write_text(f'#!/bin/sh\necho >> {tmp_path}/asked\n[ -e "$1/checkpoints/last" ] && echo "0 0" || echo "- -"\n')
    quota.chmod(0o755)
    run_dir = tmp_path / "run"
    words = [*MINI, f"logging.run_dir={run_dir}", f"cluster.quota_command=[{quota},{run_dir}]"]
    one_error(run(train_laq_command(*words)), DISK_FULL, ["in its quota", "hint:"])
    assert (run_dir / "checkpoints/last").read_text() == "step-000005\n"
    resumed = run(train_laq_command("--resume", run_dir, "cluster.quota_command=null"))
    assert resumed.returncode == 0, resumed.stderr


def test_resume_with_another_model(tmp_path, uninterrupted):
    before = snapshot(uninterrupted)
    result = run(train_laq_command("--resume", uninterrupted, "model.dim=64"))
    one_error(result, CONFIG_ERROR, ["model.dim was 32, is 64", "hint:"])
    assert snapshot(uninterrupted) == before


@pytest.mark.parametrize(
    ("schedule", "way_on"), [("cosine", "training.load_weights_from="), ("none", "training.max_steps=")]
)
def test_resume_of_a_finished_run(tmp_path, schedule, way_on):
    """There is nothing to do, and the program says so and how to train on."""
    words = [
        *MINI,
        f"logging.run_dir={tmp_path / 'run'}",
        "training.max_steps=4",
        f"training.scheduler.type={schedule}",
    ]
    assert run(train_laq_command(*words)).returncode == 0
    result = run(train_laq_command("--resume", tmp_path / "run"))
    assert result.returncode == 0, result.stderr
    assert "all 4 steps are done" in result.stdout and way_on in result.stdout
    assert "samples/s" not in result.stdout and "steps 5 to 4" not in result.stderr


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_truncated_checkpoint(tmp_path, uninterrupted, file):
    run_dir = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    (run_dir / "checkpoints" / "last").write_text("step-000020")
    damaged = run_dir / "checkpoints" / "step-000020" / file
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    before = snapshot(run_dir / "checkpoints")
    result = run(train_laq_command("--resume", run_dir))
    assert result.returncode == 1, result.stderr
    assert str(damaged) in result.stderr and "step-000015" in result.stderr, result.stderr
    assert snapshot(run_dir / "checkpoints") == before
