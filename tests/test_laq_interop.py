"""Weights of the predecessor's layout become a checkpoint, and encoder and quantizer leave one alone."""

import json
import os
import pickle
import sys
from collections import OrderedDict, defaultdict, deque
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from conftest import REPO, one_error, program, run
from hlrp_rs import Teacher
from omegaconf import OmegaConf
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


def import_laq(source, out, *words: object):
    return run([program("hlrp"), "import-laq", str(source), "--out", str(out), *SAME, *map(str, words)])


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
    video = load_file(GOLDEN / "inputs.safetensors")["video_u8"]
    recorded = load_file(GOLDEN / "outputs.safetensors")["inference.ids"]
    assert torch.equal(Teacher.load(imported).codes(video.permute(0, 2, 1, 3, 4).contiguous()), recorded)


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
        (pickle.dumps(print), ["cannot be read", "print"]),
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
