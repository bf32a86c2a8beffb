"""`hlrp config` as users type it: output, exit codes, one clear error, completion in the shell."""

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from conftest import REPO, TARGET, one_error, program, run


def config(*words: object) -> subprocess.CompletedProcess:
    """Runs `hlrp config`."""
    return run([program("hlrp"), "config", *map(str, words)])


def test_explain_names_the_command_line_and_the_file_that_it_overrode():
    result = config("explain", "training.optimizer.lr", "experiment=laq_tiny", "training.optimizer.lr=3e-4")
    assert result.returncode == 0, result.stderr
    assert "command line: training.optimizer.lr=3e-4" in result.stdout
    assert "config/training/laq.yaml:" in result.stdout


def test_explain_of_a_section_names_the_place_of_each_value():
    result = config("explain", "training.optimizer", "training.optimizer.lr=3e-4")
    lines = result.stdout.splitlines()
    assert "training.optimizer.lr = 0.0003  set by command line: training.optimizer.lr=3e-4" in lines
    others = [line for line in lines if not line.startswith("training.optimizer.lr ")]
    assert others
    for line in others:
        assert re.fullmatch(r"training\.optimizer\.\w+ = .*  set by config/training/laq\.yaml:\d+", line), line


def test_a_removed_key_names_the_word_that_removed_it():
    names = ["model.dim", "'~model.dim' removed it"]
    assert_one_error(config("explain", "model.dim", "~model.dim"), names)
    assert_one_error(config("show", "~model.dim"), ["'model.dim' is missing (command line: ~model.dim)"])
    assert_one_error(config("show", "+data.sources.b={root: x}"), ["(command line: +data.sources.b={root: x})"])


def test_check_composes_every_file_and_every_experiment_with_every_cluster():
    start = time.perf_counter()
    result = config("check")
    seconds = time.perf_counter() - start
    assert result.returncode == 0, result.stdout
    print(f"hlrp config check: {result.stdout.splitlines()[-1]} in {seconds:.2f} s")
    assert seconds < 10, "it takes a fraction of a second on an idle machine"
    root = REPO / "config"
    for file in root.glob("*/**/*.yaml"):
        name = str(file.relative_to(root))[:-5].replace("experiment/", "experiment=")
        if not name.startswith("experiment=_"):
            assert f"ok     {name}\n" in result.stdout or f"ok     {name}  needs " in result.stdout, name
    num_composed = int(result.stdout.splitlines()[-1].split()[0])
    experiments = [path for path in root.glob("experiment/**/*.yaml") if not path.name.startswith("_")]
    clusters = [path for path in root.glob("cluster/*.yaml") if not path.name.startswith("_")]
    assert num_composed > len(experiments) * (1 + len(clusters))


def test_check_tells_what_an_experiment_needs_and_what_does_not_fit(tmp_path):
    """A value that only the user can give is no mistake of the tree, and neither is a cluster that one experiment refuses."""
    shutil.copytree(REPO / "config", tmp_path / "config")
    tree = tmp_path / "config"
    lines = (tree / "experiment" / "laq_tiny.yaml").read_text().splitlines(keepends=True)
    (tree / "experiment" / "needy.yaml").write_text("".join(line for line in lines if "description:" not in line))
    result = config("check", "--config-dir", tree)
    assert result.returncode == 0, result.stdout
    assert "ok     experiment=needy  needs experiment.description=...\n" in result.stdout
    assert config("show", "experiment=needy", "--config-dir", tree).returncode == 2
    (tree / "cluster" / "broken.yaml").write_text("defaults: [local_dev, _self_]\ncompute: {time_limit: 15h}\n")
    result = config("check", "--config-dir", tree)
    assert result.returncode == 2
    assert "WRONG  experiment=laq_tiny cluster=broken\n" in result.stdout
    assert "'15h' is not a time" in result.stdout and "cluster/broken.yaml:2" in result.stdout


def test_check_names_a_wrong_file(tmp_path):
    (tmp_path / "config.yaml").write_text("a: 1\n")
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "broken.yaml").write_text("a: ${b\n")
    result = config("check", "--config-dir", tmp_path)
    assert result.returncode == 2
    assert "WRONG  g/broken" in result.stdout and "broken.yaml:1" in result.stdout


def test_check_composes_what_changes_choices_through_the_primary_file(tmp_path):
    """In a tree of another project: an option of any group that overrides a choice, and further primary files."""
    files = {
        "config": "defaults: [{model: a}, _self_]\nwidth: ${model.dim}\n",
        "second": "defaults: [{model: c}, _self_]\n",
        "model/a": "dim: 1\n",
        "model/b": "dim: 2\n",
        "study/good": "# @package _global_\ndefaults: [{override /model: b}]\nwidth: 3\n",
        "study/bad": "# @package _global_\ndefaults: [{override /model: c}]\n",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)
    result = config("check", "--config-dir", tmp_path)
    assert result.returncode == 2
    for line in ["ok     config", "ok     model/b", "ok     +study=good", "WRONG  +study=bad", "WRONG  second"]:
        assert f"{line}\n" in result.stdout, result.stdout
    assert result.stdout.endswith("6 composed, 2 wrong\n")


NOT_SET = "HLRP_TEST_NOT_SET"
MISTAKES = [
    (["experimnt=laq_tiny"], ["experimnt", "did you mean 'experiment'?"]),
    (["experiment=laq_tinny"], ["laq_tinny", "did you mean 'laq_tiny'?"]),
    (["cluster=lrz_h10"], ["lrz_h10", "did you mean 'lrz_h100'?"]),
    (["training.optimizer.lrr=1"], ["training.optimizer.lrr", "did you mean 'training.optimizer.lr'?"]),
    (["trainig.optimizer.lr=1"], ["trainig.optimizer.lr", "did you mean 'training.optimizer.lr'?"]),
    (["model.use_dino_decoder=true"], ["'model.use_dino_decoder=true'", "hint: keys there: name, image_size,"]),
    (["experiment=lerobot_tiny", "lerobot.policy.optimizer_lr=1"], ["hint: +lerobot.policy.optimizer_lr=1 adds it"]),
    (["data.loader.batch_size=0"], ["data.loader.batch_size", "command line: data.loader.batch_size=0"]),
    (["paths.root=${oc.env:HLRP_TEST_NOT_SET}"], ["paths.root", NOT_SET, "command line: paths.root"]),
    (["paths.root=${paths.runs_dir}"], ["paths.root -> paths.runs_dir -> paths.root"]),
    (["paths.root=${path.runs_dir}"], ["path.runs_dir", "did you mean 'paths.runs_dir'?"]),
    (["logging.wandb.mode=onlin"], ["logging.wandb.mode", "unknown mode 'onlin'"]),
    (["cluster=lrz_x100", "logging.run_dir=/elsewhere"], ["logging.run_dir", "cluster.allowed_roots of 'lrz_x100'"]),
    (["--config-dir", "/nowhere"], ["/nowhere"]),
]


@pytest.mark.parametrize(("words", "names"), MISTAKES, ids=lambda value: " ".join(value))
def test_a_mistake_gives_one_error_with_a_hint(words, names):
    assert_one_error(config("show", *words), names)


# Files of a tree with a mistake, and what its error names: file and line, and what to do.
WRONG_TREES = {
    "a tab": ({"config": "a:\n\tb: 1\n"}, ["config.yaml:2", "indent with spaces"]),
    "a key twice": ({"config": "a: 1\na: 2\n"}, ["config.yaml:2", "key 'a' appears twice"]),
    "a cycle of references": ({"config": "a: ${b}\nb: ${a}\n"}, ["config.yaml:", "a -> b -> a"]),
    "a cycle of defaults": (
        {"config": "defaults: [{g: a}]\n", "g/a": "defaults: [b]\n", "g/b": "defaults: [a]\n"},
        ["g/b.yaml:1", "g/a -> g/b -> g/a"],
    ),
    "a missing option": ({"config": "defaults:\n  - g: b\n", "g/a": "x: 1\n"}, ["config.yaml:2", "did you mean 'a'?"]),
    "a variable that is not set": ({"config": "a: ${oc.env:HLRP_TEST_NOT_SET}\n"}, ["config.yaml:1", NOT_SET]),
    "a group that is not there": (
        {"config": "defaults: [{/modle@model: a}]\n", "model/a": "x: 1\n"},
        ["config.yaml:1", "did you mean the group 'model'?"],
    ),
    "a list over a section": ({"config": "defaults: [g@_global_: a, _self_]\nx: [1]\n", "g/a": "x: {y: 1}\n"}, ["x: "]),
}


@pytest.mark.parametrize("name", WRONG_TREES)
def test_a_mistake_in_a_file_is_named_with_its_line(name, tmp_path):
    files, names = WRONG_TREES[name]
    for file, text in files.items():
        (tmp_path / f"{file}.yaml").parent.mkdir(exist_ok=True)
        (tmp_path / f"{file}.yaml").write_text(text)
    assert_one_error(config("show", "--config-dir", tmp_path), names)


def test_a_user_file_without_its_header_is_told_to_begin_with_it(tmp_path):
    shutil.copytree(REPO / "config", tmp_path / "config")
    user_file = tmp_path / "config" / "user_config" / "local.yaml"
    user_file.write_text("cluster:\n  storage_root: /my/storage\n")
    result = config("show", "--config-dir", tmp_path / "config")
    assert_one_error(result, ["user_config/local.yaml", "# @package _global_"])
    user_file.write_text("# @package _global_\n" + user_file.read_text())
    assert "storage_root: /my/storage" in config("show", "--config-dir", tmp_path / "config").stdout


def test_a_group_cannot_be_changed_on_resume(tmp_path):
    (tmp_path / "config.yaml").write_text(config("show", "experiment=pipeline_tiny").stdout)
    result = run([program("hlrp"), "pipeline", "--resume", tmp_path, "experiment=laq_pixel"])
    assert_one_error(result, ["'experiment=laq_pixel'", "groups cannot be changed"])


def test_a_command_says_for_which_experiments_it_is():
    result = run([program("hlrp"), "pipeline", "experiment=laq_tiny"])
    assert_one_error(result, ["experiment.stage: 'laq'", "`hlrp pipeline` is for experiments of 'pipeline'"])


def assert_one_error(result: subprocess.CompletedProcess, names: list[str]) -> None:
    """One error with one hint, exit code 2, no output; the error names what it must."""
    message = one_error(result, 2, names)
    assert result.stdout == "" and message.count("hint:") == 1, message


def test_a_training_program_refuses_as_show_does(tmp_path):
    """Before anything is written: nothing outside of the allowed roots, no sweep, no W&B without a key."""
    allowed = f"cluster.allowed_roots=[{tmp_path}/allowed]"
    inside = f"paths.root={tmp_path}/allowed"
    for words, names in [
        ([allowed, inside, f"logging.run_dir={tmp_path}/outside"], ["logging.run_dir", "outside"]),
        ([allowed, inside, f"paths.cache_dir={tmp_path}/outside"], ["paths.cache_dir", "outside"]),
        ([inside, "logging.use_wandb=true"], ["logging.use_wandb"]),
        ([inside, "experiment=laq_lr_sweep"], ["sweep.params: 6 runs", "hlrp config sweep"]),
    ]:
        assert_one_error(run([program("hlrp"), "train-laq", *words]), names)
        assert not any(tmp_path.iterdir()), "nothing was written"


def test_sweep_prints_the_words_of_each_run():
    """One line for each run, as a shell reads it; each line is a command line by itself."""
    result = config("sweep", "experiment=laq_lr_sweep", "experiment.description='a, b'")
    assert result.returncode == 0, result.stderr
    lines = [shlex.split(line) for line in result.stdout.splitlines()]
    assert len(lines) == 6
    shown = [json.loads(config("show", "--format", "json", *line).stdout) for line in lines]
    grid = [(run["training"]["optimizer"]["lr"], run["seed"]) for run in shown]
    assert grid == [(lr, seed) for lr in (3e-4, 1e-3, 3e-3) for seed in (1, 2)]
    assert len({run["experiment"]["name"] for run in shown}) == len({run["logging"]["run_dir"] for run in shown}) == 6
    assert all(run["experiment"]["description"] == "a, b" for run in shown)
    assert config("sweep", "seed=3").stdout == "seed=3\n", "a single run is a sweep of one"
    assert "laq_lr_sweep" in config("list", "experiment").stdout and "[6 runs]" in config("list", "experiment").stdout


def test_show_reads_back_and_diff_names_what_changed(tmp_path):
    """A run directory's config.yaml is the output of `show`."""
    for name, steps in [("a", 2000), ("b", 3000)]:
        (tmp_path / name).mkdir()
        shown = config("show", f"training.max_steps={steps}", "logging.run_dir=x")
        (tmp_path / name / "config.yaml").write_text(shown.stdout)
    result = config("diff", tmp_path / "a", tmp_path / "b")
    assert result.stdout == "training.max_steps: 2000 -> 3000\n"
    as_json = json.loads(config("show", "--format", "json", "training.max_steps=2000").stdout)
    assert as_json["training"]["max_steps"] == 2000


def test_diff_takes_quoted_overrides_and_names_a_directory_that_is_not_there(tmp_path):
    result = config("diff", "seed=1", "seed=2 cluster.login_nodes=[a, b] experiment.description='x, y'")
    assert result.returncode == 0, result.stderr
    assert "seed: 1 -> 2\n" in result.stdout
    assert "-> [a,b]\n" in result.stdout and "-> x, y\n" in result.stdout
    for side in [tmp_path / "gone", "runs/gone"]:
        assert_one_error(config("diff", "laq_tiny", side), [f"the run directory {side} does not exist"])
    assert_one_error(config("diff", "laq_tiny", tmp_path), ["contains no config.yaml"])
    assert_one_error(config("diff", "laq_tiny", "laq_tinny"), ["did you mean 'laq_tiny'?"])


def test_list_shows_groups_and_options():
    result = config("list")
    assert "\nexperiment\n" in result.stdout and "\n  laq_tiny " in result.stdout
    assert config("list", "nothing").returncode == 2
    assert_one_error(config("list", "experimnt"), ["did you mean the group 'experiment'?"])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("hlrp conf", ["config"]),
        ("hlrp config expl", ["explain"]),
        ("hlrp train-laq experiment=laq_ti", ["laq_tiny"]),
        ("hlrp train-laq cluster=mcml_a100_", ["mcml_a100_40", "mcml_a100_80"]),
        ("hlrp train-laq data/loader=n", ["node"]),
        ("hlrp train-laq experiment=laq_tiny training.optimizer.l", ["training.optimizer.lr="]),
        ("hlrp config explain training.optimizer.l", ["training.optimizer.lr"]),
        ("hlrp config explain seed training.optimizer.l", ["training.optimizer.lr="]),
    ],
)
def test_the_shell_completes(line, expected):
    """As bash does it: it splits words at '=' and replaces only the last part."""
    assert completed(line) == expected


def test_the_shell_completes_for_another_tree(tmp_path):
    (tmp_path / "my tree" / "robot").mkdir(parents=True)
    (tmp_path / "my tree" / "config.yaml").write_text("colour: red\n")
    (tmp_path / "my tree" / "robot" / "arm.yaml").write_text("x: 1\n")
    of_tree = ["--config-dir", str(tmp_path / "my tree")]
    assert completed("hlrp config show colo", *of_tree) == ["colour="]
    assert completed("hlrp config show +robot=", *of_tree) == ["arm"]


def completed(line: str, *of_tree: str) -> list[str]:
    """What bash offers at the end of a line, with the script for a tree."""
    script = """
source <(hlrp config completion "${@:2}")
COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDBREAKS=$' \\t\\n=:'
IFS=$' \\t\\n' read -ra COMP_WORDS <<< "${1//=/ = }"
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_hlrp 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""
    environment = os.environ | {"PATH": f"{TARGET}:{os.environ['PATH']}"}
    return run(["bash", "-c", script, "bash", line, *of_tree], env=environment).stdout.split()


def keys_of(file: Path) -> dict[str, bool]:
    """Dotted path of each value that a file sets, and whether a comment stands beside or above it."""
    section: list[tuple[int, str]] = []
    keys = {}
    lines = file.read_text().splitlines()
    for above, line in itertools.pairwise(["", *lines]):
        match = re.match(r"( *)([A-Za-z_][\w.]*):(.*)", line)
        if not match:
            continue
        indent, key, rest = len(match[1]), match[2], match[3]
        while section and section[-1][0] >= indent:
            section.pop()
        path = ".".join([*(name for _, name in section), key])
        section.append((indent, key))
        value = rest.split("#")[0].strip()
        if value and not path.startswith("defaults"):
            # What every source has is explained beside one of them.
            path = re.sub(r"^sources\.[^.]+", "sources.*", path)
            inner = re.findall(r"([\w.]+):", value) if value.startswith("{") else []
            for name in [f"{path}.{name}" for name in inner] or [path]:
                keys[name] = keys.get(name, False) or "#" in rest or above.startswith("#")
    return keys


def test_every_key_is_explained_beside_its_default():
    """In its own file, or in another of the same group, on which it builds."""
    groups: dict[Path, dict[str, bool]] = {}
    for file in (REPO / "config").glob("**/*.yaml"):
        if "experiment" in file.parts or "user_config" in file.parts:
            continue
        explained = groups.setdefault(file.parent, {})
        for key, has_comment in keys_of(file).items():
            explained[key] = explained.get(key, False) or has_comment
    assert len(groups) >= 8
    unexplained = [f"{group.name}: {key}" for group, keys in groups.items() for key, good in keys.items() if not good]
    assert not unexplained
