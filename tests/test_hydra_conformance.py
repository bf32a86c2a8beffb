"""`hlrp config` composes what hydra-core 1.3 composes, or both refuse. Meant differences: docs/config.md."""

import copy
import json
import math
import os
import random
import subprocess
import warnings
from pathlib import Path

import pytest
import yaml
from conftest import REPO, program
from hydra import compose, initialize_config_dir
from hydra._internal import config_loader_impl
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra_trees import Tree
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader

FIRST_SEED = int(os.environ.get("HLRP_TEST_SEED", "1"))
NUM_BATCHES = 12
TREES_PER_BATCH = 50
REFUSED = "refused"
# The start of the messages with which hlrp refuses on purpose what Hydra accepts.
STRICTER = ["inside text is", "lies behind a reference"]


def plain(value):
    """A value in a form in which equal means the same type and text."""
    if isinstance(value, dict):
        return {str(key): plain(child) for key, child in value.items()}
    if isinstance(value, list):
        return [plain(child) for child in value]
    if isinstance(value, float) and not math.isfinite(value):
        return ("str", json.dumps(value))
    return (type(value).__name__, value)


class UnsharedRepository(CachingConfigRepository):
    """Hydra's cache of files, but two inclusions of one file do not share their values."""

    def load_config(self, config_path: str):
        return copy.deepcopy(super().load_config(config_path))


def hydra(root: Path, words: list[str], version_base: str = "1.3"):
    """What Hydra composes."""
    with warnings.catch_warnings(), initialize_config_dir(str(root), version_base=version_base):
        warnings.simplefilter("ignore")
        try:
            return plain(OmegaConf.to_container(compose("config", overrides=words), resolve=True))
        except Exception:  # noqa: BLE001 - Hydra refuses with many types of exceptions
            return REFUSED


def paths_of(composed, prefix: str = "") -> list[str]:
    """Dotted paths of all keys of a composition."""
    if not isinstance(composed, dict):
        return []
    paths = [(f"{prefix}{key}", child) for key, child in composed.items()]
    return [path for path, child in paths for path in [path, *paths_of(child, f"{path}.")]]


def show(root: Path, words: list[str], *flags: str, form: str = "json") -> subprocess.CompletedProcess:
    """Runs `hlrp config show`."""
    command = [program("hlrp"), "config", "show", "--raw", "--format", form, "--config-dir", str(root)]
    command += [*flags, "--", *words]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=root)
    assert result.returncode in (0, 2), result.stderr
    if result.returncode == 2:
        assert result.stderr.startswith("error: ") and "hint:" in result.stderr, result.stderr
    return result


def ours(root: Path, words: list[str], *flags: str):
    """What `hlrp config show` composes."""
    result = show(root, words, *flags)
    return plain(json.loads(result.stdout)) if result.returncode == 0 else REFUSED


@pytest.fixture(autouse=True)
def unshared(monkeypatch):
    """Keeps Hydra's sharing of values out of the comparison; `test_a_file_included_twice` shows what it does."""
    monkeypatch.setattr(config_loader_impl, "CachingConfigRepository", UnsharedRepository)


# Every form of a word: group choices, nested groups, changes, additions, forced ones, deletions, maps, lists, quotes,
# references, and mistakes. The keys exist in every stage, in some, or in none: then both must refuse.
OUR_WORDS = [
    ["seed=7", "precision=32-true", "+new.key=[1,a]", "++num_threads=2", "++other=x"],
    ["experiment.name=lerobot_wandb", "logging.use_wandb=true", "++lerobot.wandb_enable=true"],
    ["training.optimizer.lr=3e-4", "data.loader.batch_size=8", "data.request.image_deltas=[0,3]"],
    ["data=lerobot", "data/dataset=libero", "data/loader=node", "model=laq_pixel"],
    ["~training.ema", "~sweep", "~cluster.slurm.qos", "~precision=bf16-mixed"],
    ["~model", "~cluster", "+training@other=laq"],
    ["model={dim: 64, decoders: {pixel: {depth: 3}}}", "cluster={compute: {mem_gb: 64, time_limit: '01:00:00'}}"],
    ["experiment.description='a, b'", 'experiment.name="x y"', "cluster.slurm.account=null", "device="],
    ["paths.root=/x", "logging.run_dir=${paths.root}/y_${experiment.name}", "cluster.storage_root=${oc.env:HOME}/z"],
    ["+sweep.params={training.optimizer.lr: [1e-4, 3e-4], seed: '1,2'}"],
    ["+sweep.params.model=[a,b]", "+user_config=missing"],
    ["+data/dataset@extra=libero", "+cluster@second=lrz_x100"],
    ["training.optimizer.lrr=1"],
    ["model=nope"],
    ["+seed=1"],
    ["cluster=nope"],
    ["experimnt=laq_tiny"],
    ["++cluster=lrz_x100"],
]


def options(group: str) -> list[str]:
    """Names of a group's options, those in folders inside it too; parts of others begin with `_`."""
    root = REPO / "config" / group
    names = [str(path.relative_to(root))[:-5] for path in sorted(root.glob("**/*.yaml"))]
    return [name for name in names if not Path(name).name.startswith("_")]


EXPERIMENTS = options("experiment")
CLUSTERS = options("cluster")


def assert_same(words: list[str]) -> bool:
    """Both give the same result, or both refuse. The time in the run directory is fixed. Tells whether they compose."""
    if not any(word.startswith("logging.run_dir") for word in words):
        words = [*words, "logging.run_dir=x"]
    found = ours(REPO / "config", words)
    assert found == hydra(REPO / "config", words), words
    return found != REFUSED


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_our_tree_with_every_cluster(experiment):
    for cluster in CLUSTERS:
        assert assert_same([f"experiment={experiment}", f"cluster={cluster}"])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_our_tree_with_every_form_of_overrides(experiment):
    """A third of the forms with each experiment, so that every form meets experiments of every stage; clusters take turns."""
    start = EXPERIMENTS.index(experiment)
    composed = [
        assert_same([f"experiment={experiment}", f"cluster={CLUSTERS[(start + i) % len(CLUSTERS)]}", *words])
        for i, words in enumerate(OUR_WORDS)
        if (start + i) % 3 == 0
    ]
    assert any(composed) and not all(composed)


def random_case(seed: int, folder: Path) -> tuple[Tree, Path, list[str]]:
    """A random tree and overrides; a tree that does not compose without overrides is mostly passed over."""
    for attempt in range(8):
        tree = Tree(seed * 8 + attempt)
        root = folder / f"{seed}-{attempt}"
        tree.write(root)
        composed = ours(root, [])
        if composed != REFUSED or tree.random.random() < 0.1:
            break
    return tree, root, tree.overrides(paths_of(composed))


@pytest.mark.parametrize(
    "batch", [0, 1, *(pytest.param(batch, marks=pytest.mark.slow) for batch in range(2, NUM_BATCHES))]
)
def test_random_trees(batch, tmp_path):
    num_composed = num_stricter = 0
    for seed in range(FIRST_SEED + batch * TREES_PER_BATCH, FIRST_SEED + (batch + 1) * TREES_PER_BATCH):
        tree, root, words = random_case(seed, tmp_path)
        expected = hydra(root, words)
        result = show(root, words)
        if expected != REFUSED and any(reason in result.stderr for reason in STRICTER):
            num_stricter += 1
            continue
        found = plain(json.loads(result.stdout)) if result.returncode == 0 else REFUSED
        num_composed += found != REFUSED
        message = f"seed {seed}, words {words}\n{tree.describe()}\nhlrp: {found} {result.stderr}\nhydra: {expected}"
        assert found == expected, message
    print(f"seeds from {FIRST_SEED + batch * TREES_PER_BATCH}: {num_composed} composed, {num_stricter} stricter")
    assert num_composed >= TREES_PER_BATCH // 4, "too few trees compose for the comparison to mean something"
    assert num_stricter <= TREES_PER_BATCH // 5


def test_random_values(tmp_path):
    """Values of overrides: the same type and text, or both refuse."""
    (tmp_path / "config.yaml").write_text("v: 0\n")
    rng = random.Random(FIRST_SEED)
    pieces = [*"0123456789._-+eE/\\:,[]{}()'\"$@%*?| aZn", "null", "true", "inf", "nan", "${x}", "\\,", "1e5", "0x"]
    parser = OverridesParser.create()
    num_accepted = 0
    for _ in range(400):
        text = "".join(rng.choices(pieces, k=rng.randint(1, 6)))
        try:
            [override] = parser.parse_overrides([f"v={text}"])
            expected = REFUSED if override.is_sweep_override() else plain(override.value())
        except Exception:  # noqa: BLE001 - the parser refuses with many types of exceptions
            expected = REFUSED
        found = ours(tmp_path, [f"v={text}"], "--unresolved")
        found = found["v"] if found != REFUSED else found
        if "${" in text and found != expected:
            expected = hydra(tmp_path, ["+x=1", f"v={text}"])  # a broken reference is refused by the composition
        num_accepted += found != REFUSED
        assert found == expected, f"seed {FIRST_SEED}: v={text!r}: hlrp {found}, hydra {expected}"
    assert num_accepted > 100


def test_random_scalars(tmp_path):
    """Plain scalars in files: the types that OmegaConf's loader gives, also after hlrp has written them again."""
    rng = random.Random(FIRST_SEED)
    pieces = list("0123456789._-+:eExXoOyYnN~") + ["null", "true", "inf", "No", "off", "0b1", "1e5"]
    texts = {"".join(rng.choices(pieces, k=rng.randint(1, 5))) for _ in range(3000)}
    expected = {}
    for text in sorted(texts):
        try:
            value = yaml.load(f"k: {text}", Loader=get_yaml_loader())["k"]  # noqa: S506 - OmegaConf's own safe loader
        except (yaml.YAMLError, ValueError):
            continue
        if isinstance(value, bool | int | float | str | None):
            expected[f"k{len(expected)}"] = (text, value)
    file = tmp_path / "config.yaml"
    file.write_text("".join(f"{key}: {text}\n" for key, (text, _) in expected.items()))
    found = ours(tmp_path, [])
    different = {text: (found[key], value) for key, (text, value) in expected.items() if found[key] != plain(value)}
    assert len(expected) > 1000 and not different
    file.write_text(show(tmp_path, [], form="yaml").stdout)
    again = yaml.load(file.read_text(), Loader=get_yaml_loader())  # noqa: S506
    assert plain(again) == found == ours(tmp_path, [])


DIFFERENCES = {
    "a value with '='": ("x: 0\n", ["x=/p/step=80.ckpt"], {"x": "/p/step=80.ckpt"}, REFUSED),
    "null in text": ("x: null\ny: a${x}\n", [], REFUSED, {"x": None, "y": "aNone"}),
    "a list in text": ("x: [1]\ny: a${x}\n", [], REFUSED, {"x": [1], "y": "a[1]"}),
    "a deletion behind a reference": ("x: {k: 1}\ny: ${x}\n", ["~y.k"], REFUSED, {"x": {}, "y": {}}),
    "a tab after a value": ("x: 1\t# note\n", [], {"x": 1}, REFUSED),
    "keys are text": ("on: b\n", [], {"on": "b"}, {"True": "b"}),
    "hydra's own section": ("x: 1\n", ["hydra.run.dir=/y"], REFUSED, {"x": 1}),
    "a list function": ("x: [2, 1]\n", ["x=sort([2,1])"], REFUSED, {"x": [1, 2]}),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_meant_differences(name, tmp_path):
    """What docs/config.md lists as meant, and nothing else about it, differs."""
    text, words, ours_expected, hydra_expected = DIFFERENCES[name]
    (tmp_path / "config.yaml").write_text(text)
    assert ours(tmp_path, words) == (REFUSED if ours_expected == REFUSED else plain(ours_expected))
    assert hydra(tmp_path, words) == (REFUSED if hydra_expected == REFUSED else plain(hydra_expected))


def test_group_header_keeps_its_meaning(tmp_path):
    """`# @package _group_` is the group's own package, as up to version base 1.1."""
    (tmp_path / "g").mkdir()
    (tmp_path / "config.yaml").write_text("defaults:\n  - g: a\n")
    (tmp_path / "g" / "a.yaml").write_text("# @package _group_\nx: 1\n")
    assert ours(tmp_path, []) == hydra(tmp_path, [], version_base="1.1") == plain({"g": {"x": 1}})


def test_an_option_may_be_named_with_its_ending(tmp_path):
    (tmp_path / "g").mkdir()
    (tmp_path / "config.yaml").write_text("defaults:\n  - g: a.yaml\n  - _self_\n")
    (tmp_path / "g" / "a.yaml").write_text("x: 1\n")
    (tmp_path / "g" / "b.yaml").write_text("x: 2\n")
    assert ours(tmp_path, []) == hydra(tmp_path, []) == plain({"g": {"x": 1}})
    assert ours(tmp_path, ["g=b.yaml"]) == hydra(tmp_path, ["g=b.yaml"]) == plain({"g": {"x": 2}})


def test_references_in_defaults_lists_are_refused(tmp_path):
    (tmp_path / "g").mkdir()
    (tmp_path / "config.yaml").write_text("defaults:\n  - g: ${oc.env:HOME}\n")
    assert ours(tmp_path, []) == REFUSED


def test_a_file_included_twice(tmp_path, monkeypatch):
    """Hydra lets a change of one inclusion leak into the other; here each is merged on its own."""
    (tmp_path / "g").mkdir()
    (tmp_path / "config.yaml").write_text("defaults:\n  - g@_global_: a\n  - _self_\n  - g@p: a\nk: {x: 2}\n")
    (tmp_path / "g" / "a.yaml").write_text("k: {x: 1}\n")
    assert ours(tmp_path, []) == hydra(tmp_path, []) == plain({"k": {"x": 2}, "p": {"k": {"x": 1}}})
    monkeypatch.setattr(config_loader_impl, "CachingConfigRepository", CachingConfigRepository)
    assert hydra(tmp_path, []) == plain({"k": {"x": 2}, "p": {"k": {"x": 2}}})
