"""Sources with `streaming: true`: videos are read over HTTP, in ranges, and every batch is that of the same dataset on the disk."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import DATA, MINI, REPO, TARGET, one_error, read_metrics, run, train_laq_command
from hub_fixtures import REPO_ID, download, download_command, hub_env, snapshot
from hub_server import SIGNATURE, TOKEN, HubServer

INVALID, DATA_ERROR = 2, 65
VIDEO = "videos/observation.image/chunk-000/file-000.mp4"
# One dataset for each codec and way of ordering frames, of one file and of many.
DATASETS = [
    "metaworld_mt5",
    "pusht_scripted",
    "h264_bframes",
    "h264_bt709",
    "hevc",
    "hevc_open_gop",
    "stress_v3",
    "bench_480",
]
SMALL_CACHE = ["--stream-cache-mb", "1"]


def bench(root: Path, *words: str, env: dict[str, str] | None = None) -> dict:
    """Rates of the loader, and the digest of its first batches."""
    command = [TARGET / "examples/bench_loader", root, *words]
    result = subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def streamed(hub: HubServer, home: Path, root: Path, *words: str) -> dict:
    return bench(root, "--repo-id", REPO_ID, "--streaming", *words, env=hub_env(hub, home))


def without_videos(hub: HubServer, home: Path, root: Path) -> str:
    """Downloads all but the videos; returns the commit."""
    commit = hub.add(REPO_ID, root)
    result = download(hub, home, "--no-videos")
    assert result.returncode == 0, result.stderr
    assert hub.asked(".mp4") == []
    hub.forget()
    return commit


@pytest.mark.parametrize("name", DATASETS)
def test_batches_are_those_of_the_dataset_on_the_disk(hub, tmp_path, name):
    commit = without_videos(hub, tmp_path, DATA / name)
    words = ["--batches", "16", "--batch-size", "8", "--workers", "2"]
    local = bench(DATA / name, *words)
    assert streamed(hub, tmp_path, DATA / name, *words)["first_pixels"] == local["first_pixels"]
    assert streamed(hub, tmp_path, DATA / name, *words, *SMALL_CACHE)["first_pixels"] == local["first_pixels"]
    videos = [request for request in hub.asked(".mp4") if SIGNATURE in request.path]
    assert videos and all(request.range for request in videos), "every request is for a range"
    assert list(snapshot(tmp_path, commit).rglob("*.mp4")) == [], "nothing of them is kept on the disk"


def test_it_is_nearly_as_fast_as_the_disk(hub, tmp_path):
    """With a server that adds no delay; the faster of three rounds each, in turn."""
    root = DATA / "metaworld_mt5"
    without_videos(hub, tmp_path, root)
    words = ["--batches", "60", "--workers", "2"]
    rounds = [(bench(root, *words), streamed(hub, tmp_path, root, *words)) for _ in range(3)]
    local, remote = (max(rates["samples_per_s"] for rates in of_kind) for of_kind in zip(*rounds, strict=True))
    assert remote >= 0.8 * local, f"{remote:.0f} of {local:.0f} pairs/s"


def words_of(run_dir: Path, *words: str) -> list[str]:
    of_hub = ["root=null", f"repo_id={REPO_ID}", "streaming=true"]
    source = [f"data.sources.metaworld_mt5.{word}" for word in of_hub]
    return [*MINI, *source, "training.max_steps=8", f"logging.run_dir={run_dir}", *words]


@pytest.fixture(scope="module")
def local_metrics(tmp_path_factory) -> list[dict]:
    """The metrics of the same run on the folder."""
    run_dir = tmp_path_factory.mktemp("local") / "run"
    result = run(train_laq_command(*MINI, "training.max_steps=8", f"logging.run_dir={run_dir}"))
    assert result.returncode == 0, result.stderr
    return read_metrics(run_dir)


def test_a_private_dataset_is_streamed_with_a_token_that_goes_to_the_hub_alone(hub, tmp_path, local_metrics):
    commit = without_videos(hub, tmp_path, DATA / "metaworld_mt5")
    hub.private.add(REPO_ID)
    result = run(train_laq_command(*words_of(tmp_path / "run")), env=hub_env(hub, tmp_path, HF_TOKEN=TOKEN))
    assert result.returncode == 0, result.stderr
    assert read_metrics(tmp_path / "run") == local_metrics
    recorded = json.loads((tmp_path / "run/run.json").read_text())["sessions"][0]["data"]["metaworld_mt5"]
    assert (recorded["repo_id"], recorded["commit"]) == (REPO_ID, commit)
    # The same data, whatever is there of it.
    assert download(hub, tmp_path / "whole", HF_TOKEN=TOKEN).returncode == 0
    shown = run([*download_command()[:2], "show", "--no-sheet", str(snapshot(tmp_path / "whole", commit))])
    assert recorded["fingerprint"] in shown.stdout
    assert [request.has_token for request in hub.asked(VIDEO)] != []
    assert all(request.has_token == ("/resolve/" in request.path) for request in hub.asked(VIDEO))
    texts = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in text or SIGNATURE.encode() in text for text in texts)


def test_a_connection_that_breaks_is_tried_again(hub, tmp_path, local_metrics):
    """It continues where it broke; a signed address that has expired is asked for again."""
    commit = without_videos(hub, tmp_path, DATA / "metaworld_mt5")
    hub.fail(f"GET /{commit}/{VIDEO}", breaks_after=50_000)
    hub.fail(f"GET /{commit}/{VIDEO}", ends_after=70_000)
    hub.fail(f"GET /{commit}/{VIDEO}", status=503, headers={"Retry-After": "1"})
    hub.fail(f"GET /{commit}/{VIDEO}", ignores_range=True)
    hub.fail(f"GET /{commit}/{VIDEO}", status=403)
    result = run(train_laq_command(*words_of(tmp_path / "run")), env=hub_env(hub, tmp_path))
    assert result.returncode == 0, result.stderr
    assert read_metrics(tmp_path / "run") == local_metrics
    assert all(fault.times == 0 for fault in hub.faults)
    assert "next try in 1.0 s" in result.stderr and SIGNATURE not in result.stderr
    assert len(hub.asked(f"/resolve/{commit}/{VIDEO}")) >= 2


@pytest.mark.slow  # every sample waits for six tries
def test_a_video_that_cannot_be_read_is_named_without_its_signature(hub, tmp_path):
    commit = without_videos(hub, tmp_path, DATA / "metaworld_mt5")
    hub.fail(f"GET /{commit}/{VIDEO}", status=500, times=1000)
    result = run(train_laq_command(*words_of(tmp_path / "run")), env=hub_env(hub, tmp_path))
    assert result.returncode != 0
    assert "gave up after 6 tries" in result.stderr and VIDEO in result.stderr and hub.url in result.stderr
    assert SIGNATURE not in result.stderr and "panicked" not in result.stderr


def test_without_the_network_the_error_says_so(hub, tmp_path):
    without_videos(hub, tmp_path, DATA / "metaworld_mt5")
    env = hub_env(hub, tmp_path, HF_HUB_OFFLINE="1")
    result = run(train_laq_command(*words_of(tmp_path / "run")), env=env)
    assert result.returncode != 0
    assert "HF_HUB_OFFLINE is set" in result.stderr and VIDEO in result.stderr


def test_the_tables_must_be_there(hub, tmp_path):
    hub.add(REPO_ID, DATA / "metaworld_mt5")
    env = hub_env(hub, tmp_path)
    result = run(train_laq_command(*words_of(tmp_path / "run")), env=env)
    message = one_error(result, INVALID, ["data.sources.metaworld_mt5.repo_id", "--no-videos", "hint:"])
    command = shlex.split(message.split("hint: `")[1].split("`")[0])
    assert run(download_command(*command[4:]), env=env).returncode == 0
    assert run(train_laq_command(*words_of(tmp_path / "run")), env=env).returncode == 0


def test_a_frame_cache_is_made_of_a_stream(hub, tmp_path, local_metrics):
    without_videos(hub, tmp_path, DATA / "metaworld_mt5")
    words = words_of(tmp_path / "run", "data.cache.enabled=true", f"data.cache.dir={tmp_path / 'cache'}")
    result = run(train_laq_command(*words), env=hub_env(hub, tmp_path))
    assert result.returncode == 0, result.stderr
    assert read_metrics(tmp_path / "run") == local_metrics
    hub.close()
    again = [word for word in words if "run_dir" not in word]
    result = run(train_laq_command(*again, f"logging.run_dir={tmp_path / 'again'}"), env=hub_env(hub, tmp_path))
    assert result.returncode == 0, "the finished cache needs no video: " + result.stderr
