"""The sizes of a policy: fields of the configuration, and what a description says of them.

A description is the `model` and the `processor` of an artifact. It has SmolVLA's names for what SmolVLA has, so that a policy is configured as
LeRobot's `smolvla` is.
"""

from typing import Any

# SmolVLA's defaults, which are the sizes of the published model, and those of the latent head, which it lacks.
SMOLVLA = {
    "chunk_size": 50,
    "max_state_dim": 32,
    "max_action_dim": 32,
    "resize_imgs_with_padding": (512, 512),
    "add_image_special_tokens": False,
    "empty_cameras": 0,
    "prefix_length": -1,
    "num_vlm_layers": 16,
    "num_expert_layers": -1,
    "self_attn_every_n_layers": 2,
    "expert_width_multiplier": 0.75,
    "num_steps": 10,
    "min_period": 4e-3,
    "max_period": 4.0,
    "tokenizer_max_length": 48,
    "pad_language_to": "longest",
    "system_prompt": "",
    "latent_head": "vector_flow",
    "latent_dropout": 0.1,
}

# Sizes that fix the shape of some weight.
SHAPES = (
    "max_state_dim",
    "max_action_dim",
    "num_vlm_layers",
    "num_expert_layers",
    "self_attn_every_n_layers",
    "expert_width_multiplier",
    "latent_head",
)

# What may be chosen anew for a given model: no weight depends on it.
CHOICES = ("num_steps", "latent_dropout", "train_expert_only", "freeze_vision_encoder", "train_state_proj")


def read_sizes(model: dict[str, Any], processor: dict[str, Any]) -> dict[str, Any]:
    """The sizes in a description, under the names of the fields; those that its architecture lacks are left out."""
    sizes = {name: value for name, value in leaves(model | processor) if name in SMOLVLA}
    sizes["resize_imgs_with_padding"] = tuple(sizes["resize_imgs_with_padding"])
    # LeRobot writes -1 where a description has null.
    return sizes | {name: -1 for name in ("prefix_length", "num_expert_layers") if sizes.get(name, 0) is None}


def leaves(description: dict[str, Any]) -> list[tuple[str, Any]]:
    """Keys and values of all sections; the sizes of the backbone are those of its own parts and have other meanings."""
    found = []
    for name, value in description.items():
        if isinstance(value, dict):
            found += leaves(value) if name != "sizes" else []
        else:
            found.append((name, value))
    return found


def with_choices(model: dict[str, Any], config: Any) -> dict[str, Any]:
    """A model with the choices of `config`."""
    return with_values(model, {name: getattr(config, name) for name in CHOICES})


def with_values(section: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A description with other values, wherever its sections have these keys."""

    def value_of(name: str, value: Any) -> Any:
        return with_values(value, values) if isinstance(value, dict) else values.get(name, value)

    return {name: value_of(name, value) for name, value in section.items()}


def described(config: Any) -> dict[str, Any]:
    """The fields of `config` that describe the policy, for a new one."""
    return {name: getattr(config, name) for name in (*SMOLVLA, *CHOICES, "load_vlm_weights")}
