"""A copy of the repository's tree, in which a test changes the sources and builds programs."""

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

from conftest import REPO, TARGET

# Inputs of the programs, which the copy has as links: nothing in them is built.
LINKED = ["tests"]
# Where all copies build: third-party crates once, ours again wherever a change reaches them.
COPY_TARGET = TARGET.parent / "copies"


class TreeCopy:
    """The files under version control, committed in a repository of their own, so that git says what a test changed."""

    def __init__(self, folder: Path):
        self.folder = folder
        names = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=REPO,
            check=True,
            capture_output=True,
            text=True,
        )
        for name in names.stdout.splitlines():
            if (REPO / name).is_file() and name.split("/")[0] not in LINKED:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPO / name, folder / name)
        for name in LINKED:
            (folder / name).symlink_to(REPO / name)
        self.format()
        self._git("init", "--quiet")
        self._git("add", "--all")
        self._git("-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "--message=copy")

    def restore(self) -> None:
        """Undoes every change."""
        self._git("checkout", "--quiet", ".")
        self._git("clean", "--quiet", "--force", "-d")

    def changed(self) -> list[str]:
        """Files that differ from the repository's."""
        lines = self._git("status", "--porcelain", "--untracked-files=all").splitlines()
        return sorted(line[3:] for line in lines)

    def add(self, variant: Path) -> None:
        """Adds the files of `variant`, and the text of its `insertions.toml` to files that exist."""
        for path in sorted(variant.rglob("*")):
            name = path.relative_to(variant)
            if path.is_file() and name.name != "insertions.toml":
                assert not (self.folder / name).exists(), f"{name} exists already"
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, self.folder / name)
        for insertion in tomllib.loads((variant / "insertions.toml").read_text())["insert"]:
            path, after = self.folder / insertion["file"], insertion["after"]
            text = path.read_text()
            assert text.count(after) == 1, f"{insertion['file']} has {after!r} {text.count(after)} times, not once"
            path.write_text(text.replace(after, after + insertion["text"]))

    def format(self) -> None:
        """Formats the sources, as a contributor does."""
        subprocess.run(["cargo", "fmt", "--all"], cwd=self.folder, check=True)

    def build(self, *programs: str) -> None:
        """Builds programs of the copy as `make build` does."""
        take_third_party_crates()
        command = [
            "cargo",
            "build",
            "--release",
            "--workspace",
            "--exclude=hlrp-py",
            *(f"--bin={name}" for name in programs),
        ]
        result = subprocess.run(command, cwd=self.folder, env=environment(), capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert "warning: unused" not in result.stderr, result.stderr

    def run(self, program: str, *words: object) -> subprocess.CompletedProcess:
        """Runs a program of the copy, in the copy."""
        env = {**environment(), "HLRP_CONFIG_DIR": str(self.folder / "config")}
        command = [str(COPY_TARGET / "release" / program), *map(str, words)]
        return subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=600)

    def _git(self, *words: str) -> str:
        return subprocess.run(["git", *words], cwd=self.folder, check=True, capture_output=True, text=True).stdout


def environment() -> dict[str, str]:
    """What the copy builds and runs with: the repository's libtorch, so that its bindings are not built again."""
    libtorch = os.environ.get("LIBTORCH", str(REPO / ".venv/lib/python3.12/site-packages/torch"))
    return {
        **os.environ,
        "CARGO_TARGET_DIR": str(COPY_TARGET),
        "LIBTORCH": libtorch,
        "PYO3_PYTHON": str(REPO / ".venv/bin/python"),
        "LD_LIBRARY_PATH": f"{libtorch}/lib",
    }


def take_third_party_crates() -> None:
    """Links what `make build` has compiled of other people's crates into the copies' folder. Cargo knows it by its contents' names there."""
    if COPY_TARGET.exists():
        return
    for kind in ["deps", "build", ".fingerprint"]:
        for path in (TARGET / kind).glob("*"):
            if not path.name.removeprefix("lib").startswith("hlrp"):
                link(path, COPY_TARGET / "release" / kind / path.name)


def link(source: Path, target: Path) -> None:
    """Makes `target` a hard link to the file `source`, or a folder of such links."""
    if source.is_dir():
        for path in source.iterdir():
            link(path, target / path.name)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)
