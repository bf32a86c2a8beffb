"""The commit that programs are built from: what the build script finds where there is a repository, none, or no git."""

import os
import subprocess
from pathlib import Path

import pytest
from conftest import REPO


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    program = tmp_path_factory.mktemp("script") / "build"
    source = REPO / "rust/build/build.rs"
    subprocess.run(["rustc", "--edition=2024", "-o", program, source], check=True)
    return program


@pytest.fixture
def sources(tmp_path) -> Path:
    """A workspace."""
    (tmp_path / "code/rust/build").mkdir(parents=True)
    for name in ("Cargo.toml", "Cargo.lock", "rust/build/lib.rs"):
        (tmp_path / "code" / name).write_text("")
    return tmp_path / "code"


def git(folder: Path, *words: str) -> str:
    command = ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b.c", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit_all(folder: Path) -> str:
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        git(folder, *words)
    return git(folder, "rev-parse", "--short=12", "HEAD")


def found(script: Path, sources: Path, **env: str) -> str:
    env = os.environ | {"CARGO_MANIFEST_DIR": str(sources / "rust/build"), "HLRP_COMMIT": ""} | env
    lines = subprocess.run([script], env=env, check=True, capture_output=True, text=True).stdout.splitlines()
    missing = [line for line in lines if "rerun-if-changed=" in line and not Path(line.split("=", 1)[1]).exists()]
    assert not missing, "cargo would run the script at every build"
    [line] = [line for line in lines if "HLRP_BUILT_FROM=" in line]
    return line.split("=", 2)[2]


def test_a_repository_has_a_commit_and_says_whether_sources_differ_from_it(script, sources):
    commit = commit_all(sources)
    assert found(script, sources) == commit
    (sources / "notes.md").write_text("not a source")
    assert found(script, sources) == commit
    (sources / "rust/build/lib.rs").write_text("changed")
    assert found(script, sources) == f"{commit} with changes"


def test_a_tarball_has_none_but_the_one_that_is_named(script, sources):
    assert found(script, sources) == ""
    (sources.parent / "readme").write_text("")
    commit_all(sources.parent)
    assert found(script, sources) == "", "the repository around it is another one"
    assert found(script, sources, HLRP_COMMIT="c0ffee123456") == "c0ffee123456"


def test_git_need_not_be_there(script, sources):
    commit_all(sources)
    assert found(script, sources, PATH="/nowhere") == ""
