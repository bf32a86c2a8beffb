"""The console commands. Each becomes the native program of that name, which is in this package's folder `bin`.

Signals, standard streams and exit codes are the program's own. It finds libtorch in the torch of this Python, its sibling programs beside
itself, and the configuration tree that came with the package where no other is near (docs/config.md).
"""

import os
import sys
from pathlib import Path
from typing import NoReturn

from hlrp_rs import _torch

PROGRAMS = Path(__file__).parent / "bin"
"""Folder of the native programs."""


def hlrp() -> NoReturn:
    """The command that users type."""
    _become("hlrp")


def hlrp_data() -> NoReturn:
    """Shows and checks datasets."""
    _become("hlrp-data")


def hlrp_train_laq() -> NoReturn:
    """Trains stage 1."""
    _become("hlrp-train-laq")


def hlrp_train_vla() -> NoReturn:
    """Trains stage 2."""
    _become("hlrp-train-vla")


def _become(program: str) -> NoReturn:
    path = PROGRAMS / program
    if not path.is_file():
        print(f"error: this installation of hlrp_rs has no program {path}", file=sys.stderr)
        print("hint: install a wheel made by `make wheel`, or use the programs of `make build`", file=sys.stderr)
        raise SystemExit(1)
    folders = [str(_torch.library_folder()), os.environ.get("LD_LIBRARY_PATH", "")]
    environment = os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, folders))}
    os.execve(path, [program, *sys.argv[1:]], environment)
