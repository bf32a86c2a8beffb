"""Artifacts of stage 2 and checkpoints of stage 1, read from Python: strict, with the texts of the Rust errors."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from hlrp_rs import Artifact, Checkpoint, HlrpFileNotFoundError, HlrpValueError
from safetensors.torch import load_file, save_file
from smolvla_reference import TOKENIZER
from tiny_policy import ACTION_DIM, MULTITASK, RustPolicy, make_pair, observation, processor, targets

TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json"]
TEACHER = {
    "sha256": "0" * 64,
    "codebook_size": 8,
    "code_seq_len": 2,
    "code_dim": 5,
    "image_size": 32,
    "pair": {"unit": "frames", "image_deltas": [0.0, 5.0]},
}


def write_artifact(folder: Path, policy: RustPolicy) -> Path:
    """An artifact as stage 2 writes it."""
    folder.mkdir()
    save_file(
        {name: tensor.detach().clone() for name, tensor in policy.tensors().items()}, folder / "model.safetensors"
    )
    for name in TOKENIZER_FILES:
        shutil.copy(TOKENIZER / name, folder)
    action = {
        "mode": "mean_std",
        "dim": ACTION_DIM,
        "statistics": {"mean": [0.0] * ACTION_DIM, "std": [2.0] * ACTION_DIM},
    }
    manifest = {
        "format": "hlrp-vla-artifact",
        "format_version": 3,
        "hlrp": "0.1.0",
        "policy": {
            "model": policy.policy.model,
            "processor": processor() | {"action": action},
            "objective": MULTITASK,
            "teacher": {"checkpoint": None, "weights": "trained", "camera": "top"} | TEACHER,
        },
        "provenance": {"experiment": "test", "step": 10},
    }
    seal(folder, manifest)
    return folder


def seal(folder: Path, manifest: dict) -> None:
    """Writes the manifest with the digests of the files as they are."""

    def record(path: Path) -> dict:
        return {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}

    manifest["files"] = {name: record(folder / name) for name in ["model.safetensors", *TOKENIZER_FILES]}
    (folder / "artifact.json").write_text(json.dumps(manifest))


def change(folder: Path, edit) -> None:
    """Edits the manifest without touching other files."""
    path = folder / "artifact.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> RustPolicy:
    return make_pair(tmp_path_factory.mktemp("policy")).rust


@pytest.fixture
def folder(tmp_path, policy) -> Path:
    return write_artifact(tmp_path / "final", policy)


def test_an_artifact_gives_back_what_was_trained(folder, policy):
    artifact = Artifact.load(folder)
    assert artifact.path == artifact.tokenizer_folder == str(folder)
    assert artifact.teacher == TEACHER
    assert artifact.manifest["provenance"] == {"experiment": "test", "step": 10}
    tensors = artifact.tensors()
    assert tensors.keys() == policy.tensors().keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in policy.tensors().items())
    assert not any(tensor.requires_grad for tensor in tensors.values())
    revived = RustPolicy(artifact.policy(), tensors)
    generator = torch.Generator().manual_seed(1)
    batch = observation(generator), targets(generator)
    noise = {"latent": torch.zeros(3, 2, 5), "action": torch.zeros(3, 6, 5)}
    time = {"latent": torch.full([3], 0.5), "action": torch.full([3], 0.5)}
    losses = [module(*batch, noise=noise, time=time)["loss"] for module in (policy, revived)]
    assert losses[0] == losses[1]


def test_the_policy_of_an_artifact_knows_its_scaling(folder):
    policy = Artifact.load(folder).policy()
    assert policy.normalization("state") is None
    assert policy.normalization("action")["statistics"]["std"] == [2.0] * ACTION_DIM
    assert (policy.chunk_size, policy.action_dim, policy.latent_shape) == (6, 3, (2, 5))
    assert (policy.cameras, policy.image_size) == (["top"], (64, 64))


def test_tensors_are_read_anew_at_each_call(folder):
    artifact = Artifact.load(folder)
    first = artifact.tensors()
    for tensor in first.values():
        tensor.zero_()
    assert any(tensor.any() for tensor in artifact.tensors().values())


def test_a_changed_byte_is_noticed(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(HlrpValueError, match="model.safetensors: its content is not what was written") as caught:
        Artifact.load(folder)
    assert "hint: the artifact was changed or damaged" in str(caught.value)


def test_weights_of_another_model_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    name = "model.state_proj.bias"
    manifest = json.loads((folder / "artifact.json").read_text())
    for broken, text in [
        ({key: tensor for key, tensor in weights.items() if key != name}, f"1 missing ({name})"),
        (weights | {"extra": torch.zeros(1)}, "1 unknown (extra)"),
        (weights | {name: torch.zeros(3)}, f"weight `{name}` is Float [3], the model needs Float [48]"),
    ]:
        save_file(broken, folder / "model.safetensors")
        seal(folder, manifest)
        with pytest.raises(HlrpValueError) as caught:
            Artifact.load(folder)
        assert text in str(caught.value)


def test_contradictions_in_the_manifest_are_refused(folder):
    original = (folder / "artifact.json").read_text()
    for edit, text in [
        (lambda m: m["policy"]["teacher"].update(code_dim=7), "the teacher has 2 codes of 7 dimensions"),
        (lambda m: m["policy"]["model"].update(empty_cameras=1), "policy.model.empty_cameras"),
        (lambda m: m.update(surprise=1), "unknown field `surprise`"),
        (lambda m: m["policy"].pop("objective"), "missing field `objective`"),
        (lambda m: m.update(format_version=9), "version 9"),
    ]:
        (folder / "artifact.json").write_text(original)
        change(folder, edit)
        with pytest.raises(HlrpValueError) as caught:
            Artifact.load(folder)
        assert text in str(caught.value)
        assert "hint:" in str(caught.value)


def test_what_is_not_there_is_a_file_not_found(folder, tmp_path):
    with pytest.raises(HlrpFileNotFoundError, match="artifact.json: No such file"):
        Artifact.load(tmp_path / "nowhere")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="tokenizer.json"):
        Artifact.load(folder)


def test_a_checkpoint_tells_what_it_is_and_gives_its_weights(uninterrupted):
    checkpoint = Checkpoint.load(uninterrupted)
    assert checkpoint.step == checkpoint.manifest["step"] == 24
    assert checkpoint.manifest["task"]["stage"] == "laq"
    assert "laq_tiny" in checkpoint.config_yaml
    tensors = checkpoint.tensors()
    folder = Path(checkpoint.path)
    averaged = folder / "ema.safetensors"
    expected = load_file(folder / "model.safetensors") | (load_file(averaged) if averaged.is_file() else {})
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.items())


def test_a_damaged_checkpoint_names_a_whole_one(uninterrupted, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    newest = Path(Checkpoint.load(run).path)
    (newest / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(HlrpValueError, match="the checkpoint is damaged") as caught:
        Checkpoint.load(run)
    assert "is whole" in str(caught.value)
    with pytest.raises(HlrpFileNotFoundError, match="it does not exist"):
        Checkpoint.load(tmp_path / "nowhere")
