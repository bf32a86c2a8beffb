"""LeRobot's `smolvla` policy and the same policy over `hlrp_rs`, tiny, with the same random weights; and a batch for both."""

from dataclasses import dataclass
from pathlib import Path

import torch
from hlrp_rs import Policy
from smolvla_reference import (
    ACTION_DIM,
    BATCH,
    CHUNK,
    NUM_LAYERS,
    SIDE,
    STATE_DIM,
    TOKENIZER,
    build_tiny_policy,
    expert_model,
    tiny_vlm_folder,
)
from torch import Tensor, nn

LATENT = {"code_seq_len": 2, "code_dim": 5}
CAMERA = "top"
ACTIONS_ONLY = {"mode": "actions", "latent_loss_weight": 0.0, "action_loss_weight": 1.0}
MULTITASK = {"mode": "multitask", "latent_loss_weight": 0.3, "action_loss_weight": 2.0}


def processor() -> dict:
    """How inputs are prepared, as LeRobot's `smolvla` does it."""
    return {
        "image_preparation": "pad-resize-bilinear-left-top/1",
        "frame_size": None,
        "tokenizer": None,
        "tokenizer_max_length": 48,
        "pad_language_to": "longest",
        "padding_side": "right",
        "truncation_side": "left",
        "system_prompt": "",
        "newline": True,
        "state": None,
        "action": None,
    }


def observation(generator: torch.Generator, size: int = BATCH) -> dict:
    """Images wider than high, so that the preparation pads; instructions of different lengths."""
    tasks = ["push the block", "open the small drawer", "pick"]
    return {
        "images": {CAMERA: torch.rand(size, 3, 40, 72, generator=generator)},
        "task": [tasks[index % len(tasks)] for index in range(size)],
        "state": torch.randn(size, STATE_DIM, generator=generator),
    }


def targets(generator: torch.Generator, size: int = BATCH) -> dict:
    """Actions of which some steps are padding, and code vectors of which one pair is not real."""
    is_pad = torch.zeros(size, CHUNK, dtype=torch.bool)
    is_pad[0, 2:] = True
    is_valid = torch.ones(size, dtype=torch.bool)
    is_valid[-1] = False
    return {
        "actions": torch.randn(size, CHUNK, ACTION_DIM, generator=generator),
        "action_is_pad": is_pad,
        "latents": torch.randn(size, *LATENT.values(), generator=generator),
        "latent_is_valid": is_valid,
    }


class RustPolicy(nn.Module):
    """The policy as an ordinary module: real parameters, passed on at every call."""

    def __init__(self, policy: Policy, weights: dict[str, Tensor]):
        super().__init__()
        self.policy = policy
        self.tree = nn.ParameterDict()
        for name, tensor in weights.items():
            self.tree[name.replace(".", "/")] = nn.Parameter(tensor.clone())

    def tensors(self) -> dict[str, Tensor]:
        return {name.replace("/", "."): tensor for name, tensor in self.tree.items()}

    def forward(self, observation: dict, targets: dict, objective: dict = MULTITASK, **options) -> dict[str, Tensor]:
        return self.policy.loss(self.tensors(), observation, targets, objective, **options)


@dataclass
class Pair:
    """Both policies with equal weights; only ours has a latent head."""

    lerobot: nn.Module
    rust: RustPolicy


def make_pair(folder: Path, **options) -> Pair:
    """`options` are fields of LeRobot's SmolVLAConfig."""
    torch.manual_seed(0)
    lerobot = build_tiny_policy(
        tiny_vlm_folder(folder / "vlm", NUM_LAYERS),
        [CAMERA],
        max_state_dim=STATE_DIM + 3,
        max_action_dim=ACTION_DIM + 2,
        resize_imgs_with_padding=(SIDE, SIDE),
        **options,
    )
    with torch.no_grad():
        for parameter in lerobot.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter) * parameter[0].numel() ** -0.5)
    rust = make_rust_policy(lerobot)
    shared = lerobot.state_dict()
    with torch.no_grad():
        for name, tensor in rust.tensors().items():
            if name in shared:
                tensor.copy_(shared[name])
    return Pair(lerobot.eval(), rust)


def make_rust_policy(lerobot: nn.Module) -> RustPolicy:
    """A policy of the same sizes with a latent head and fresh weights."""
    policy = Policy(expert_model(lerobot, LATENT), processor(), TOKENIZER)
    return RustPolicy(policy, policy.init())
