"""Weights of the predecessor's layout become a checkpoint, and encoder and quantizer leave one alone."""

import json
import sys
from collections import OrderedDict

import pytest
import torch
from conftest import REPO, one_error, program, run
from hlrp_rs import Teacher
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
    command = [
        sys.executable,
        "scripts/weights_to_safetensors.py",
        tmp_path / "last.ckpt",
        tmp_path / "last.safetensors",
    ]
    converted = run([str(word) for word in command])
    assert converted.returncode == 0, converted.stderr
    assert import_laq(tmp_path / "last.safetensors", out).returncode == 0
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (out, imported))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


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
