"""Tiny policies on PushT's features as modules of this process, and batches for them."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from lerobot_world import CHUNK

BATCH, STATE, ACTION = 4, 2, 2
# What the teacher of the tests labels: frames between the two images of a pair, and the shape of its codes.
OFFSET = 20
CODES = (4, 8)
TASK = "Push the T-shaped block onto the T-shaped target."


def features(
    action_dim: int | None = ACTION, keys: tuple[str, ...] = ("observation.image",), state_dim: int | None = STATE
) -> dict:
    """What `make_policy` fills in from a dataset; none: the dataset has no such key."""
    from lerobot.configs import FeatureType, PolicyFeature

    images = {key: PolicyFeature(FeatureType.VISUAL, (3, 96, 96)) for key in keys}
    actions = {} if action_dim is None else {"action": PolicyFeature(FeatureType.ACTION, (action_dim,))}
    states = {} if state_dim is None else {"observation.state": PolicyFeature(FeatureType.STATE, (state_dim,))}
    return {
        "input_features": images | states,
        "output_features": actions,
        "device": "cpu",
    }


def make_policy(dataset_meta=None, **options):
    """A policy as LeRobot constructs it, without a dataset unless one is given."""
    from lerobot_policy_hlrp.smolvla_shared.modeling_hlrp_smolvla_shared import HLRPSmolVLASharedPolicy as Policy

    torch.manual_seed(3)
    return Policy(Policy.config_class(**(features() | options)), dataset_meta=dataset_meta)


def make_batch(seed: int = 0, with_pairs: bool = False) -> dict:
    """A preprocessed batch; with pairs, images and states have a second time index, as LeRobot 0.6.1 returns them."""
    generator = torch.Generator().manual_seed(seed)
    times = (2,) if with_pairs else (1,)
    images = torch.randint(0, 256, (BATCH, *times, 3, 48, 96), generator=generator)
    is_pad = torch.zeros(BATCH, CHUNK, dtype=torch.bool)
    is_pad[1, 3:] = True
    return {
        "observation.image": images / 255,
        "observation.image_is_pad": torch.zeros(BATCH, *times, dtype=torch.bool),
        "observation.state": torch.randn(BATCH, *times, STATE, generator=generator),
        "action": torch.randn(BATCH, CHUNK, ACTION, generator=generator),
        "action_is_pad": is_pad,
        "episode_index": torch.arange(BATCH),
        "task": [TASK] * BATCH,
    }


def fixed_draws() -> tuple[dict, dict]:
    generator = torch.Generator().manual_seed(7)
    noise = {
        "action": torch.randn(BATCH, CHUNK, 32, generator=generator),
        "latent": torch.randn(BATCH, *CODES, generator=generator),
    }
    time = {head: torch.rand(BATCH, generator=generator) * 0.9 + 0.05 for head in noise}
    return noise, time


@contextmanager
def refused(match: str) -> Iterator[None]:
    """A user error: one message whose last line is its one hint."""
    with pytest.raises((ValueError, RuntimeError, OSError), match=rf"(?s){match}.*\n *hint: [^\n]+\Z") as caught:
        yield
    assert str(caught.value).count("hint: ") == 1
