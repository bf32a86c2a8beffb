"""`hlrp config` as users type it: output, exit codes, one clear error, completion in the shell."""

import json
import os
import subprocess
import time

import pytest
from conftest import REPO, TARGET, program, run


def config(*words: object) -> subprocess.CompletedProcess:
    """Runs `hlrp config`."""
    return run([program("hlrp"), "config", *map(str, words)])


def test_explain_names_the_command_line_and_the_file_that_it_overrode():
    result = config("explain", "training.optimizer.lr", "experiment=laq_tiny", "training.optimizer.lr=3e-4")
    assert result.returncode == 0, result.stderr
    assert "command line: training.optimizer.lr=3e-4" in result.stdout
    assert "config/training/laq.yaml:" in result.stdout


def test_check_composes_every_file_in_under_a_second():
    start = time.perf_counter()
    result = config("check")
    assert result.returncode == 0, result.stdout
    assert time.perf_counter() - start < 1
    for file in (REPO / "config").glob("*/*.yaml"):
        name = str(file.relative_to(REPO / "config"))[:-5]
        assert f"ok     {name.replace('experiment/', 'experiment=')}\n" in result.stdout


def test_check_names_a_wrong_file(tmp_path):
    (tmp_path / "config.yaml").write_text("a: 1\n")
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "broken.yaml").write_text("a: ${b\n")
    result = config("check", "--config-dir", tmp_path)
    assert result.returncode == 2
    assert "WRONG  g/broken" in result.stdout and "broken.yaml:1" in result.stdout


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["experimnt=laq_tiny"], ["experimnt", "did you mean 'experiment'?"]),
        (["experiment=laq_tinny"], ["laq_tinny", "did you mean 'laq_tiny'?"]),
        (["training.optimizer.lrr=1"], ["training.optimizer.lrr", "did you mean 'training.optimizer.lr'?"]),
        (["data.loader.batch_size=0"], ["data.loader.batch_size", "command line: data.loader.batch_size=0"]),
        (["paths.root=${oc.env:HLRP_TEST_NOT_SET}"], ["paths.root", "HLRP_TEST_NOT_SET"]),
        (["paths.root=${paths.runs_dir}"], ["paths.root -> paths.runs_dir -> paths.root"]),
        (["--config-dir", "/nowhere"], ["/nowhere"]),
    ],
    ids=lambda value: value[0],
)
def test_a_mistake_gives_one_error_with_a_hint(words, names):
    result = config("show", *words)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.count("error:") == 1 and result.stderr.count("hint:") == 1, result.stderr
    for name in names:
        assert name in result.stderr


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


def test_list_shows_groups_and_options():
    result = config("list")
    assert "\nexperiment\n" in result.stdout and "\n  laq_tiny " in result.stdout
    assert config("list", "nothing").returncode == 2


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("hlrp conf", ["config"]),
        ("hlrp config expl", ["explain"]),
        ("hlrp train-laq experiment=laq_t", ["laq_tiny"]),
        ("hlrp train-laq experiment=laq_tiny training.optimizer.l", ["training.optimizer.lr="]),
    ],
)
def test_the_shell_completes(line, expected):
    """As bash does it: it splits words at '=' and replaces only the last part."""
    script = """
source <(hlrp config completion)
COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDBREAKS=$' \\t\\n=:'
IFS=$' \\t\\n' read -ra COMP_WORDS <<< "${1//=/ = }"
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_hlrp 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""
    environment = os.environ | {"PATH": f"{TARGET}:{os.environ['PATH']}"}
    result = run(["bash", "-c", script, "bash", line], env=environment)
    assert result.stdout.split() == expected, result.stderr
