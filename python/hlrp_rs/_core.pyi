"""The compiled part of `hlrp_rs`: the models in Rust over the libtorch of the `torch` in this process.

Every tensor that crosses the border is a real `torch.Tensor`; nothing is copied. Grad mode, inference mode, autocast, random generators and
devices are the caller's: what `torch.no_grad()` or `torch.autocast()` says around a call holds inside of it. The GIL is released while Rust
computes; it computes on the calling thread.

Shapes: B samples, T moments or steps of an action chunk, C = 3 colours, H×W pixels, N numbers of a state, A numbers of an action,
S code slots, D numbers of a code vector, K codes.

Errors of Rust arrive with their own text, which names the key, tensor or file and ends in a `hint:`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

from torch import Tensor

from hlrp_rs.types import (
    Batch,
    FlowTensors,
    Freeze,
    Mode,
    Objective,
    Observation,
    Path,
    Position,
    Targets,
)

__version__: str
"""Version of this package."""

LIBTORCH_VERSION: str
"""Version of the libtorch that this package was built for, such as `2.11.0`."""

class HlrpError(Exception):
    """Base of all errors of this package, and what libtorch refuses."""

class HlrpValueError(HlrpError, ValueError):
    """A description, tensor or option that cannot be used."""

class HlrpFileNotFoundError(HlrpError, FileNotFoundError):
    """A file or folder that is not there."""

@final
class Initialised:
    """What an initialisation from a LeRobot checkpoint did."""

    @property
    def num_loaded(self) -> int:
        """Tensors taken over."""
    @property
    def fresh(self) -> list[str]:
        """Parameters that the checkpoint does not have: they keep fresh values."""
    @property
    def ignored(self) -> list[str]:
        """Tensors of the checkpoint that are no weights of the network."""

@final
class Policy:
    """A policy without weights: its sizes, its tokenizer and its mathematics.

    The weights are the caller's. They come in as `{name: tensor}` at every call and are forgotten after it, so `.to()`,
    `load_state_dict`, averaged weights and `deepcopy` need no care. Names, shapes and `float32` must fit exactly; those of `castable()` may be
    `bfloat16` too. Which parameters get a gradient is decided by their own `requires_grad`. The object can be pickled and deep-copied.
    """

    def __new__(
        cls, model: Mapping[str, Any] | str, processor: Mapping[str, Any] | str, tokenizer_folder: Path
    ) -> Policy:
        """A policy from its description.

        `model` and `processor` are those of an artifact's `manifest.json`, as mappings or JSON texts; `tokenizer_folder` holds
        `tokenizer.json` and `tokenizer_config.json`. States and actions enter and leave normalised: the statistics in `processor` are for the
        caller (`normalization`).
        """
    @staticmethod
    def from_backbone(
        backbone: Path,
        model: Mapping[str, Any] | str,
        processor: Mapping[str, Any] | str,
        *,
        num_text_layers: int | None = None,
        tokenizer_folder: Path | None = None,
    ) -> Policy:
        """A policy around a SmolVLM in a folder, as transformers saves it.

        `model` is a description without its key `backbone`, which is read from the folder's `config.json` (`num_text_layers` keeps only the
        first layers; all when `None`). The folder's weights are not touched: `init(backbone=…)` loads them. The tokenizer lies in the same
        folder unless `tokenizer_folder` is given.
        """
    @property
    def model(self) -> dict[str, Any]:
        """The model's description, as in `manifest.json`."""
    @property
    def processor(self) -> dict[str, Any]:
        """How inputs are prepared, as in `manifest.json`."""
    @property
    def tokenizer_folder(self) -> str:
        """Where the tokenizer lies."""
    @property
    def cameras(self) -> list[str]:
        """Camera roles in the model's order."""
    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels that pictures are brought to."""
    @property
    def chunk_size(self) -> int | None:
        """Steps T of an action chunk; `None` for a model without action head."""
    @property
    def action_dim(self) -> int | None:
        """Numbers A of an action; `None` for a model without action head."""
    @property
    def latent_shape(self) -> tuple[int, int] | None:
        """Code slots S and numbers D of a code vector; `None` for a model without latent head."""
    def parameter_specs(self) -> list[tuple[str, tuple[int, ...], bool]]:
        """Name, shape and whether training can reach it, for every parameter in the model's order.

        What training can never reach (language-model head, final norm of the text model, its last layers) should have
        `requires_grad=False`.
        """
    def castable(self) -> set[str]:
        """Names of the parameters that may be `bfloat16` instead of `float32` where the caller computes under autocast: the matrices and biases of
        backbone and expert, which autocast would cast at every call. Results are the same; such a parameter should not be trained.
        """
    def init(self, *, backbone: Path | None = None) -> dict[str, Tensor]:
        """Fresh weights on the CPU, `float32` and without gradient, drawn from torch's CPU generator.

        With `backbone`, the folder of a SmolVLM, the backbone's weights are those of that folder (half precision becomes float32).
        """
    def init_from_smolvla(self, checkpoint: Path) -> tuple[dict[str, Tensor], Initialised]:
        """Weights of a LeRobot `smolvla` policy: a folder with `model.safetensors`, or such a file; heads that LeRobot lacks are fresh.

        Strict: a missing or unknown tensor or another shape is an error.
        """
    def frozen(self, freeze: Freeze) -> set[str]:
        """Names of the parameters that `freeze` keeps as they are, those that no loss can reach included."""
    def unused_in(self, mode: Mode) -> set[str]:
        """Names of the parameters that take no part in `mode`: heads of the other kind, and what no loss reaches in any mode."""
    def check(self, parameters: Mapping[str, Tensor]) -> None:
        """Refuses parameters that are not exactly those of this model (names, shapes, number formats)."""
    def loss(
        self,
        parameters: Mapping[str, Tensor],
        observation: Observation,
        targets: Targets,
        objective: Objective,
        *,
        noise: FlowTensors | None = None,
        time: FlowTensors | None = None,
        reduction: Literal["mean", "none"] = "mean",
    ) -> dict[str, Tensor]:
        """Losses of a batch, the observation seen once. The keys are the same in every mode and at every step:

        `loss`: weighted sum of the parts, float32, differentiable; a scalar, or `[B]` with `reduction="none"`.
        `latent_loss`, `action_loss`: parts without weight and without gradient, shaped as `loss`; 0 where the mode has no such part.
        `num_latent_samples`, `num_action_samples`: float32 scalars, samples with at least one supervised number.

        A mean runs over the supervised numbers of the batch (real action dimensions of steps that are no padding, latents of real pairs) and
        is 0 where there are none; per sample it runs over the sample's supervised numbers.
        """
    def sample(
        self,
        parameters: Mapping[str, Tensor],
        observation: Observation,
        mode: Mode,
        *,
        noise: FlowTensors | None = None,
    ) -> dict[str, Tensor]:
        """What the policy predicts, without gradient: `actions` `float32 [B,T,A]` (normalised) and `latents` `float32 [B,S,D]`, as `mode` says.

        The observation runs through the backbone once; the denoising steps read its keys and values from a static cache.
        """
    def tokenize(self, task: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids `int64 [B,L]` and mask `bool [B,L]` (true = real token) of instructions, prompt included, on the CPU."""
    def prepare_images(self, images: Tensor) -> Tensor:
        """Pictures `uint8 [B,3,H,W]`, or float in [0, 1], as the vision tower takes them: `float32 [B,3,h,w]` in [-1, 1]."""
    def normalization(self, feature: Literal["state", "action"]) -> dict[str, Any] | None:
        """Scaling of a feature as the artifact states it: `mode`, `dim`, `statistics` (LeRobot's names); `None` if the policy lacks it."""
    def __copy__(self) -> Policy: ...
    def __deepcopy__(self, _memo: Any) -> Policy: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class Artifact:
    """What stage 2 leaves behind: `manifest.json`, `model.safetensors` and the tokenizer."""

    @staticmethod
    def load(path: Path) -> Artifact:
        """Reads and checks an artifact: every file against its digest, the parts against each other, the weights against the model.

        Strict both ways: a key, file or tensor too few or too many is an error.
        """
    @property
    def path(self) -> str:
        """The folder."""
    @property
    def manifest(self) -> dict[str, Any]:
        """`manifest.json`: `model`, `processor`, `objective`, `teacher`, `provenance`, `files`, …"""
    @property
    def tokenizer_folder(self) -> str:
        """Where the tokenizer lies: the artifact's own folder."""
    def tensors(self) -> dict[str, Tensor]:
        """Every parameter by name: `float32` on the CPU, without gradient. Read anew at each call."""
    def policy(self) -> Policy:
        """The policy that these weights are for."""

@final
class Checkpoint:
    """A checkpoint of stage 1 or 2."""

    @staticmethod
    def load(path: Path) -> Checkpoint:
        """Opens a checkpoint folder, or the newest one of a run directory, and compares every file with its digest."""
    @property
    def path(self) -> str:
        """The checkpoint's folder."""
    @property
    def manifest(self) -> dict[str, Any]:
        """`manifest.json`: `step`, `score`, `precision`, `task` (what the model is), `files`, …"""
    @property
    def step(self) -> int:
        """Optimizer steps done."""
    @property
    def config_yaml(self) -> str:
        """The run's resolved configuration."""
    def tensors(self) -> dict[str, Tensor]:
        """The weights that it exports: parameters, averaged where it keeps averages, and buffers; on the CPU, read anew at each call."""

@final
class Teacher:
    """A frozen latent action model (stage 1) that labels frame pairs. It keeps its own weights on its device.

    Frames are `uint8 [B,2,3,H,W]` (time t, time t+k), or float of that shape in [0, 1], which are rounded to bytes. Frames of another size are brought to the teacher's as the data loader does it (bilinear, antialiased). Labels are float32 under any
    autocast and never carry a gradient.
    """

    @staticmethod
    def load(
        path: Path,
        device: str = "cpu",
        *,
        weights: Literal["trained", "random"] = "trained",
        seed: int | None = None,
    ) -> Teacher:
        """Loads a checkpoint folder or run directory of `hlrp train-laq`.

        `weights="random"` is the control: the same architecture with fresh weights that `seed` fixes (required then). torch's own random
        state is left as it was. `device`: `cpu`, `cuda` or `cuda:N`.
        """
    @property
    def identity(self) -> dict[str, Any]:
        """`sha256` of the weights, `codebook_size` K, `code_seq_len` S, `code_dim` D, `image_size` in pixels, `pair`
        (`{"unit": "frames" | "seconds", "image_deltas": [0, k]}`): the same as `manifest["teacher"]` of an artifact that it taught."""
    @property
    def device(self) -> str:
        """Where it computes, such as `cpu` or `cuda:0`."""
    def codes(self, frames: Tensor) -> Tensor:
        """Codes `int64 [B,S]` of frame pairs `[B,2,3,H,W]`."""
    def vectors(self, codes: Tensor) -> Tensor:
        """Code vectors `float32 [B,S,D]` of codes `int64 [B,S]`: rows of the codebook, each number standardised over the K rows."""
    def label(self, frames: Tensor, is_real: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`latents` `float32 [B,S,D]` and `latent_is_valid` `bool [B]` of frame pairs `[B,2,3,H,W]`, for `Targets`.

        `is_real` is `bool [B,2]`, false where a frame lies outside its episode; a pair is valid when both frames are real. All real when
        `None`.
        """
    def reconstruct(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Codes `int64 [B,S]` of frame pairs `[B,2,3,H,W]`, and the later frame that they predict from the earlier one:
        `float32 [B,3,h,w]` in [0, 1], not clamped, in the teacher's size. Needs a teacher with a pixel decoder,
        which is read from the checkpoint at each call: for pictures, not for training loops."""

@final
class Dataset:
    """Opened datasets. Loaders over it share its indices and caches."""

    def __new__(cls, config: Mapping[str, Any] | str, image_size: tuple[int, int]) -> Dataset:
        """Opens the section `data` of a configuration (`sources`, `request`, `loader`, `cache`), as a mapping or JSON text, every key given.

        `image_size` is the height and width in pixels that frames are resized to.
        """
    @property
    def config(self) -> dict[str, Any]:
        """The configuration."""
    @property
    def cameras(self) -> list[str]:
        """Camera roles that every source has."""
    @property
    def batch_size(self) -> int:
        """Samples of a batch."""
    @property
    def num_train_samples(self) -> int:
        """Anchor frames of an epoch, over all ranks."""
    @property
    def num_validation_samples(self) -> int:
        """Anchor frames held out."""
    def train(self, *, seed: int, rank: int = 0, world_size: int = 1, position: Position | None = None) -> BatchStream:
        """The endless training stream of one rank: a pure function of seed, rank and position."""
    def validation(self, *, limit_batches: int | None = None, rank: int = 0, world_size: int = 1) -> BatchStream:
        """One pass over the held-out samples of one rank, the same each time; `limit_batches` spreads that many batches evenly over them."""

@final
class BatchStream:
    """Batches that decode threads make ahead."""

    def __iter__(self) -> BatchStream: ...
    def __next__(self) -> Batch:
        """The next batch; waits for it without the GIL."""
    @property
    def num_batches(self) -> int | None:
        """Batches of the pass; `None` for the endless training stream."""
    @property
    def position(self) -> Position | None:
        """Position after the last batch that was taken; `None` for a validation pass."""
    @property
    def stats(self) -> dict[str, float]:
        """`num_samples`, `num_bad_samples`, `bytes_in_flight`, `max_bytes_in_flight`, and in seconds `worker_busy_s`, `worker_idle_s`,
        `consumer_wait_s`."""

def locate_model(model: str, hub_cache: Path) -> str:
    """The folder of a model: `model` itself if it is a folder, else its snapshot in a Hugging Face cache. Downloads nothing."""

def backbone_description(folder: Path, *, num_text_layers: int | None = None) -> dict[str, Any]:
    """The key `backbone` of a model's description, read from the `config.json` of a SmolVLM folder; weights need not be there."""

def compose_config(overrides: Sequence[str], config_dir: Path) -> dict[str, Any]:
    """The configuration that the tree in `config_dir` gives for `overrides` such as `experiment=vla_tiny` or `seed=7`, resolved."""
