"""Fixtures of the LeRobot plugin's tests: everything that takes time is made once."""

import importlib
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from lerobot_world import (
    METAWORLD,
    PUSHT,
    backbone,
    environment,
    flags,
    install_plugin,
    lerobot_train,
    stage2_artifact,
    train_command,
)


@pytest.fixture(scope="session")
def plugin_site(tmp_path_factory) -> Path:
    """The plugin as its wheel installs it."""
    return install_plugin(tmp_path_factory.mktemp("plugin"))


@pytest.fixture(scope="session")
def lerobot_environment(plugin_site) -> dict[str, str]:
    """The environment of LeRobot's programs."""
    return environment(plugin_site)


@pytest.fixture(scope="session")
def plugin(plugin_site, lerobot_environment):
    """The plugin imported in this process, from its wheel."""
    os.environ.update({name: lerobot_environment[name] for name in ("HF_HUB_OFFLINE", "MUJOCO_GL")})
    sys.path.insert(0, str(plugin_site))
    return importlib.import_module("lerobot_policy_hlrp")


@pytest.fixture(scope="session")
def vlm(tmp_path_factory) -> Path:
    """A tiny backbone with random weights."""
    return backbone(tmp_path_factory.mktemp("backbone") / "vlm")


@pytest.fixture(scope="session")
def laq(uninterrupted) -> Path:
    """A latent action model: the run directory of the mini model."""
    return uninterrupted


@pytest.fixture(scope="session")
def teacher_identity(laq) -> dict:
    """What a policy learns about that model."""
    import hlrp_rs

    return hlrp_rs.Teacher.load(laq).identity


@pytest.fixture(scope="session")
def pusht_artifact(tmp_path_factory, vlm, teacher_identity) -> Path:
    """Stage 2 on PushT's actions and on latent actions."""
    folder = tmp_path_factory.mktemp("artifact") / "pusht"
    return stage2_artifact(folder, vlm, "multitask", 2, teacher_identity, dataset_statistics(PUSHT))


@pytest.fixture(scope="session")
def latent_artifact(tmp_path_factory, vlm, teacher_identity) -> Path:
    """Stage 2 on latent actions alone: no robot is known."""
    folder = tmp_path_factory.mktemp("artifact") / "latent"
    return stage2_artifact(folder, vlm, "latent", 4, teacher_identity, None)


@pytest.fixture
def policy(plugin, pusht_artifact):
    """A policy of the artifact, in training."""
    from lerobot_modules import make_policy

    return make_policy(stage2_artifact=pusht_artifact).train()


@pytest.fixture
def multitask(plugin, pusht_artifact, laq):
    """The same with a teacher, learning actions and latent actions."""
    from lerobot_modules import make_policy

    return make_policy(
        stage2_artifact=pusht_artifact, stage3_training_mode="multitask", laq_checkpoint_path=laq
    ).train()


@pytest.fixture(scope="session")
def pusht_run(plugin, tmp_path_factory, pusht_artifact) -> SimpleNamespace:
    """`lerobot-train` from the artifact on PushT: 12 steps with a checkpoint after 6."""
    output = tmp_path_factory.mktemp("runs") / "pusht"
    options = flags(type="hlrp_smolvla_shared", stage2_artifact=pusht_artifact, n_action_steps=4)
    command = train_command(PUSHT, output, 12, *options, "--save_freq=6")
    lerobot_train(*command)
    return SimpleNamespace(output=output, command=command)


@pytest.fixture(scope="session")
def metaworld_run(plugin, tmp_path_factory, latent_artifact, laq) -> SimpleNamespace:
    """`lerobot-train` on Meta-World from an artifact that knows no robot, on actions of ten episodes and latent actions of all."""
    output = tmp_path_factory.mktemp("runs") / "metaworld"
    options = flags(
        type="hlrp_smolvla_shared",
        stage2_artifact=latent_artifact,
        stage3_training_mode="multitask",
        laq_checkpoint_path=laq,
        labelled_episodes=list(range(0, 50, 5)),
    )
    command = train_command(METAWORLD, output, 10, *options, "--save_freq=10")
    lerobot_train(*command)
    return SimpleNamespace(output=output, command=command)


def dataset_statistics(folder: Path) -> dict[str, dict]:
    """Mean and standard deviation of a dataset's states and actions."""
    stats = json.loads((folder / "meta" / "stats.json").read_text())
    keys = {"state": "observation.state", "action": "action"}
    return {name: {word: stats[key][word] for word in ("mean", "std")} for name, key in keys.items()}
