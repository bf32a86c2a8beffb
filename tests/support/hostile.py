"""Datasets that may come from anyone: what `hlrp data check` says of them within little memory."""

import os
import resource
import subprocess
from pathlib import Path

from conftest import program, run


def check(root: Path, cache: Path, max_memory: int) -> subprocess.CompletedProcess:
    """`hlrp data check` in `max_memory` bytes of address space, with its caches below `cache`."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (max_memory, max_memory))

    env = os.environ | {"XDG_CACHE_HOME": str(cache)}
    return run([program("hlrp-data"), "check", str(root)], env=env, preexec_fn=limit)
