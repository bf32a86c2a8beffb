"""The system calls with which a program and its children take files away or empty them.

`strace` sees every call, also those that do not pass through the C library (`renameat2` of Rust's `rustix`), which a preloaded library would
miss; a process may trace its own children without privileges. An inventory before and after would miss what is written and removed in between.
"""

import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from conftest import REPO

TRACED = "unlink,unlinkat,rmdir,rename,renameat,renameat2,truncate,openat,open,creat,mkdir,mkdirat,link,linkat"
CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)")
# `AT_FDCWD</folder>, "name"`, `5</folder>, "name"` or `"name"` alone.
PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')


@dataclass
class Taken:
    """What was taken away below a folder."""

    # Files and folders that were removed.
    removed: list[str] = field(default_factory=list)
    # Files that were there and are replaced by another one, or emptied.
    replaced: list[str] = field(default_factory=list)


def strace(log: Path, command: list[str]) -> list[str]:
    """The command under `strace`, which writes what it sees to `log`."""
    # Unfinished lines of several threads are joined by writing one file for each thread.
    return [
        "strace",
        "-ff",
        "-y",
        "-s",
        "4096",
        "--seccomp-bpf",
        "-f",
        "-e",
        f"trace={TRACED}",
        "-o",
        str(log),
        *command,
    ]


def start(log: Path, command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        strace(log, command), cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def kill(process: subprocess.Popen) -> None:
    """Kills the traced program, not `strace`, which then ends by itself."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    process.wait(timeout=60)


def wait_for(process: subprocess.Popen, condition) -> None:
    while not condition():
        assert process.poll() is None, f"the run ended before it could be killed: {process.stderr.read()}"
        time.sleep(0.001)


def taken(logs: list[Path], root: Path) -> Taken:
    """What the traced programs took away below `root`. Two threads never write the same file here, so the order of the logs does not matter."""
    found, made = Taken(), set()
    calls = [call for log in sorted(logs, key=lambda log: log.stat().st_mtime) for call in successful(log)]
    for name, paths, text in calls:
        below = [path for path in paths if path.startswith(f"{root}/")]
        if not below:
            continue
        if name in ("unlink", "unlinkat", "rmdir"):
            found.removed.append(below[0])
        elif name.startswith("rename"):
            source, target = paths
            if "RENAME_EXCHANGE" in text:
                made = {moved(path, source, target) or moved(path, target, source) or path for path in made}
                continue
            if "RENAME_NOREPLACE" not in text and target in made:
                found.replaced.append(target)
            made = {moved(path, source, target) or path for path in made} | {target}
        elif name == "truncate" or "O_TRUNC" in text and below[0] in made:
            found.replaced.append(below[0])
        elif "O_CREAT" in text or name.startswith(("mkdir", "creat", "link")):
            made.add(below[-1])
    return found


def moved(path: str, source: str, target: str) -> str | None:
    """The new place of `path` after a rename, if it is of that folder or file."""
    return target + path[len(source) :] if path == source or path.startswith(f"{source}/") else None


def successful(log: Path) -> list[tuple[str, list[str], str]]:
    """Name, absolute paths and text of the calls of one thread that succeeded."""
    calls = []
    for line in log.read_text(errors="replace").splitlines():
        match = CALL.match(line)
        if match and int(match[3]) >= 0:
            paths = [os.path.normpath(Path(folder or REPO, name)) for folder, name in PATH.findall(match[2])]
            calls.append((match[1], paths, match[2]))
    return calls
