"""SmolVLA's names for what a model's description says.

A description is the `model` and the `processor` of an artifact's manifest. Its sizes are configuration fields here, so that a
policy is configured as LeRobot's `smolvla` is.
"""

from typing import Any

# What LeRobot's smolvla takes when nothing is said; the published model has these sizes.
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
}

# Sizes that fix the shape of some weight.
SHAPES = (
    "max_state_dim",
    "max_action_dim",
    "num_vlm_layers",
    "num_expert_layers",
    "self_attn_every_n_layers",
    "expert_width_multiplier",
)

# Parameters of the distribution of training times; smolvla has no fields for them.
TIME_BETA = (1.5, 1.0)


def read_sizes(model: dict[str, Any], processor: dict[str, Any]) -> dict[str, Any]:
    """The sizes that a description states; those that its architecture lacks are left out."""
    height, width = model["image_size"]
    layout = processor["prompt"]["layout"]
    sizes = {
        "resize_imgs_with_padding": (width, height),
        "num_vlm_layers": model["backbone"]["text"]["num_hidden_layers"],
        "num_steps": model["flow"]["num_steps"],
        "min_period": model["flow"]["min_period"],
        "max_period": model["flow"]["max_period"],
        "tokenizer_max_length": layout["max_length"],
        "pad_language_to": layout["padding"],
        "system_prompt": processor["prompt"]["system_prompt"],
    }
    if model["arch"] == "pooled":
        return sizes | {"chunk_size": 1, "empty_cameras": 0}
    return sizes | {
        "chunk_size": model["action"]["chunk_size"],
        "max_state_dim": model["max_state_dim"],
        "max_action_dim": model["action"]["max_action_dim"],
        "add_image_special_tokens": model["image_special_tokens"] is not None,
        "empty_cameras": model["num_empty_cameras"],
        "prefix_length": model["prefix_length"] or -1,
        "num_expert_layers": model["num_expert_layers"],
        "self_attn_every_n_layers": model["self_attn_every_n_layers"],
        "expert_width_multiplier": model["expert_width_multiplier"],
    }


def write_model(config: Any, cameras: list[str], action_dim: int, latent: dict[str, int] | None) -> dict[str, Any]:
    """The description, without `backbone` and `image_special_tokens`, of the model that the fields of `config` ask for."""
    width, height = config.resize_imgs_with_padding
    num_expert_layers = config.num_expert_layers if config.num_expert_layers > 0 else config.num_vlm_layers
    return {
        "arch": "expert",
        "cameras": cameras,
        "num_empty_cameras": config.empty_cameras,
        "image_size": [height, width],
        "prefix_length": config.prefix_length if config.prefix_length > 0 else None,
        "num_expert_layers": num_expert_layers,
        "expert_width_multiplier": config.expert_width_multiplier,
        "self_attn_every_n_layers": config.self_attn_every_n_layers,
        "max_state_dim": config.max_state_dim,
        "action": {
            "chunk_size": config.chunk_size,
            "action_dim": action_dim,
            "max_action_dim": config.max_action_dim,
        },
        "latent": latent,
        "flow": {
            "num_steps": config.num_steps,
            "min_period": config.min_period,
            "max_period": config.max_period,
            "time_beta_alpha": TIME_BETA[0],
            "time_beta_beta": TIME_BETA[1],
        },
    }


def write_processor(config: Any, cameras: list[str], image_preparation: str) -> dict[str, Any]:
    """How inputs of that model are prepared: as smolvla does it."""
    width, height = config.resize_imgs_with_padding
    return {
        "cameras": cameras,
        "image_size": [height, width],
        "image_preparation": image_preparation,
        "prompt": {
            "system_prompt": config.system_prompt,
            "newline": True,
            "layout": {
                "padding": config.pad_language_to,
                "padding_side": "right",
                "truncation_side": "left",
                "max_length": config.tokenizer_max_length,
            },
        },
        "state": None,
        "action": None,
    }
