"""`hlrp data download --repo-type model` against a stand-in for the Hub: what it fetches of a model, and a run that starts from it offline."""

import random
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPO, one_error, run, train_laq_command
from hub_fixtures import download, download_command, entry, hub_env, snapshot
from hub_server import TOKEN, digest
from interruption import kill
from test_pretrained_parity import DINO_MINI, random_dinov3

INVALID = 2
MODEL = "owner/tiny-dinov3"
READ = {"config.json", "model.safetensors", "preprocessor_config.json"}


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> dict[str, bytes]:
    """A model as transformers saves it, and what repositories have beside that."""
    folder = tmp_path_factory.mktemp("dinov3")
    sizes = dict(hidden_size=24, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, patch_size=4)
    random_dinov3(folder, **sizes, num_register_tokens=1)
    saved = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert saved.keys() == READ - {"preprocessor_config.json"}
    return saved | {
        "preprocessor_config.json": b"{}",
        "README.md": b"# A model",
        "pytorch_model.bin": bytes(9000),
        "onnx/model.onnx": bytes(9000),
        "onnx/config.json": b"{}",
    }


@pytest.fixture
def model(hub, content):
    """A Hub with the model, and its commit."""
    return hub, hub.add(f"models/{MODEL}", content)


def download_model(hub, home: Path, *words: object, **env: str) -> subprocess.CompletedProcess:
    return download(hub, home, "--repo-type", "model", *words, repo=MODEL, **env)


def model_entry(home: Path) -> Path:
    """The folder of the model in the cache of `home`."""
    return home / "hub" / ("models--" + MODEL.replace("/", "--"))


def layout(home: Path) -> dict[str, object]:
    """Links with their targets and files with their contents, but for the lists that newer versions of huggingface_hub keep in `trees`."""
    paths = {path.relative_to(model_entry(home)).as_posix(): path for path in model_entry(home).rglob("*")}
    kept = {name: path for name, path in paths.items() if not path.is_dir() and not name.startswith("trees/")}
    return {name: str(path.readlink()) if path.is_symlink() else path.read_bytes() for name, path in kept.items()}


def test_the_cache_is_as_huggingface_hub_writes_it(model, content, tmp_path):
    hub, commit = model
    result = download_model(hub, tmp_path / "ours")
    assert result.returncode == 0, result.stderr
    folder = model_entry(tmp_path / "ours") / "snapshots" / commit
    assert f"{MODEL} at commit {commit}: 3 files" in result.stdout and result.stdout.strip().endswith(str(folder))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {name: content[name] for name in READ}
    assert not entry(tmp_path / "ours", MODEL).exists()
    patterns = "allow_patterns=['*.json', '*.safetensors'], ignore_patterns=['*/*']"
    code = f"from huggingface_hub import snapshot_download; snapshot_download('{MODEL}', {patterns})"
    theirs = subprocess.run(
        [sys.executable, "-c", code], env=hub_env(hub, tmp_path / "theirs"), capture_output=True, text=True
    )
    assert theirs.returncode == 0, theirs.stderr
    assert layout(tmp_path / "ours") == layout(tmp_path / "theirs")
    # Nothing is fetched twice, and offline the cache is enough.
    hub.forget()
    assert "of which 0.0 MB were fetched" in download_model(hub, tmp_path / "theirs").stdout
    assert hub.asked("/resolve/") == []
    hub.close()
    assert str(folder) in download_model(hub, tmp_path / "ours", HF_HUB_OFFLINE="1").stdout


def test_a_download_that_is_killed_continues(model, content, tmp_path):
    hub, _ = model
    large = random.Random(0).randbytes(300_000)
    commit = hub.add(f"models/{MODEL}", content | {"model.safetensors": large})
    blobs = model_entry(tmp_path) / "blobs"
    hub.pause_after(len(large) // 2)
    command = download_command("--repo-type", "model", repo=MODEL)
    process = subprocess.Popen(command, cwd=REPO, env=hub_env(hub, tmp_path), stderr=subprocess.PIPE, text=True)
    assert hub.paused.wait(60), process.communicate()
    kill(process)
    hub.release()
    there = (blobs / f"{digest(large)}.incomplete").stat().st_size
    assert there < len(large) and not (model_entry(tmp_path) / "refs/main").exists()
    hub.forget()
    result = download_model(hub, tmp_path)
    assert result.returncode == 0, result.stderr
    assert [request.range for request in hub.asked(f"/resolve/{commit}/model.safetensors")] == (
        [f"bytes={there}-"] if there else [None]
    )
    assert (model_entry(tmp_path) / "snapshots" / commit / "model.safetensors").read_bytes() == large
    assert (model_entry(tmp_path) / "refs/main").read_text() == commit
    assert list(blobs.glob("*.incomplete")) == []


def test_a_run_starts_offline_from_what_the_command_of_its_error_fetches(model, content, tmp_path):
    hub, _ = model
    run_dir, home = tmp_path / "run", tmp_path / "home"
    words = ["experiment=laq_dino_tiny", *DINO_MINI, "training.max_steps=2", "training.scheduler.warmup_steps=1"]
    words += ["model.encoder.dinov3.sizes=null", f"model.encoder.dinov3.model={MODEL}", f"logging.run_dir={run_dir}"]
    env = hub_env(hub, home)
    missing = run(train_laq_command(*words), env=env)
    message = one_error(missing, INVALID, [f"model.encoder.dinov3.model: {MODEL} is neither", "gated", "HF_TOKEN"])
    assert hub.requests == [], "a run downloads nothing"
    command = shlex.split(message.split("then run `")[1].split("`")[0])
    assert command[:4] == ["hlrp", "data", "download", MODEL]
    result = run(download_command(*command[4:], repo=MODEL), env=env)
    assert result.returncode == 0, result.stderr
    hub.close()
    trained = run(train_laq_command(*words), env=env)
    assert trained.returncode == 0, trained.stderr
    local = tmp_path / "local"
    for name in READ:
        local.mkdir(exist_ok=True)
        (local / name).write_bytes(content[name])
    other = [word for word in words if ".model=owner" not in word and "run_dir" not in word]
    result = run(
        train_laq_command(*other, f"model.encoder.dinov3.model={local}", f"logging.run_dir={tmp_path / 'other'}")
    )
    assert result.returncode == 0, result.stderr
    weights = [folder / "checkpoints/step-000002/model.safetensors" for folder in (run_dir, tmp_path / "other")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_gated_model_needs_a_token_of_an_account_with_access(model, tmp_path):
    hub, commit = model
    hub.gated.add(f"models/{MODEL}")
    one_error(
        download_model(hub, tmp_path),
        1,
        ["401", f"Access to model {MODEL} is restricted", "hint: it is gated: accept the terms", "HF_TOKEN"],
    )
    other = download_model(hub, tmp_path, HF_TOKEN="hf_0therAccount")
    message = one_error(other, 1, ["403 Forbidden", "is restricted", "hint: accept the terms on its page"])
    assert "hf_0ther" not in message
    assert not (model_entry(tmp_path) / "refs/main").exists()
    result = download_model(hub, tmp_path, HF_TOKEN=TOKEN)
    assert result.returncode == 0, result.stderr
    assert (model_entry(tmp_path) / "snapshots" / commit / "model.safetensors").exists()


@pytest.mark.parametrize("words", [["--cameras", "observation.image"], ["--episodes", "0-3"], ["--no-videos"]])
def test_options_of_datasets_are_refused(model, tmp_path, words):
    hub, _ = model
    names = [f"{words[0]}: a model has neither cameras nor episodes", "hint: leave"]
    one_error(download_model(hub, tmp_path, *words), INVALID, names)
    assert hub.requests == []


def test_what_is_not_a_model_is_refused(hub, content, tmp_path):
    hub.add(f"models/{MODEL}", {name: content[name] for name in ("README.md", "config.json", "pytorch_model.bin")})
    says = ["is not a model that can be read", "weights as *.safetensors", "hint:"]
    one_error(download_model(hub, tmp_path), 1, [MODEL, *says])
    # A model asked for as a dataset.
    one_error(download(hub, tmp_path, repo=MODEL), 1, ["401", "hint: check the name and --repo-type"])
    one_error(download_model(hub, tmp_path, HF_HUB_OFFLINE="1"), 1, [MODEL, "HF_HUB_OFFLINE is set", "hint:"])
    assert not snapshot(tmp_path, "main").exists() and not model_entry(tmp_path).exists()
