"""Processors of `hlrp_smoke`: LeRobot's own."""

from typing import Any

from lerobot.processor import make_default_pre_post_processors
from torch import Tensor

from .configuration_hlrp_smoke import HLRPSmokeConfig


def make_hlrp_smoke_pre_post_processors(
    config: HLRPSmokeConfig, dataset_stats: dict[str, dict[str, Tensor]] | None = None
) -> tuple[Any, Any]:
    """Rename, batch, device, normalise; and back: unnormalise, CPU."""
    return make_default_pre_post_processors(config, dataset_stats)
