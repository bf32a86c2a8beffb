"""The flow decoder's teachers in stage 1, and the cache of what they say."""

import json
import shutil
import struct
from pathlib import Path

import pytest
from conftest import MINI, REPO, one_error, program, read_metrics, run, train_laq, train_laq_command
from interruption import assert_resumes_exactly
from made_datasets import with_other_actions
from ranks import EXACT, assert_equal_runs
from test_laq_interop import FLOW as IMPORTED_FLOW
from test_laq_interop import import_model
from test_laq_variants import FLOW, random_raft

CONFIG_ERROR, DATA_ERROR = 2, 65
KEY = "model.decoders.flow"
LUCAS_KANADE = [
    *MINI,
    f"{KEY}.enabled=true",
    f"{KEY}.depth=1",
    f"{KEY}.teacher=lucas_kanade",
    "validation.probes.enabled=false",
]
SIDE = 32
# Checksum and float32 numbers of a pair.
SLOT = 8 + 4 * 2 * SIDE * SIDE


def train(run_dir, *words):
    train_laq(run_dir, *words)
    return read_metrics(run_dir)


def cached(folder: Path) -> list[str]:
    return [f"{KEY}.cache.enabled=true", f"{KEY}.cache.dir={folder}"]


def one_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def slots_of(data: bytes) -> int:
    """Where the slots begin: after the header, which fills whole pages."""
    (json_len,) = struct.unpack("<Q", data[8:16])
    return -(-(24 + json_len) // 4096) * 4096


def filled(path: Path) -> list[int]:
    """Rows whose flow is there."""
    data = path.read_bytes()
    start = slots_of(data)
    num_rows, rest = divmod(len(data) - start, SLOT)
    assert rest == 0
    return [row for row in range(num_rows) if data[start + row * SLOT :][:8] != bytes(8)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Metrics of a run that computes every flow."""
    return train(tmp_path_factory.mktemp("plain") / "run", *LUCAS_KANADE)


def test_the_classical_teacher_needs_no_weights_and_any_image_size(plain):
    losses = [line["train/flow_loss"] for line in plain if "train/flow_loss" in line]
    assert len(losses) == 24 and all(loss > 0 for loss in losses)
    assert len([line for line in plain if "val/flow_own_to_copy" in line]) == 3


def test_missing_weights_of_a_teacher_name_the_key_and_what_to_do(tmp_path):
    """As the experiment is shipped, and in an analysis."""
    run_dir = f"logging.run_dir={tmp_path / 'run'}"
    missing = tmp_path / "weights/raft_small.safetensors"
    advice = ["hint: convert torchvision's weights as docs/laq.md", f"{KEY}.teacher=lucas_kanade"]
    weights = f"{KEY}.teacher_weights={missing}"
    result = run([program("hlrp"), "train-laq", "experiment=laq_flow_tiny", weights, run_dir])
    one_error(result, 1, [f"{KEY}.teacher_weights: {missing}: No such file", *advice])
    checkpoint = tmp_path / "checkpoint"  # of images that a RAFT reads
    source = REPO / "tests/golden/laq_flow/weights.safetensors"
    imported = import_model(source, checkpoint, *IMPORTED_FLOW, f"{KEY}.unit=image")
    assert imported.returncode == 0, imported.stderr
    words = ["experiment=laq_token_analysis", f"checkpoint={checkpoint}", "analysis.flow.teacher=raft_small", run_dir]
    result = run([program("hlrp"), "analyze-laq", *words, f"analysis.flow.teacher_weights={missing}"])
    one_error(result, 1, [f"analysis.flow.teacher_weights: {missing}", "analysis.flow.teacher=lucas_kanade", "hint:"])
    assert not (tmp_path / "run").exists(), "nothing was written"


def test_the_mean_flow_may_be_part_of_the_loss(tmp_path):
    """It is a term of its own, with errors in pixels beside it."""
    run_dir = tmp_path / "run"
    words = [f"{KEY}.loss_weight=2", f"{KEY}.summary_loss_weight=0.5", "training.max_steps=8"]
    lines = train(run_dir, *LUCAS_KANADE, *words, "validation.check_interval=8")
    names = ["flow_summary_loss", "flow_mean_dx_abs_err", "flow_mean_dy_abs_err"]
    for split in ("train", "val"):
        found = [line for line in lines if f"{split}/flow_loss" in line]
        assert found and all(line[f"{split}/{name}"] > 0 for line in found for name in names)
        for line in found:
            parts = [line[f"{split}/{name}_loss"] for name in ("pixel", "aux", "flow", "flow_summary")]
            assert line[f"{split}/loss"] == pytest.approx(parts[0] + parts[1] + 2 * parts[2] + 2 * 0.5 * parts[3])


def test_a_cache_changes_no_loss_and_is_filled_once(tmp_path, plain):
    folder = tmp_path / "flow"
    assert train(tmp_path / "filling", *LUCAS_KANADE, *cached(folder)) == plain
    path = one_file(folder)
    rows, before = filled(path), path.stat()
    # 24 steps of 4 pairs, of which no two are alike, and two batches of a validation.
    assert len(rows) == 24 * 4 + 2 * 4
    assert train(tmp_path / "reading", *LUCAS_KANADE, *cached(folder)) == plain
    after = path.stat()
    assert (after.st_mtime_ns, after.st_blocks) == (before.st_mtime_ns, before.st_blocks), "every flow was there"
    json_text = path.read_bytes()[24:].split(b"\0")[0]
    identity = json.loads(json_text)
    assert identity["computation"] == {"teacher": "lucas_kanade", "device": "cpu"}
    assert (identity["height"], identity["frames_of_a_pair"]) == (SIDE, [0, 20])


def test_a_flow_that_was_not_wholly_written_is_computed_again(tmp_path, plain):
    folder = tmp_path / "flow"
    train(tmp_path / "filling", *LUCAS_KANADE, *cached(folder))
    path = one_file(folder)
    row, data = filled(path)[5], bytearray(path.read_bytes())
    whole = bytes(data)
    torn = slots_of(data) + row * SLOT + SLOT // 2
    data[torn : torn + 400] = bytes(400)
    path.write_bytes(data)
    assert train(tmp_path / "again", *LUCAS_KANADE, *cached(folder)) == plain
    assert path.read_bytes() == whole


def test_a_cache_has_a_limit(tmp_path, plain):
    folder = tmp_path / "flow"
    few = f"{KEY}.cache.max_gb={1000 * SLOT / 1e9}"
    for name in ("filling", "reading"):
        assert train(tmp_path / name, *LUCAS_KANADE, *cached(folder), few) == plain
    rows = filled(one_file(folder))
    assert 0 < len(rows) < 104 and max(rows) < 1000


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    assert_resumes_exactly(tmp_path, [*LUCAS_KANADE, *cached(tmp_path / "flow")])


def test_a_run_resumes_with_and_without_the_cache(tmp_path):
    run_dir, folder = tmp_path / "run", tmp_path / "flow"
    train(run_dir, *LUCAS_KANADE, "training.scheduler.type=none", "training.max_steps=10")
    result = run(train_laq_command("--resume", run_dir, *cached(folder), "training.max_steps=20"))
    assert result.returncode == 0, result.stderr
    assert len(filled(one_file(folder))) >= 40
    result = run(train_laq_command("--resume", run_dir, f"{KEY}.cache.enabled=false", "training.max_steps=24"))
    assert result.returncode == 0, result.stderr
    description = json.loads((run_dir / "checkpoints/step-000024/checkpoint.json").read_text())["task"]["model"]
    assert description["decoders"]["flow"]["cache"] is None, "it is no part of the model"


def test_processes_fill_one_cache(tmp_path):
    words = [*LUCAS_KANADE, *EXACT, "training.max_steps=10", "data.loader.num_workers=1"]
    train(tmp_path / "alone", *words, "data.loader.batch_size=8")
    for name in ("filling", "reading"):
        train(tmp_path / name, *words, "num_processes=2", *cached(tmp_path / "flow"))
        assert_equal_runs(tmp_path / name, tmp_path / "alone")


def test_raft_computes_each_flow_once(tmp_path):
    weights = tmp_path / "raft.safetensors"
    random_raft(weights)
    words = [*FLOW, f"{KEY}.teacher_weights={weights}", "validation.probes.enabled=false"]
    folder = tmp_path / "flow"
    plain = train(tmp_path / "plain", *words)
    assert train(tmp_path / "filling", *words, *cached(folder)) == plain
    before = one_file(folder).stat().st_mtime_ns
    assert train(tmp_path / "reading", *words, *cached(folder)) == plain
    assert one_file(folder).stat().st_mtime_ns == before
    train(tmp_path / "finer", *words, *cached(folder), f"{KEY}.teacher_num_updates=2")
    assert len(list(folder.iterdir())) == 2, "another computation has a file of its own"


def test_a_cache_of_another_dataset_is_one_clear_error(tmp_path):
    words = [*LUCAS_KANADE, "training.max_steps=4", "validation.check_interval=4"]
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    other = f"data.sources.metaworld_mt5.root={with_other_actions(tmp_path / 'changed', [])}"
    train(tmp_path / "a", *words, *cached(ours))
    train(tmp_path / "b", *words, *cached(theirs), other)
    path = one_file(theirs)
    shutil.copyfile(one_file(ours), path)
    command = train_laq_command(*words, *cached(theirs), other, f"logging.run_dir={tmp_path / 'run'}")
    one_error(run(command), DATA_ERROR, [str(path), "another dataset", "hint:", "move the file away"])
    for content, says in [(b"not a cache" * 1000, "damaged"), (path.read_bytes()[:-8], "another dataset")]:
        path.write_bytes(content)
        one_error(run(command), DATA_ERROR, [str(path), says, "hint:"])


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["training.augmentation.shift=0.1"], [f"{KEY}.cache.enabled", "training.augmentation"]),
        ([f"{KEY}.cache.max_gb=0"], [f"{KEY}.cache.max_gb"]),
        ([f"{KEY}.teacher=raft_small"], [f"{KEY}.teacher_weights", "lucas_kanade"]),
        ([f"{KEY}.teacher=farneback"], [f"{KEY}.teacher", "lucas_kanade"]),
    ],
)
def test_what_does_not_go_together_is_one_clear_error(tmp_path, words, names):
    command = train_laq_command(*LUCAS_KANADE, *cached(tmp_path / "flow"), *words, f"logging.run_dir={tmp_path / 'x'}")
    one_error(run(command), CONFIG_ERROR, [*names, "hint:"])
