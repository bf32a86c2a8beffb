"""Stage 3 learns from the labels that `hlrp label` wrote into the dataset, as from a teacher that labels while it trains."""

import json
from types import SimpleNamespace

import pytest
import torch
from conftest import DATA
from hlrp_rs import DatasetLabels, HlrpValueError, Loader, Teacher, open_dataset
from lerobot_modules import OFFSET, features, make_policy, refused
from lerobot_world import CHUNK, flags, lerobot_train, train_command

SOURCE = DATA / "metaworld_mt5"
PREFIX = "latent_labels"


def starts() -> dict[int, int]:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    episodes = LeRobotDataset("local/mt5", root=SOURCE).meta.episodes
    return {episode["episode_index"]: episode["dataset_from_index"] for episode in episodes}


def test_labels_of_rows_are_those_of_the_teacher(labelled_mt5, laq):
    labels, teacher, first = DatasetLabels.open(labelled_mt5), Teacher.load(laq), starts()
    assert labels.identity == teacher.identity
    side = teacher.identity["image_size"]
    dataset = open_dataset(
        SOURCE,
        cameras={"primary": "observation.image"},
        image_size=(side, side),
        image_deltas=[0, OFFSET],
        batch_size=16,
    )
    for _, batch in zip(range(4), Loader(dataset, seed=0), strict=False):
        rows = torch.tensor(
            [first[int(e)] + int(f) for e, f in zip(batch["episode"], batch["frame"], strict=True)], dtype=torch.int64
        )
        online, ours = teacher.label(batch["images"]["primary"]), labels.label(rows)
        assert online.keys() == ours.keys() == {"latents", "latent_codes", "latent_is_valid"}
        assert all(torch.equal(online[name], ours[name]) for name in online)
    last = torch.tensor([first[1] - 1])
    assert labels.label(last)["latent_is_valid"].tolist() == [False], "its pair would be in the next episode"
    continuous = DatasetLabels.open(labelled_mt5, vectors="continuous")
    assert continuous.identity["codebook_size"] is None
    vectors = continuous.label(torch.arange(0, 3500, 7))
    spread = vectors["latents"][vectors["latent_is_valid"]].std(0)
    assert "latent_codes" not in vectors and (spread > 0.5).all() and (spread < 2).all()


def test_a_policy_sees_the_labels_of_its_samples(plugin, labelled_mt5, latent_artifact, laq):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    fps = json.loads((labelled_mt5 / "meta/info.json").read_text())["fps"]
    deltas = {
        "observation.image": [0, OFFSET / fps],
        "observation.state": [0, OFFSET / fps],
        "action": [step / fps for step in range(CHUNK)],
    }
    dataset = LeRobotDataset("local/labelled", root=labelled_mt5, delta_timestamps=deltas)
    rows = [0, 3, 30, starts()[3] - 2, starts()[3] + 9]
    batch = torch.utils.data.default_collate([dataset[row] for row in rows])
    width = {name: dataset.meta.features[name]["shape"][0] for name in ("action", "observation.state")}
    options = features(width["action"], state_dim=width["observation.state"])
    options |= {"stage2_artifact": latent_artifact, "stage3_training_mode": "multitask", "dataset_meta": dataset.meta}
    online = make_policy(**options, laq_checkpoint_path=laq)
    ours = make_policy(**options, latent_label_prefix=PREFIX)
    assert online.config.observation_delta_indices == [0, OFFSET]
    assert ours.config.observation_delta_indices == [0], "the later frame is not decoded"
    assert ours.config.teacher == online.config.teacher, "a training continues with either"
    theirs, found = online._targets(batch), ours._targets(batch)
    assert theirs["latent_is_valid"].tolist() == [True, True, True, False, True]
    assert theirs.keys() == found.keys() and torch.equal(theirs["latent_is_valid"], found["latent_is_valid"])
    valid = found["latent_is_valid"]
    assert torch.equal(theirs["latents"][valid], found["latents"][valid])
    assert torch.equal(theirs["latent_codes"][valid], found["latent_codes"][valid])


def test_lerobots_trainer_learns_from_labels(plugin, labelled_mt5, latent_artifact, tmp_path):
    options = flags(
        type="hlrp_smolvla_shared",
        stage2_artifact=latent_artifact,
        stage3_training_mode="latent",
        latent_label_prefix=PREFIX,
    )
    output = tmp_path / "run"
    lerobot_train(*train_command(labelled_mt5, output, 4, *options, "--save_freq=4", "--log_freq=1"))
    saved = json.loads((output / "checkpoints/last/pretrained_model/config.json").read_text())
    assert saved["latent_label_prefix"] == PREFIX and saved["latent_frame_offset"] is None


def test_what_labels_cannot_teach_is_named(plugin, labelled_mt5, latent_artifact, laq):
    meta = SimpleNamespace(fps=80, total_episodes=50, tasks=None, root=SOURCE)
    options = {
        "stage2_artifact": latent_artifact,
        "stage3_training_mode": "latent",
        "latent_label_prefix": PREFIX,
        "dataset_meta": meta,
    }
    with refused("label_manifest.json"):
        make_policy(**options)
    with refused("latent_label_prefix and laq_checkpoint_path are both given"):
        make_policy(**options, laq_checkpoint_path=laq)
    with refused("latent_label_vectors = code_vectors is unknown"):
        make_policy(**options, latent_label_vectors="code_vectors")
    meta.root = labelled_mt5
    policy = make_policy(**options)
    with refused("latent labels are found by index"):
        policy._targets({"observation.image": torch.zeros(1, 1, 3, 8, 8)})
    with pytest.raises(HlrpValueError, match="other.codebook_vector_latents"):
        DatasetLabels.open(labelled_mt5, "other")
    with pytest.raises(HlrpValueError, match="int64"):
        DatasetLabels.open(labelled_mt5).label(torch.zeros(2))
    with pytest.raises(HlrpValueError, match="there is no row -1|no row 18446744073709551615"):
        DatasetLabels.open(labelled_mt5).label(torch.tensor([-1]))
