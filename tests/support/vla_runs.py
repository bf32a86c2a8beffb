"""Mini runs of `hlrp train-vla` and what they leave behind."""

import json
from pathlib import Path

from conftest import VLA_MINI, run, train_vla_command
from safetensors.numpy import load_file, save_file

BACKBONE = "model.vlm_with_expert.vlm."


def words_for(run_dir: Path, teacher: Path, *words: object) -> list[str]:
    """The command line of a mini run."""
    return train_vla_command(*VLA_MINI, f"policy.teacher.checkpoint={teacher}", f"logging.run_dir={run_dir}", *words)


def trained(run_dir: Path, teacher: Path, *words: object) -> Path:
    result = run(words_for(run_dir, teacher, *words))
    assert result.returncode == 0, result.stderr
    return run_dir


def record(artifact: Path) -> dict:
    return json.loads((artifact / "artifact.json").read_text())


def policy(run_dir: Path) -> dict:
    """The description of a trained policy."""
    return record(run_dir / "artifacts/final")["policy"]


def backbone_folder(folder: Path, run_dir: Path | None = None) -> Path:
    """A model folder as transformers saves it, of the mini policy's sizes; with the backbone's weights of a run, if one is given."""
    folder.mkdir()
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    text = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e5,
        "vocab_size": 352,
    }
    config = {"model_type": "smolvlm", "scale_factor": 2, "image_token_id": 336}
    (folder / "config.json").write_text(json.dumps(config | {"vision_config": vision, "text_config": text}))
    if run_dir:
        weights = load_file(run_dir / "artifacts/final/model.safetensors")
        own = {name.removeprefix(BACKBONE): tensor for name, tensor in weights.items() if name.startswith(BACKBONE)}
        save_file(own, folder / "model.safetensors")
    return folder
