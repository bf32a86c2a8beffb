#!/usr/bin/env python3
"""Writes the weights of a PyTorch file (`.ckpt` of Lightning, `.pt`, `.pth`, `.bin`) as safetensors, for `hlrp import-laq`.

    python scripts/weights_to_safetensors.py laq-stepstep=080000.ckpt laq.safetensors

Only tensors are read (`weights_only`): nothing in the file is executed. Needs torch and safetensors.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file


def weights(content: dict) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint of Lightning, of a dict with a key `model` or `state_dict`, or of a bare state dict."""
    for key in ("state_dict", "model"):
        if isinstance(content.get(key), dict):
            content = content[key]
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise SystemExit("error: the file has no state dict\nhint: keys: " + ", ".join(map(str, list(content)[:8])))
    # Aliases share memory, which safetensors refuses.
    return {name: value.detach().clone().contiguous() for name, value in tensors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    if arguments.target.exists():
        raise SystemExit(f"error: {arguments.target} exists")
    tensors = weights(torch.load(arguments.source, map_location="cpu", weights_only=True))
    save_file(tensors, arguments.target)
    print(f"{arguments.target}: {len(tensors)} tensors")


if __name__ == "__main__":
    main()
