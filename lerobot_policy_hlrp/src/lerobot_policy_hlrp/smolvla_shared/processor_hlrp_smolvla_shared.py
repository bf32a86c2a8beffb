"""Processors of `hlrp_smolvla_shared`: LeRobot's own, with statistics for everything that is scaled."""

from typing import Any

import torch
from lerobot.configs import NormalizationMode
from lerobot.processor import make_default_pre_post_processors
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor

from .configuration_hlrp_smolvla_shared import HLRPSmolVLASharedConfig

type Statistics = dict[str, dict[str, Tensor]]


def make_hlrp_smolvla_shared_pre_post_processors(
    config: HLRPSmolVLASharedConfig, dataset_stats: Statistics | None = None
) -> tuple[Any, Any]:
    """Rename, batch, device, normalise; and back: unnormalise, CPU.

    Statistics are the dataset's; where it has none, those that the artifact was trained with.
    """
    config.resolve()
    statistics = artifact_statistics(config) | (dataset_stats or {})
    check_statistics(config, statistics)
    return make_default_pre_post_processors(config, statistics)


def artifact_statistics(config: HLRPSmolVLASharedConfig) -> Statistics:
    """Statistics in the description of an artifact."""
    features = {OBS_STATE: "state", ACTION: "action"}
    scalings = {key: (config.processor or {}).get(name) for key, name in features.items()}
    return {
        key: {name: torch.tensor(values) for name, values in scaling["statistics"].items()}
        for key, scaling in scalings.items()
        if scaling is not None
    }


def check_statistics(config: HLRPSmolVLASharedConfig, statistics: Statistics) -> None:
    """Refuses to leave a vector unscaled that should be scaled."""
    needed = {ACTION: "ACTION"} | ({OBS_STATE: "STATE"} if config.state_dim is not None else {})
    for key, feature in needed.items():
        mode = config.normalization_mapping[feature]
        if mode is not NormalizationMode.IDENTITY and not statistics.get(key):
            raise ValueError(
                f"there are no statistics of {key} to normalise it with ({mode.name})\n"
                "hint: use a dataset with meta/stats.json, or an artifact that was trained with that key"
            )
