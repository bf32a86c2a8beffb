"""Small Debian systems of their own, to run programs in that must not need anything of this machine."""

import subprocess
import sys
from pathlib import Path

import torch

# What Python and torch link; a program brings the rest.
PACKAGES = "ca-certificates,libbz2-1.0,libffi8,liblzma5,libsqlite3-0,libssl3,libstdc++6,zlib1g"


class Debian:
    """A release of Debian in a folder, with this environment's Python and its packages mounted read-only at their own paths."""

    def __init__(self, folder: Path, release: str, *packages: str):
        self.root = folder / release
        include = ",".join([PACKAGES, *packages])
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={include}", release, str(self.root)]
        subprocess.run(command, check=True, timeout=1800)

    def run(self, *command: object, writable: Path, readable: list[Path]) -> subprocess.CompletedProcess:
        """Runs a command in the folder `writable` of this machine, which it sees beside `readable`, and nothing else of it."""
        site_packages = Path(torch.__file__).resolve().parents[1]
        visible = [Path(sys.base_prefix).resolve(), site_packages, *readable]
        mounts = [word for path in visible for word in ("--ro-bind", str(path), str(path))]
        environment = [
            "--clearenv",
            "--setenv",
            "PATH",
            "/usr/bin:/bin",
            "--setenv",
            "HOME",
            "/root",
            "--setenv",
            "OMP_NUM_THREADS",
            "2",
        ]
        sandbox = [
            *("bwrap", "--die-with-parent", "--unshare-all", "--bind", str(self.root), "/"),
            *("--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"),
            *mounts,
            *("--bind", str(writable), str(writable), "--chdir", str(writable)),
            *environment,
        ]
        return subprocess.run([*sandbox, *map(str, command)], capture_output=True, text=True, timeout=1200)
