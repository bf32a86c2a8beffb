"""Stage 1 with several cameras: their views are side by side, and everything from training to labels knows them."""

import json
import signal

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import (
    DATA,
    MINI,
    VLA_MINI,
    label,
    one_error,
    program,
    read_metrics,
    run,
    train_laq_command,
    train_vla_command,
)
from interruption import INTERRUPTED, assert_same_run, last_step, start, wait_for
from safetensors import safe_open
from test_laq_variants import FLOW as RAFT
from test_laq_variants import random_raft

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


# One to three roles; the data has two cameras, of which the third role shows the first again.
ROLES = {"primary": TOP, "second": AGENT, "third": TOP}
DINOV3 = [
    "model/encoder=dinov3",
    "model.encoder.dinov3.model=null",
    "model.encoder.dinov3.sizes={hidden_size: 24, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2, patch_size: 4,"
    " num_register_tokens: 1, layer_norm_eps: 1e-5, rope_theta: 100.0, hidden_act: gelu, use_gated_mlp: false, key_bias: false, mlp_bias: true}",
    "model.decoders.token.enabled=true",
    "model.decoders.token.depth=1",
    "model.decoders.token.target=backbone",
]
FLOW = ["model.decoders.flow.enabled=true", "model.decoders.flow.depth=1"]
CODES = ["model/quantizer=ema_vq", "model.quantizer.kmeans_start=true"]
SMALL = [
    "data.loader.batch_size=4",
    "analysis.max_batches=20",
    "analysis.samples_per_dataset=40",
    "analysis.visual_subset_size=40",
    "analysis.min_samples_per_dataset=2",
    "analysis.min_compass_samples=2",
    "analysis.top_k_token_reports=2",
    "analysis.num_probe_pairs=16",
    "logging.min_free_gb=0.1",
]


def stress(num_cameras: int) -> list[str]:
    """The source with so many roles."""
    cameras = ", ".join(f"{role}: {key}" for role, key in list(ROLES.items())[:num_cameras])
    return [
        "~data.sources.metaworld_mt5",
        f"+data.sources.stress={{root: {STRESS}, cameras: {{{cameras}}}, state_key: observation.state, action_key: action,"
        " episodes: null, num_val_episodes: 12, tolerance_s: null, labelled_episodes: null, rlds: null, scenes: null}",
    ]


def seen(num_cameras: int) -> list[str]:
    """What a model of so many cameras is trained with."""
    words = [*stress(num_cameras), "data.request.image_deltas=[0,3]"]
    words += [f"model.cameras=[{','.join(list(ROLES)[:num_cameras])}]", "training.max_steps=4"]
    return words + ["validation.fail_on_error=true"] + (["model.view_dropout=0.3"] if num_cameras > 1 else [])


# A quarter of a minute each.
@pytest.mark.parametrize(
    "num_cameras", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)]
)
def test_dinov3_flow_and_every_analysis_with_one_to_three_cameras(tmp_path, num_cameras):
    without_nsvq = [word for word in MINI if "nsvq" not in word]
    words = [*without_nsvq, *CODES, *seen(num_cameras), *DINOV3, *FLOW, "model.decoders.flow.teacher=lucas_kanade"]
    cache = ["model.decoders.flow.cache.enabled=true", f"model.decoders.flow.cache.dir={tmp_path / 'flow'}"]
    for name, more in {"run": [], "filling": cache, "reading": cache}.items():
        result = run(train_laq_command(*words, *more, f"logging.run_dir={tmp_path / name}"))
        assert result.returncode == 0, result.stderr
        assert read_metrics(tmp_path / name) == read_metrics(tmp_path / "run"), "a cache changes no loss"
    lines = read_metrics(tmp_path / "run")
    assert all(
        line[f"train/{loss}"] > 0 for line in lines if "train/loss" in line for loss in ("dino_loss", "flow_loss")
    )
    images = tmp_path / "run/validation/step-000004"
    assert {"reconstructions.png", "flow.png"} <= {path.name for path in images.glob("*.png")}
    with safe_open(tmp_path / "run/checkpoints/step-000004/model.safetensors", "pt") as tensors:
        names = set(tensors.keys())
    assert ("view_embedding" in names) == (num_cameras > 1)

    out = tmp_path / "analysis"
    words = [f"checkpoint={tmp_path / 'run'}", "experiment=laq_token_analysis", *stress(num_cameras), *SMALL]
    result = run([program("hlrp"), "analyze-laq", *words, f"logging.run_dir={out}"])
    assert result.returncode == 0, result.stderr
    checks = json.loads((out / "output_checks.json").read_text())
    assert checks["num_empty_pngs"] == 0 and checks["num_pngs"] > 20, checks
    dependence = json.loads((out / "decoder_dependence/decoder_dependence.json").read_text())
    assert {"token", "pixel", "flow"} <= dependence.keys()


@pytest.mark.parametrize("num_cameras", [1, 2, 3])
def test_a_raft_sees_each_camera_by_itself(tmp_path, num_cameras):
    weights = tmp_path / "raft.safetensors"
    random_raft(weights)
    words = [*RAFT, *seen(num_cameras), f"model.decoders.flow.teacher_weights={weights}", "training.max_steps=2"]
    words += ["validation.probes.enabled=false"]
    result = run(train_laq_command(*words, f"logging.run_dir={tmp_path / 'run'}"))
    assert result.returncode == 0, result.stderr
    assert len([line for line in read_metrics(tmp_path / "run") if line.get("train/flow_loss", 0) > 0]) == 2
    assert (tmp_path / "run/validation/step-000002/flow.png").exists()
    small = [word for word in SMALL if "num_probe_pairs" not in word]
    words = [f"checkpoint={tmp_path / 'run'}", "experiment=laq_token_analysis", *stress(num_cameras), *small]
    words += [
        "analysis.run.probes=false",
        "analysis.flow.teacher=raft_small",
        f"analysis.flow.teacher_weights={weights}",
    ]
    words += ["analysis.flow.teacher_num_updates=1", "analysis.max_batches=5", "analysis.samples_per_dataset=12"]
    result = run([program("hlrp"), "analyze-laq", *words, f"logging.run_dir={tmp_path / 'analysis'}"])
    assert result.returncode == 0, result.stderr


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
