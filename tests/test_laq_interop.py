"""Weights of the predecessor's layout become a checkpoint, and encoder and quantizer leave one alone."""

import json
import os
import pickle
import shutil
import sys
from collections import OrderedDict, defaultdict, deque
from fractions import Fraction
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import DATA, MINI, REPO, VLA_MINI, one_error, program, run, train_laq_command, train_vla_command
from hlrp_rs import Teacher
from omegaconf import OmegaConf
from ranks import losses, weights
from safetensors.torch import load_file, save_file

GOLDEN = REPO / "tests/golden/laq_pixel"
WEIGHTS = GOLDEN / "weights.safetensors"
# The model of tests/golden/laq_pixel/config.json.
SAME = [
    "experiment=laq_tiny",
    "model=laq_pixel_tiny",
    "model.image_size=32",
    "model.patch_size=4",
    "model.dim=32",
    "model.heads=2",
    "model.dim_head=16",
    "model.spatial_depth=2",
    "model.temporal_depth=2",
    "model.decoders.pixel.depth=2",
    "model.decoders.aux.depth=2",
    "logging.min_free_gb=0.1",
]


# The models of tests/golden/laq_flow/config.json and tests/golden/laq_dino_s1/config.json, but for what the errors name.
NSVQ = ["model/quantizer=nsvq_short", "model.quantizer.grid_width=null", "model.quantizer.slot_embedding=false"]
SMALL = ["model.dim=32", "model.heads=2", "model.dim_head=16", "model.spatial_depth=1", "model.temporal_depth=1"]
FLOW = [
    "experiment=laq_flow_tiny",
    *NSVQ,
    *SMALL,
    "model.decoders.aux.depth=1",
    "model.decoders.flow.teacher_weights=not/needed.safetensors",
    "logging.min_free_gb=0.1",
]
DINO = [
    "experiment=laq_dino_tiny",
    *NSVQ,
    *SMALL,
    "model.quantizer.code_seq_len=1",
    "model.decoders.token.depth=1",
    "model.decoders.aux.depth=1",
    "logging.min_free_gb=0.1",
]
DINO_SIZES = [f"model.encoder.dinov3.sizes.{name}" for name in ("hidden_size=32", "intermediate_size=64")]
DINO_SIZES += [f"model.encoder.dinov3.sizes.{name}" for name in ("num_attention_heads=2", "patch_size=4")]


def import_model(source, out, *words: object):
    return run([program("hlrp"), "import-laq", str(source), "--out", str(out), *map(str, words)])


def import_laq(source, out, *words: object):
    return import_model(source, out, *SAME, *words)


def assert_codes_as_recorded(checkpoint, case):
    video = load_file(case / "inputs.safetensors")["video_u8"]
    recorded = load_file(case / "outputs.safetensors")["inference.ids"]
    assert torch.equal(Teacher.load(checkpoint).codes(video.permute(0, 2, 1, 3, 4).contiguous()), recorded)


def convert(source: Path):
    """Makes a safetensors file beside a file of PyTorch."""
    command = [sys.executable, "scripts/weights_to_safetensors.py", source, source.with_suffix(".safetensors")]
    return run([str(word) for word in command])


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    out = tmp_path_factory.mktemp("imported") / "checkpoint"
    result = import_laq(WEIGHTS, out)
    assert result.returncode == 0, result.stderr
    for word in ["temporal transformer", "action token comes from one code", "position bias and a canvas of its own"]:
        assert word in result.stdout, "what the programs do differently is named"
    return out


def test_imported_weights_give_the_recorded_codes(imported):
    assert_codes_as_recorded(imported, GOLDEN)


def test_the_spacing_of_the_pairs_is_said_and_recorded(imported, tmp_path):
    """The file does not say it, and labels, stage 2 and analyses use it."""
    words = ["data.request.unit=seconds", "data.request.image_deltas=[0,0.5]"]
    result = import_laq(WEIGHTS, tmp_path / "out", *words)
    assert result.returncode == 0, result.stderr
    (note,) = [line for line in result.stdout.splitlines() if "frame pairs: [0, 0.5] seconds" in line]
    assert "data.request.image_deltas" in note
    pairs = [
        json.loads((folder / "checkpoint.json").read_text())["task"]["pair"] for folder in (imported, tmp_path / "out")
    ]
    assert pairs == [{"unit": "frames", "image_deltas": [0, 20]}, {"unit": "seconds", "image_deltas": [0, 0.5]}]


def test_the_unit_of_the_flow_is_named_where_its_tensors_are_missing(tmp_path):
    """No teacher is read."""
    source = REPO / "tests/golden/laq_flow/weights.safetensors"
    names = ["missing: flow_unit.mean_square", "hint: the weights are of a model with model.decoders.flow.unit=image\n"]
    one_error(import_model(source, tmp_path / "out", *FLOW), 1, names)
    result = import_model(source, tmp_path / "out", *FLOW, "model.decoders.flow.unit=image")
    assert result.returncode == 0, result.stderr
    assert_codes_as_recorded(tmp_path / "out", source.parent)


def test_parts_that_only_one_of_both_has_are_named(tmp_path):
    source = REPO / "tests/golden/laq_flow/weights.safetensors"
    without = ["experiment=laq_tiny", "model=laq_pixel_tiny", "model.image_size=128", "model.patch_size=16", *SMALL]
    error = one_error(import_model(source, tmp_path / "out", *without), 1, ["not of this model: flow_decoder"])
    hint = error[error.index("hint:") :]
    assert "model.decoders.flow.enabled=true model.decoders.flow.unit=image" in hint
    assert "model.decoders.pixel.enabled=false" in hint and "aux" not in hint


def test_the_weights_of_a_dinov3_are_in_the_file(tmp_path):
    source = REPO / "tests/golden/laq_dino_s1/weights.safetensors"
    absent = "model.encoder.dinov3.model=facebook/absent"
    names = [
        "facebook/absent",
        f"{source} has its weights",
        "model/encoder=dinov3_vits16",
        "model.encoder.dinov3.sizes=",
    ]
    words = [*DINO, absent, "model.encoder.dinov3.sizes=null"]
    one_error(import_model(source, tmp_path / "out", *words), 2, [*names, "hint:"])
    words = [*DINO, absent, *DINO_SIZES]
    names = [
        "missing: dino_to_features.bias",
        "hint: the weights are of a model with model.decoders.token.target=projected\n",
    ]
    one_error(import_model(source, tmp_path / "out", *words), 1, names)
    result = import_model(source, tmp_path / "out", *words, "model.decoders.token.target=projected")
    assert result.returncode == 0, result.stderr
    assert_codes_as_recorded(tmp_path / "out", source.parent)


def test_a_training_starts_from_imported_weights(imported, tmp_path):
    words = [
        *SAME,
        f"training.load_weights_from={imported}",
        "training.max_steps=2",
        "training.scheduler.warmup_steps=1",
        "training.checkpoint.every_n_steps=2",
        "validation.check_interval=2",
        "validation.limit_batches=1",
        "data.loader.batch_size=4",
    ]
    result = run([program("hlrp"), "train-laq", *words, f"logging.run_dir={tmp_path / 'run'}"])
    assert result.returncode == 0, result.stderr


def test_a_lightning_checkpoint_is_converted_without_executing_it(imported, tmp_path):
    state = OrderedDict((f"model.{name}", tensor) for name, tensor in load_file(WEIGHTS).items())
    # What Lightning saves beside the weights.
    torch.save({"epoch": 3, "global_step": 7, "state_dict": state, "optimizer_states": []}, tmp_path / "last.ckpt")
    out = tmp_path / "checkpoint"
    error = one_error(import_laq(tmp_path / "last.ckpt", out), 1, ["last.ckpt", "hint:"])
    assert "weights_to_safetensors.py" in error
    converted = convert(tmp_path / "last.ckpt")
    assert converted.returncode == 0, converted.stderr
    assert import_laq(tmp_path / "last.safetensors", out).returncode == 0
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (out, imported))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_settings_and_paths_beside_the_weights_are_left_out(tmp_path):
    """What Lightning saves of a run that Hydra configured: nothing of it is needed, and no code of those packages runs."""
    content = {
        "state_dict": load_file(WEIGHTS),
        "hyper_parameters": {"model_config": OmegaConf.create({"dim": 32, "flow": None, "steps": [1, 2.5, "${dim}"]})},
        "callbacks": {"ModelCheckpoint": {"dirpath": tmp_path, "best_k_models": defaultdict(list, {"a": [1]})}},
        "loops": deque([1, 2]),
    }
    torch.save(content, tmp_path / "last.ckpt")
    command = [sys.executable, "-c", CONVERTS_WITHOUT_OMEGACONF, tmp_path / "last.ckpt", tmp_path / "last.safetensors"]
    converted = run([str(word) for word in command])
    assert converted.returncode == 0, converted.stderr
    found = load_file(tmp_path / "last.safetensors")
    assert found.keys() == content["state_dict"].keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in content["state_dict"].items())


CONVERTS_WITHOUT_OMEGACONF = """
import runpy, sys
sys.modules["omegaconf"] = None  # as if it were not installed
runpy.run_path("scripts/weights_to_safetensors.py", run_name="__main__")
"""


class Attack:
    """Leaves a file when it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_what_would_be_executed_is_named_and_is_not(tmp_path):
    torch.save({"state_dict": {}, "callbacks": Attack(tmp_path / "executed")}, tmp_path / "last.ckpt")
    error = one_error(convert(tmp_path / "last.ckpt"), 1, ["last.ckpt", "posix.mkdir", "hint:"])
    assert "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (None, ["No such file"]),
        (b"", ["cannot be read"]),
        (b"no weights at all", ["cannot be read"]),
        (pickle.dumps(print, protocol=2), ["cannot be read", "print"]),
        ([torch.zeros(2)], ["a list instead of tensors by name"]),
        ({"epoch": 3}, ["no state dict", "epoch"]),
        ({"state_dict": {}, "callbacks": Fraction(1, 2)}, ["fractions.Fraction"]),
    ],
    ids=["missing", "empty", "garbage", "a function", "a list", "no tensors", "another package"],
)
def test_a_file_without_weights_is_one_error(tmp_path, content, names):
    source = tmp_path / "other.ckpt"
    if isinstance(content, bytes):
        source.write_bytes(content)
    elif content is not None:
        torch.save(content, source)
    error = one_error(convert(source), 1, [*names, "hint:"])
    assert error.startswith("error: ") and "Traceback" not in error
    assert not source.with_suffix(".safetensors").exists()


def test_missing_unknown_and_reshaped_tensors_are_named(tmp_path):
    weights = load_file(WEIGHTS)
    del weights["vq.project_in.bias"]
    weights["vq.extra"] = torch.zeros(3)
    weights["vq.codebooks"] = torch.zeros(16, 8)
    save_file(weights, tmp_path / "other.safetensors")
    names = [
        "other.safetensors",
        "missing: vq.project_in.bias",
        "not of this model: vq.extra",
        "vq.codebooks ([16, 8], the model has [8, 8])",
    ]
    one_error(import_laq(tmp_path / "other.safetensors", tmp_path / "out"), 1, [*names, "hint:"])
    one_error(import_laq(WEIGHTS, tmp_path / "out", "model.dim=64"), 1, ["of another shape", "more", "hint:"])
    assert not (tmp_path / "out").exists()


def test_an_import_replaces_nothing(imported):
    one_error(import_laq(WEIGHTS, imported), 1, [str(imported), "hint:"])


def test_encoder_and_quantizer_alone(uninterrupted, tmp_path):
    out = tmp_path / "encoder"
    result = run([program("hlrp"), "export-laq", str(uninterrupted), "--out", str(out)])
    assert result.returncode == 0, result.stderr
    assert {path.name for path in out.iterdir()} == {"model.safetensors", "config.json"}
    last = uninterrupted / "checkpoints" / (uninterrupted / "checkpoints/last").read_text().strip()
    whole, alone = load_file(last / "model.safetensors"), load_file(out / "model.safetensors")
    decoders = {name for name in whole if name.split(".")[0] not in {name.split(".")[0] for name in alone}}
    assert alone.keys() | decoders == whole.keys() and len(decoders) > 10
    assert all(torch.equal(tensor, whole[name]) for name, tensor in alone.items())
    assert any(name.startswith("vq.codebooks") for name in alone) and not any("pixel_decoder" in name for name in alone)
    config = json.loads((out / "config.json").read_text())
    assert config["format"] == "hlrp-laq-encoder"
    assert config["description"] == {
        k: v for k, v in json.loads((last / "checkpoint.json").read_text())["task"].items() if k != "stage"
    }
    one_error(run([program("hlrp"), "export-laq", str(uninterrupted), "--out", str(out)]), 1, [str(out), "hint:"])


@pytest.fixture(scope="module")
def exported(uninterrupted, tmp_path_factory):
    """What `export-laq` makes of a checkpoint."""
    out = tmp_path_factory.mktemp("exported") / "encoder"
    result = run([program("hlrp"), "export-laq", str(uninterrupted), "--out", str(out)])
    assert result.returncode == 0, result.stderr
    return out


def label(checkpoint, out):
    """Columns that `hlrp label` adds, and what the new dataset says of their model."""
    result = run([program("hlrp"), "label", str(checkpoint), str(DATA / "embedded_images"), "--out", str(out)])
    assert result.returncode == 0, result.stderr
    tables = [pq.read_table(path) for path in sorted(out.glob("data/*/*.parquet"))]
    table = pa.concat_tables(tables)
    columns = {name: table[name].to_pylist() for name in table.column_names if name.startswith("latent_labels.")}
    manifest = json.loads(next(out.rglob("label_manifest.json")).read_text())
    return columns, manifest["labels"]


def test_labels_of_an_export_are_those_of_its_checkpoint(uninterrupted, exported, tmp_path):
    ours, theirs = (label(source, tmp_path / name) for source, name in [(exported, "a"), (uninterrupted, "b")])
    assert ours == theirs
    assert len(ours[0]) == 4 and ours[1]["teacher"]["sha256"]


def test_stage_2_trains_alike_from_an_export(uninterrupted, exported, tmp_path):
    steps = ["training.max_steps=2", "training.scheduler.warmup_steps=1", "validation.check_interval=2"]
    for source, name in [(exported, "a"), (uninterrupted, "b")]:
        run_dir = tmp_path / name
        words = [*VLA_MINI, *steps, f"policy.teacher.checkpoint={source}", f"logging.run_dir={run_dir}"]
        result = run(train_vla_command(*words))
        assert result.returncode == 0, result.stderr
    ours, theirs = (losses(tmp_path / name) for name in "ab")
    assert ours == theirs and 2 in ours
    ours, theirs = (weights(tmp_path / name) for name in "ab")
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    artifacts = [json.loads(next((tmp_path / name).rglob("artifact.json")).read_text()) for name in "ab"]
    teachers = [artifact["policy"]["teacher"] for artifact in artifacts]
    assert teachers[0] == teachers[1] and teachers[0]["sha256"]


def test_what_needs_a_whole_checkpoint_refuses_an_export(exported, tmp_path):
    says = [str(exported), "encoder and the quantizer", "`hlrp export-laq`", "hint: give a checkpoint folder"]
    analysis = ["experiment=laq_token_analysis", f"checkpoint={exported}", f"logging.run_dir={tmp_path / 'report'}"]
    one_error(run([program("hlrp"), "analyze-laq", *analysis]), 1, says)
    words = [*MINI, f"training.load_weights_from={exported}", f"logging.run_dir={tmp_path / 'run'}"]
    one_error(run(train_laq_command(*words)), 2, ["training.load_weights_from", *says])


def test_a_damaged_export_is_named(exported, tmp_path):
    dataset = str(DATA / "metaworld_mt5")

    def refused(change, names):
        folder = tmp_path / "damaged"
        shutil.copytree(exported, folder)
        change(folder)
        result = run([program("hlrp"), "label", str(folder), dataset, "--out", str(tmp_path / "labelled")])
        one_error(result, 1, [str(folder), *names, "hint:"])
        shutil.rmtree(folder)

    def edit(**changes):
        def change(folder):
            record = json.loads((folder / "config.json").read_text()) | changes
            (folder / "config.json").write_text(json.dumps(record))

        return change

    def flip(folder):
        content = bytearray((folder / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (folder / "model.safetensors").write_bytes(content)

    refused(flip, ["model.safetensors", "sha256 differs"])
    refused(lambda folder: (folder / "model.safetensors").unlink(), ["model.safetensors", "the file is missing"])
    refused(edit(format_version=9), ["config.json", "format 9", "reads format 2 and older"])
    refused(edit(extra=1), ["config.json", "unknown field `extra`"])
    refused(edit(description={}), ["config.json", "description: "])
    assert not (tmp_path / "labelled").exists()
