"""Latent labels of frame pairs, from a frozen latent action model of stage 1 or from the columns that `hlrp label` wrote.

It serves the training: it is not part of the policy's weights, and an evaluation does not load it.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# How far k may be from a whole number of frames.
TOLERANCE = 1e-3


def frame_offset(checkpoint: Path | None, mode: str, fps: float | None) -> int:
    """Frames k between the two images of the teacher's pairs, in a dataset of `fps` frames per second."""
    if checkpoint is None:
        raise ValueError(
            f"stage3_training_mode = {mode} needs laq_checkpoint_path, the latent action model that labels frame pairs\n"
            "hint: --policy.laq_checkpoint_path=<run directory of stage 1>, or --policy.stage3_training_mode=action"
        )
    import hlrp_rs

    # Loading the teacher compares its files with their digests; here its record is enough.
    pair = hlrp_rs.checkpoint_task(checkpoint).get("pair")
    if pair is None:
        raise ValueError(
            f"{checkpoint}: it is not a latent action model\nhint: give a run directory of `hlrp train-laq`"
        )
    return offset_of(pair, fps)


def offset_of(pair: dict[str, Any], fps: float | None) -> int:
    """Frames k of a pair spacing."""
    first, second = pair["image_deltas"]
    if first != 0:
        raise ValueError(
            f"the teacher's pairs start at offset {first}: the policy sees frame t and needs pairs (t, t+k)\n"
            "hint: train the latent action model with data.request.image_deltas=[0, k]"
        )
    if pair["unit"] == "frames":
        return int(second)
    if fps is None:
        raise ValueError(
            f"the teacher's pairs are {second} seconds apart, and how many frames that is depends on the dataset\n"
            "hint: --policy.dataset_fps=<fps in meta/info.json of the dataset>"
        )
    if abs(second * fps - round(second * fps)) > TOLERANCE:
        raise ValueError(
            f"the teacher's pairs are {second} seconds apart, which is not a whole number of frames at {fps} per second\n"
            "hint: use a teacher whose spacing fits the dataset"
        )
    return round(second * fps)


class LatentTeacher:
    """The teacher of a policy. Copies share it; it is loaded once on each device where it is needed."""

    def __init__(self, checkpoint: Path, weights: str, seed: int, device: str | None):
        self.checkpoint, self.weights, self.seed = checkpoint, weights, seed
        # Where frames are expected: loading it there for its identity loads it for labelling, too.
        self.device = device or "cpu"
        self._loaded = {}

    @property
    def identity(self) -> dict[str, Any]:
        """Digest, sizes and pair spacing."""
        teacher = next(iter(self._loaded.values()), None) or self._on(self.device)
        return teacher.identity

    def label(self, frames_BTCHW: Tensor, is_real_BT: Tensor) -> dict[str, Tensor]:
        """Targets of pairs `[B,2,3,H,W]`, bytes or float32 in [0, 1]: vectors, codes where there are some, and which pairs are real."""
        return self._on(str(frames_BTCHW.device)).label(frames_BTCHW, is_real_BT)

    def _on(self, device: str) -> Any:
        if device == "cuda":
            device = f"cuda:{torch.cuda.current_device()}"
        if device not in self._loaded:
            import hlrp_rs

            seed = self.seed if self.weights == "random" else None
            self._loaded[device] = hlrp_rs.Teacher.load(self.checkpoint, device, weights=self.weights, seed=seed)
        return self._loaded[device]

    def __deepcopy__(self, _memo: Any) -> "LatentTeacher":
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": {}}


class LatentColumns:
    """The labels of a dataset's frames, by row. Copies share them."""

    def __init__(self, root: Path, prefix: str, vectors: str | None):
        self.root, self.prefix, self.vectors = Path(root), prefix, vectors
        self._loaded = {}

    @property
    def identity(self) -> dict[str, Any]:
        """As that of the teacher that labelled."""
        return self._on("cpu").identity

    def label(self, index_B: Tensor) -> dict[str, Tensor]:
        """Targets of rows: vectors, codes where there are some, and which rows have a label."""
        return self._on(str(index_B.device)).label(index_B.reshape(-1))

    def _on(self, device: str) -> Any:
        if device not in self._loaded:
            import hlrp_rs

            options = {"vectors": self.vectors, "device": device}
            self._loaded[device] = hlrp_rs.DatasetLabels.open(self.root, self.prefix, **options)
        return self._loaded[device]

    def __deepcopy__(self, _memo: Any) -> "LatentColumns":
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": {}}
