"""Datasets that may come from anyone: what `hlrp data check` says of them within little memory."""

import os
import resource
import struct
import subprocess
import zlib
from pathlib import Path

from conftest import program, run


def png_bomb(size: int) -> bytes:
    """A PNG of a few kilobytes that decodes to `size`² pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def check(root: Path, cache: Path, max_memory: int) -> subprocess.CompletedProcess:
    """`hlrp data check` in `max_memory` bytes of address space, with its caches below `cache`."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (max_memory, max_memory))

    env = os.environ | {"XDG_CACHE_HOME": str(cache)}
    return run([program("hlrp-data"), "check", str(root)], env=env, preexec_fn=limit)


# What may be in the place of a file or folder, whose original is `outside`.


def link(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def device(path: Path, _: Path) -> None:
    path.symlink_to("/dev/zero")


def pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def folder(path: Path, _: Path) -> None:
    path.mkdir()


def huge(size: int):
    """A file of zeros that takes no space."""

    def make(path: Path, _: Path) -> None:
        with path.open("w") as file:
            file.truncate(size)

    return make


def content(content: bytes):
    return lambda path, _: path.write_bytes(content)


def cut(num_bytes: int):
    """The beginning of the file; with a negative number all but so many bytes."""
    return lambda path, outside: path.write_bytes(outside.read_bytes()[:num_bytes])
