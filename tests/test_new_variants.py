"""How to add a variant: a toy of each kind is added to a copy of the tree by the files that docs/architecture.md names, built, and run.

The toys are in tests/variants/<kind>: new files at their place in the tree, and `insertions.toml` with the text that goes into existing
files. None wraps a variant that exists, and each test looks for what only its toy can do.
"""

import csv
import json
import re
from pathlib import Path

import pyarrow.parquet
import pytest
from conftest import DATA, MINI, REPO, VLA_MINI, one_error, read_metrics
from safetensors.numpy import load_file
from tree_copy import TreeCopy

pytestmark = pytest.mark.slow

CONFIG_ERROR = 2
VARIANTS = REPO / "tests" / "variants"
# Name of each toy, and the largest number of files that its kind may touch.
KINDS = {
    "decoder": ("brightness", 4),
    "quantizer": ("rounding", 4),
    "format": ("frames", 5),
    "architecture": ("tokens_mlp", 6),
    "sink": ("csv", 4),
}


def documented() -> dict[str, list[str]]:
    """The files of each kind in the table of docs/architecture.md, as paths of a variant called `<name>`."""
    text = (REPO / "docs/architecture.md").read_text().split("## How to add")[1]
    rows = re.findall(r"^\| an? (\w+) \|(.*)\|$", text, flags=re.MULTILINE)
    return {kind: re.findall(r"`([\w./<>]+\.(?:rs|yaml))`", files) for kind, files in rows}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> TreeCopy:
    return TreeCopy(tmp_path_factory.mktemp("tree") / "hlrp")


@pytest.fixture
def tree(pristine):
    yield pristine
    pristine.restore()


def add(tree: TreeCopy, kind: str) -> None:
    """Adds the toy of a kind by exactly the documented files."""
    name, most = KINDS[kind]
    files = sorted(file.replace("<name>", name) for file in documented()[kind])
    assert len(files) <= most, f"a new {kind} touches {len(files)} files"
    tree.add(VARIANTS / kind)
    tree.format()
    assert tree.changed() == files
    for path in (VARIANTS / kind).rglob("*.rs"):
        assert (tree.folder / path.relative_to(VARIANTS / kind)).read_text() == path.read_text(), (
            f"{path} is not formatted"
        )


def trained(tree: TreeCopy, program: str, run_dir: Path, *words: object) -> list[dict]:
    """Metrics of a training that ends well."""
    result = tree.run(program, *words, f"logging.run_dir={run_dir}")
    assert result.returncode == 0, result.stderr
    return read_metrics(run_dir)


def weights(run_dir: Path, step: int) -> dict:
    return load_file(run_dir / f"checkpoints/step-{step:06}/model.safetensors")


def description(run_dir: Path) -> dict:
    """What the last checkpoint says of its task."""
    last = (run_dir / "checkpoints/last").read_text().strip()
    return json.loads((run_dir / "checkpoints" / last / "checkpoint.json").read_text())["task"]


def values(lines: list[dict], name: str) -> list[float]:
    return [line[name] for line in lines if name in line]


def test_every_kind_is_documented():
    assert documented().keys() == KINDS.keys()


def test_a_decoder(tree, tmp_path):
    add(tree, "decoder")
    tree.build("hlrp-train-laq")
    only = [
        "model.decoders.pixel.enabled=false",
        "model.decoders.aux.enabled=false",
        "model.decoders.brightness.enabled=true",
        "model.decoders.brightness.depth=1",
        "model.decoders.brightness.loss_weight=2",
        "training.optimizer.weight_decay=0",
    ]
    lines = trained(tree, "hlrp-train-laq", tmp_path / "run", *MINI, *only)
    losses = values(lines, "train/brightness_loss")
    assert len(losses) == 24
    assert values(lines, "train/loss") == pytest.approx([2 * loss for loss in losses], rel=1e-6), "it alone trains"
    assert not values(lines, "train/pixel_loss")
    validated = values(lines, "val/brightness_loss")
    assert validated[-1] < validated[0], "it learns"
    early, late = (weights(tmp_path / "run", step) for step in (5, 24))
    assert late["brightness_head.weight"].shape == (4 * 4, 32)
    assert any(name.startswith("brightness_decoder.") for name in late)
    # Without weight decay only a gradient moves a weight: its loss trains the codes.
    assert (early["vq.project_in.weight"] != late["vq.project_in.weight"]).any()
    assert description(tmp_path / "run")["model"]["decoders"]["brightness"]["enabled"] is True

    louder = trained(tree, "hlrp-train-laq", tmp_path / "louder", *MINI, *only, "model.decoders.brightness.gain=10")
    assert values(louder, "train/brightness_loss")[0] > losses[0], "its own key has an effect"
    result = tree.run("hlrp-train-laq", *MINI, "model.decoders.brightness.gain=-1")
    one_error(result, CONFIG_ERROR, ["model.decoders.brightness.gain", "-1", "hint:"])


def test_a_quantizer(tree, tmp_path):
    add(tree, "quantizer")
    tree.build("hlrp-train-laq")
    words = [word for word in MINI if "nsvq" not in word]
    words += ["model/quantizer=rounding", "model.quantizer.code_dim=3", "training.optimizer.weight_decay=0"]
    lines = trained(tree, "hlrp-train-laq", tmp_path / "run", *words)
    errors = values(lines, "train/rounding_error")
    assert len(errors) == 24
    assert all(0 < error <= 0.25 for error in errors), "a level is at most half a step away"
    assert all(1 <= used <= 8 for used in values(lines, "train/num_unique_codes"))
    early, late = (weights(tmp_path / "run", step) for step in (5, 24))
    assert "vq.codebooks" not in late, "the codebook is implicit"
    # The quantizer is the only way from the loss to the projection before it.
    assert (early["vq.project_in.weight"] != late["vq.project_in.weight"]).any()
    assert late["vq.codebooks_used"].sum() == 24 * 4 * 4, "24 steps of 4 pairs with 4 codes each"
    quantizer = description(tmp_path / "run")["model"]["quantizer"]
    assert quantizer["rounding"] == {"levels": 2}
    assert "nsvq" not in quantizer

    result = tree.run("hlrp-train-laq", *words, "model.quantizer.rounding.levels=3")
    one_error(result, CONFIG_ERROR, ["model.quantizer.codebook_size", "3 levels in 3 dimensions", "hint:"])


def write_frames(folder: Path, source: Path) -> None:
    """A dataset of folders with frames, from one whose images are embedded in its table."""
    files = sorted(source.glob("data/*/*.parquet"))
    rows = [row for file in files for row in pyarrow.parquet.read_table(file).to_pylist()]
    tasks = pyarrow.parquet.read_table(source / "meta/tasks.parquet").to_pylist()
    texts = {row["task_index"]: row["task"] for row in tasks}
    episodes: dict[int, dict] = {}
    for row in rows:
        text = texts[row["task_index"]]
        episode = episodes.setdefault(row["episode_index"], {"task": text, "state": [], "action": []})
        image = folder / f"{row['episode_index']:06}" / f"{row['frame_index']:06}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(row["observation.images.front"]["bytes"])
        episode["state"].append(row["observation.state"])
        episode["action"].append(row["action"])
    fps = json.loads((source / "meta/info.json").read_text())["fps"]
    (folder / "episodes.json").write_text(json.dumps({"fps": fps, "episodes": list(episodes.values())}))


def test_a_format(tree, tmp_path):
    add(tree, "format")
    tree.build("hlrp-data", "hlrp-train-laq")
    original, frames = DATA / "embedded_images", tmp_path / "frames"
    write_frames(frames, original)

    shown = tree.run("hlrp-data", "show", "--no-sheet", frames)
    assert shown.returncode == 0, shown.stderr
    assert "frames 1" in shown.stdout and "PNG files" in shown.stdout
    checked = tree.run("hlrp-data", "check", frames)
    assert checked.returncode == 0, checked.stdout + checked.stderr

    def source(root: Path, camera: str) -> list[str]:
        section = f"{{root: {root}, cameras: {{primary: {camera}}}, state_key: null, action_key: null, episodes: null, num_val_episodes: 1}}"
        return ["data=lerobot", f"+data.sources.mine={section}", "data.request.image_deltas=[0,2]"]

    ours = [*MINI, *source(frames, "image")]
    read = trained(tree, "hlrp-train-laq", tmp_path / "read", *ours)
    theirs = trained(tree, "hlrp-train-laq", tmp_path / "theirs", *MINI, *source(original, "observation.images.front"))
    assert read == theirs, "the same pixels in the same order give the same losses to the last digit"
    cache = ["data.cache.enabled=true", f"data.cache.dir={tmp_path / 'cache'}"]
    assert trained(tree, "hlrp-train-laq", tmp_path / "cached", *ours, *cache) == read

    (frames / "000000/000001.png").write_bytes(b"not an image")
    checked = tree.run("hlrp-data", "check", frames)
    assert checked.returncode == 1
    assert "000000/000001.png" in checked.stdout + checked.stderr


def test_an_architecture(tree, tmp_path, uninterrupted):
    add(tree, "architecture")
    tree.build("hlrp-train-vla")
    words = [word for word in VLA_MINI if ".expert." not in word]
    words += [
        "policy=tokens_mlp",
        "policy.model.arch.tokens_mlp.hidden_dim=24",
        "policy.model.backbone.vlm_model_name=null",
        "policy.model.backbone.sizes.vision.patch_size=8",
        "policy.model.backbone.sizes.text.vocab_size=352",
        "policy.model.backbone.sizes.scale_factor=2",
        "policy.model.backbone.sizes.image_token_id=336",
        "policy.processor.tokenizer=tests/golden/tokenizer",
        f"policy.teacher.checkpoint={uninterrupted}",
    ]
    lines = trained(tree, "hlrp-train-vla", tmp_path / "run", *words)
    assert len(values(lines, "train/latent_loss")) == len(values(lines, "train/action_loss")) == 24
    early, late = (weights(tmp_path / "run", step) for step in (5, 24))
    assert late["hidden.weight"].shape == (24, 2 * 32), "image and instruction, each of the text model's width"
    moved = {name for name in late if (early[name] != late[name]).any()}
    assert {"hidden.weight", "latent_head.weight", "action_head.weight"} <= moved
    assert any(name.startswith("vlm.model.vision_model.") for name in moved)
    assert not any(name.startswith("vlm.model.text_model.layers.") for name in moved), "the decoder is not used"
    artifact = json.loads((tmp_path / "run/artifacts/final/artifact.json").read_text())
    assert artifact["policy"]["model"]["arch"] == {"tokens_mlp": {"hidden_dim": 24}}

    # A regression has no noise: the mean of two samples is one of them, to the last digit.
    assert "validation.num_flow_samples=2" in words
    assert trained(tree, "hlrp-train-vla", tmp_path / "again", *words, "validation.num_flow_samples=1") == lines

    result = tree.run("hlrp-train-vla", *words, "policy.model.arch.tokens_mlp.hidden_dim=0")
    one_error(result, CONFIG_ERROR, ["policy.model.arch.tokens_mlp.hidden_dim", "0 is below 1", "hint:"])


def test_a_sink(tree, tmp_path):
    add(tree, "sink")
    tree.build("hlrp-train-laq")
    words = [*MINI, "logging.sinks.console=false", "logging.sinks.png=false", "logging.sinks.csv='|'"]
    trained(tree, "hlrp-train-laq", tmp_path / "run", *words)
    with (tmp_path / "run/metrics.csv").open() as file:
        rows = [(int(row["step"]), row["name"], float(row["value"])) for row in csv.DictReader(file, delimiter="|")]
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    recorded = [
        (line["step"], name, value) for line in lines for name, value in line.items() if name not in ("step", "time")
    ]
    assert len(recorded) > 100
    assert rows == recorded, "both files have every value"
    assert not list((tmp_path / "run").glob("validation/*/*.png"))
    trained(tree, "hlrp-train-laq", tmp_path / "without", *MINI)
    assert not (tmp_path / "without/metrics.csv").exists()
