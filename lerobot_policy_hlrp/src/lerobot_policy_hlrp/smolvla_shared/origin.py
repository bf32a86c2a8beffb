"""Where a policy starts: its description, its network and its first weights.

`describe` completes a configuration before any data is known; `start` makes the network when the policy is built and the data's features are
known.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .cameras import map_cameras
from .sizes import SHAPES, SMOLVLA, described, read_sizes, with_choices, with_values

logger = logging.getLogger(__name__)

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
LATENT_HEAD = "model.latent_"
# The training modes under the names of stage 2.
MODES = {"action": "actions", "latent": "latent", "multitask": "multitask"}
# Fields of a smolvla checkpoint's configuration that may be chosen anew: no weight depends on them.
SMOLVLA_FREE = set(SMOLVLA) - set(SHAPES)


@dataclass
class Start:
    """The network, its first weights, and the keys of its cameras."""

    network: Any
    weights: Callable[[], dict[str, Tensor]]
    cameras: dict[str, str]


def describe(config: Any) -> None:
    """Completes the sizes of `config` from what it starts with."""
    {"artifact": _describe_artifact, "scratch": _describe_scratch, "smolvla": _describe_smolvla}[config.init_mode](
        config
    )


def start(config: Any, latent: dict[str, int] | None, checkpoint: Path | None) -> Start:
    """The network for the data that `config` names: from `checkpoint`, a folder of this policy, or as `init_mode` says.

    `latent` is the shape of the teacher's codes, where there is a teacher. The description that is reached is left in `config`.
    """
    if checkpoint is not None:
        return _start_checkpoint(config, checkpoint)
    if config.init_mode == "artifact":
        return _start_artifact(config, latent)
    return _start_backbone(config, latent)


def _describe_artifact(config: Any) -> None:
    import hlrp_rs

    config.artifact = hlrp_rs.Artifact.load(config.stage2_artifact)
    policy = config.artifact.manifest["policy"]
    # Without a trained action head the shape of a chunk is open: no weight depends on it.
    free = set() if learned_actions(policy) else {"chunk_size"}
    # Without a latent head its kind is open.
    free |= set() if policy["model"]["latent"] else {"latent_head"}
    sizes = {"chunk_size": config.artifact.policy().chunk_size} | read_sizes(policy["model"], policy["processor"])
    config.adopt(sizes, f"{config.stage2_artifact}", free | {"num_steps", "latent_dropout"})
    config.processor = policy["processor"]
    config.teacher = config.teacher or config.artifact.teacher
    config.trained_mode = next(name for name, mode in MODES.items() if mode == policy["objective"]["mode"])


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
    except ValueError as error:  # invalid JSON, or not text
        raise ValueError(f"{path}: invalid JSON: {error}\n{hint}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: not a JSON object\n{hint}")
    return found


def backbone_folder(config: Any) -> Path:
    """The backbone's folder: `vlm_model_name` itself, or its snapshot in the Hugging Face cache."""
    import hlrp_rs
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(hlrp_rs.locate_model(str(config.vlm_model_name), HF_HUB_CACHE))


def learned_actions(policy: dict[str, Any]) -> bool:
    """Whether the action head of an artifact's policy is trained."""
    return policy["objective"]["mode"] != "latent"


def _start_checkpoint(config: Any, folder: Path) -> Start:
    import hlrp_rs

    for name in TOKENIZER_FILES:
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name}: the file is missing\nhint: a checkpoint of this policy holds its tokenizer; copy the whole folder"
            )
    source = f"the checkpoint {folder}"
    _match_action_dim(config, config.model["action_dim"], source)
    network = hlrp_rs.Policy(with_choices(config.model, config), config.processor, folder)
    if config.chunk_size != network.chunk_size:
        raise ValueError(
            f"chunk_size = {config.chunk_size}, but {source} predicts {network.chunk_size} steps\nhint: leave it out"
        )
    config.model = network.model
    cameras = map_cameras(list(config.image_features), network.cameras, config.empty_cameras, config.camera_map)

    def empty() -> dict[str, Tensor]:
        import torch

        return {name: torch.empty(shape) for name, shape, _ in network.parameter_specs()}

    return Start(network, empty, cameras)


def _start_artifact(config: Any, latent: dict[str, int] | None) -> Start:
    import hlrp_rs

    artifact = config.artifact or hlrp_rs.Artifact.load(config.stage2_artifact)
    config.artifact = None
    policy = artifact.manifest["policy"]
    model, processor = with_choices(policy["model"], config), policy["processor"]
    source = f"the artifact {artifact.path}"
    if learned_actions(policy):
        _match_action_dim(config, model["action_dim"], source)
        _match_state_dim(config, processor["state"], source)
    elif model["action_dim"] is not None:
        # An action head that is not trained takes the shape of this data.
        model = with_values(model, {"action_dim": action_dim(config), "chunk_size": config.chunk_size})
        processor = processor | {"action": None}
    if model["action_dim"] is None:
        raise ValueError(
            f"{source} has no action head\nhint: train stage 2 with policy.objective.mode=actions or multitask"
        )
    is_fresh = latent is not None and model.get("latent") is None
    model = _with_latent(model, latent, source)
    if is_fresh:
        model = with_values(model, {"latent_head": config.latent_head})
    network = hlrp_rs.Policy(model, processor, artifact.tokenizer_folder)
    cameras = map_cameras(list(config.image_features), network.cameras, config.empty_cameras, config.camera_map)
    config.model, config.processor = network.model, network.processor

    def weights() -> dict[str, Tensor]:
        trained = artifact.tensors()
        if is_fresh:
            logger.info("%s has no latent head: it starts with fresh weights", source)
            trained |= {name: tensor for name, tensor in network.init().items() if name.startswith(LATENT_HEAD)}
        return trained

    return Start(network, weights, cameras)


def _start_backbone(config: Any, latent: dict[str, int] | None) -> Start:
    import hlrp_rs

    folder = backbone_folder(config)
    cameras = map_cameras(list(config.image_features), None, 0, config.camera_map)
    roles = [*cameras, *(f"empty_camera_{index}" for index in range(config.empty_cameras))]
    description = hlrp_rs.smolvla_description(described(config), roles, action_dim(config), latent)
    network = hlrp_rs.Policy.from_backbone(folder, *description)
    config.model, config.processor = network.model, network.processor
    config.num_expert_layers = read_sizes(network.model, network.processor)["num_expert_layers"]

    def weights() -> dict[str, Tensor]:
        if config.init_mode == "smolvla":
            tensors, initialised = network.init_from_smolvla(config.smolvla_checkpoint)
            logger.info(
                "%d tensors of %s, fresh: %s", initialised.num_loaded, config.smolvla_checkpoint, initialised.fresh
            )
            return tensors
        if not config.load_vlm_weights:
            logger.warning("load_vlm_weights is false: the vision-language model starts with random weights")
        return network.init(backbone=folder if config.load_vlm_weights else None)

    return Start(network, weights, cameras)


def action_dim(config: Any) -> int:
    """Dimensions of the data's actions."""
    return config.action_feature.shape[0]


def _match_action_dim(config: Any, expected: int | None, source: str) -> None:
    found = action_dim(config)
    if expected is not None and found != expected:
        raise ValueError(
            f"actions have {found} dimensions here, {source} predicts {expected}\n"
            "hint: use the robot or environment that it was trained for, or start from an artifact that learned latent actions only"
        )


def _match_state_dim(config: Any, normalization: dict[str, Any] | None, source: str) -> None:
    if normalization is not None and config.state_dim != normalization["dim"]:
        here = "there are no states" if config.state_dim is None else f"states have {config.state_dim} dimensions"
        raise ValueError(
            f"{here} here, {source} sees {normalization['dim']}\nhint: use data of the robot that it was trained for"
        )


def _with_latent(model: dict[str, Any], latent: dict[str, int] | None, source: str) -> dict[str, Any]:
    """The model with a head for the teacher's codes."""
    if latent is None:
        return model
    if model["latent"] is not None:
        if all(model["latent"][name] == latent[name] for name in ("code_seq_len", "code_dim")):
            return model
        raise ValueError(
            f"{source} predicts latent actions of {model['latent']}, the teacher's are {latent}\n"
            "hint: take the latent action model that the artifact was trained with"
        )
    return model | {"latent": latent}
