#!/usr/bin/env python3
"""Writes the weights of a PyTorch file (`.ckpt` of Lightning, `.pt`, `.pth`, `.bin`) as safetensors, for `hlrp import-laq` and `import-vla`.

    python scripts/weights_to_safetensors.py laq-stepstep=080000.ckpt laq.safetensors
    python scripts/weights_to_safetensors.py smolvla_shared_stage2_artifact.pt stage2.safetensors

The manifest of a stage 2 artifact is written beside its weights, as stage2.json. Only tensors and plain values are read (`weights_only`):
nothing in the file is executed. Needs torch and safetensors.
"""

import argparse
import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


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
    try:
        content = torch.load(arguments.source, map_location="cpu", weights_only=True)
    except OSError as error:
        raise SystemExit(f"error: {arguments.source}: {error.strerror}\nhint: give a file of PyTorch") from None
    except (RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0]
        hint = "give a file of tensors and plain values; what else it has would be executed when it is read"
        raise SystemExit(f"error: {arguments.source}: {reason}\nhint: {hint}") from None
    tensors = weights(content)
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
