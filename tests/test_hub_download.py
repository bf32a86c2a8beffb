"""`hlrp data download` against a stand-in for the Hub: what it fetches, how it continues, what each fault means, and who finds the result."""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import DATA, MINI, REPO, one_error, read_metrics, run, train_laq_command
from convert_to_v21 import convert
from hub_fixtures import REPO_ID, download, download_command, entry, hub_env, snapshot
from hub_server import SIGNATURE, TOKEN, digest
from interruption import kill

INVALID, DISK = 2, 74
VIDEO = "videos/observation.image/chunk-000/file-000.mp4"
TABLE = "data/chunk-000/file-000.parquet"


def files(folder: Path) -> dict[str, bytes]:
    """Files below a folder, links followed."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def layout(home: Path) -> dict[str, object]:
    """Contents, revisions and links of a dataset in the cache: links with their targets, files with what they contain.

    Newer versions of huggingface_hub also keep the list of files that the Hub has, in `trees`; nothing depends on it.
    """
    paths = {path.relative_to(entry(home)).as_posix(): path for path in entry(home).rglob("*") if not path.is_dir()}
    kept = {name: path for name, path in paths.items() if not name.startswith("trees/")}
    return {name: str(path.readlink()) if path.is_symlink() else path.read_bytes() for name, path in kept.items()}


def python(hub, home: Path, code: str, **env: str) -> str:
    """What a Python program prints that uses huggingface_hub or LeRobot."""
    result = subprocess.run([sys.executable, "-c", code], env=hub_env(hub, home, **env), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip().splitlines()[-1]


SNAPSHOT = f"from huggingface_hub import snapshot_download; print(snapshot_download('{REPO_ID}', repo_type='dataset'))"


def succeeded(result: subprocess.CompletedProcess) -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_cache_is_as_huggingface_hub_writes_it(metaworld, tmp_path):
    hub, commit = metaworld
    said = succeeded(download(hub, tmp_path / "ours"))
    assert f"{REPO_ID} at commit {commit}: " in said and said.strip().endswith(str(snapshot(tmp_path / "ours", commit)))
    assert files(snapshot(tmp_path / "ours", commit)) == files(DATA / "metaworld_mt5")
    python(hub, tmp_path / "theirs", SNAPSHOT)
    assert layout(tmp_path / "ours") == layout(tmp_path / "theirs")
    assert len(layout(tmp_path / "ours")) > 8


@pytest.mark.slow  # starts LeRobot in two processes
def test_huggingface_hub_and_lerobot_find_it_without_the_network(metaworld, tmp_path):
    hub, commit = metaworld
    succeeded(download(hub, tmp_path))
    hub.close()
    offline = {"HF_HUB_OFFLINE": "1"}
    assert python(hub, tmp_path, SNAPSHOT, **offline) == str(snapshot(tmp_path, commit))
    code = f"""
from lerobot.datasets.lerobot_dataset import LeRobotDataset
dataset = LeRobotDataset("{REPO_ID}", revision="main", video_backend="pyav")
print(dataset.num_episodes, tuple(dataset[7]["observation.image"].shape))
"""
    # LeRobot's own folder of repositories is `hub` in its home.
    assert python(hub, tmp_path, code, **offline, HF_LEROBOT_HOME=str(tmp_path)) == "50 (3, 128, 128)"


def test_what_huggingface_hub_has_fetched_is_not_fetched_again(metaworld, tmp_path):
    hub, commit = metaworld
    python(hub, tmp_path, SNAPSHOT)
    hub.forget()
    said = succeeded(download(hub, tmp_path))
    assert "of which 0.0 MB were fetched" in said
    assert hub.asked("/resolve/") == []
    hub.close()
    said = succeeded(download(hub, tmp_path, HF_HUB_OFFLINE="1"))
    assert str(snapshot(tmp_path, commit)) in said


def test_only_the_files_that_cameras_and_episodes_need_are_fetched(hub, tmp_path):
    root = DATA / "stress_v3"
    commit = hub.add(REPO_ID, root)
    table = pa.concat_tables(
        [pq.read_table(path) for path in sorted(root.glob("meta/episodes/*/*.parquet"))]
    ).to_pylist()
    camera, episodes = "observation.images.agent", [0, 3, 4]
    rows = [row for row in table if row["episode_index"] in episodes]
    wanted = {path.relative_to(root).as_posix() for path in root.glob("meta/**/*") if path.is_file()}
    for row in rows:
        wanted.add(f"data/chunk-{row['data/chunk_index']:03d}/file-{row['data/file_index']:03d}.parquet")
        chunk, file = (row[f"videos/{camera}/{name}"] for name in ("chunk_index", "file_index"))
        wanted.add(f"videos/{camera}/chunk-{chunk:03d}/file-{file:03d}.mp4")
    succeeded(download(hub, tmp_path, "--cameras", camera, "--episodes", "0,3-4"))
    fetched = files(snapshot(tmp_path, commit))
    assert fetched.keys() == wanted
    assert len(wanted) < len(files(root))
    assert all(content == (root / name).read_bytes() for name, content in fetched.items())
    # The rest comes on top.
    hub.forget()
    succeeded(download(hub, tmp_path))
    assert files(snapshot(tmp_path, commit)) == files(root)
    assert {request.path.split("/", 6)[6] for request in hub.asked("/resolve/")} == files(root).keys() - wanted


def test_videos_can_be_left_out(metaworld, tmp_path):
    hub, commit = metaworld
    succeeded(download(hub, tmp_path, "--no-videos"))
    assert files(snapshot(tmp_path, commit)).keys() == files(DATA / "metaworld_mt5").keys() - {VIDEO}
    assert hub.asked(".mp4") == []


def test_a_dataset_of_v21_is_fetched_episode_by_episode(hub, tmp_path):
    old = convert(DATA / "pusht_scripted", tmp_path / "v21")
    commit = hub.add(REPO_ID, old)
    succeeded(download(hub, tmp_path / "home", "--episodes", "1,5"))
    fetched = files(snapshot(tmp_path / "home", commit))
    meta = {path.relative_to(old).as_posix() for path in old.glob("meta/*")}
    assert {name for name in fetched if "episode_" in name.split("/")[-1]} == {
        f"{folder}/episode_{episode:06d}.{end}"
        for folder, end in [("data/chunk-000", "parquet"), ("videos/chunk-000/observation.image", "mp4")]
        for episode in (1, 5)
    }
    assert meta <= fetched.keys()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--cameras", "observation.imag"], ["--cameras: the dataset has no camera", "there are observation.image"]),
        (["--episodes", "49-50"], ["--episodes: there is no episode 50", "50 episodes"]),
        (["--episodes", "1-"], ["--episodes", "neither an index nor a range"]),
        (["--revision", "../x"], ["--revision", "not a revision"]),
    ],
)
def test_what_a_dataset_does_not_have_is_refused(metaworld, tmp_path, words, names):
    hub, _ = metaworld
    one_error(download(hub, tmp_path, *words), INVALID, [*names, "hint:"])
    assert not (tmp_path / "hub").exists() or hub.asked(".mp4") == []


def test_a_download_that_is_killed_continues(metaworld, tmp_path):
    """At ten points: no byte that had arrived is sent again, but for what a connection had on its way."""
    hub, commit = metaworld
    whole = files(DATA / "metaworld_mt5")
    total = sum(map(len, whole.values()))
    blobs = entry(tmp_path) / "blobs"
    sent = 0
    for _ in range(10):
        left = {path.name: path.stat().st_size for path in blobs.glob("*")} if blobs.exists() else {}
        hub.forget()
        hub.pause_after(total // 12)
        command = download_command()
        process = subprocess.Popen(command, cwd=REPO, env=hub_env(hub, tmp_path), stderr=subprocess.PIPE, text=True)
        assert hub.paused.wait(60), process.communicate()
        time.sleep(0.1)
        kill(process)
        hub.release()
        sent += hub.sent.total()
        for name, content in whole.items():
            asked = [request.range for request in hub.asked(f"/resolve/{commit}/{name}")]
            if digest(content) in left:
                assert asked == [], f"{name} was there"
            elif partial := left.get(f"{digest(content)}.incomplete"):
                assert asked[:1] in ([], [f"bytes={partial}-"]), f"{partial} bytes of {name} were there: {asked}"
    assert 0 < (blobs / f"{digest(whole[VIDEO])}.incomplete").stat().st_size < len(whole[VIDEO])
    assert not (entry(tmp_path) / "refs/main").exists(), "the revision leads to a whole download"
    succeeded(download(hub, tmp_path))
    assert files(snapshot(tmp_path, commit)) == whole
    assert list(blobs.glob("*.incomplete")) == []
    sent += hub.sent.total()
    assert sent < 1.5 * total, "most of it was sent once"


@pytest.mark.parametrize(
    ("fault", "warning"),
    [
        ({"breaks_after": 100_000}, ""),
        ({"ends_after": 100_000}, "it ended after"),
        ({"status": 503, "headers": {"Retry-After": "1"}}, "503 Service Unavailable: planted; next try in 1.0 s"),
        ({"status": 429, "headers": {"Retry-After": "2"}}, "429 Too Many Requests: planted; next try in 2.0 s"),
        (
            {"status": 429, "headers": {"RateLimit": '"api";r=0;t=2'}},
            "429 Too Many Requests: planted; next try in 2.0 s",
        ),
        ({"status": 429}, "429 Too Many Requests: planted; next try in 3.0 s"),
        ({"status": 500, "times": 3}, "500 Internal Server Error"),
        ({"is_damaged": True}, "its content does not have its digest; it is fetched again"),
    ],
)
def test_a_fault_that_passes_delays_a_download(metaworld, tmp_path, fault, warning):
    hub, commit = metaworld
    hub.fail(f"GET /{commit}/{VIDEO}", **fault)
    began = time.monotonic()
    result = download(hub, tmp_path)
    succeeded(result)
    assert files(snapshot(tmp_path, commit)) == files(DATA / "metaworld_mt5")
    assert warning in result.stderr and VIDEO in result.stderr
    assert time.monotonic() - began > float(fault.get("headers", {}).get("Retry-After", 0))
    ranges = [request.range for request in hub.asked(f"/{commit}/{VIDEO}") if SIGNATURE in request.path]
    assert ranges[0] is None
    if "ends_after" in fault:
        assert ranges[1:] == ["bytes=100000-"]
    if "is_damaged" in fault:
        assert ranges[1:] == [None]
    assert SIGNATURE not in result.stderr + result.stdout


def test_a_server_that_ignores_ranges_sends_all_again(metaworld, tmp_path):
    hub, commit = metaworld
    hub.fail(f"GET /{commit}/{VIDEO}", ends_after=100_000)
    hub.fail(f"GET /{commit}/{VIDEO}", ignores_range=True)
    succeeded(download(hub, tmp_path))
    assert files(snapshot(tmp_path, commit)) == files(DATA / "metaworld_mt5")


def test_a_file_that_changes_between_two_tries_is_fetched_from_its_beginning(metaworld, tmp_path):
    """The first try breaks off, and at the second the server has another content."""
    hub, commit = metaworld
    other = (DATA / "metaworld_mt5" / VIDEO).read_bytes()[:-1000] + bytes(1000)
    hub.fail(f"GET /{commit}/{VIDEO}", ends_after=200_000, then=lambda: hub.commits[commit].update({VIDEO: other}))
    result = download(hub, tmp_path)
    succeeded(result)
    assert "it has changed on the server; it is fetched from its beginning" in result.stderr
    assert (snapshot(tmp_path, commit) / VIDEO).read_bytes() == other
    assert (snapshot(tmp_path, commit) / VIDEO).readlink().name == digest(other)


def test_a_new_commit_fetches_what_has_changed(metaworld, tmp_path):
    hub, commit = metaworld
    succeeded(download(hub, tmp_path))
    changed = files(DATA / "metaworld_mt5") | {"meta/stats.json": b"{}"}
    newer = hub.add(REPO_ID, changed)
    hub.forget()
    succeeded(download(hub, tmp_path))
    assert {request.path.split("/", 6)[6] for request in hub.asked("/resolve/")} == {"meta/stats.json"}
    assert files(snapshot(tmp_path, newer)) == changed
    assert files(snapshot(tmp_path, commit)) == files(DATA / "metaworld_mt5"), "the former snapshot stays"
    assert (entry(tmp_path) / "refs/main").read_text() == newer
    succeeded(download(hub, tmp_path, "--revision", commit))
    assert (entry(tmp_path) / "refs/main").read_text() == newer


def test_a_content_that_is_always_damaged_is_an_error(metaworld, tmp_path):
    hub, commit = metaworld
    hub.fail(f"GET /{commit}/{VIDEO}", is_damaged=True, times=100)
    message = one_error(download(hub, tmp_path), 1, [VIDEO, "does not have its digest, 3 times in a row", "hint:"])
    assert SIGNATURE not in message
    assert not (snapshot(tmp_path, commit) / VIDEO).exists()
    assert not (entry(tmp_path) / "refs/main").exists()


@pytest.mark.parametrize(
    ("words", "repo", "fault", "names"),
    [
        ([], "owner/nothing", None, ["401", "Repository not found", "hf auth login"]),
        (["--revision", "v9"], REPO_ID, None, ["404", "Invalid rev id", "check --revision"]),
        ([], REPO_ID, {"match": VIDEO, "status": 404}, ["404 Not Found: planted", VIDEO, "check the name"]),
        ([], REPO_ID, {"match": TABLE, "status": 403}, ["403 Forbidden", TABLE, "accept the terms"]),
        ([], REPO_ID, {"match": TABLE, "status": 503, "times": 9}, ["503", "gave up after 6 tries", "HF_ENDPOINT"]),
        (
            [],
            REPO_ID,
            {"match": TABLE, "status": 429, "headers": {"Retry-After": "4000"}},
            ["429", "asks to wait 4000 s", "it continues where it was"],
        ),
    ],
)
def test_a_fault_that_stays_is_an_error(metaworld, tmp_path, words, repo, fault, names):
    hub, _ = metaworld
    if fault:
        hub.fail(**fault)
    message = one_error(download(hub, tmp_path, *words, repo=repo), 1, [*names, "hint:"])
    assert SIGNATURE not in message


def test_a_token_opens_a_private_dataset_and_goes_nowhere_else(metaworld, tmp_path):
    hub, commit = metaworld
    hub.private.add(REPO_ID)
    one_error(download(hub, tmp_path), 1, ["401", "set HF_TOKEN", "hint:"])
    wrong = download(hub, tmp_path, HF_TOKEN="hf_wrongT0ken")
    assert "hf_wrong" not in one_error(wrong, 1, ["401", "the token in HF_TOKEN", "hint:"])
    hub.forget()
    result = download(hub, tmp_path, HF_TOKEN=TOKEN)
    assert TOKEN not in succeeded(result) + result.stderr
    of_hub, of_storage = hub.asked("/datasets/"), [request for request in hub.requests if SIGNATURE in request.path]
    assert of_hub and all(request.has_token for request in of_hub)
    assert of_storage and not any(request.has_token for request in of_storage)
    assert all(TOKEN.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    # `hf auth login` leaves it in a file.
    home = tmp_path / "home"
    home.mkdir()
    (home / "token").write_text(TOKEN + "\n")
    succeeded(download(hub, home))
    assert (snapshot(home, commit) / VIDEO).exists()


def test_a_renamed_dataset_is_followed(metaworld, tmp_path):
    hub, commit = metaworld
    hub.renamed["owner/former"] = REPO_ID
    succeeded(download(hub, tmp_path, repo="owner/former"))
    assert files(snapshot(tmp_path, commit, "owner/former")) == files(DATA / "metaworld_mt5")


def test_what_is_no_dataset_of_lerobot_is_refused(hub, tmp_path):
    hub.add(REPO_ID, {"README.md": b"# Text", "train.csv": b"a,b"})
    one_error(download(hub, tmp_path), 1, [REPO_ID, "is not a LeRobot dataset", "hf download", "hint:"])
    hub.add("owner/evil", {"meta/info.json": b"{}", "../../escape": b"x"})
    one_error(download(hub, tmp_path, repo="owner/evil"), 1, ["is not a path below the repository", "hint:"])
    assert not any(path.name == "escape" for path in tmp_path.parent.rglob("*"))
    one_error(download(hub, tmp_path, repo="pusht"), INVALID, ["REPO", "owner/name", "hint:"])


def test_the_rules_of_a_disk_hold(metaworld, tmp_path):
    hub, _ = metaworld
    full = download(hub, tmp_path, "logging.min_free_gb=1e6")
    one_error(full, DISK, ["1000000", "hint:", "--cache-dir"])
    assert hub.asked("/resolve/") == []
    words = [f"cluster.allowed_roots=[{tmp_path}/here]", "--cache-dir", tmp_path / "elsewhere"]
    one_error(download(hub, tmp_path, *words), INVALID, ["--cache-dir", "outside", "hint:"])
    assert not (tmp_path / "elsewhere").exists()


def test_nothing_is_fetched_offline(metaworld, tmp_path):
    hub, _ = metaworld
    one_error(download(hub, tmp_path, HF_HUB_OFFLINE="1"), 1, [REPO_ID, "HF_HUB_OFFLINE is set", "hint:"])
    assert hub.requests == []


def source_words(run_dir: Path) -> list[str]:
    """The mini model, trained on the Hub's dataset."""
    of_hub = ["data.sources.metaworld_mt5.root=null", f"data.sources.metaworld_mt5.repo_id={REPO_ID}"]
    return [*MINI, *of_hub, "training.max_steps=6", f"logging.run_dir={run_dir}"]


def test_a_run_names_a_dataset_of_the_hub(metaworld, tmp_path):
    """Without a download the error has the command that makes it; what it leaves is enough, and trains as the folder does."""
    hub, commit = metaworld
    env = hub_env(hub, tmp_path)
    words = [*source_words(tmp_path / "run"), "data.sources.metaworld_mt5.episodes=[0,7,11,30,31,32,45]"]
    missing = run(train_laq_command(*words), env=env)
    message = one_error(
        missing, INVALID, ["data.sources.metaworld_mt5.repo_id", f"{REPO_ID} at main is not in", "hint:"]
    )
    command = shlex.split(message.split("hint: `")[1].split("`")[0])
    assert command[:4] == ["hlrp", "data", "download", REPO_ID]
    succeeded(run(download_command(*command[4:]), env=env))
    hub.close()
    trained = run(train_laq_command(*words), env=env)
    assert trained.returncode == 0, trained.stderr
    local = [word for word in words if ".root=" not in word and ".repo_id=" not in word and "run_dir" not in word]
    result = run(train_laq_command(*local, f"logging.run_dir={tmp_path / 'local'}"))
    assert result.returncode == 0, result.stderr
    assert read_metrics(tmp_path / "run") == read_metrics(tmp_path / "local")
    recorded = json.loads((tmp_path / "run/run.json").read_text())["sessions"][0]["data"]["metaworld_mt5"]
    assert (recorded["repo_id"], recorded["commit"]) == (REPO_ID, commit)
    assert recorded["root"] == str(snapshot(tmp_path, commit))


def test_files_that_a_source_needs_and_a_download_left_out_are_named(hub, tmp_path):
    hub.add(REPO_ID, DATA / "stress_v3")
    succeeded(download(hub, tmp_path, "--episodes", "0-2", "--cameras", "observation.images.agent"))
    words = [*source_words(tmp_path / "run"), "data.sources.metaworld_mt5.cameras.primary=observation.images.top"]
    words += ["data.sources.metaworld_mt5.episodes=[0,1,9]", "data.sources.metaworld_mt5.num_val_episodes=1"]
    words += ["data.sources.metaworld_mt5.state_key=null", "data.sources.metaworld_mt5.action_key=null"]
    result = run(train_laq_command(*words), env=hub_env(hub, tmp_path))
    names = ["files of owner/robot_data at commit", "such as", "--cameras observation.images.top --episodes 0,1,9"]
    one_error(result, INVALID, ["data.sources.metaworld_mt5.repo_id", *names])
