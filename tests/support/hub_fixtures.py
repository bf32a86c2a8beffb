"""What tests of the Hub share: the stand-in, and the programs that ask it."""

import os
import subprocess
from pathlib import Path

import pytest
from conftest import DATA, REPO, program
from hub_server import HubServer

REPO_ID = "owner/robot_data"
# Settings of this machine that would lead programs elsewhere.
OWN = ("HF_", "HUGGING", "XDG_CACHE_HOME", "TRANSFORMERS_OFFLINE")


def hub_env(hub: HubServer, home: Path, **more: str) -> dict[str, str]:
    """The environment of a program that knows this Hub alone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    return {**kept, **hub.env(home), **more}


def download_command(*words: object, repo: str = REPO_ID) -> list[str]:
    return [program("hlrp"), "data", "download", repo, *map(str, words)]


def download(
    hub: HubServer, home: Path, *words: object, repo: str = REPO_ID, **env: str
) -> subprocess.CompletedProcess:
    """`hlrp data download` into the cache of `home`."""
    command = download_command(*words, repo=repo)
    return subprocess.run(command, cwd=REPO, env=hub_env(hub, home, **env), capture_output=True, text=True, timeout=300)


def entry(home: Path, repo: str = REPO_ID) -> Path:
    """The folder of a dataset in the cache of `home`."""
    return home / "hub" / ("datasets--" + repo.replace("/", "--"))


def snapshot(home: Path, commit: str, repo: str = REPO_ID) -> Path:
    return entry(home, repo) / "snapshots" / commit


@pytest.fixture
def hub():
    """An empty Hub."""
    server = HubServer()
    yield server
    server.close()


@pytest.fixture
def metaworld(hub) -> tuple[HubServer, str]:
    """A Hub with the Meta-World demonstrations as `owner/robot_data`, and their commit."""
    return hub, hub.add(REPO_ID, DATA / "metaworld_mt5")
