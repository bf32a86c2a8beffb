"""`hlrp label`: the latent action of every frame as columns of a new dataset."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DATA, MINI, REPO, label, one_error, program, run, train_laq_command
from hlrp_rs import Checkpoint, Loader, Teacher, open_dataset
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from safetensors.torch import load_file, save_file

SOURCE = DATA / "metaworld_mt5"
PREFIX = "latent_labels"


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def load(root: Path, **kwargs) -> LeRobotDataset:
    return LeRobotDataset("local/labelled", root=root, **kwargs)


def column(dataset: LeRobotDataset, name: str) -> torch.Tensor:
    return torch.tensor(np.array(dataset.hf_dataset.with_format("numpy")[f"{PREFIX}.{name}"]))


def pair(checkpoint: Path) -> int:
    return int(Teacher.load(checkpoint).identity["pair"]["image_deltas"][1])


@pytest.fixture(scope="module")
def labelled(uninterrupted, tmp_path_factory) -> Path:
    before = digests(SOURCE)
    out = tmp_path_factory.mktemp("labelled") / "mt5"
    result = label(uninterrupted, out)
    assert result.returncode == 0, result.stderr
    assert digests(SOURCE) == before, "the dataset that is read stays as it is"
    beside = sorted(path.name for path in out.parent.iterdir())
    assert beside == [".mt5.labels", "mt5"], "nothing is removed, and nothing unfinished is left"
    assert ".mt5.labels; nothing needs them" in result.stdout
    return out


def test_labels_are_those_of_the_online_teacher(labelled, uninterrupted):
    dataset, teacher = load(labelled), Teacher.load(uninterrupted)
    side = teacher.identity["image_size"]
    pairs = open_dataset(
        SOURCE,
        cameras={"primary": "observation.image"},
        image_size=(side, side),
        image_deltas=[0, pair(uninterrupted)],
        batch_size=32,
    )
    codes, valid = column(dataset, "codebook_id_latents"), column(dataset, "valid").flatten()
    starts = {episode["episode_index"]: episode["dataset_from_index"] for episode in dataset.meta.episodes}
    num = 0
    for _, batch in zip(range(8), Loader(pairs, seed=0), strict=False):
        rows = [starts[int(e)] + int(f) for e, f in zip(batch["episode"], batch["frame"], strict=True)]
        assert valid[rows].all()
        assert torch.equal(teacher.codes(batch["images"]["primary"]), codes[rows])
        num += len(rows)
    assert num > 100
    is_valid = valid.bool()
    vectors = column(dataset, "codebook_vector_latents")[is_valid]
    codebook = Checkpoint.load(uninterrupted).tensors()["vq.codebooks"]
    assert torch.equal(vectors, codebook[codes[is_valid]]), "the rows of the codebook, to the last bit"
    distances = (column(dataset, "continuous_vector_latents")[is_valid].unsqueeze(-2) - codebook).square().sum(-1)
    nearest = distances.gather(-1, codes[is_valid].unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(nearest, distances.amin(-1), msg="a code is the one nearest to its vector")


def test_labels_from_a_frame_cache_are_the_same(labelled, uninterrupted, tmp_path):
    """The cache is built once, in the file that a training on all episodes uses, too."""
    cache = tmp_path / "cache"
    for name in ["built", "read"]:
        result = label(uninterrupted, tmp_path / name, "--cache-dir", str(cache))
        assert result.returncode == 0, result.stderr
        assert ("frame cache of metaworld_mt5/observation.image" in result.stderr) == (name == "built")
        for key in ["continuous_vector_latents", "codebook_id_latents", "codebook_vector_latents"]:
            assert torch.equal(column(load(tmp_path / name), key), column(load(labelled), key)), key
    (file,) = cache.glob("*.frames")
    words = ["data.cache.enabled=true", f"data.cache.dir={cache}", f"logging.run_dir={tmp_path / 'run'}"]
    result = run(train_laq_command(*MINI, *words))
    assert result.returncode == 0, result.stderr
    assert list(cache.glob("*.frames")) == [file]
    damaged = bytearray(file.read_bytes())
    damaged[8:16] = bytes(8)
    file.write_bytes(damaged)
    one_error(label(uninterrupted, tmp_path / "damaged", "--cache-dir", str(cache)), 65, [str(file), "hint:"])


def test_a_frame_is_valid_where_its_pair_is_within_the_episode(labelled, uninterrupted):
    dataset, k = load(labelled), pair(uninterrupted)
    valid = column(dataset, "valid").flatten().numpy()
    expected = np.zeros(len(valid), dtype=np.int64)
    for episode in dataset.meta.episodes:
        expected[
            episode["dataset_from_index"] : max(episode["dataset_to_index"] - k, episode["dataset_from_index"])
        ] = 1
    assert (valid == expected).all() and 0 < expected.sum() < len(expected)
    assert (column(dataset, "codebook_id_latents")[valid == 0] == 0).all()
    assert (column(dataset, "continuous_vector_latents")[valid == 0] == 0).all()


def test_the_official_reader_sees_the_old_columns_and_the_new(labelled, uninterrupted):
    dataset, source, k = load(labelled), load(SOURCE), pair(uninterrupted)
    identity = Teacher.load(uninterrupted).identity
    slots, width = identity["code_seq_len"], identity["code_dim"]
    sample, former = dataset[100], source[100]
    assert sample.keys() - former.keys() == {
        f"{PREFIX}.{name}"
        for name in ["continuous_vector_latents", "codebook_id_latents", "codebook_vector_latents", "valid"]
    }
    for key, value in former.items():
        assert torch.equal(sample[key], value) if isinstance(value, torch.Tensor) else sample[key] == value, key
    assert sample[f"{PREFIX}.continuous_vector_latents"].shape == (slots, width)
    assert sample[f"{PREFIX}.codebook_vector_latents"].dtype == torch.float32
    assert sample[f"{PREFIX}.codebook_id_latents"].shape == (slots,)
    assert sample[f"{PREFIX}.codebook_id_latents"].dtype == torch.int64
    valid = column(dataset, "valid").flatten().bool()
    vectors = column(dataset, "continuous_vector_latents")[valid].double().numpy()
    stats = dataset.meta.stats[f"{PREFIX}.continuous_vector_latents"]
    assert stats["mean"].shape == (slots, width) and int(np.ravel(stats["count"])[0]) == len(vectors)
    for name, expected in {
        "mean": vectors.mean(0),
        "std": vectors.std(0),
        "min": vectors.min(0),
        "max": vectors.max(0),
        **{f"q{round(100 * q):02d}": np.quantile(vectors, q, axis=0) for q in [0.01, 0.1, 0.5, 0.9, 0.99]},
    }.items():
        np.testing.assert_allclose(stats[name], expected, atol=1e-9, err_msg=name)
    manifest = json.loads((labelled / "label_manifest.json").read_text())
    assert manifest["num_valid_labels"] == len(vectors)
    assert manifest["delta_timestamps"] == {"observation.image": [0.0, k / 80]}
    assert manifest["valid_feature_name"] == f"{PREFIX}.valid"
    assert set(manifest["feature_names"]) == {key.removeprefix(f"{PREFIX}.") for key in sample.keys() - former.keys()}
    video = "videos/observation.image/chunk-000/file-000.mp4"
    assert (labelled / video).samefile(SOURCE / video), "videos are linked"


def test_a_command_that_is_killed_goes_on_where_it_was(labelled, uninterrupted, tmp_path):
    out, parts = tmp_path / "mt5", tmp_path / ".mt5.labels"
    command = [program("hlrp"), "label", str(uninterrupted), str(SOURCE), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(parts.glob("episode-*"))) < 5 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("episode-*")}
    assert 5 <= len(kept) < 50 and not out.exists()
    error = one_error(label(uninterrupted, out, "--batch-size", 8), 1, [".mt5.labels", "hint:"])
    assert "--out" in error, "labels of other options are not mixed"
    before = {path.name: path.stat().st_mtime_ns for path in parts.glob("episode-*")}
    assert before == kept, "a refusal changes nothing"
    # Marked labels of a finished episode are in the result: it was read and not labelled again.
    marked = parts / sorted(kept)[0]
    tensors = load_file(marked)
    tensors["codebook_id_latents"] = tensors["codebook_id_latents"].flip(0) + 100
    save_file(tensors, marked)
    assert label(uninterrupted, out).returncode == 0
    kept.pop(marked.name)
    assert all((parts / name).stat().st_mtime_ns == time_ns for name, time_ns in kept.items())
    ours, theirs = (column(load(folder), "codebook_id_latents") for folder in (out, labelled))
    num_marked = len(tensors["codebook_id_latents"])
    assert (ours[:num_marked] >= 100).all() and torch.equal(ours[num_marked:], theirs[num_marked:])
    again = tmp_path / "again"
    assert label(uninterrupted, again).returncode == 0
    ours, theirs = digests(again), digests(labelled)
    ours.pop("label_manifest.json"), theirs.pop("label_manifest.json")
    assert ours == theirs, "without a stop it is the same dataset, byte by byte"


def test_sums_of_actions_and_random_labels_are_labels_too(uninterrupted, tmp_path):
    k = pair(uninterrupted)
    result = label(uninterrupted, tmp_path / "actions", "--source", "action-as-latent")
    assert result.returncode == 0, result.stderr
    dataset = load(tmp_path / "actions")
    actions = torch.tensor(np.array(dataset.hf_dataset.with_format("numpy")["action"]))
    vectors, valid = column(dataset, "continuous_vector_latents"), column(dataset, "valid").flatten()
    for row in valid.nonzero().flatten()[::97].tolist():
        torch.testing.assert_close(vectors[row], actions[row : row + k].sum(0), rtol=1e-5, atol=1e-5)
    drawn = []
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        result = label(uninterrupted, tmp_path / name, "--source", "synthetic", "--seed", seed)
        assert result.returncode == 0, result.stderr
        drawn.append(column(load(tmp_path / name), "codebook_id_latents"))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_a_continuous_latent_has_vectors_alone(continuous_laq, tmp_path):
    result = label(continuous_laq, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    keys = [key for key in load(tmp_path / "out").features if key.startswith(PREFIX)]
    assert sorted(keys) == [f"{PREFIX}.continuous_vector_latents", f"{PREFIX}.valid"]


def test_what_cannot_be_labelled_is_named(labelled, uninterrupted, tmp_path):
    one_error(label(uninterrupted, labelled), 1, [str(labelled), "hint:"])
    one_error(label(uninterrupted, tmp_path / "out", "--camera", "wrist"), 1, ["observation.image", "--camera"])
    again = label(uninterrupted, tmp_path / "again", source=labelled)
    assert f"{PREFIX}.continuous_vector_latents" in one_error(again, again.returncode, ["hint:"])
    assert again.returncode != 0
    of_rlds = label(uninterrupted, tmp_path / "rlds", source=DATA / "rlds/bridge/0.1.0")
    assert "LeRobot v3" in one_error(of_rlds, 2, ["DATASET", "hint:"])
    mute = tmp_path / "mute"
    shutil.copytree(SOURCE, mute)
    info = json.loads((mute / "meta/info.json").read_text())
    del info["features"]["action"]
    (mute / "meta/info.json").write_text(json.dumps(info))
    of_actions = label(uninterrupted, tmp_path / "out", "--source", "action-as-latent", source=mute)
    one_error(of_actions, of_actions.returncode, [str(mute), "action", "hint:"])
    assert list(tmp_path.iterdir()) == [mute], "refused before anything is labelled or written"


def test_what_a_command_line_names_is_written_below_the_allowed_roots_only(uninterrupted, tmp_path):
    """Labels, exports, plots, pages, notes and reproductions: the tree in use says where."""
    tree, allowed = tmp_path / "config", tmp_path / "allowed"
    shutil.copytree(REPO / "config", tree)
    allowed.mkdir()
    profile = tree / "cluster/local_dev.yaml"
    profile.write_text(re.sub(r"(?m)^allowed_roots:.*", f"allowed_roots: [{allowed}]", profile.read_text()))
    env = os.environ | {"HLRP_CONFIG_DIR": str(tree)}
    run_dir = str(uninterrupted)
    commands = {
        "labels": ["label", run_dir, str(SOURCE)],
        "encoder": ["export-laq", run_dir],
        "plot.png": ["runs", "plot", run_dir],
        "page.html": ["runs", "report", run_dir],
        "note.md": ["runs", "note", run_dir],
        "again": ["reproduce", run_dir, "--dry-run"],
    }
    for name, words in commands.items():
        result = run([program("hlrp"), *words, "--out", str(tmp_path / name)], env=env)
        one_error(result, 2, ["--out", str(tmp_path / name), str(allowed), "hint:"])
        assert not (tmp_path / name).exists()
    words = ["--out", str(allowed / "labels"), "--cache-dir", str(tmp_path / "cache")]
    result = run([program("hlrp"), *commands["labels"], *words], env=env)
    one_error(result, 2, ["--cache-dir", str(tmp_path / "cache"), str(allowed), "hint:"])
    for name in ["encoder", "plot.png", "page.html", "note.md"]:
        result = run([program("hlrp"), *commands[name], "--out", str(allowed / name)], env=env)
        assert result.returncode == 0 and (allowed / name).exists(), result.stderr
