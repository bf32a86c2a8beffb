"""DINOv3 against transformers and RAFT against torchvision, on the same random weights: `hlrp-golden` computes ours from what they did."""

import json
from pathlib import Path

import pytest
import torch
from conftest import MINI, one_error, program, run, train_laq_command
from safetensors.torch import load_file, save_file
from torchvision.models.optical_flow import raft_large, raft_small
from transformers import DINOv3ViTConfig, DINOv3ViTModel

CONFIG_ERROR = 2


def save(folder: Path, config: dict, inputs: dict, outputs: dict, weights: dict) -> None:
    """A case folder of `hlrp-golden`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    for name, tensors in {"inputs": inputs, "outputs": outputs, "weights": weights}.items():
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / f"{name}.safetensors")


def compare(cases: Path) -> None:
    result = run([program("hlrp-golden"), str(cases)])
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(" ok ") == len(list(cases.iterdir())), result.stdout


def random_dinov3(folder: Path, **sizes: object) -> DINOv3ViTModel:
    """A small model whose every weight is far from its usual start, saved in `folder`."""
    torch.manual_seed(0)
    model = DINOv3ViTModel(DINOv3ViTConfig(**sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.dim() > 1 else 0.3))
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    ("sizes", "side"),
    [
        (
            dict(hidden_size=48, intermediate_size=80, num_hidden_layers=4, num_attention_heads=3, patch_size=16),
            (64, 96),
        ),
        (
            dict(
                hidden_size=64,
                intermediate_size=96,
                num_hidden_layers=2,
                num_attention_heads=2,
                patch_size=8,
                num_register_tokens=2,
                use_gated_mlp=True,
                hidden_act="silu",
                mlp_bias=False,
                rope_theta=50.0,
            ),
            (40, 40),
        ),
    ],
)
def test_dinov3(tmp_path, sizes, side):
    case = tmp_path / "cases" / "dinov3"
    model = random_dinov3(case / "hf", **sizes)
    pixels = torch.randn(2, 3, *side)
    with torch.no_grad():
        result = model(pixels)
    outputs = {"image.last_hidden_state": result.last_hidden_state, "image.pooler_output": result.pooler_output}
    save(case, {}, {"image.pixel_values": pixels}, outputs, model.state_dict())
    compare(case.parent)


@pytest.mark.parametrize(("build", "name"), [(raft_small, "raft_small"), (raft_large, "raft_large")])
@pytest.mark.parametrize("side", [(128, 128), (128, 168)])
def test_raft(tmp_path, build, name, side):
    torch.manual_seed(1)
    model = build(weights=None).eval()
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if key.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif key.endswith("running_mean"):
                tensor.normal_(0, 0.1)
    frames = torch.randint(0, 256, (2, 3, *side), dtype=torch.uint8)
    moved = torch.roll(frames, shifts=(3, -5), dims=(2, 3))
    num_updates = 3
    with torch.no_grad():
        flows = model(frames.float() / 255 * 2 - 1, moved.float() / 255 * 2 - 1, num_flow_updates=num_updates)
    outputs = {f"flow.{update}": flow for update, flow in enumerate(flows)}
    config = {"num_flow_updates": num_updates, "channel_stride": 1}
    case = tmp_path / "cases" / name
    save(case, config, {"image1_u8": frames, "image2_u8": moved}, outputs, model.state_dict())
    compare(case.parent)


DINO_MINI = [
    *[
        word
        for word in MINI
        if not word.startswith(("experiment=", "model=", "model.decoders.pixel", "model.quantizer"))
    ],
    "model.decoders.token.depth=1",
    "training.max_steps=4",
]


def test_a_model_starts_from_published_weights_and_checkpoints_hold_them(tmp_path):
    sizes = dict(hidden_size=24, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, patch_size=4)
    random_dinov3(tmp_path / "dino", **sizes, num_register_tokens=1)
    run_dir = tmp_path / "run"
    words = ["experiment=laq_dino_tiny", *DINO_MINI, "model.encoder.dinov3.sizes=null"]
    command = train_laq_command(*words, f"model.encoder.dinov3.model={tmp_path / 'dino'}", f"logging.run_dir={run_dir}")
    result = run(command)
    assert result.returncode == 0, result.stderr
    published = load_file(tmp_path / "dino" / "model.safetensors")
    trained = load_file(run_dir / "checkpoints/step-000004/model.safetensors")
    for name, tensor in published.items():
        if name != "embeddings.mask_token":
            assert torch.equal(trained[f"dino_feature_extractor.model.{name}"], tensor), f"{name} is frozen"
    description = json.loads((run_dir / "checkpoints/step-000004/checkpoint.json").read_text())["task"]["model"]
    assert description["encoder"]["dinov3"]["sizes"]["hidden_size"] == 24
    assert description["encoder"]["dinov3"]["model"] is None, "the checkpoint needs no other file"


def test_missing_and_other_weights_are_one_clear_error(tmp_path):
    words = ["experiment=laq_dino_tiny", *DINO_MINI, f"logging.run_dir={tmp_path / 'run'}"]
    gated = ["model.encoder.dinov3.model=facebook/not-here", f"model.encoder.dinov3.hub_cache={tmp_path}"]
    message = one_error(run(train_laq_command(*words, *gated)), CONFIG_ERROR, ["model.encoder.dinov3.model", "hint:"])
    assert "gated" in message
    assert f"`hlrp data download facebook/not-here --repo-type model --cache-dir {tmp_path}`" in message
    sizes = dict(hidden_size=24, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, patch_size=4)
    random_dinov3(tmp_path / "dino", **sizes)
    other = train_laq_command(*words, f"model.encoder.dinov3.model={tmp_path / 'dino'}")
    one_error(run(other), CONFIG_ERROR, ["model.encoder.dinov3.sizes", str(tmp_path / "dino"), "hint:"])
    (tmp_path / "dino" / "model.safetensors").unlink()
    gone = train_laq_command(
        *words, f"model.encoder.dinov3.model={tmp_path / 'dino'}", "model.encoder.dinov3.sizes=null"
    )
    one_error(run(gone), 1, ["no weights", str(tmp_path / "dino"), "hint:"])
