"""What a run records about itself, and where it refuses to begin."""

import fcntl
import hashlib
import json
import os
import shutil
from pathlib import Path

from conftest import MINI, REPO, one_error, program, run, train_laq_command
from made_runs import change_record, output


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_run_records_its_data_what_it_ran_on_and_what_it_left(uninterrupted):
    manifest = json.loads((uninterrupted / "run.json").read_text())
    [session] = manifest["sessions"]
    assert (manifest["format"], session["status"], session["working_dir"]) == (3, "finished", str(REPO))
    shown = run([program("hlrp"), "data", "show", session["data"]["metaworld_mt5"]["root"]]).stdout
    assert session["data"]["metaworld_mt5"]["fingerprint"] in shown
    assert session["data"]["metaworld_mt5"]["num_episodes"] == 50
    assert session["devices"]["num_cores"] == len(os.sched_getaffinity(0)) and session["devices"]["cpu"]
    outputs = {output["role"]: output for output in session["outputs"]}
    assert outputs.keys() == {"checkpoints/last", "checkpoints/best"}
    for artifact in outputs.values():
        assert artifact["sha256"] == sha256(Path(artifact["path"]) / "model.safetensors")


def test_an_input_is_recorded_with_the_digest_of_its_weights(uninterrupted_vla, uninterrupted):
    [session] = json.loads((uninterrupted_vla / "run.json").read_text())["sessions"]
    [teacher] = session["inputs"]
    last = (uninterrupted / "checkpoints/last").read_text().strip()
    assert teacher["sha256"] == sha256(uninterrupted / "checkpoints" / last / "model.safetensors")
    roles = {output["role"] for output in session["outputs"]}
    assert roles >= {"checkpoints/last", "artifacts/final"}


def test_a_run_keeps_the_changes_of_the_code_without_secrets(tmp_path):
    repository = tmp_path / "code"
    repository.mkdir()
    git = ["git", "-C", repository, "-c", "user.name=a", "-c", "user.email=a@b.c"]
    (repository / "model.py").write_text("depth = 1\n")
    for words in [["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]]:
        assert run([*git, *words]).returncode == 0
    secret = "hf_Pl4ntedInTheCode"
    (repository / "model.py").write_text(f'depth = 2\nhub = "{secret}"\n')
    (repository / "new.py").write_text("")
    data = [f"data.sources.metaworld_mt5.root={REPO}/tests/data/metaworld_mt5", "training.max_steps=2"]
    words = [*MINI, *data, "training.scheduler.warmup_steps=1", f"logging.run_dir={tmp_path}/run"]
    env = os.environ | {"HLRP_CONFIG_DIR": str(REPO / "config")}
    result = run(train_laq_command(*words), cwd=repository, env=env)
    assert result.returncode == 0, result.stderr
    [session] = json.loads((tmp_path / "run/run.json").read_text())["sessions"]
    assert session["git"]["dirty"] is True
    patch = (tmp_path / "run" / session["git"]["patch"]).read_text()
    assert "-depth = 1\n+depth = 2\n" in patch and "  new.py\n" in patch
    assert secret not in patch and "***" in patch


def test_a_failed_run_records_its_exit_code(tmp_path):
    folder = tmp_path / "run"
    words = [*MINI, "training.optimizer.lr=1e9", "training.gradient.clip_norm=null", f"logging.run_dir={folder}"]
    result = run(train_laq_command(*words))
    assert result.returncode == 1, result.stderr
    [session] = json.loads((folder / "run.json").read_text())["sessions"]
    assert (session["status"], session["exit_code"]) == ("failed", 1)
    assert "exit code 1" in output("show", folder)


def test_a_run_of_an_older_format_is_read(one):
    def as_format_2(manifest):
        manifest["format"] = 2
        for session in manifest["sessions"]:
            for key in ("data", "outputs", "devices", "working_dir"):
                session.pop(key, None)

    change_record(one, as_format_2)
    [listed] = json.loads(output("list", one, "--json"))
    assert (listed["status"], listed["step"]) == ("finished", 24)


def test_an_unwritable_run_directory_is_one_error_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file/run"
    one_error(run(train_laq_command(*MINI, f"logging.run_dir={folder}")), 1, [str(folder), "Not a directory"])


def test_two_processes_on_one_run_directory(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    with (folder / ".lock").open("w") as lock:
        lock.write("process 1 on here\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = run(
            train_laq_command("--resume", folder, "training.resume_from_checkpoint=" + first_checkpoint(folder))
        )
    one_error(result, 73, [str(folder), "in use by process 1 on here"])


def first_checkpoint(folder: Path) -> str:
    return str(min(path for path in (folder / "checkpoints").iterdir() if path.name.startswith("step-")))
