"""Few labels: what hides the actions of a training episode hides them everywhere."""

import json
import shutil

import numpy as np
import pyarrow.parquet
from conftest import DATA, VLA_MINI, read_metrics, run, train_vla_command

SOURCE = "data.sources.metaworld_mt5"


def test_actions_of_unlabelled_episodes_are_never_seen(tmp_path, uninterrupted):
    """Other actions there change neither losses nor normalisation; without hidden labels they do."""
    changed = tmp_path / "changed"
    shutil.copytree(DATA / "metaworld_mt5", changed)
    file = changed / "data/chunk-000/file-000.parquet"
    table = pyarrow.parquet.read_table(file)
    labelled = [0, 12, 20, 31]
    actions = np.stack(table["action"].to_numpy())
    episodes = table["episode_index"].to_numpy()
    # Five held-out episodes, one of each task.
    hidden = ~np.isin(episodes, [*labelled, 5, 15, 25, 35, 45])
    actions[hidden] = 7 - 2 * actions[hidden]
    column = table.schema.get_field_index("action")
    rows = pyarrow.FixedSizeListArray.from_arrays(actions.reshape(-1), actions.shape[1]).cast(
        table.schema.field(column).type
    )
    pyarrow.parquet.write_table(table.set_column(column, table.schema.field(column), rows), file)

    def losses(name: str, *words: object) -> list[dict]:
        words = ["policy.objective.mode=multitask", "training.max_steps=8", f"{SOURCE}.num_val_episodes=5", *words]
        words += [f"policy.teacher.checkpoint={uninterrupted}", f"logging.run_dir={tmp_path / name}"]
        result = run(train_vla_command(*VLA_MINI, *words))
        assert result.returncode == 0, result.stderr
        return read_metrics(tmp_path / name)

    def normalisation(name: str) -> dict:
        artifact = json.loads((tmp_path / name / "artifacts/final/artifact.json").read_text())
        return artifact["policy"]["processor"]["action"]

    balanced = [f"{SOURCE}.labelled_episodes={labelled}".replace(" ", ""), "data.loader.labelled_fraction=0.5"]
    other = f"{SOURCE}.root={changed}"
    assert losses("labelled", *balanced) == losses("labelled_other", *balanced, other)
    assert losses("all") != losses("all_other", other)
    assert normalisation("labelled") == normalisation("labelled_other") != normalisation("all_other")
