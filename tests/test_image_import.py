"""`containers/import.sh` with an Enroot that does as it is told: what it writes, and that it never replaces or deletes anything."""

import hashlib
import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import REPO

IMPORT = REPO / "containers" / "import.sh"
# Writes its arguments and the variables that bound an import, then what a test wants.
ENROOT = """#!/usr/bin/env bash
printf '%s\\n' "$@" "processors $ENROOT_MAX_PROCESSORS" "cache $ENROOT_CACHE_PATH" "tmp $TMPDIR" > "{record}"
{behaviour}
"""
WRITES_AN_IMAGE = 'printf squashfs > "$3"'


class Imports:
    """An image folder, and an import into it with a fake `enroot` (and `podman`) first on PATH."""

    def __init__(self, folder: Path):
        self.images = folder / "images"
        self.record = folder / "record"
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.fake("enroot", WRITES_AN_IMAGE)

    def fake(self, name: str, behaviour: str) -> None:
        program = self.bin / name
        program.write_text(ENROOT.format(record=self.record, behaviour=behaviour))
        program.chmod(0o755)

    def stop_the_clock(self) -> None:
        """From now on it is always the same second."""
        program = self.bin / "date"
        program.write_text("#!/bin/sh\necho 2030-01-01_00-00-00\n")
        program.chmod(0o755)

    def run(self, *words: object, **env: str) -> subprocess.CompletedProcess:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "ENROOT_"))}
        environment = clean | {"PATH": f"{self.bin}:/usr/bin:/bin"} | env
        return subprocess.run([IMPORT, *map(str, words)], capture_output=True, text=True, env=environment, timeout=60)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.images.iterdir())

    def log(self) -> list[dict[str, str]]:
        header, *rows = [line.split("\t") for line in (self.images / "activation_log.tsv").read_text().splitlines()]
        return [dict(zip(header, row, strict=True)) for row in rows]


@pytest.fixture
def imports(tmp_path) -> Imports:
    return Imports(tmp_path)


def test_an_image_gets_a_dated_name_and_a_line_in_the_log(imports):
    result = imports.run("docker://site#hlrp/train:1", imports.images, "hlrp-train", SLURM_JOB_ID="42")
    assert result.returncode == 0, result.stderr
    image = Path(result.stdout.splitlines()[-1])
    assert re.fullmatch(r"hlrp-train_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.sqsh", image.name)
    assert image.parent == imports.images
    assert image.read_text() == "squashfs"
    assert image.stat().st_mode & 0o222 == 0, "an image is never changed"
    assert imports.files() == [".import", "activation_log.tsv", image.name]
    (row,) = imports.log()
    assert row["action"] == "imported"
    assert row["image"] == image.name
    assert row["bytes"] == "8"
    assert row["sha256"] == hashlib.sha256(b"squashfs").hexdigest()
    assert row["source"] == "docker://site#hlrp/train:1"
    assert row["job"] == "42"


def test_an_import_keeps_its_temporary_files_with_the_images_and_its_processors_in_bounds(imports):
    imports.run("docker://a:1", imports.images, "a", SLURM_CPUS_PER_TASK="6")
    lines = imports.record.read_text().splitlines()
    assert lines[:2] == ["import", "--output"]
    assert lines[3] == "docker://a:1"
    assert lines[4] == "processors 6"
    assert all(line.split()[1].startswith(str(imports.images / ".import")) for line in lines[5:])
    imports.run("docker://a:1", imports.images, "b")
    assert "processors 4" in imports.record.read_text()


def test_two_imports_of_one_name_leave_both_images(imports):
    first = imports.run("docker://a:1", imports.images, "a")
    imports.stop_the_clock()
    second = imports.run("docker://a:2", imports.images, "a")
    third = imports.run("docker://a:3", imports.images, "a")
    assert (first.returncode, second.returncode) == (0, 0)
    assert third.returncode == 1
    assert "a_2030-01-01_00-00-00.sqsh exists" in third.stderr
    assert len([name for name in imports.files() if name.endswith(".sqsh")]) == 2


def test_an_image_that_appears_during_the_import_is_kept(imports):
    imports.stop_the_clock()
    image = imports.images / "a_2030-01-01_00-00-00.sqsh"
    imports.fake("enroot", f'{WRITES_AN_IMAGE}; printf other > "{image}"')
    result = imports.run("docker://a:1", imports.images, "a", SLURM_JOB_ID="7")
    assert result.returncode == 1
    assert f"error: {image} exists" in result.stderr
    assert image.read_text() == "other"
    assert ".a_2030-01-01_00-00-00.7.sqsh.partial" in imports.files(), "what was imported is kept too"


def test_an_import_that_runs_out_of_memory_says_what_to_ask_for(imports):
    imports.fake("enroot", 'printf half > "$3"; kill -KILL $$')
    result = imports.run("docker://a:1", imports.images, "a", SLURM_JOB_ID="7")
    assert result.returncode == 1
    assert "error: enroot import ended with code 137" in result.stderr
    assert "--mem" in result.stderr
    assert [name for name in imports.files() if name.endswith(".sqsh")] == []
    assert not (imports.images / "activation_log.tsv").exists()


def test_an_archive_goes_through_podman_with_its_store_beside_the_temporary_files(imports, tmp_path):
    archive = tmp_path / "image.tar"
    archive.write_text("layers")
    imports.fake("podman", f'cp "$CONTAINERS_STORAGE_CONF" "{tmp_path}/storage.conf"; echo 0123abc')
    result = imports.run(f"oci-archive:{archive}", imports.images, "a")
    assert result.returncode == 0, result.stderr
    assert "podman://0123abc" in imports.record.read_text()
    assert f'graphroot = "{imports.images}/.import/' in (tmp_path / "storage.conf").read_text()
    assert imports.log()[0]["source"] == f"oci-archive:{archive}"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["docker://a:1", "/images"], ["takes three arguments, not 2"]),
        (["http://a", "/images", "a"], ["unknown kind of image 'http://a'", "oci-archive:FILE"]),
        (["docker://a:1", "/images", "a.sqsh"], ["invalid name of an image 'a.sqsh'"]),
        (["docker://a:1", "/images", "a/b"], ["invalid name of an image 'a/b'"]),
        (["docker://a:1", "images", "a"], ["invalid image folder 'images'"]),
        (["docker://a:1", "/im:ages", "a"], ["invalid image folder '/im:ages'"]),
    ],
)
def test_invalid_arguments_are_named(imports, words, names):
    result = imports.run(*words)
    assert result.returncode == 2
    assert result.stderr.count("error:") == 1
    assert "hint:" in result.stderr
    assert all(name in result.stderr for name in names), result.stderr
    assert not imports.record.exists()


def test_a_machine_without_enroot_is_named(imports):
    (imports.bin / "enroot").unlink()
    result = imports.run("docker://a:1", imports.images, "a")
    assert result.returncode == 1
    assert "error: enroot is not on PATH" in result.stderr
    assert not imports.images.exists()
