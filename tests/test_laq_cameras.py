"""Stage 1 with several cameras: their views are side by side, and everything from training to labels knows them."""

import json
import signal

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import DATA, MINI, VLA_MINI, label, one_error, read_metrics, run, train_laq_command, train_vla_command
from interruption import INTERRUPTED, assert_same_run, last_step, start, wait_for
from safetensors import safe_open

CONFIG_ERROR = 2
STRESS = DATA / "stress_v3"
TOP, AGENT = "observation.images.top", "observation.images.agent"
TWO = [
    *MINI,
    "~data.sources.metaworld_mt5",
    f"+data.sources.stress={{root: {STRESS}, cameras: {{primary: {TOP}, second: {AGENT}}}, state_key: observation.state,"
    " action_key: action, episodes: null, num_val_episodes: 12, tolerance_s: null, labelled_episodes: null, rlds: null, scenes: null}",
    "data.request.image_deltas=[0,3]",
    "model.cameras=[primary,second]",
    "model.view_dropout=0.3",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("two_cameras") / "run"
    result = run(train_laq_command(*TWO, f"logging.run_dir={run_dir}"))
    assert result.returncode == 0, result.stderr
    return run_dir


def test_it_trains_and_shows_the_views_side_by_side(trained):
    lines = read_metrics(trained)
    assert len([line for line in lines if "train/loss" in line]) == 24
    assert all(np.isfinite(line["val/loss"]) for line in lines if "val/loss" in line)
    assert (trained / "validation/step-000024/probes.json").exists()
    assert (trained / "validation/step-000024/reconstructions.png").exists()
    checkpoint = trained / "checkpoints/step-000024"
    assert json.loads((checkpoint / "checkpoint.json").read_text())["task"]["model"]["cameras"] == ["primary", "second"]
    with safe_open(checkpoint / "model.safetensors", "pt") as tensors:
        assert tensors.get_slice("view_embedding").get_shape() == [2, 32]
        assert tensors.get_slice("vq.cnn_encoder.0.weight").get_shape()[1] == 2 * 8


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, trained):
    run_dir = tmp_path / "run"
    process = start(train_laq_command(*TWO, f"logging.run_dir={run_dir}"))
    wait_for(process, lambda: last_step(run_dir) >= 6)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == INTERRUPTED
    result = run(train_laq_command("--resume", run_dir))
    assert result.returncode == 0, result.stderr
    assert_same_run(run_dir, trained)


def test_labels_need_both_cameras_in_the_order_of_the_model(tmp_path, trained):
    def codes(name: str, *cameras: str) -> np.ndarray:
        out = tmp_path / name
        result = label(trained, out, *(word for camera in cameras for word in ("--camera", camera)), source=STRESS)
        assert result.returncode == 0, result.stderr
        tables = [pq.read_table(path) for path in sorted((out / "data").rglob("*.parquet"))]
        vectors = [table["latent_labels.continuous_vector_latents"].to_pylist() for table in tables]
        return np.array([row for rows in vectors for row in rows])

    ours, swapped = codes("ours", TOP, AGENT), codes("swapped", AGENT, TOP)
    assert ours.shape == swapped.shape and not np.array_equal(ours, swapped)
    for cameras in ([], [TOP], [TOP, "observation.images.wrist"]):
        words = [word for camera in cameras for word in ("--camera", camera)]
        result = label(trained, tmp_path / "none", *words, source=STRESS)
        one_error(result, 1, [str(STRESS), "it has 2", TOP, AGENT, "hint:", "--camera KEY --camera KEY"])


def test_an_online_teacher_of_several_cameras_is_refused(tmp_path, trained):
    words = [*VLA_MINI, f"policy.teacher.checkpoint={trained}", f"logging.run_dir={tmp_path / 'run'}"]
    result = run(train_vla_command(*words))
    one_error(result, CONFIG_ERROR, ["policy.teacher.checkpoint", "primary, second", "hint:", "hlrp label"])


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["model.cameras=[primary,second,wrist]"], ["model.cameras", "`wrist`", "data.sources.stress.cameras", "primary, second"]),
        (["model.cameras=[]"], ["model.cameras", "0 cameras"]),
        (["model.cameras=[primary,primary]"], ["model.cameras", "named twice"]),
        (["model.cameras=[primary]"], ["model.view_dropout", "one camera"]),
        (["model.view_dropout=1"], ["model.view_dropout", "fraction"]),
    ],
)  # fmt: skip
def test_cameras_that_do_not_fit_are_one_clear_error(tmp_path, words, names):
    result = run(train_laq_command(*TWO, *words, f"logging.run_dir={tmp_path / 'run'}"))
    one_error(result, CONFIG_ERROR, [*names, "hint:"])
    assert not (tmp_path / "run").exists()
