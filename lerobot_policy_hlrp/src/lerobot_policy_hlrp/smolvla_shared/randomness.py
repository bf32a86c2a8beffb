"""Noise and times of a training step as a function of seed, rank and step.

LeRobot restores torch's random state when a run is resumed and then draws from it before the first step, so a policy that used that state
would see other noise than without the interruption. Evaluations between steps would change it, too.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_of(step: int) -> int:
    """The seed of a step: from the process's first seed, its rank and the step."""
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    words = f"{torch.initial_seed()}/{rank}/{step}".encode()
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest()) >> 1


@contextmanager
def of_step(step: int, device: torch.device) -> Iterator[None]:
    """Inside, torch draws what belongs to the step; outside, its random state is as it was."""
    devices = [device] if device.type == "cuda" else []
    seed = seed_of(step)
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
