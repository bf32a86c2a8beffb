"""Robot policies from video, computed in Rust over the libtorch of this process's torch.

`Policy` is the mathematics of a policy whose weights are yours, `Artifact` and `Checkpoint` read what training wrote, `Teacher` is a
frozen latent action model, `DatasetLabels` has what it wrote into a dataset, `Dataset` and `Loader` read LeRobot datasets. The commands
`hlrp`, `hlrp-train-laq` and `hlrp-train-vla` come with the package. Shapes and units are documented at each function:
`help(hlrp_rs.Policy)` and `hlrp_rs/_core.pyi`.

Importing this package checks the version of torch and takes milliseconds; torch itself is imported with the first class that is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hlrp_rs import _torch

_torch.check()

if TYPE_CHECKING:
    from hlrp_rs._core import (
        LIBTORCH_VERSION,
        Artifact,
        BatchStream,
        Checkpoint,
        Dataset,
        DatasetLabels,
        HlrpError,
        HlrpFileNotFoundError,
        HlrpValueError,
        Initialised,
        Policy,
        Teacher,
        __version__,
        backbone_sizes,
        checkpoint_task,
        compose_config,
        locate_model,
        policy_description,
        smolvla_description,
    )
    from hlrp_rs.data import Loader, config_folder, open_dataset

__all__ = [
    "LIBTORCH_VERSION",
    "Artifact",
    "BatchStream",
    "Checkpoint",
    "Dataset",
    "DatasetLabels",
    "HlrpError",
    "HlrpFileNotFoundError",
    "HlrpValueError",
    "Initialised",
    "Loader",
    "Policy",
    "Teacher",
    "__version__",
    "backbone_sizes",
    "checkpoint_task",
    "compose_config",
    "config_folder",
    "locate_model",
    "open_dataset",
    "policy_description",
    "smolvla_description",
]
_IN_DATA = {"Loader", "config_folder", "open_dataset"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'hlrp_rs' has no attribute '{name}'")
    # The extension links torch's libraries, which importing torch has to load first.
    import_module("torch")
    _torch.check()
    value = getattr(import_module("hlrp_rs.data" if name in _IN_DATA else "hlrp_rs._core"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
