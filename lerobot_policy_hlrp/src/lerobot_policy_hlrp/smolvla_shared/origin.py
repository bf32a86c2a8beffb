"""Where a policy begins: its description, its network and its first weights.

Two moments: `describe` completes a configuration before any data is known; `begin` makes the network when the policy is built and
the data's features are.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .cameras import map_cameras
from .sizes import SHAPES, SMOLVLA, read_sizes, write_model, write_processor

logger = logging.getLogger(__name__)

# The one way in which pictures are prepared.
IMAGE_PREPARATION = "pad-resize-bilinear-left-top/1"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
LATENT_HEAD = "model.latent_"
# Fields of a smolvla checkpoint's configuration that may be chosen anew: no weight depends on them.
SMOLVLA_FREE = set(SMOLVLA) - set(SHAPES)


@dataclass
class Beginning:
    """The network, its first weights, and the keys of its cameras."""

    network: Any
    weights: Callable[[], dict[str, Tensor]]
    cameras: dict[str, str]


def describe(config: Any) -> None:
    """Completes the sizes of `config` from what it starts with."""
    {"artifact": _describe_artifact, "scratch": _describe_scratch, "smolvla": _describe_smolvla}[config.init_mode](
        config
    )


def begin(config: Any, latent: dict[str, int] | None, checkpoint: Path | None) -> Beginning:
    """The network for the data that `config` names: from `checkpoint`, a folder of this policy, or as `init_mode` says.

    `latent` are the sizes of the teacher's codes, where there is a teacher. The description that is reached is left in `config`.
    """
    if checkpoint is not None:
        return _begin_checkpoint(config, checkpoint)
    if config.init_mode == "artifact":
        return _begin_artifact(config, latent)
    return _begin_backbone(config, latent)


def _describe_artifact(config: Any) -> None:
    import hlrp_rs

    config.artifact = hlrp_rs.Artifact.load(config.stage2_artifact)
    manifest = config.artifact.manifest
    # Without a trained action head the shape of a chunk is open: no weight depends on it.
    free = set() if learned_actions(manifest) else {"chunk_size"}
    config.adopt(
        read_sizes(manifest["model"], manifest["processor"]), f"{config.stage2_artifact}", free | {"num_steps"}
    )
    config.processor = manifest["processor"]
    config.teacher = config.teacher or manifest["teacher"]


def _describe_scratch(config: Any) -> None:
    config.adopt({}, "")
    backbone_folder(config)


def _describe_smolvla(config: Any) -> None:
    path = Path(config.smolvla_checkpoint) / "config.json"
    hint = "hint: give the folder of a LeRobot smolvla policy (it holds config.json and model.safetensors)"
    found = read_json(path, hint)
    if found.get("type") != "smolvla":
        raise ValueError(f"{path}: its type is {found.get('type')}, not smolvla\n{hint}")
    sizes = {name: found[name] for name in SMOLVLA if name in found}
    if isinstance(sizes.get("resize_imgs_with_padding"), list):
        sizes["resize_imgs_with_padding"] = tuple(sizes["resize_imgs_with_padding"])
    # Its empty cameras belong to its data.
    sizes.pop("empty_cameras", None)
    config.adopt(sizes, f"{config.smolvla_checkpoint}", SMOLVLA_FREE)
    backbone_folder(config)


def read_json(path: Path, hint: str) -> dict[str, Any]:
    """A file that holds a JSON object; `hint` says what to give instead."""
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise FileNotFoundError(f"{path}: {error.strerror}\n{hint}") from error
    except ValueError as error:  # no JSON, or no text at all
        raise ValueError(f"{path}: it is no JSON: {error}\n{hint}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: it is no JSON object\n{hint}")
    return found


def backbone_folder(config: Any) -> Path:
    """The backbone's folder: `vlm_model_name` itself, or its snapshot in the Hugging Face cache."""
    import hlrp_rs
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(hlrp_rs.locate_model(str(config.vlm_model_name), HF_HUB_CACHE))


def learned_actions(manifest: dict[str, Any]) -> bool:
    """Whether an artifact's action head is trained."""
    return manifest["objective"]["mode"] != "latent"


def _begin_checkpoint(config: Any, folder: Path) -> Beginning:
    import hlrp_rs

    for name in TOKENIZER_FILES:
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name}: there is no such file\nhint: a checkpoint of this policy holds its tokenizer; copy the whole folder"
            )
    _match_action_dim(config, action_dim_of(config.model), f"the checkpoint {folder}")
    network = hlrp_rs.Policy(_with_flow_steps(config.model, config), config.processor, folder)
    config.model = network.model
    cameras = map_cameras(list(config.image_features), network.cameras, config.empty_cameras, config.camera_map)

    def empty() -> dict[str, Tensor]:
        import torch

        return {name: torch.empty(shape) for name, shape, _ in network.parameter_specs()}

    return Beginning(network, empty, cameras)


def _begin_artifact(config: Any, latent: dict[str, int] | None) -> Beginning:
    import hlrp_rs

    artifact = config.artifact or hlrp_rs.Artifact.load(config.stage2_artifact)
    config.artifact = None
    manifest = artifact.manifest
    model, processor = _with_flow_steps(manifest["model"], config), manifest["processor"]
    source = f"the artifact {artifact.path}"
    if learned_actions(manifest):
        _match_action_dim(config, action_dim_of(model), source)
        _match_state_dim(config, processor["state"], source)
    elif model["arch"] == "expert":
        model = model | {
            "action": model["action"] | {"action_dim": action_dim(config), "chunk_size": config.chunk_size}
        }
        processor = processor | {"action": None}
    if action_dim_of(model) is None:
        raise ValueError(f"{source} has no action head\nhint: train stage 2 with model.mode=actions or multitask")
    is_fresh = latent is not None and model.get("latent") is None
    model = _with_latent(model, latent, source)
    network = hlrp_rs.Policy(model, processor, artifact.tokenizer_folder)
    cameras = map_cameras(list(config.image_features), network.cameras, config.empty_cameras, config.camera_map)
    config.model, config.processor = network.model, network.processor

    def weights() -> dict[str, Tensor]:
        trained = artifact.tensors()
        if is_fresh:
            logger.info("%s has no latent head: it begins with fresh weights", source)
            trained |= {name: tensor for name, tensor in network.init().items() if name.startswith(LATENT_HEAD)}
        return trained

    return Beginning(network, weights, cameras)


def _begin_backbone(config: Any, latent: dict[str, int] | None) -> Beginning:
    import hlrp_rs

    folder = backbone_folder(config)
    cameras = map_cameras(list(config.image_features), None, 0, config.camera_map)
    roles = [*cameras, *(f"empty_camera_{index}" for index in range(config.empty_cameras))]
    model = write_model(config, roles, action_dim(config), latent)
    model["image_special_tokens"] = image_special_tokens(folder) if config.add_image_special_tokens else None
    processor = write_processor(config, roles, IMAGE_PREPARATION)
    network = hlrp_rs.Policy.from_backbone(folder, model, processor, num_text_layers=config.num_vlm_layers)
    config.model, config.processor = network.model, network.processor
    config.num_expert_layers = network.model["num_expert_layers"]

    def weights() -> dict[str, Tensor]:
        if config.init_mode == "smolvla":
            tensors, initialised = network.init_from_smolvla(config.smolvla_checkpoint)
            logger.info(
                "%d tensors of %s, fresh: %s", initialised.num_loaded, config.smolvla_checkpoint, initialised.fresh
            )
            return tensors
        if not config.load_vlm_weights:
            logger.warning("load_vlm_weights is false: the vision-language model begins with random weights")
        return network.init(backbone=folder if config.load_vlm_weights else None)

    return Beginning(network, weights, cameras)


def action_dim(config: Any) -> int:
    """Numbers of the data's actions."""
    return config.action_feature.shape[0]


def action_dim_of(model: dict[str, Any]) -> int | None:
    """Numbers of a model's actions."""
    return model["action_dim"] if model["arch"] == "pooled" else model["action"]["action_dim"]


def _match_action_dim(config: Any, expected: int | None, source: str) -> None:
    found = action_dim(config)
    if expected is not None and found != expected:
        raise ValueError(
            f"actions have {found} numbers here, {source} predicts {expected}\n"
            "hint: use the robot or environment that it was trained for, or start from an artifact that learned latent actions only"
        )


def _match_state_dim(config: Any, normalization: dict[str, Any] | None, source: str) -> None:
    if normalization is not None and config.state_dim != normalization["dim"]:
        here = "there are no states" if config.state_dim is None else f"states have {config.state_dim} numbers"
        raise ValueError(
            f"{here} here, {source} sees {normalization['dim']}\nhint: use data of the robot that it was trained for"
        )


def _with_flow_steps(model: dict[str, Any], config: Any) -> dict[str, Any]:
    return model | {"flow": model["flow"] | {"num_steps": config.num_steps}}


def _with_latent(model: dict[str, Any], latent: dict[str, int] | None, source: str) -> dict[str, Any]:
    """The model with a head for the teacher's codes."""
    if latent is None or model["latent"] == latent:
        return model
    if model["latent"] is not None:
        raise ValueError(
            f"{source} predicts latent actions of {model['latent']}, the teacher gives {latent}\n"
            "hint: take the latent action model that the artifact was trained with"
        )
    return model | {"latent": latent}


def image_special_tokens(folder: Path) -> dict[str, int]:
    """Ids of the tokens around an image, from the tokenizer beside a backbone."""
    path = folder / TOKENIZER_FILES[0]
    tokenizer = read_json(path, "hint: give a model that has its tokenizer beside it, as transformers saves it")
    ids = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}
    try:
        return {"fake_id": ids["<fake_token_around_image>"], "global_id": ids["<global-img>"]}
    except KeyError as error:
        raise ValueError(
            f"{path}: there is no token {error}\n"
            "hint: --policy.add_image_special_tokens=false, or a backbone whose tokenizer has it"
        ) from error
