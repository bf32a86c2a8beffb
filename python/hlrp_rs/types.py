"""Dictionaries that go in and out of `hlrp_rs`, with shapes and units.

Shapes: B samples, T frames or steps of an action chunk, H×W pixels, N dimensions of a state, A dimensions of an action, S code slots,
D dimensions of a code vector.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Literal, NotRequired, TypedDict

from torch import Tensor

type Path = str | os.PathLike[str]
type Mode = Literal["latent", "actions", "multitask"]
"""What is learned or predicted: the teacher's latent actions, real actions, or both from one look at the observation."""


class Objective(TypedDict):
    """What is learned and with which weights; as in `artifact.json`."""

    mode: Mode
    latent_loss_weight: float
    action_loss_weight: float


class Observation(TypedDict):
    """What a policy sees at time t. All tensors are on the device of the parameters.

    `images`: camera role to images at time t, `uint8 [B,3,H,W]` or float `[B,3,H,W]` in [0, 1], of any size; the policy resizes them to its
    own. At least one camera; as many roles may be left out as the model's `empty_cameras` says.
    `task`: B instructions.
    `is_real`: camera role to `bool [B]`, false where a sample lacks this camera; all true when left out.
    `state`: `float32 [B,N]`, already normalised; `None` or left out for a robot without states (seen as zeros).
    """

    images: Mapping[str, Tensor]
    task: Sequence[str]
    is_real: NotRequired[Mapping[str, Tensor]]
    state: NotRequired[Tensor | None]


class Targets(TypedDict, total=False):
    """The targets of a batch. A mode that learns something needs its target.

    `actions`: `float32 [B,T,A]`, already normalised, T and A are `Policy.chunk_size` and `Policy.action_dim`.
    `action_is_pad`: `bool [B,T]`, true where a step is outside its episode or has no label; a sample whose row is all true is not
    supervised. All false when left out.
    `action_dim_is_pad`: `bool [B,A]`, true where the robot of a sample has no such dimension. All false when left out.
    `latents`: `float32 [B,S,D]`, vectors of the teacher, for a latent head that predicts vectors.
    `latent_codes`: `int64 [B,S]`, its codes, for one that predicts codes (`Teacher.label` returns both).
    `latent_is_valid`: `bool [B]`, false where the frame pair is not real; all true when left out.
    """

    actions: Tensor
    action_is_pad: Tensor
    action_dim_is_pad: Tensor
    latents: Tensor
    latent_codes: Tensor
    latent_is_valid: Tensor


class FlowTensors(TypedDict, total=False):
    """Noise or times to use instead of drawing them, by head. A head that is left out comes from torch's generator of the device.

    Noise: `latent` `float32 [B,S,D]`, `action` `float32 [B,T,max_action_dim]`. Times (in (0, 1], 1 = noise): `float32 [B]` each.
    """

    latent: Tensor
    action: Tensor


class Guidance(TypedDict):
    """Real-time chunking under LeRobot's names: a chunk that begins where the one before goes on, which is executed meanwhile.

    `left_over`: float `[B,T',A']` or, the same for all samples, `[T',A']`: the normalised actions of the chunk before that were not executed
    when this one was asked for, at most as many steps and dimensions as a chunk has.
    `inference_delay`: how many of them are executed before this chunk is there; it begins with those.
    `execution_horizon`: steps that take the left over ones into account, less and less as `prefix_attention_schedule` says.
    `max_guidance_weight`: bound of the factor with which they do.
    """

    left_over: Tensor
    inference_delay: int
    execution_horizon: int
    prefix_attention_schedule: Literal["ZEROS", "ONES", "LINEAR", "EXP"]
    max_guidance_weight: float


class Batch(TypedDict):
    """B samples. Roles and keys are those of the configuration."""

    images: dict[str, Tensor]
    """Camera role to `uint8 [B,T,3,H,W]`."""
    is_real: dict[str, Tensor]
    """Camera role to `bool [B,T]`, false where a frame is outside the episode and replaced by its first or last frame."""
    task: list[str]
    """B instructions."""
    state: Tensor | None
    """`float32 [B,T,N]` as recorded; `None` where no source has states; all padding for a sample of a source without."""
    state_is_pad: Tensor | None
    """`bool [B,T]`, true where a step is outside the episode."""
    state_dim_is_pad: Tensor | None
    """`bool [B,N]`, true where the source of the sample has fewer dimensions than the widest; `state` is 0 there."""
    action: Tensor | None
    """`float32 [B,T,A]` as recorded; `None` where no source has actions; all padding for a sample of a source without."""
    action_is_pad: Tensor | None
    """`bool [B,T]`, true where a step is outside the episode."""
    action_dim_is_pad: Tensor | None
    """`bool [B,A]`, as `state_dim_is_pad`."""
    source: list[str]
    """Names of the sources."""
    episode: Tensor
    """`int64 [B]` episode in its dataset."""
    frame: Tensor
    """`int64 [B]` anchor frame within the episode."""
    dt: Tensor
    """`float64 [B]` seconds between the first and the last image that a sample really shows."""


class Position(TypedDict):
    """A position in the training stream, between two batches: a stream opened there continues with the next one."""

    epoch: int
    sample: int
    """Samples of that epoch that all ranks together have consumed."""
    num_bad_samples: int
    """Samples that could not be decoded and were replaced: of all ranks before the start, and of this rank since then."""
