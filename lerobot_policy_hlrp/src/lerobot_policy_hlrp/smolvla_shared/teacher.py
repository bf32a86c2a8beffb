"""Latent labels of frame pairs, from a frozen latent action model of stage 1 or from the columns that `hlrp label` wrote.

It serves the training: it is not part of the policy's weights, and an evaluation does not load it.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import batch as batches

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


class _OnEachDevice:
    """What is loaded once on each device where it is needed. Copies share it, and what is saved has nothing loaded."""

    def __init__(self):
        self._loaded = {}

    def _on(self, device: str) -> Any:
        if device == "cuda":
            device = f"cuda:{torch.cuda.current_device()}"
        if device not in self._loaded:
            self._loaded[device] = self._load(device)
        return self._loaded[device]

    def __deepcopy__(self, _memo: Any) -> "_OnEachDevice":
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": {}}


class LatentTeacher(_OnEachDevice):
    """The teacher of a policy."""

    def __init__(self, checkpoint: Path, weights: str, seed: int, device: str | None):
        super().__init__()
        self.checkpoint, self.weights, self.seed = checkpoint, weights, seed
        # Where frames are expected: loading it there for its identity loads it for labelling, too.
        self.device = device or "cpu"

    def __str__(self) -> str:
        return f"latent action model {self.checkpoint}"

    @property
    def identity(self) -> dict[str, Any]:
        """Digest, sizes and pair spacing."""
        teacher = next(iter(self._loaded.values()), None) or self._on(self.device)
        return teacher.identity

    def targets(self, batch: dict[str, Any], camera: str) -> dict[str, Tensor]:
        """Targets of the pairs of a camera: vectors, codes where there are some, and which pairs are real."""
        frames_BTCHW, is_real_BT = batches.frame_pairs(batch, camera)
        return self._on(str(frames_BTCHW.device)).label(frames_BTCHW, is_real_BT)

    def _load(self, device: str) -> Any:
        import hlrp_rs

        seed = self.seed if self.weights == "random" else None
        return hlrp_rs.Teacher.load(self.checkpoint, device, weights=self.weights, seed=seed)


class LatentColumns(_OnEachDevice):
    """The labels of a dataset's frames, by row."""

    def __init__(self, root: Path, prefix: str, vectors: str | None):
        super().__init__()
        self.root, self.prefix, self.vectors = Path(root), prefix, vectors

    def __str__(self) -> str:
        return f"teacher of the labels in {self.root}"

    @property
    def identity(self) -> dict[str, Any]:
        """As that of the teacher that labelled."""
        return self._on("cpu").identity

    def targets(self, batch: dict[str, Any], _camera: str) -> dict[str, Tensor]:
        """As those of the teacher that labelled; a row without a label is not valid."""
        rows_B = batches.rows(batch)
        return self._on(str(rows_B.device)).label(rows_B)

    def _load(self, device: str) -> Any:
        import hlrp_rs

        return hlrp_rs.DatasetLabels.open(self.root, self.prefix, vectors=self.vectors, device=device)
