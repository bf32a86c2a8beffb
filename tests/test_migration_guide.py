"""docs/migration.md names keys, groups, options and experiments that exist."""

import itertools
import json
import re
from functools import cache

from conftest import REPO, program, run

GUIDE = (REPO / "docs/migration.md").read_text()
KEYS = GUIDE[GUIDE.index("## Groups and experiments") :]
# One experiment of each stage, with options that have keys of their own.
EXPERIMENTS = [
    ["experiment=laq"],
    ["experiment=laq_dino"],
    ["experiment=laq_tiny", "data=bridge_raw"],
    ["experiment=laq_tiny", "data=oxe_bridge"],
    ["experiment=laq_lr_sweep"],
    ["experiment=laq_token_analysis"],
    ["experiment=vla_smolvla"],
    ["experiment=vla_pooled"],
    ["experiment=lerobot_local"],
    ["experiment=rollout_local"],
]
SECTIONS = "model training validation data analysis policy logging paths submit sweep cluster lerobot lerobot_eval"
KEY = re.compile(rf"(?:{SECTIONS.replace(' ', '|')}|experiment)\.[\w.{{}},]+(?==|$)")
# Names of the user's choice, and fields that are LeRobot's.
OPEN = re.compile(r"validation\.(buckets|strategies)\.NAME$|lerobot\.policy\.\w+$|sweep\.params\.")


def paths(tree: object, prefix: str = ""):
    """Dotted paths of all keys."""
    for key, child in tree.items() if isinstance(tree, dict) else ():
        yield prefix + key
        yield from paths(child, f"{prefix}{key}.")


@cache
def known() -> frozenset[str]:
    """All keys of the experiments; a source of data is called `NAME`."""
    found = set()
    for words in EXPERIMENTS:
        shown = run([program("hlrp"), "config", "show", "--raw", "--format", "json", *words])
        assert shown.returncode == 0, shown.stderr
        found |= set(paths(json.loads(shown.stdout)))
    return frozenset(re.sub(r"^data\.sources\.[^.]+", "data.sources.NAME", path) for path in found)


def unknown(keys: list[str]) -> list[str]:
    return [key for key in keys if key not in known() and not OPEN.match(key)]


def quoted(cell: str) -> list[str]:
    """Words in code style, `a.{b,c}` as `a.b` and `a.c`."""
    words = [word for code in re.findall(r"`([^`]+)`", cell) for word in code.split()]
    parts = [[part.split(",") for part in re.split(r"[{}]", word)] for word in words]
    return ["".join(choice) for choices in parts for choice in itertools.product(*choices)]


def named(cell: str) -> list[str]:
    """Keys that a cell names in full."""
    return [match[0] for match in map(KEY.match, quoted(cell)) if match]


def rows() -> list[tuple[str, str]]:
    """First and last cell of each row: theirs and ours."""
    cells = [line.strip("| ").split(" | ") for line in KEYS.splitlines() if line.startswith("| ")]
    return [(row[0], row[-1]) for row in cells if row[0] != "theirs"]


def test_every_key_of_ours_exists():
    assert len(rows()) > 200
    wrong = {theirs: unknown(named(ours)) for theirs, ours in rows()}
    assert {theirs: keys for theirs, keys in wrong.items() if keys} == {}


def test_what_stays_the_same_is_called_the_same():
    same = [theirs for theirs, ours in rows() if re.match("the same(?! in)", ours)]
    keys = [key for cell in same for key in named(cell)]
    moved = [(theirs, re.match("the same in `([^`]+)`", ours)) for theirs, ours in rows()]
    keys += [
        f"{section[1]}.{key.split('.')[-1].strip(':')}" for cell, section in moved if section for key in quoted(cell)
    ]
    assert len(keys) > 100
    assert unknown(keys) == []


def test_experiments_and_options_of_ours_exist():
    experiments = [ours for theirs, ours in rows() if theirs.startswith(("`experiment: ", "`stage3_profile"))]
    names = {name for ours in experiments for name in quoted(ours) if re.fullmatch(r"(laq|vla|lerobot)_\w+", name)}
    assert len(names) > 10
    assert names <= {path.stem for path in (REPO / "config/experiment").glob("*.yaml")}
    options = {match for _, ours in rows() for match in re.findall(r"`([a-z/]+)(?:@\w+)?(?:: |=)(\w+)`", ours)}
    options = {(group, option) for group, option in options if (REPO / "config" / group).is_dir()}
    assert len(options) > 5
    assert [pair for pair in options if not (REPO / "config" / pair[0] / f"{pair[1]}.yaml").is_file()] == []


def test_the_command_of_the_later_state_composes():
    block = KEYS[KEYS.index("### The later state") :]
    command = re.search(r"    hlrp train-laq (.*?)\n\n", block, re.DOTALL)[1]
    result = run([program("hlrp"), "config", "show", *command.replace("\\\n", " ").split()])
    assert result.returncode == 0, result.stderr
