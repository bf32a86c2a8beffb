"""Processors of `hlrp_smolvla_shared`: LeRobot's own, with statistics for everything that is scaled."""

from typing import Any

import torch
from lerobot.configs import NormalizationMode
from lerobot.processor import make_default_pre_post_processors
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor

from .configuration_hlrp_smolvla_shared import HLRPSmolVLASharedConfig

type Statistics = dict[str, dict[str, Tensor]]

# The two statistics of each mode: center and std, or both ends of a range.
RANGES = {
    NormalizationMode.MEAN_STD: ("mean", "std"),
    NormalizationMode.MIN_MAX: ("min", "max"),
    NormalizationMode.QUANTILES: ("q01", "q99"),
    NormalizationMode.QUANTILE10: ("q10", "q90"),
}
# A std or range up to this fraction of the values' magnitude, or up to SMALLEST, is rounding, as in stage 2 (rust/vla/src/normalize.rs).
ROUNDING, SMALLEST = 1e-6, 2e-8


def make_hlrp_smolvla_shared_pre_post_processors(
    config: HLRPSmolVLASharedConfig, dataset_stats: Statistics | None = None
) -> tuple[Any, Any]:
    """Rename, batch, device, normalise; and back: unnormalise, CPU.

    Statistics are the dataset's; where it has none, those that the artifact was trained with. A dimension that is constant in them has a
    std or range of 1, as in stage 2.
    """
    config.resolve()
    statistics = artifact_statistics(config) | (dataset_stats or {})
    check_statistics(config, statistics)
    return make_default_pre_post_processors(config, with_scale(config, statistics))


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
        for name in set(RANGES.get(mode, ())) & set(statistics.get(key) or ()):
            if not torch.isfinite(torch.as_tensor(statistics[key][name])).all():
                raise ValueError(
                    f"the statistics of {key} have a {name} that is not a finite number\n"
                    "hint: recompute meta/stats.json without the rows whose values are not finite"
                )
        if mode is not NormalizationMode.IDENTITY and not statistics.get(key):
            raise ValueError(
                f"there are no statistics of {key} to normalise it with ({mode.name})\n"
                "hint: use a dataset with meta/stats.json, or an artifact that was trained with that key"
            )


def with_scale(config: HLRPSmolVLASharedConfig, statistics: Statistics) -> Statistics:
    """Statistics in which a constant dimension of a state or action has a std or range of 1: divided by nearly 0, the smallest move would
    become a number that no model can use."""
    scaled = dict(statistics)
    for key, feature in ((OBS_STATE, "STATE"), (ACTION, "ACTION")):
        mode = config.normalization_mapping[feature]
        names = RANGES.get(mode)
        if names is None or not set(names) <= set(statistics.get(key) or ()):
            continue
        center, end = (torch.as_tensor(statistics[key][name], dtype=torch.float64) for name in names)
        spread = end if mode is NormalizationMode.MEAN_STD else end - center
        constant = spread <= (center.abs() * ROUNDING).clamp_min(SMALLEST)
        one = 1.0 if mode is NormalizationMode.MEAN_STD else center + 1.0
        scaled[key] = statistics[key] | {names[1]: torch.where(constant, one, end)}
    return scaled
