"""LeRobot's `smolvla` policy with random weights, offline, and the same policy in this project's terms.

`vlm_folder` writes what LeRobot's constructor reads of a backbone, `build_policy` makes the policy, `expert_model` the
description of the equal model, and `save_weights` its weights under the names that both use. `tiny_vlm_folder` and
`build_tiny_policy` have the sizes of tests.
"""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # noqa: E402
from lerobot.configs import FeatureType, PolicyFeature  # noqa: E402
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig  # noqa: E402
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import (  # noqa: E402
    AutoTokenizer,
    SmolVLMConfig,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

TOKENIZER = Path(__file__).resolve().parent.parent / "golden" / "tokenizer"
SPECIAL_TOKENS = {
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "image_token": "<image>",
}
EXPERT = "model.vlm_with_expert.lm_expert"

# What SmolVLM2-500M is made of.
REAL_VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 512,
    "patch_size": 16,
}
REAL_TEXT = {
    "hidden_size": 960,
    "intermediate_size": 2560,
    "num_hidden_layers": 16,
    "num_attention_heads": 15,
    "num_key_value_heads": 5,
    "head_dim": 64,
    "vocab_size": 49280,
}

# The same in tiny, and what a tiny policy around it sees and does.
TINY_VISION = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 64,
    "patch_size": 8,
}
TINY_TEXT = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 352,
}
BATCH, CHUNK, STATE_DIM, ACTION_DIM, SIDE = 3, 6, 4, 3, 64
NUM_LAYERS = 4


def vlm_folder(folder: Path, vision: dict, text: dict, scale_factor: int) -> Path:
    """Writes a backbone's configuration, tokenizer and processor; no weights."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER, extra_special_tokens=SPECIAL_TOKENS)
    config = SmolVLMConfig(
        vision_config=vision,
        text_config={"model_type": "llama", "rms_norm_eps": 1e-5, "rope_theta": 100000.0, "pad_token_id": 2, **text},
        scale_factor=scale_factor,
        image_token_id=tokenizer.image_token_id,
        pad_token_id=2,
        tie_word_embeddings=False,
        dtype="float32",
    )
    config.save_pretrained(folder)
    SmolVLMProcessor(SmolVLMImageProcessor(), tokenizer, SmolVLMVideoProcessor()).save_pretrained(folder)
    return folder


def tiny_vlm_folder(folder: Path, num_layers: int) -> Path:
    """The same of a tiny backbone with this many text layers."""
    return vlm_folder(folder, TINY_VISION, TINY_TEXT | {"num_hidden_layers": num_layers}, scale_factor=4)


def build_policy(folder: Path, cameras: list[str], state_dim: int, action_dim: int, **options) -> SmolVLAPolicy:
    """A policy with fresh float32 weights; `options` are fields of LeRobot's SmolVLAConfig."""
    images = {
        f"observation.images.{name}": PolicyFeature(type=FeatureType.VISUAL, shape=(3, 32, 32)) for name in cameras
    }
    config = SmolVLAConfig(
        input_features=images | {"observation.state": PolicyFeature(type=FeatureType.STATE, shape=(state_dim,))},
        output_features={"action": PolicyFeature(type=FeatureType.ACTION, shape=(action_dim,))},
        vlm_model_name=str(folder),
        load_vlm_weights=False,
        device="cpu",
        push_to_hub=False,
        **options,
    )
    return SmolVLAPolicy(config).float()


def build_tiny_policy(folder: Path, cameras: list[str], **options) -> SmolVLAPolicy:
    """The same over a tiny backbone, of whose text layers `NUM_LAYERS` are used."""
    actions = {"chunk_size": CHUNK, "n_action_steps": CHUNK, "num_steps": 5}
    return build_policy(folder, cameras, STATE_DIM, ACTION_DIM, num_vlm_layers=NUM_LAYERS, **actions, **options)


def expert_model(policy: SmolVLAPolicy, latent: dict | None) -> dict:
    """The equal model as a description has it."""
    config, model = policy.config, policy.model.vlm_with_expert
    vlm, text, vision = model.config, model.config.text_config, model.config.vision_config
    special = {"fake_id": policy.model.fake_image_token, "global_id": policy.model.global_image_token}
    vision_sizes = [*REAL_VISION, "layer_norm_eps"]
    text_sizes = [*REAL_TEXT, "rms_norm_eps"]
    sizes = {
        "vision": {name: getattr(vision, name) for name in vision_sizes},
        "text": {name: getattr(text, name) for name in text_sizes}
        | {"num_hidden_layers": model.num_vlm_layers, "rope_theta": 100000.0},
        "scale_factor": vlm.scale_factor,
        "image_token_id": vlm.image_token_id,
        "tie_word_embeddings": False,
    }

    def fields(*names: str) -> dict:
        return {name: getattr(config, name) for name in names}

    return {
        "backbone": fields("train_expert_only", "freeze_vision_encoder", "load_vlm_weights")
        | {"vlm_model_name": None, "hub_cache": None, "num_vlm_layers": model.num_vlm_layers, "sizes": sizes},
        "cameras": [key.removeprefix("observation.images.") for key in config.image_features],
        "empty_cameras": config.empty_cameras,
        "resize_imgs_with_padding": list(config.resize_imgs_with_padding),
        "action_dim": config.action_feature.shape[0],
        "latent": latent,
        "flow": fields("num_steps", "min_period", "max_period") | {"time_beta_alpha": 1.5, "time_beta_beta": 1.0},
        "arch": {
            "expert": fields(
                "expert_width_multiplier",
                "self_attn_every_n_layers",
                "add_image_special_tokens",
                "max_state_dim",
                "max_action_dim",
                "chunk_size",
                "train_state_proj",
            )
            | {
                "latent_head": "vector_flow",
                "latent_dropout": 0.0,
                "smolvla_checkpoint": None,
                "num_expert_layers": model.num_expert_layers,
                "prefix_length": config.prefix_length if config.prefix_length > 0 else None,
                "image_special_tokens": special if config.add_image_special_tokens else None,
            }
        },
    }


def save_weights(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Writes tensors, each with its own memory."""
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, path)
