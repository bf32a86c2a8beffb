"""What `hlrp train-vla` refuses, in one error each."""

import shutil
from pathlib import Path

import pyarrow.parquet
import pytest
from conftest import DATA, MINI, VLA_MINI, one_error, read_metrics, run, train_laq_command, train_vla_command
from vla_runs import backbone_folder, words_for

CONFIG_ERROR = 2
SOURCE = "data.sources.metaworld_mt5"
# The pooled architecture instead of the expert: one action, no chunk.
POOLED = ["~policy.model.arch.expert", "+policy.model.arch.pooled={}"]


def refused(run_dir: Path, teacher: Path, *words: object, code: int, names: list[str]) -> None:
    """One error that names these things, and nothing left behind."""
    one_error(run(words_for(run_dir, teacher, *words)), code, names)
    assert not run_dir.exists(), "a refused run leaves nothing behind"


def test_no_teacher_for_latent_actions(tmp_path):
    result = run(train_vla_command(*VLA_MINI, f"logging.run_dir={tmp_path / 'run'}"))
    one_error(result, CONFIG_ERROR, ["policy.teacher.checkpoint", "hint:"])
    assert not (tmp_path / "run").exists()


def test_teacher_that_is_not_there(tmp_path):
    """The error says everything once."""
    nowhere = str(tmp_path / "nowhere")
    result = run(words_for(tmp_path / "run", nowhere))
    error = one_error(result, CONFIG_ERROR, ["policy.teacher.checkpoint", nowhere, "train-laq"])
    message, word = error.split(" (command line: ")
    assert message.count(nowhere) == word.count(nowhere) == 1 and error.count("hint:") == 1, error
    assert not (tmp_path / "run").exists()


def test_tokenizer_that_is_not_there(tmp_path, uninterrupted):
    words = f"policy.processor.tokenizer={tmp_path}"
    names = ["policy.processor.tokenizer", str(tmp_path), "tokenizer.json", "hint:"]
    refused(tmp_path / "run", uninterrupted, words, code=CONFIG_ERROR, names=names)


@pytest.mark.parametrize("option", ["expert_width_multiplier=0.01", "num_expert_layers=3"])
def test_expert_that_cannot_be_built(tmp_path, uninterrupted, option):
    words = f"policy.model.arch.expert.{option}"
    refused(tmp_path / "run", uninterrupted, words, code=CONFIG_ERROR, names=[words.split("=")[0] + ": ", "hint:"])


def test_teacher_of_other_sizes(tmp_path, uninterrupted):
    words = "policy.teacher.code_dim=16"
    refused(
        tmp_path / "run", uninterrupted, words, code=CONFIG_ERROR, names=["policy.teacher.code_dim", "is 8", "hint:"]
    )


def test_teacher_of_another_spacing(tmp_path, uninterrupted):
    words = "data.request.image_deltas=[0,5]"
    names = ["data.request.image_deltas", "[0.0, 20.0] frames", "hint:"]
    refused(tmp_path / "run", uninterrupted, words, code=CONFIG_ERROR, names=names)


@pytest.mark.parametrize("key", ["policy.model.cameras=[wrist]", "policy.teacher.camera=wrist"])
def test_camera_that_the_data_lacks(tmp_path, uninterrupted, key):
    names = [key.split("=")[0], "wrist", "data.sources.<name>.cameras", "hint:"]
    refused(tmp_path / "run", uninterrupted, key, code=CONFIG_ERROR, names=names)


def test_backbone_folder_without_weights(tmp_path, uninterrupted):
    folder = backbone_folder(tmp_path / "backbone")
    words = f"policy.model.backbone.vlm_model_name={folder}"
    names = ["policy.model.backbone.vlm_model_name", str(folder), "model.safetensors", "hint:"]
    refused(tmp_path / "run", uninterrupted, words, code=CONFIG_ERROR, names=names)


def test_backbone_of_other_sizes(tmp_path, uninterrupted, uninterrupted_vla):
    folder = backbone_folder(tmp_path / "backbone", uninterrupted_vla)
    words = [f"policy.model.backbone.vlm_model_name={folder}", "policy.model.backbone.sizes.text.vocab_size=353"]
    names = ["policy.model.backbone.sizes", "folder", "hint:"]
    refused(tmp_path / "run", uninterrupted, *words, code=CONFIG_ERROR, names=names)


def test_backbone_that_is_nowhere(tmp_path, uninterrupted):
    words = ["policy.model.backbone.vlm_model_name=org/name", f"policy.model.backbone.hub_cache={tmp_path}"]
    names = [
        "policy.model.backbone.vlm_model_name: org/name",
        str(tmp_path),
        f"(command line: {words[0]})",
        f"hint: run `hlrp data download org/name --repo-type model --cache-dir {tmp_path}`",
    ]
    refused(tmp_path / "run", uninterrupted, *words, code=CONFIG_ERROR, names=names)


def test_backbone_folder_that_is_not_there(tmp_path, uninterrupted):
    word = f"policy.model.backbone.vlm_model_name={tmp_path}/nothing"
    names = [
        f"policy.model.backbone.vlm_model_name: there is no folder {tmp_path}/nothing (command line: {word})",
        "hint: give the folder",
    ]
    message = one_error(run(words_for(tmp_path / "run", uninterrupted, word)), CONFIG_ERROR, names)
    assert "data download" not in message and not (tmp_path / "run").exists()


@pytest.mark.parametrize("missing", ["file", "column"])
def test_dataset_without_instructions(tmp_path, uninterrupted, missing):
    dataset = Path(shutil.copytree(DATA / "metaworld_mt5", tmp_path / "dataset"))
    tasks = dataset / "meta/tasks.parquet"
    if missing == "file":
        tasks.unlink()
    else:
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(tasks).select(["task_index"]), tasks)
    words = f"{SOURCE}.root={dataset}"
    refused(tmp_path / "run", uninterrupted, words, code=65, names=["tasks.parquet", "hint:"])


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["policy.model.arch.expert.max_action_dim=3"], ["policy.model.arch.expert.max_action_dim", "4 dimensions"]),
        ([f"{SOURCE}.action_key=null"], ["policy.objective.mode", "no actions", "hint:"]),
        ([*POOLED, "+policy.model.arch.pooled.train_state_proj=true"], ["train_state_proj", "hint:"]),
        (["policy.model.arch.expert.prefix_length=5"], ["policy.model.arch.expert.prefix_length", "hint:"]),
        (
            ["policy.model.arch.expert.smolvla_checkpoint=/nothing"],
            ["policy.model.arch.expert.smolvla_checkpoint", "/nothing", "hint:"],
        ),
    ],
    ids=lambda value: value[0],
)
def test_value_that_does_not_fit(tmp_path, uninterrupted, words, names):
    refused(tmp_path / "run", uninterrupted, *words, code=CONFIG_ERROR, names=names)


def test_chunk_and_offsets_that_contradict_each_other(tmp_path, uninterrupted):
    words = "data.request.action_deltas=[0,1]"
    names = ["data.request.action_deltas", "chunk of 4 steps"]
    refused(tmp_path / "run", uninterrupted, words, code=CONFIG_ERROR, names=names)


def test_monitor_that_no_validation_gives(tmp_path, uninterrupted, uninterrupted_vla):
    """It is found before the first step, and the error lists exactly what validations record."""
    result = run(words_for(tmp_path / "run", uninterrupted, "training.checkpoint.monitor=val/foo"))
    error = one_error(result, CONFIG_ERROR, ["training.checkpoint.monitor", "val/foo"])
    assert not (tmp_path / "run").exists()
    known = error.split("choose one of ")[1].strip().split(", ")
    assert sorted(known) == sorted(key for key in read_metrics(uninterrupted_vla)[-1] if key.startswith("val/"))


def test_resume_with_another_architecture(uninterrupted_vla):
    before = read_metrics(uninterrupted_vla)
    result = run(train_vla_command("--resume", uninterrupted_vla, *POOLED))
    one_error(result, CONFIG_ERROR, ["policy.model.arch.expert.chunk_size was 4, is absent", "hint:"])
    assert read_metrics(uninterrupted_vla) == before


def test_resume_from_a_checkpoint_of_stage_1(tmp_path, uninterrupted):
    words = f"training.resume_from_checkpoint={uninterrupted}"
    names = [str(uninterrupted), "was laq, is vla", "hint:"]
    refused(tmp_path / "run", uninterrupted, words, code=CONFIG_ERROR, names=names)


def test_resume_with_another_teacher(tmp_path, uninterrupted_vla):
    """The same architecture with other weights: only the digest tells."""
    other = tmp_path / "other"
    assert run(train_laq_command(*MINI, f"logging.run_dir={other}", "seed=3", "training.max_steps=5")).returncode == 0
    run_dir = shutil.copytree(uninterrupted_vla, tmp_path / "run")
    result = run(train_vla_command("--resume", run_dir, f"policy.teacher.checkpoint={other}"))
    one_error(result, CONFIG_ERROR, ["teacher.sha256 was", "hint:"])
