"""Few labels: what hides the actions of a training episode hides them everywhere."""

import json

from conftest import VLA_MINI, read_metrics, run, train_vla_command
from made_datasets import with_other_actions

SOURCE = "data.sources.metaworld_mt5"


def test_actions_of_unlabelled_episodes_are_never_seen(tmp_path, uninterrupted):
    """Other actions there change neither losses nor normalisation; without hidden labels they do."""
    labelled = [0, 12, 20, 31]
    # Five held-out episodes, one of each task.
    changed = with_other_actions(tmp_path / "changed", [*labelled, 5, 15, 25, 35, 45])

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
