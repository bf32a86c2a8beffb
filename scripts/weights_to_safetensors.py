#!/usr/bin/env python3
"""Writes the weights of a PyTorch file (`.ckpt` of Lightning, `.pt`, `.pth`, `.bin`) as safetensors, for `hlrp import-laq` and `import-vla`.

    python scripts/weights_to_safetensors.py laq-stepstep=080000.ckpt laq.safetensors
    python scripts/weights_to_safetensors.py smolvla_shared_stage2_artifact.pt stage2.safetensors
    python scripts/weights_to_safetensors.py raft_small_C_T_V2-01064c6d.pth weights/raft_small.safetensors

The manifest of a stage 2 artifact is written beside its weights, as stage2.json. Only tensors and plain values are read (`weights_only`):
nothing in the file is executed. Settings and paths that Lightning saves beside them (OmegaConf, pathlib) are left out. Needs torch and safetensors.
"""

import argparse
import json
import re
import warnings
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors.torch import save_file
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals


class Inert:
    """In the place of an object that is not needed: it takes what the file has for it, and does nothing."""

    def __new__(cls, *_arguments: Any) -> "Inert":
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


def empty_dict(*_arguments: Any) -> dict:
    """In the place of a defaultdict, without its default."""
    return {}


def empty_list(*_arguments: Any) -> list:
    """In the place of a deque."""
    return []


COLLECTIONS = {"collections.defaultdict": empty_dict, "collections.deque": empty_list}
# What Lightning saves beside the weights: settings, their types, and paths.
NOT_NEEDED = re.compile(
    r"omegaconf\.[\w.]+|pathlib\.(_local\.)?\w*Path|typing\.(Any|Union|Optional)"
    r"|builtins\.(dict|list|tuple|set|int|float|bool|str|bytes|type|NoneType)"
)


def refuse(source: Path, reason: str, hint: str) -> NoReturn:
    raise SystemExit(f"error: {source}: {reason}\nhint: {hint}")


def read(source: Path) -> Any:
    """What the file has, without the objects that are not needed. No code of the file or for its objects runs."""
    whole = "give a file that torch.save wrote; a download may be incomplete"
    try:
        asked = get_unsafe_globals_in_checkpoint(source)
    except OSError as error:
        refuse(source, error.strerror or str(error), "give a file of PyTorch")
    except Exception:  # noqa: BLE001 - older formats have no list, damaged files raise whatever their reader meets
        asked = []
    unknown = sorted(name for name in asked if name not in COLLECTIONS and not NOT_NEEDED.fullmatch(name))
    if unknown:
        remedy = "torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'weights.pt')"
        hint = f"if you trust the file, save its weights alone where it was made: {remedy}"
        refuse(source, f"needs {', '.join(unknown)}, which would be executed", hint)
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            safe_globals([(COLLECTIONS.get(name, Inert), name) for name in asked]),
        ):
            return torch.load(source, map_location="cpu", weights_only=True)
    except OSError as error:
        refuse(source, error.strerror or str(error), "give a file of PyTorch")
    except Exception as error:  # noqa: BLE001 - as above
        # torch's text recommends to execute the file first.
        text = str(error).rpartition("WeightsUnpickler error: ")[2].partition(". Please use")[0]
        reason = (text.strip().splitlines() or [type(error).__name__])[0]
        refuse(source, f"cannot be read: {reason}", whole)


def weights(content: dict) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint of Lightning, of a stage 2 artifact, of a dict with a key `model` or `state_dict`, or of a bare state dict."""
    for key in ("core_state_dict", "state_dict", "model"):
        if isinstance(content.get(key), dict):
            content = content[key]
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise SystemExit("error: the file has no state dict\nhint: keys: " + ", ".join(map(str, list(content)[:8])))
    # Aliases share memory, which safetensors refuses.
    return {name: value.detach().clone().contiguous() for name, value in tensors.items()}


def plain(value: Any) -> Any:
    """A value of a manifest that JSON does not know."""
    if isinstance(value, Inert):
        raise SystemExit("error: the manifest has an object\nhint: only text, numbers, lists and tensors are written")
    return value.tolist() if isinstance(value, torch.Tensor) else str(value)


def refuse_existing(target: Path) -> None:
    if target.exists():
        raise SystemExit(f"error: {target} exists\nhint: give another target")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    refuse_existing(arguments.target)
    content = read(arguments.source)
    if not isinstance(content, dict):
        hint = "give a state dict, or a checkpoint that has one"
        refuse(arguments.source, f"has a {type(content).__name__} instead of tensors by name", hint)
    tensors = weights(content)
    arguments.target.parent.mkdir(parents=True, exist_ok=True)
    if "core_state_dict" in content:
        manifest = arguments.target.with_suffix(".json")
        refuse_existing(manifest)
        said = {key: content.get(key) for key in ("schema_version", "manifest")}
        manifest.write_text(json.dumps(said, indent=2, default=plain) + "\n")
        print(f"{manifest}: manifest")
    save_file(tensors, arguments.target)
    print(f"{arguments.target}: {len(tensors)} tensors")


if __name__ == "__main__":
    main()
