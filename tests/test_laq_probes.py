"""Probes of stage 1: how well actions can be read from the latents of a run. Their formulas are compared with NumPy in rust/laq/src/probes/tests.rs, here the
whole way from a dataset to the table, on the rows that need no network."""

import json

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from conftest import DATA, MINI, read_metrics, run, train_laq_command

SOURCE = "data.sources.metaworld_mt5"
EPISODES = [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44]
SPACING = 20
SHORT = [*MINI, "training.max_steps=4", "validation.check_interval=2"]
# More pairs than there are: every pair of these episodes is probed.
ALL_PAIRS = [f"{SOURCE}.episodes={EPISODES}", f"{SOURCE}.num_val_episodes=3", "validation.probes.num_pairs=100000"]


def trained(run_dir, *words: str):
    result = run(train_laq_command(*SHORT, f"logging.run_dir={run_dir}", *words))
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("probed") / "run"
    return run_dir, trained(run_dir, *ALL_PAIRS)


def validation(run_dir, step: int) -> dict[str, float]:
    rows = [row for row in read_metrics(run_dir) if row["step"] == step]
    return {name: value for row in rows for name, value in row.items() if name.startswith("val/")}


def pairs(episodes) -> dict[str, np.ndarray]:
    """Every pair of the episodes, as a user of the dataset would collect them."""
    table = parquet.read_table(DATA / "metaworld_mt5/data/chunk-000/file-000.parquet").to_pandas()
    rows = {"episode": [], "action": [], "state": [], "later": []}
    for episode in sorted(episodes):
        own = table[table.episode_index == episode]
        actions, states = np.stack(own["action"]), np.stack(own["observation.state"])
        for t in range(len(own) - SPACING):
            rows["episode"].append(episode)
            rows["action"].append(actions[t : t + SPACING].sum(axis=0))
            rows["state"].append(states[t])
            rows["later"].append(states[t + SPACING])
    return {name: np.asarray(column, dtype=np.float64) for name, column in rows.items()}


def ridge(fit, target, rows, penalty: float):
    mean, std = fit.mean(axis=0), fit.std(axis=0)
    std[std <= 1e-9] = 1
    x, x_rows, mean_target = (fit - mean) / std, (rows - mean) / std, target.mean(axis=0)
    return x_rows @ np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (target - mean_target)) + mean_target


def chosen_ridge(fit, target, episodes, rows):
    known = np.unique(episodes)
    held_out = np.isin(episodes, known[3::4])

    def error(penalty: float) -> float:
        predicted = ridge(fit[~held_out], target[~held_out], fit[held_out], penalty)
        return ((predicted - target[held_out]) ** 2).sum()

    return ridge(fit, target, rows, min([10.0**power for power in range(-2, 6)], key=error))


def r2(target, predicted):
    return 1 - ((target - predicted) ** 2).sum(axis=0) / ((target - target.mean(axis=0)) ** 2).sum(axis=0)


def test_r2_and_interval_of_the_states_are_those_of_numpy(probed):
    run_dir, _ = probed
    record = json.loads((run_dir / "checkpoints/step-000004/state.json").read_text())
    held_out = record["sources"]["metaworld_mt5"]["held_out"]
    assert len(held_out) == 3
    fit, test = pairs(set(EPISODES) - set(held_out)), pairs(held_out)
    mean, std = fit["action"].mean(axis=0), fit["action"].std(axis=0)
    target, truth = (fit["action"] - mean) / std, (test["action"] - mean) / std
    drawn = torch.Generator().manual_seed(0)
    drawn = torch.randint(3, (1000, 3), generator=drawn).numpy()
    rows = {row["name"]: row for row in json.loads((run_dir / "validation/step-000004/probes.json").read_text())}
    features = {"state": lambda of: of["state"], "state_difference": lambda of: of["later"] - of["state"]}
    for name, feature in features.items():
        predicted = chosen_ridge(feature(fit), target, fit["episode"], feature(test))
        assert rows[name]["r2_of_dims"] == pytest.approx(r2(truth, predicted), abs=1e-4)
        index = {episode: np.flatnonzero(test["episode"] == episode) for episode in np.unique(test["episode"])}
        chosen = [np.concatenate([list(index.values())[episode] for episode in draw]) for draw in drawn]
        errors = (truth - predicted) ** 2 / truth.var(axis=0)
        resampled = [(1 - errors[pairs_].mean(axis=0)).mean() for pairs_ in chosen]
        found = [rows[name]["r2"][key] for key in ("value", "low", "high")]
        expected = [r2(truth, predicted).mean(), *np.quantile(resampled, [0.025, 0.975])]
        assert found == pytest.approx(expected, abs=1e-3)


def test_a_validation_has_the_r2_of_codes_and_vectors_beside_floors_and_ceiling(probed):
    run_dir, _ = probed
    metrics = validation(run_dir, 4)
    rows = {row["name"]: row for row in json.loads((run_dir / "validation/step-000004/probes.json").read_text())}
    for name, row in rows.items():
        assert metrics[f"val/probe_{name}_r2"] == row["r2"]["value"], name
        assert row["r2"]["low"] <= row["r2"]["high"], name
        if row["partial_r2"]:
            assert metrics[f"val/probe_{name}_partial_r2"] == row["partial_r2"]["value"], name
    assert set(rows) == {
        "codes",
        "vectors",
        "shuffled",
        "random_codes",
        "codes_network",
        "vectors_network",
        "random_codes_network",
        "random_vectors",
        "state",
        "frame",
        "difference",
    } | {"state_difference"}
    assert rows["shuffled"]["r2"]["value"] < 0.1 < rows["state_difference"]["r2"]["value"]
    floors = [rows[name]["r2"]["value"] for name in ("random_codes", "shuffled", "state", "frame")]
    assert metrics["val/probe_floor_r2"] == max(floors)
    table = (run_dir / "validation/step-000004/probes.md").read_text()
    assert "9 training episodes" in table and "ceiling: difference of the states" in table


def test_what_does_not_change_is_the_same_at_every_validation(probed):
    run_dir, _ = probed
    first, last = validation(run_dir, 2), validation(run_dir, 4)
    for name in ("random_codes", "random_vectors", "state", "frame", "difference", "state_difference"):
        assert first[f"val/probe_{name}_r2"] == last[f"val/probe_{name}_r2"], name
    assert first["val/probe_vectors_r2"] != last["val/probe_vectors_r2"]


def test_the_closing_table_has_the_r2_and_names_what_is_wrong(probed):
    run_dir, result = probed
    for label in (
        "R² of actions, from codes",
        "R² of actions, best floor",
        "R² of actions beyond frame t, from vectors",
    ):
        assert label in result.stdout
    is_empty = validation(run_dir, 4)["val/probe_codes_above_random"] <= 0
    assert ("no more about the actions than codes of random weights" in result.stdout) == is_empty


def test_without_actions_there_is_no_probe_and_no_error(tmp_path):
    trained(tmp_path / "run", f"{SOURCE}.action_key=null")
    assert not any(name.startswith("val/probe") for name in validation(tmp_path / "run", 4))
    assert not list((tmp_path / "run/validation").glob("*/probes.*"))


def test_probes_leave_the_training_as_it_is(tmp_path):
    runs = []
    for enabled in ("true", "false"):
        run_dir = tmp_path / enabled
        trained(run_dir, f"validation.probes.enabled={enabled}", "validation.probes.num_pairs=32")
        rows = read_metrics(run_dir)
        runs.append(
            [(row["step"], name, row[name]) for row in rows for name in row if name.startswith(("train/", "val/l"))]
        )
    assert runs[0] == runs[1]
    assert any(name == "train/loss" for _, name, _ in runs[0])
