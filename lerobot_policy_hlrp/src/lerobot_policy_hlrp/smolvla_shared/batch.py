"""Observations and targets in a LeRobot batch.

Everything that the policy sees is taken at frame t, the first frame of a stream: later frames are for the teacher alone.

Shapes: B samples, T frames or steps, 3×H×W pixels, N dimensions of a state, A dimensions of an action.
"""

from typing import Any

import torch
from lerobot.utils.constants import ACTION, OBS_PREFIX, OBS_STATE
from torch import Tensor

PADDING = "_is_pad"
TASK = "task"
EPISODE = "episode_index"
INDEX = "index"


def present(stream: Tensor, num_dims: int) -> Tensor:
    """Frame t of a stream with or without a time axis; `num_dims` is what one frame of a batch has."""
    if stream.ndim == num_dims + 1:
        return stream[:, 0]
    if stream.ndim != num_dims:
        raise ValueError(
            f"a tensor of shape {list(stream.shape)} is not a batch\nhint: give [B,…] or [B,T,…] as LeRobot does"
        )
    return stream


def images(batch: dict[str, Any], cameras: dict[str, str], num_empty: int) -> dict[str, Tensor]:
    """Camera role to images `[B,3,H,W]` at frame t. Only cameras that the model can do without may be missing."""
    missing = [key for key in cameras.values() if key not in batch]
    if missing and (len(missing) > num_empty or len(missing) == len(cameras)):
        found = [key for key in batch if key.startswith(OBS_PREFIX) and not key.endswith(PADDING)]
        raise ValueError(
            f"the batch lacks the camera {missing}; it has {found}\n"
            'hint: rename the environment\'s camera, for instance --rename_map=\'{"observation.image": "observation.images.top"}\''
        )
    return {role: present(batch[key], 4) for role, key in cameras.items() if key in batch}


def state(batch: dict[str, Any], dim: int | None) -> Tensor | None:
    """States `float32 [B,N]` at frame t; none for a policy without states."""
    if dim is None:
        return None
    if OBS_STATE not in batch:
        raise ValueError(f"the batch lacks {OBS_STATE}\nhint: the policy was trained with a state of {dim} dimensions")
    state_BN = present(batch[OBS_STATE], 2)
    if state_BN.shape[1] != dim:
        raise ValueError(
            f"{OBS_STATE} has {state_BN.shape[1]} dimensions, the policy was trained with {dim}\nhint: use the same robot"
        )
    return state_BN.float()


def tasks(batch: dict[str, Any], num_samples: int, default: str | None) -> list[str]:
    """B instructions; `default` where there is none."""
    given = batch.get(TASK)
    texts = [given] * num_samples if given is None or isinstance(given, str) else list(given)
    if len(texts) != num_samples:
        raise ValueError(f"{len(texts)} instructions for {num_samples} samples\nhint: give one per sample")
    return [text or default or "" for text in texts]


def action_targets(batch: dict[str, Any], labelled_episodes: list[int] | None) -> dict[str, Tensor]:
    """Actions `float32 [B,T,A]` and the steps that teach nothing `bool [B,T]`: those outside of the episode, and all of the episodes that
    are not among `labelled_episodes`."""
    if ACTION not in batch:
        raise ValueError("the batch has no actions\nhint: --policy.stage3_training_mode=latent learns without")
    actions_BTA = batch[ACTION].float()
    is_pad_BT = batch.get(ACTION + PADDING)
    if is_pad_BT is None:
        is_pad_BT = torch.zeros(actions_BTA.shape[:2], dtype=torch.bool, device=actions_BTA.device)
    if labelled_episodes is not None:
        if EPISODE not in batch:
            raise ValueError(f"labelled_episodes is set, but the batch lacks {EPISODE}\nhint: use LeRobot's datasets")
        episodes_B = batch[EPISODE].reshape(-1)
        labelled = torch.tensor(labelled_episodes, device=episodes_B.device)
        is_pad_BT = is_pad_BT | ~torch.isin(episodes_B, labelled).unsqueeze(1)
    return {"actions": actions_BTA, "action_is_pad": is_pad_BT}


def frame_pairs(batch: dict[str, Any], key: str) -> tuple[Tensor, Tensor]:
    """Frames t and t+k `[B,2,3,H,W]` of a camera, and which of them are in their episode `bool [B,2]`."""
    frames = batch.get(key)
    if frames is None or frames.ndim != 5 or frames.shape[1] != 2:
        found = None if frames is None else list(frames.shape)
        raise ValueError(
            f"the teacher needs pairs [B,2,3,H,W] of {key}, the batch has {found}\nhint: use LeRobot's trainer"
        )
    # Every observation has the same offsets; a renamed camera keeps its old name here.
    names = [key + PADDING, *(name for name in batch if name.startswith(OBS_PREFIX) and name.endswith(PADDING))]
    padding = next((batch[name] for name in names if name in batch and batch[name].shape == frames.shape[:2]), None)
    if padding is None:
        raise ValueError(
            f"the batch lacks {key}{PADDING}\nhint: a preprocessor must keep the keys that end in {PADDING}"
        )
    return frames, ~padding


def rows(batch: dict[str, Any]) -> Tensor:
    """Rows `int64 [B]` of the samples in their dataset."""
    if INDEX not in batch:
        raise ValueError(f"latent labels are found by {INDEX}, which the batch lacks\nhint: use LeRobot's datasets")
    return batch[INDEX].reshape(-1)
