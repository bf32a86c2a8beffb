"""What the tests of the LeRobot plugin share: tiny models, an artifact, and LeRobot's own programs run on them.

LeRobot's command line programs are called in this process through the function behind their console script, because importing them
takes longer than what they do here. One test runs them as a user does.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from conftest import DATA, REPO

PLUGIN = REPO / "lerobot_policy_hlrp"
PUSHT = DATA / "pusht_scripted"
METAWORLD = DATA / "metaworld_mt5"
ROLE = "primary"
CHUNK = 6
SIDE = 64
# SmolVLA's fields for a policy around the tiny backbone.
SIZES = {
    "chunk_size": CHUNK,
    "n_action_steps": CHUNK,
    "num_vlm_layers": 2,
    "resize_imgs_with_padding": (SIDE, SIDE),
}


def install_plugin(folder: Path) -> Path:
    """Builds the wheel from a copy of the sources and unpacks it into a folder that can stand on a Python path."""
    sources, wheels, site = folder / "sources", folder / "wheels", folder / "site"
    shutil.copytree(PLUGIN, sources, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(sources)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, capture_output=True)
    return site


def environment(site: Path) -> dict[str, str]:
    """The environment of a user who has installed the plugin and works offline."""
    return os.environ | {"PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1", "MUJOCO_GL": "osmesa", "OMP_NUM_THREADS": "1"}


def dataset(folder: Path) -> list[str]:
    """Flags that name a dataset."""
    return [f"--dataset.repo_id=local/{folder.name}", f"--dataset.root={folder}"]


def flags(**options: object) -> list[str]:
    """`--policy.name=value` for every option."""
    return [f"--policy.{name}={as_text(value)}" for name, value in options.items()]


def as_text(value: object) -> str:
    return json.dumps(value) if isinstance(value, (bool, list, tuple, dict)) or value is None else str(value)


def train_command(data: Path, output: Path, steps: int, *extra: str) -> list[str]:
    """Arguments of `lerobot-train`."""
    return [
        *dataset(data),
        "--policy.device=cpu",
        "--batch_size=4",
        "--num_workers=0",
        f"--steps={steps}",
        "--log_freq=5",
        "--wandb.enable=false",
        "--env_eval_freq=0",
        f"--output_dir={output}",
        *extra,
    ]


@contextmanager
def command_line(*arguments: object) -> Iterator[None]:
    """The arguments as a program sees them."""
    with mock.patch.object(sys, "argv", ["lerobot", *map(str, arguments)]):
        yield


def lerobot_train(*arguments: object) -> None:
    """`lerobot-train` in this process."""
    from lerobot.scripts import lerobot_train

    with command_line(*arguments):
        lerobot_train.main()


def lerobot_eval(*arguments: object) -> None:
    """`lerobot-eval` in this process."""
    from lerobot.scripts import lerobot_eval

    with command_line(*arguments):
        lerobot_eval.main()


def pretrained(output: Path, step: str = "last") -> Path:
    """The policy folder of a checkpoint."""
    return output / "checkpoints" / step / "pretrained_model"


def backbone(folder: Path) -> Path:
    """A tiny SmolVLM with random weights, as transformers saves it."""
    import torch
    from smolvla_reference import tiny_vlm_folder
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

    tiny_vlm_folder(folder, num_layers=3)
    torch.manual_seed(0)
    model = SmolVLMForConditionalGeneration(SmolVLMConfig.from_pretrained(folder))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0) if parameter.dim() > 1 else parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def smolvla_policy(
    vlm: Path, state_dim: int, action_dim: int, keys: tuple[str, ...] = ("observation.image",), **options
):
    """LeRobot's own policy with random float32 weights."""
    import torch
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    torch.manual_seed(1)
    config = SmolVLAConfig(
        input_features={key: PolicyFeature(FeatureType.VISUAL, (3, 96, 96)) for key in keys}
        | {"observation.state": PolicyFeature(FeatureType.STATE, (state_dim,))},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (action_dim,))},
        vlm_model_name=str(vlm),
        device="cpu",
        push_to_hub=False,
        **(SIZES | options),
    )
    return SmolVLAPolicy(config).float()


def stage2_artifact(
    folder: Path, vlm: Path, mode: str, action_dim: int, teacher: dict | None, statistics: dict[str, dict] | None
) -> Path:
    """An artifact as stage 2 leaves it, with random weights. `statistics` are those of `state` and `action`."""
    import torch
    from safetensors.torch import save_file
    from smolvla_reference import expert_model

    policy = smolvla_policy(vlm, action_dim, action_dim)
    latent = (
        None if teacher is None else {name: teacher[name] for name in ("code_seq_len", "code_dim", "codebook_size")}
    )
    model = expert_model(policy, latent) | {"cameras": [ROLE]}
    weights = {name: tensor.detach().clone() for name, tensor in policy.state_dict().items()}
    if latent is not None:
        width = weights["model.action_in_proj.weight"].shape[0]
        shapes = {"in_proj.weight": (width, latent["code_dim"]), "in_proj.bias": (width,)}
        shapes |= {"out_proj.weight": (latent["code_dim"], width), "out_proj.bias": (latent["code_dim"],)}
        weights |= {f"model.latent_{name}": 0.1 * torch.randn(shape) for name, shape in shapes.items()}
    folder.mkdir(parents=True)
    save_file(weights, folder / "model.safetensors")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(vlm / name, folder / name)
    scalings = {
        name: {"mode": "mean_std", "dim": action_dim, "statistics": values}
        for name, values in (statistics or {}).items()
    }
    identity = teacher or dict.fromkeys(
        ("sha256", "codebook_size", "code_seq_len", "code_dim", "image_size", "pair"), None
    )
    record = {
        "format": "hlrp-vla-artifact",
        "format_version": 3,
        "hlrp": "0.1.0",
        "policy": {
            "model": model,
            "processor": {
                "image_preparation": "pad-resize-bilinear-left-top/1",
                "frame_size": None,
                "tokenizer": None,
                "tokenizer_max_length": 48,
                "pad_language_to": "longest",
                "padding_side": "right",
                "truncation_side": "left",
                "system_prompt": "",
                "newline": True,
                "state": scalings.get("state"),
                "action": scalings.get("action"),
            },
            "objective": {"mode": mode, "latent_loss_weight": 0.1, "action_loss_weight": 1.0},
            "teacher": {"checkpoint": None, "weights": "trained", "camera": ROLE} | identity,
        },
        "provenance": {"experiment": "test", "step": 7},
        "files": {
            path.name: {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for path in sorted(folder.iterdir())
        },
    }
    (folder / "artifact.json").write_text(json.dumps(record))
    return folder
