"""The SmolVLM backbone against transformers, on the same random weights: hidden states, logits and gradients."""

import shutil
from pathlib import Path

import pytest
import torch
from conftest import program, run
from safetensors.torch import load_file, save_file
from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
# All gradients are larger, but for one that is zero in exact arithmetic (the bias of keys) and comes out as noise.
SMALLEST_GRADIENT = 1e-2
NUM_LAYERS = 4
IMAGE_TOKEN = 150
PAD_TOKEN = 2
PATCHES_PER_TOKEN_SIDE = 4
PATCH = 8


def build_model(folder: Path, **overrides) -> SmolVLMForConditionalGeneration:
    """A tiny SmolVLM whose every weight is far from its usual start, saved in `folder`."""
    torch.manual_seed(0)
    config = SmolVLMConfig(
        vision_config={
            "hidden_size": 36,
            "intermediate_size": 80,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "image_size": 96,
            "patch_size": PATCH,
        },
        text_config={
            "model_type": "llama",
            "hidden_size": 60,
            "intermediate_size": 112,
            "num_hidden_layers": NUM_LAYERS,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "rms_norm_eps": 1e-5,
            "rope_theta": 100000.0,
            "vocab_size": 160,
            "pad_token_id": PAD_TOKEN,
            "tie_word_embeddings": overrides.get("tie_word_embeddings", False),
        },
        scale_factor=PATCHES_PER_TOKEN_SIDE,
        image_token_id=IMAGE_TOKEN,
        pad_token_id=PAD_TOKEN,
        **overrides,
    )
    model = SmolVLMForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0) if parameter.dim() > 1 else parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


def make_inputs(side: int, padding: str) -> dict[str, torch.Tensor]:
    """Two prompts with an image each; the second prompt is shorter by five tokens."""
    generator = torch.Generator().manual_seed(side)
    num_image_tokens = (side // PATCH // PATCHES_PER_TOKEN_SIDE) ** 2
    text = torch.randint(3, IMAGE_TOKEN, (2, 17), generator=generator)
    image = torch.full((2, num_image_tokens), IMAGE_TOKEN)
    ids = torch.cat([text[:, :3], image, text[:, 3:]], dim=1)
    mask = torch.ones_like(ids)
    if padding == "right":
        ids[1, -5:], mask[1, -5:] = PAD_TOKEN, 0
    elif padding == "left":
        ids[1] = torch.cat([torch.full((5,), PAD_TOKEN), ids[1, :-5]])
        mask[1, :5] = 0
    elif padding == "inside":
        mask[1, -9:-4] = 0
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "pixel_values": torch.rand(2, 3, side, side, generator=generator) * 2 - 1,
        # Only real tokens count: what a padded query holds means nothing.
        "logit_weights": torch.randn(*ids.shape, 160, generator=generator) * mask.unsqueeze(-1),
    }


def reference(model, inputs: dict[str, torch.Tensor], num_layers: int) -> dict[str, torch.Tensor]:
    """Results of transformers under our names."""
    model.model.text_model.layers = model.model.text_model.layers[:num_layers]
    model.model.text_model.config.num_hidden_layers = num_layers
    results = {}

    def keep(name):
        return lambda _module, _inputs, output: results.__setitem__(
            name, output[0] if isinstance(output, tuple) else output
        )

    handles = [layer.register_forward_hook(keep(f"layer{i}")) for i, layer in enumerate(model.model.text_model.layers)]
    handles.append(model.model.text_model.norm.register_forward_hook(keep("norm")))
    handles.append(model.model.connector.register_forward_hook(keep("image_tokens")))
    model.zero_grad()
    results["logits"] = model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        pixel_values=inputs["pixel_values"].unsqueeze(1),
    ).logits
    (results["logits"] * inputs["logit_weights"]).sum().backward()
    for handle in handles:
        handle.remove()
    gradients = {f"grad.{name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: tensor.detach() for name, tensor in (results | gradients).items()}


def ours(folder: Path, inputs: dict[str, torch.Tensor], num_layers: int, workspace: Path) -> dict[str, torch.Tensor]:
    """Results of the Rust backbone."""
    save_file({name: tensor.contiguous() for name, tensor in inputs.items()}, workspace / "inputs.safetensors")
    command = [
        program("examples/smolvlm_forward"),
        folder,
        workspace / "inputs.safetensors",
        workspace / "outputs.safetensors",
        num_layers,
    ]
    result = run(list(map(str, command)))
    assert result.returncode == 0, result.stderr
    return load_file(workspace / "outputs.safetensors")


def assert_equal(actual: dict, expected: dict, mask: torch.Tensor) -> None:
    """Every expected tensor, relative to its largest magnitude; hidden states at real tokens."""
    for name, reference_tensor in expected.items():
        tensor, tolerance, smallest = actual[name], TOLERANCE, 0.0
        if name.startswith("grad."):
            tolerance, smallest = GRADIENT_TOLERANCE, SMALLEST_GRADIENT
        elif name != "image_tokens":
            tensor, reference_tensor = tensor[mask == 1], reference_tensor[mask == 1]
        error = (tensor - reference_tensor).abs().max().item()
        assert error <= tolerance * max(reference_tensor.abs().max().item(), smallest), f"{name}: {error}"


def compare(model, folder: Path, inputs: dict[str, torch.Tensor], num_layers: int, workspace: Path) -> None:
    expected = reference(model, inputs, num_layers)
    actual = ours(folder, inputs, num_layers, workspace)
    assert {name for name in actual if name.startswith("grad.")} == {
        name for name in expected if name.startswith("grad.")
    }
    assert_equal(actual, expected, inputs["attention_mask"])


@pytest.mark.parametrize("padding", ["none", "right", "left", "inside"])
@pytest.mark.parametrize("side", [96, 64])
def test_hidden_states_and_gradients(tmp_path, side, padding):
    model = build_model(tmp_path / "model")
    compare(model, tmp_path / "model", make_inputs(side, padding), NUM_LAYERS, tmp_path)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_kept_layers(tmp_path, num_layers):
    model = build_model(tmp_path / "model")
    compare(model, tmp_path / "model", make_inputs(96, "right"), num_layers, tmp_path)


def test_tied_head(tmp_path):
    model = build_model(tmp_path / "model", tie_word_embeddings=True)
    compare(model, tmp_path / "model", make_inputs(64, "none"), NUM_LAYERS, tmp_path)


def test_shards_and_bfloat16(tmp_path):
    model = build_model(tmp_path / "model").to(torch.bfloat16)
    shutil.rmtree(tmp_path / "model")
    model.save_pretrained(tmp_path / "model", max_shard_size="100KB")
    assert (tmp_path / "model" / "model.safetensors.index.json").exists()
    # Reading it again keeps transformers' rotary table in float32.
    model = SmolVLMForConditionalGeneration.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    compare(model, tmp_path / "model", make_inputs(64, "right"), NUM_LAYERS, tmp_path)


def test_the_comparison_notices_a_wrong_weight(tmp_path):
    model = build_model(tmp_path / "model")
    with torch.no_grad():
        model.model.text_model.layers[1].self_attn.k_proj.weight[0, 0] += 0.01
    with pytest.raises(AssertionError, match="layer1"):
        compare(model, tmp_path / "model", make_inputs(64, "none"), NUM_LAYERS, tmp_path)
