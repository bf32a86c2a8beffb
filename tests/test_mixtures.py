"""Several sources in fixed shares, through the real programs."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from conftest import DATA, MINI, VLA_MINI, one_error, program, read_metrics, run, train_laq_command, train_vla_command

PUSHT = f"{{root: {DATA}/pusht_scripted, cameras: {{primary: observation.image}}, state_key: null, action_key: null, num_val_episodes: 2"
SOURCES = [
    *MINI,
    "data.sources.metaworld_mt5.state_key=null",
    "data.sources.metaworld_mt5.action_key=null",
    "validation.probes.enabled=false",
    "data.loader.batch_size=8",
    "data.loader.mixing_block=8",
]
# `data.request` of the experiment; both datasets are longer.
SHARES = ["data/share/metaworld_mt5", "data/share/pusht"]


def mixed(*words: str, weight: str = "0.25", rest: str = "") -> list[str]:
    return train_laq_command(*SOURCES, f"+data.sources.pusht={PUSHT}, weight: {weight}{rest}}}", *words)


def shares(metrics: list[dict]) -> list[list[float]]:
    return [[line[name] for name in SHARES] for line in metrics if SHARES[0] in line]


def test_a_run_has_the_shares_of_its_weights_and_resumes_exactly(tmp_path):
    """Every step has its exact shares, and they are metrics; a run that is cut in the middle ends like one that is not, also where a
    source leaves out keys."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    result = run(mixed("training.max_steps=12", f"logging.run_dir={whole}"))
    assert result.returncode == 0, result.stderr
    metrics = read_metrics(whole)
    assert shares(metrics) == [[0.75, 0.25]] * 12, "two of eight samples in every step"
    assert {line["data/target_share/pusht"] for line in metrics if SHARES[0] in line} == {0.25}

    result = run(mixed("training.max_steps=12", f"logging.run_dir={cut}", "training.checkpoint.every_n_steps=7"))
    assert result.returncode == 0, result.stderr
    resumed = tmp_path / "resumed"
    checkpoint = cut / "checkpoints/step-000007"
    words = ["training.max_steps=12", f"logging.run_dir={resumed}", f"training.resume_from_checkpoint={checkpoint}"]
    result = run(mixed(*words, "training.checkpoint.every_n_steps=7"))
    assert result.returncode == 0, result.stderr
    losses = [
        [line["train/loss"] for line in lines if "train/loss" in line] for lines in (metrics, read_metrics(resumed))
    ]
    assert losses[1] == losses[0][7:]


def test_a_policy_learns_from_robots_of_different_widths(tmp_path, uninterrupted):
    """Two dimensions beside four: the artifact has the wider, normalised by the sources that have each, and the narrow robot's samples do
    not count in what it lacks."""
    narrow = PUSHT.replace("null", "observation.state", 1).replace("null", "action", 1)
    words = [*VLA_MINI, f"policy.teacher.checkpoint={uninterrupted}", f"+data.sources.pusht={narrow}, weight: 0.5}}"]
    run_dir = tmp_path / "run"
    words += ["training.max_steps=4", "validation.limit_batches=12", f"logging.run_dir={run_dir}"]
    result = run(train_vla_command(*words))
    assert result.returncode == 0, result.stderr
    policy = json.loads((run_dir / "artifacts/final/artifact.json").read_text())["policy"]
    assert policy["model"]["action_dim"] == 4
    rows = np.array(pyarrow.parquet.read_table(DATA / "metaworld_mt5/data")["action"].to_pylist())
    for vector in ("state", "action"):
        scaling = policy["processor"][vector]
        assert scaling["dim"] == 4 and {len(x) for name, x in scaling["statistics"].items() if name != "count"} == {4}
    mean = policy["processor"]["action"]["statistics"]["mean"]
    assert abs(mean[3] - rows[:, 3].mean()) < 0.1 < abs(mean[0] - rows[:, 0].mean()), (
        "only the first two are of both robots"
    )
    [validation] = [line for line in read_metrics(run_dir) if "val/loss" in line]
    errors = [validation[f"val/action_mse_dim{dim}"] for dim in range(4)]
    wide, both = (sum(errors[2:]) / 2, sum(errors[:2]) / 2)
    assert min(wide, both) <= validation["val/action_mse"] <= max(wide, both)


def test_a_policy_learns_from_videos_beside_a_robot(tmp_path, uninterrupted):
    """Videos have latent actions and no others: the robot alone says what actions are, and teaches them."""
    run_dir = tmp_path / "run"
    words = [*VLA_MINI, f"policy.teacher.checkpoint={uninterrupted}", f"+data.sources.pusht={PUSHT}, weight: 0.5}}"]
    words += ["training.max_steps=4", f"logging.run_dir={run_dir}"]
    result = run(train_vla_command(*words, "policy.objective.mode=multitask"))
    assert result.returncode == 0, result.stderr
    policy = json.loads((run_dir / "artifacts/final/artifact.json").read_text())["policy"]
    assert policy["model"]["action_dim"] == 4
    table = pyarrow.parquet.read_table(DATA / "metaworld_mt5/data").to_pandas()
    trained = table[~table["episode_index"].isin(held_out(run_dir))]
    mean = policy["processor"]["action"]["statistics"]["mean"]
    assert np.allclose(mean, np.stack(trained["action"]).mean(0), atol=1e-5)
    [validation] = [line for line in read_metrics(run_dir) if "val/loss" in line]
    assert validation["val/action_mse"] > 0 and validation["val/latent_mse"] > 0

    refused = run(train_vla_command(*words[:-1], "policy.objective.mode=actions", f"logging.run_dir={tmp_path}/other"))
    one_error(refused, 2, ["data.sources.pusht.action_key", "no actions", "~data.sources.pusht"])


def held_out(run_dir: Path) -> list[int]:
    """Held-out episodes of the robot in a run."""
    checkpoint = run_dir / "checkpoints" / (run_dir / "checkpoints/last").read_text().strip()
    return json.loads((checkpoint / "state.json").read_text())["sources"]["metaworld_mt5"]["held_out"]


def test_weights_without_a_rest_are_a_warning(tmp_path):
    """A source without a weight gets nothing where the others take all."""
    result = run(mixed("training.max_steps=4", f"logging.run_dir={tmp_path / 'run'}", weight="1.0"))
    assert result.returncode == 0, result.stderr
    assert "sum up to 1 (>= 1.0)" in result.stderr
    assert shares(read_metrics(tmp_path / "run")) == [[0.0, 1.0]] * 4


@pytest.mark.parametrize(
    ("weight", "rest", "words", "names"),
    [
        ("heavy", "", [], ["data.sources.pusht.weight", "proportionate"]),
        ("[1]", "", [], ["data.sources.pusht.weight", "proportionate"]),
        ("-0.5", "", [], ["data.sources.pusht.weight", "-0.5 is out of range"]),
        ("0.5", "", ["data.loader.anchors_per_clip=4"], ["data.loader.anchors_per_clip", "weight=proportionate"]),
        ("0.5", ", val_episodes: [3]", [], ["data.sources.pusht.val_episodes", "num_val_episodes=0"]),
        ("0.5", ", exclude_episodes: [20]", [], ["data.sources.pusht.exclude_episodes", "there is no episode 20"]),
    ],
)
def test_what_does_not_go_together_is_one_error(tmp_path, weight, rest, words, names):
    result = run(mixed(*words, f"logging.run_dir={tmp_path / 'run'}", weight=weight, rest=rest))
    one_error(result, 2, names)


def test_a_source_that_cannot_be_opened_names_itself(tmp_path):
    """A damaged source of several is named, with the file and what to do."""
    broken = tmp_path / "broken"
    (broken / "meta").mkdir(parents=True)
    (broken / "meta/info.json").write_text("{")
    source = PUSHT.replace(f"{DATA}/pusht_scripted", str(broken))
    result = run(train_laq_command(*SOURCES, f"+data.sources.broken={source}}}", f"logging.run_dir={tmp_path / 'run'}"))
    message = one_error(result, result.returncode, ["source `broken`", "meta/info.json", "hint:"])
    assert result.returncode not in (0, 101), message


@pytest.mark.parametrize(
    ("preset", "num_sources", "weights"),
    [
        ("octo24", 23, {"bridge_v2": 20.544, "ucsd_kitchen": 0.06, "viola": 1.45}),
        ("oxe_all", 4, {"language_table": 0.1, "bridge": None}),
        ("oxe_extended", 11, {"droid": 0.05}),
        ("oxe_large", 32, {"fmb": 0.03}),
        ("oxe_large_no_aloha_mimic", 29, {"fmb": 0.03}),
        ("oxe_bridge", 1, {"bridge": None}),
        ("libero", 1, {"libero": None}),
        ("youtube_scenes", 1, {"youtube_scenes": None}),
        ("bridge_raw", 1, {"bridge_raw": None}),
    ],
)
def test_presets_have_the_weights_of_their_authors(preset, num_sources, weights):
    words = ["config", "show", "experiment=laq", f"data={preset}", "--format", "json"]
    result = run([program("hlrp"), *words])
    assert result.returncode == 0, result.stderr
    sources = json.loads(result.stdout)["data"]["sources"]
    assert len(sources) == num_sources
    assert {name: sources[name]["weight"] for name in weights} == weights


def test_presets_span_about_a_second_of_each_robot():
    def spans(preset: str) -> dict:
        result = run([program("hlrp"), "config", "show", "experiment=laq", f"data={preset}", "--format", "json"])
        assert result.returncode == 0, result.stderr
        return {name: source["span"] for name, source in json.loads(result.stdout)["data"]["sources"].items()}

    frames = {"language_table": 10, "bridge": 5, "rt1": 3, "robonet": 10}
    known = {name: {"unit": "frames", "length": length} for name, length in frames.items()}
    assert spans("oxe_all") == known
    second = {"unit": "seconds", "length": 1}
    assert spans("oxe_large") == dict.fromkeys(spans("oxe_large"), second) | known
    assert set(map(str, spans("octo24").values())) == {str(second)}


def test_sources_with_spans_of_their_own_train_and_are_probed(tmp_path):
    """The same dataset in two spans: probes sum the actions of each pair, whatever its number of steps."""
    again = "{root: ${data.sources.metaworld_mt5.root}, cameras: {primary: observation.image}, state_key: observation.state, action_key: action, num_val_episodes: 5"
    words = [f"+data.sources.again={again}, span: {{unit: seconds, length: 0.1}}}}", "validation.probes.num_pairs=64"]
    words += ["training.max_steps=4", f"logging.run_dir={tmp_path / 'run'}"]
    result = run(train_laq_command(*MINI, *words))
    assert result.returncode == 0, result.stderr
    assert "again: from the first to the last image 8 frames, 0.100 s" in result.stderr
    assert "no probes" not in result.stderr
    [validation] = [line for line in read_metrics(tmp_path / "run") if "val/loss" in line]
    assert "val/probe_floor_r2" in validation
