"""`hlrp_rs.Teacher`: a frozen latent action model at work inside of somebody else's training."""

import itertools

import pytest
import torch
from conftest import DATA, program, run
from hlrp_rs import Checkpoint, HlrpFileNotFoundError, HlrpValueError, Loader, Teacher, open_dataset


@pytest.fixture(scope="module")
def teacher(uninterrupted) -> Teacher:
    return Teacher.load(uninterrupted)


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    """Real frame pairs in the teacher's size."""
    dataset = open_dataset(
        DATA / "metaworld_mt5",
        cameras={"primary": "observation.image"},
        image_size=(32, 32),
        image_deltas=[0, 5],
        batch_size=6,
    )
    return next(iter(Loader(dataset, seed=0)))["images"]["primary"]


def test_the_identity_is_that_of_the_checkpoint(teacher, uninterrupted):
    manifest = Checkpoint.load(uninterrupted).manifest
    model, files = manifest["task"]["model"], manifest["files"]
    weights = files.get("ema.safetensors", files["model.safetensors"])
    assert teacher.identity == {
        "sha256": weights["sha256"],
        **{key: model["quantizer"][key] for key in ("codebook_size", "code_seq_len", "code_dim")},
        "image_size": model["image_size"],
        "pair": manifest["task"]["pair"],
    }
    assert teacher.device == "cpu"


def test_labels_are_the_standardised_vectors_of_the_codes(teacher, frames, uninterrupted):
    identity = teacher.identity
    codes = teacher.codes(frames)
    assert codes.shape == (6, identity["code_seq_len"])
    assert codes.dtype == torch.int64
    assert ((codes >= 0) & (codes < identity["codebook_size"])).all()
    labels = teacher.label(frames)
    latents, is_valid = labels["latents"], labels["latent_is_valid"]
    assert latents.shape == (*codes.shape, identity["code_dim"])
    assert latents.dtype == torch.float32
    assert torch.equal(latents, teacher.vectors(codes))
    codebook = next(t for n, t in Checkpoint.load(uninterrupted).tensors().items() if n.endswith("vq.codebooks"))
    standardised = (codebook - codebook.mean(0)) / codebook.std(0, correction=0)
    torch.testing.assert_close(latents, standardised[codes])
    assert is_valid.all()


def test_an_export_labels_as_its_checkpoint(teacher, frames, uninterrupted, tmp_path):
    result = run([program("hlrp"), "export-laq", str(uninterrupted), "--out", str(tmp_path / "encoder")])
    assert result.returncode == 0, result.stderr
    exported = Teacher.load(tmp_path / "encoder")
    assert exported.identity == teacher.identity
    ours, theirs = exported.label(frames), teacher.label(frames)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    controls = [
        Teacher.load(path, weights="random", seed=3).label(frames) for path in (uninterrupted, tmp_path / "encoder")
    ]
    assert torch.equal(controls[0]["latents"], controls[1]["latents"])
    with pytest.raises(HlrpValueError, match=r"encoder and the quantizer .* alone.*\nhint: give a checkpoint folder"):
        exported.reconstruct(frames)


def test_a_pair_is_valid_when_both_frames_are_real(teacher, frames):
    is_real = torch.tensor([[1, 1], [1, 0], [0, 1], [0, 0], [1, 1], [1, 1]], dtype=torch.bool)
    assert teacher.label(frames, is_real)["latent_is_valid"].tolist() == [True, False, False, False, True, True]


def test_labels_do_not_depend_on_what_surrounds_the_call(teacher, frames):
    plain = teacher.label(frames)["latents"]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(teacher.label(frames)["latents"], plain)
    with torch.inference_mode():
        assert torch.equal(teacher.label(frames)["latents"], plain)
    state = torch.get_rng_state()
    latents = teacher.label(frames)["latents"]
    assert torch.equal(torch.get_rng_state(), state)
    assert not latents.requires_grad


def test_frames_as_lerobot_gives_them_are_the_same_frames(teacher, frames):
    assert torch.equal(teacher.codes(frames.float() / 255), teacher.codes(frames))
    larger = frames.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    assert teacher.codes(larger).shape == teacher.codes(frames).shape


def test_a_reconstruction_is_a_picture(teacher, frames):
    codes, predicted = teacher.reconstruct(frames)
    assert torch.equal(codes, teacher.codes(frames))
    assert predicted.shape == (6, 3, 32, 32)
    assert predicted.isfinite().all()


def test_random_weights_are_a_control_that_a_seed_fixes(teacher, frames, uninterrupted):
    state = torch.get_rng_state()
    first, again, other = (Teacher.load(uninterrupted, weights="random", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state), "the caller's generator stands where it stood"
    labels = [t.label(frames)["latents"] for t in (first, again, other, teacher)]
    assert torch.equal(labels[0], labels[1])
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(labels[1:], 2))
    assert first.identity["sha256"] == again.identity["sha256"] != other.identity["sha256"]
    assert first.identity["sha256"] != teacher.identity["sha256"]
    sizes = ["codebook_size", "code_seq_len", "code_dim", "image_size", "pair"]
    assert all(first.identity[key] == teacher.identity[key] for key in sizes)


def test_mistakes_are_named(teacher, frames, uninterrupted, tmp_path):
    with pytest.raises(HlrpFileNotFoundError, match="nowhere"):
        Teacher.load(tmp_path / "nowhere")
    with pytest.raises(HlrpValueError, match="device: unknown device 'gpu'"):
        Teacher.load(uninterrupted, "gpu")
    with pytest.raises(HlrpValueError, match="teacher: random weights need a seed"):
        Teacher.load(uninterrupted, weights="random")
    with pytest.raises(HlrpValueError, match="teacher: unknown weights `fresh`"):
        Teacher.load(uninterrupted, weights="fresh")
    with pytest.raises(HlrpValueError, match=r"uint8 or float \[B, 2, 3, height, width\] is needed"):
        teacher.codes(frames[:, 0])
    with pytest.raises(HlrpValueError, match=r"where int64 \[B, \d+\] is needed"):
        teacher.vectors(torch.zeros(2, 9, dtype=torch.int64))
    with pytest.raises(HlrpValueError, match=r"where bool \[6, 2\] is needed"):
        teacher.label(frames, torch.ones(6, dtype=torch.bool))
