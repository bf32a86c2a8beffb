"""A run goes on with the data and the checkpoint that it had, or says what has changed."""

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import DATA, MINI, one_error, run, train_laq_command
from interruption import assert_same_run

SETTING_ERROR = 2
SOURCE = "data.sources.metaworld_mt5"
# The mini model on a dataset of three episodes, to which two more are recorded later.
GROWS = [
    *MINI,
    f"{SOURCE}.cameras.primary=observation.images.front",
    f"{SOURCE}.state_key=null",
    f"{SOURCE}.action_key=null",
    f"{SOURCE}.num_val_episodes=1",
    "data.request.image_deltas=[0,1]",
    "training.scheduler.type=none",
    "training.max_steps=4",
    "training.checkpoint.every_n_steps=2",
]


def put(name: str, folder: Path) -> None:
    """Puts a dataset of `tests/data/grows` in the place of another one."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DATA / "grows" / name, folder)


def sources(run_dir: Path) -> dict:
    """What the newest checkpoint says of its data."""
    newest = (run_dir / "checkpoints/last").read_text().strip()
    return json.loads((run_dir / "checkpoints" / newest / "state.json").read_text())["sources"]["metaworld_mt5"]


def test_a_dataset_that_grew_is_refused_and_accepted_by_name(tmp_path):
    dataset, run_dir = tmp_path / "dataset", tmp_path / "run"
    put("before", dataset)
    first = run(train_laq_command(*GROWS, f"{SOURCE}.root={dataset}", f"logging.run_dir={run_dir}"))
    assert first.returncode == 0, first.stderr
    before = sources(run_dir)
    assert (before["num_episodes"], before["held_out"]) == (3, [1])

    put("before", dataset)  # copied anew, it is the same data
    same = run(train_laq_command("--resume", run_dir, "training.max_steps=5"))
    assert same.returncode == 0, same.stderr

    put("after", dataset)
    again = ["--resume", run_dir, "training.max_steps=8"]
    names = [f"{SOURCE}.root", "source `metaworld_mt5`", "5 episodes", "it had 3", "--accept-changed-data"]
    one_error(run(train_laq_command(*again)), SETTING_ERROR, names)
    accepted = run(train_laq_command(*again, "--accept-changed-data"))
    assert accepted.returncode == 0, accepted.stderr
    assert "held-out episodes stay held out" in accepted.stderr
    after = sources(run_dir)
    assert (after["num_episodes"], after["held_out"]) == (5, [1]), "spread anew over five episodes it would be [2]"
    assert after["fingerprint"] != before["fingerprint"]


def test_the_hint_of_a_damaged_checkpoint_works_as_it_is_typed(tmp_path, uninterrupted):
    run_dir = tmp_path / "a run"  # its name needs quotes in YAML and in a shell
    shutil.copytree(uninterrupted, run_dir)
    weights = run_dir / "checkpoints/step-000024/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    error = one_error(run(train_laq_command("--resume", run_dir)), 1, [str(weights), "is whole: "])
    word = re.search(r"is whole: (training\.resume_from_checkpoint=.*)", error)[1]
    assert "step-000020" in word
    result = run(train_laq_command("--resume", run_dir, word))
    assert result.returncode == 0, result.stderr
    assert_same_run(run_dir, uninterrupted)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--resume", "{nowhere}"], ["--resume", "{nowhere}"]),
        ([*MINI, "training.load_weights_from={nowhere}"], ["training.load_weights_from", "{nowhere}"]),
        ([*MINI, "training.resume_from_checkpoint={nowhere}"], ["training.resume_from_checkpoint", "{nowhere}"]),
    ],
)
def test_a_missing_path_names_what_it_was_given_to(tmp_path, words, names):
    nowhere = str(tmp_path / "nowhere")
    words, names = ([text.replace("{nowhere}", nowhere) for text in texts] for texts in (words, names))
    result = run(train_laq_command(*words, *([] if "--resume" in words else [f"logging.run_dir={tmp_path / 'run'}"])))
    assert result.returncode != 0
    one_error(result, result.returncode, [*names, "hint:"])
    assert not (tmp_path / "run").exists()


def test_a_run_resumes_from_its_own_checkpoints_alone(tmp_path, uninterrupted):
    run_dir = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    foreign = uninterrupted / "checkpoints/step-000020"
    words = ["--resume", run_dir, f"training.resume_from_checkpoint={foreign}"]
    names = ["training.resume_from_checkpoint", str(foreign), str(run_dir)]
    one_error(run(train_laq_command(*words)), SETTING_ERROR, names)


def test_a_run_of_an_older_version_says_what_its_configuration_gained(tmp_path, uninterrupted):
    run_dir = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    config = run_dir / "config.yaml"
    old, num = re.subn(r"  sinks:\n    console: true\n    png: true\n    tensorboard: false\n", "", config.read_text())
    assert num == 1
    config.write_text(old)
    result = run(train_laq_command("--resume", run_dir))
    assert result.returncode == 0, result.stderr
    assert "added logging.sinks.console=true, added logging.sinks.png=true" in (run_dir / "unified.log").read_text()
