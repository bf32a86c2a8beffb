"""The expert model against LeRobot's `smolvla` policy, on the same random weights.

Hidden states, losses, gradients of every parameter and sampled chunks. LeRobot has no latent head; there its policy denoises
code vectors instead of actions: same network, with two other projections and another number of steps.
"""

import json
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from conftest import program, run
from safetensors.torch import load_file
from smolvla_reference import (
    ACTION_DIM,
    BATCH,
    CHUNK,
    NUM_LAYERS,
    STATE_DIM,
    build_tiny_policy,
    expert_model,
    save_weights,
    tiny_vlm_folder,
)
from torch import nn

TOLERANCE = 1e-5
FIRST_ACTION_TOLERANCE = 1e-6
CODES = {"code_seq_len": 4, "code_dim": 5}
LATENT_WEIGHT, ACTION_WEIGHT = 0.3, 2.0
LATENT_HEAD = ("latent_in_proj", "latent_out_proj")


@dataclass(frozen=True)
class Case:
    """One comparison: `options` are LeRobot's, the rest says what the batch lacks."""

    side: int = 64
    num_cameras: int = 1
    pad_text: bool = False
    pad_steps: bool = False
    lack_cameras: bool = False
    pad_dims: bool = False
    empty_cameras: int = 0
    options: dict = field(default_factory=dict)

    def cameras(self) -> list[str]:
        return ["top", "wrist", "side"][: self.num_cameras]


FREE = {"train_expert_only": False, "freeze_vision_encoder": False}
PADDED = {
    "pad_text": True,
    "pad_steps": True,
    "lack_cameras": True,
    "pad_dims": True,
    "empty_cameras": 1,
}


def make_policy(case: Case, folder: Path):
    """A tiny policy whose every weight is far from its usual start, with two projections for code vectors."""
    torch.manual_seed(0)
    policy = build_tiny_policy(
        tiny_vlm_folder(folder / "vlm", NUM_LAYERS + 1),
        case.cameras(),
        max_state_dim=STATE_DIM + 6 * case.pad_dims,
        max_action_dim=ACTION_DIM + 5 * case.pad_dims,
        resize_imgs_with_padding=(case.side, case.side),
        empty_cameras=case.empty_cameras,
        **case.options,
    )
    width = policy.model.vlm_with_expert.expert_hidden_size
    policy.model.latent_in_proj = nn.Linear(CODES["code_dim"], width)
    policy.model.latent_out_proj = nn.Linear(width, CODES["code_dim"])
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.dim() > 1:
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn_like(parameter) * fan_in**-0.5)
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))
        # Tokens are scaled by the root of the width; pictures and words then weigh alike.
        policy.model.vlm_with_expert.get_vlm_model().text_model.embed_tokens.weight.mul_(0.3)
    return policy.eval()


def make_inputs(case: Case, policy) -> dict[str, torch.Tensor]:
    """A batch under the names that our program reads; the pictures are wider than high, so that the preparation pads."""
    generator = torch.Generator().manual_seed(1)

    def random(*size):
        return torch.randn(*size, generator=generator)

    config = policy.config
    text_valid = torch.ones(BATCH, 9, dtype=torch.int64)
    is_pad = torch.zeros(BATCH, CHUNK, dtype=torch.int64)
    if case.pad_text:
        text_valid[1, 4:], text_valid[2, 7:] = 0, 0
    if case.pad_steps:
        is_pad[0, 2:], is_pad[2, 5:] = 1, 1
    inputs = {
        "language.ids": torch.randint(3, 300, (BATCH, 9), generator=generator),
        "language.is_valid": text_valid,
        "state": random(BATCH, STATE_DIM),
        "actions": random(BATCH, CHUNK, ACTION_DIM),
        "actions.is_pad": is_pad,
        "latents": random(BATCH, *CODES.values()),
        "latents.is_valid": torch.tensor([1, 1, 0 if case.pad_steps else 1]),
        "time.action": torch.tensor([0.05, 0.5, 0.93]),
        "time.latent": torch.tensor([0.7, 0.31, 1.0]),
    }
    for prefix in ("", "sample."):
        inputs[f"{prefix}noise.action"] = random(BATCH, CHUNK, config.max_action_dim)
        inputs[f"{prefix}noise.latent"] = random(BATCH, *CODES.values())
    for index, camera in enumerate(case.cameras()):
        inputs[f"camera.{camera}"] = torch.rand(BATCH, 3, 40 + 8 * index, 72, generator=generator)
        is_real = torch.ones(BATCH, dtype=torch.int64)
        if case.lack_cameras and index > 0:
            is_real[index - 1] = 0
        inputs[f"camera.{camera}.is_real"] = is_real
    return inputs


def lerobot_batch(inputs: dict[str, torch.Tensor], case: Case) -> dict[str, torch.Tensor]:
    """The same batch under LeRobot's names."""
    batch = {
        "observation.language.tokens": inputs["language.ids"],
        "observation.language.attention_mask": inputs["language.is_valid"].bool(),
        "observation.state": inputs["state"],
        "action": inputs["actions"],
        "action_is_pad": inputs["actions.is_pad"].bool(),
    }
    for camera in case.cameras():
        batch[f"observation.images.{camera}"] = inputs[f"camera.{camera}"]
        batch[f"observation.images.{camera}_padding_mask"] = inputs[f"camera.{camera}.is_real"].bool()
    return batch


@contextmanager
def denoising_codes(policy):
    """LeRobot's network as a denoiser of code vectors."""
    model = policy.model
    actions = model.action_in_proj, model.action_out_proj, model.config.chunk_size
    model.action_in_proj, model.action_out_proj = model.latent_in_proj, model.latent_out_proj
    model.config.chunk_size = CODES["code_seq_len"]
    yield
    model.action_in_proj, model.action_out_proj, model.config.chunk_size = actions


@contextmanager
def watching(policy, results: dict[str, torch.Tensor], prefix: str):
    """Records hidden states under our names."""
    model, vlm = policy.model, policy.model.vlm_with_expert
    handles = []

    def keep_input(module, name):
        keep = lambda _module, inputs: results.__setitem__(f"{prefix}.{name}", inputs[0])  # noqa: E731
        handles.append(module.register_forward_pre_hook(keep))

    def keep_output(module, name):
        keep = lambda _module, _inputs, output: results.__setitem__(f"{prefix}.{name}", output)  # noqa: E731
        handles.append(module.register_forward_hook(keep))

    text = vlm.get_vlm_model().text_model
    spacing = vlm.num_vlm_layers // vlm.num_expert_layers
    streams = [("vlm", text.layers, 1), ("expert", vlm.lm_expert.layers, spacing)]
    for stream, layers, step in streams:
        for index, layer in enumerate(layers):
            keep_input(layer.input_layernorm, f"{stream}.layer{index * step}.in")
            keep_input(layer.self_attn.o_proj, f"{stream}.layer{index * step}.attention")
    keep_output(text.norm, "vlm.normed")
    keep_output(vlm.lm_expert.norm, "expert.normed")
    keep_output(model.action_out_proj, "velocity")
    keep_output(model.latent_out_proj, "velocity")
    embed_prefix = model.embed_prefix

    def recorded(*arguments, **keywords):
        outputs = embed_prefix(*arguments, **keywords)
        results[f"{prefix}.prefix_embeddings"] = outputs[0]
        return outputs

    model.embed_prefix = recorded
    yield
    model.embed_prefix = embed_prefix
    for handle in handles:
        handle.remove()


def latent_loss(policy, batch, inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean over real pairs, and the mean of each of them."""
    images, masks = policy.prepare_images(batch)
    with denoising_codes(policy):
        errors = policy.model(
            images,
            masks,
            batch["observation.language.tokens"],
            batch["observation.language.attention_mask"],
            policy.prepare_state(batch),
            inputs["latents"],
            inputs["noise.latent"],
            inputs["time.latent"],
        )
    is_valid = inputs["latents.is_valid"].float()
    per_sample = errors.mean(dim=(1, 2)) * is_valid
    return per_sample.sum() / is_valid.sum(), per_sample


def reference(policy, inputs: dict[str, torch.Tensor], case: Case) -> dict[str, torch.Tensor]:
    """LeRobot's results under our names."""
    batch, results = lerobot_batch(inputs, case), {}

    def backward(mode: str, total: torch.Tensor) -> None:
        policy.zero_grad()
        total.backward()
        results[f"{mode}.loss"] = total
        for name, parameter in policy.named_parameters():
            if parameter.grad is not None:
                results[f"{mode}.grad.{name}"] = parameter.grad.clone()

    def action_loss(reduction):
        return policy(batch, noise=inputs["noise.action"], time=inputs["time.action"], reduction=reduction)[0]

    with watching(policy, results, "joint.action"):
        action = action_loss("mean")
    results["actions.action.per_sample"] = results["multitask.action.per_sample"] = action_loss("none")
    backward("actions", ACTION_WEIGHT * action)
    with watching(policy, results, "joint.latent"):
        latent, per_sample = latent_loss(policy, batch, inputs)
    results["latent.latent.per_sample"] = results["multitask.latent.per_sample"] = per_sample
    backward("latent", LATENT_WEIGHT * latent)
    backward("multitask", LATENT_WEIGHT * latent_loss(policy, batch, inputs)[0] + ACTION_WEIGHT * action_loss("mean"))

    with torch.no_grad():
        results["sample.actions"] = policy.predict_action_chunk(dict(batch), noise=inputs["sample.noise.action"])
        images, masks = policy.prepare_images(batch)
        with denoising_codes(policy):
            results["sample.latents"] = policy.model.sample_actions(
                images,
                masks,
                batch["observation.language.tokens"],
                batch["observation.language.attention_mask"],
                policy.prepare_state(batch),
                noise=inputs["sample.noise.latent"],
            )
    return {name: tensor.detach() for name, tensor in results.items()}


def ours(policy, inputs: dict[str, torch.Tensor], folder: Path) -> dict[str, torch.Tensor]:
    """Results of the Rust model."""
    case = {
        "model": expert_model(policy, CODES),
        "freezes": True,
        "latent_loss_weight": LATENT_WEIGHT,
        "action_loss_weight": ACTION_WEIGHT,
    }
    (folder / "case.json").write_text(json.dumps(case))
    save_weights(dict(policy.named_parameters()), folder / "weights.safetensors")
    save_weights(inputs, folder / "inputs.safetensors")
    result = run([program("examples/expert_pass"), str(folder)])
    assert result.returncode == 0, result.stderr
    return load_file(folder / "outputs.safetensors")


def gradients(results: dict[str, torch.Tensor]) -> set[str]:
    """Names of the gradients that are not zero: a parameter that a mode does not use may have one of zeros, or none."""
    return {name for name, tensor in results.items() if ".grad." in name and tensor.abs().max() > 0}


def assert_equal(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Every tensor of LeRobot, relative to its largest magnitude."""
    assert gradients(actual) == gradients(expected)
    for name, tensor in expected.items():
        if ".grad." in name and name not in gradients(expected):
            continue
        # What is added to all keys cancels in the softmax: its gradient is rounding noise beside that of the queries.
        yardstick = expected[name.replace("k_proj.bias", "q_proj.bias")]
        error, scale = (actual[name] - tensor).abs().max().item(), yardstick.abs().max().item()
        assert error <= TOLERANCE * scale, f"{name}: {error} of {scale}"
    for name in ("sample.actions", "sample.latents"):
        error = (actual[name][:, 0] - expected[name][:, 0]).abs().max().item()
        assert error <= FIRST_ACTION_TOLERANCE * expected[name].abs().max().item(), f"first of {name}: {error}"


def compare(case: Case, folder: Path) -> None:
    policy = make_policy(case, folder)
    inputs = make_inputs(case, policy)
    assert_equal(ours(policy, inputs, folder), reference(policy, inputs, case))


@pytest.mark.parametrize("padding", ["none", "every kind"])
@pytest.mark.parametrize("num_cameras", [1, 3])
@pytest.mark.parametrize("side", [64, 96])
def test_sizes_cameras_and_padding(tmp_path, side, num_cameras, padding):
    num_tokens = (num_cameras + 1) * (side // 32) ** 2 + 9 + 1
    padded = PADDED | {"options": FREE | {"prefix_length": num_tokens + 5}}
    case = Case(side=side, num_cameras=num_cameras, options=FREE)
    compare(replace(case, **padded) if padding == "every kind" else case, tmp_path)


@pytest.mark.parametrize(
    "padding",
    [
        {"pad_text": True},
        {"pad_steps": True},
        {"lack_cameras": True},
        {"pad_dims": True},
        {"empty_cameras": 2},
        {"options": FREE | {"prefix_length": 40}},
    ],
    ids=lambda padding: next(iter(padding)),
)
def test_each_kind_of_padding_alone(tmp_path, padding):
    compare(replace(Case(num_cameras=3, options=FREE), **padding), tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"train_state_proj": False},
        {"train_expert_only": False, "freeze_vision_encoder": True},
        FREE | {"add_image_special_tokens": True},
        FREE | {"self_attn_every_n_layers": 1},
        FREE | {"num_expert_layers": 2, "self_attn_every_n_layers": 4, "expert_width_multiplier": 0.5},
    ],
    ids=["frozen backbone", "frozen state", "frozen vision", "special tokens", "all joint", "half the layers"],
)
def test_freezing_and_architectures(tmp_path, options):
    compare(Case(num_cameras=2, pad_text=True, lack_cameras=True, options=options), tmp_path)


def test_the_comparison_notices_a_wrong_weight(tmp_path):
    case = Case(options=FREE)
    policy = make_policy(case, tmp_path)
    inputs = make_inputs(case, policy)
    actual = ours(policy, inputs, tmp_path)
    with torch.no_grad():
        policy.model.vlm_with_expert.lm_expert.layers[1].self_attn.k_proj.weight[0, 0] += 0.01
    with pytest.raises(AssertionError, match="joint.action.expert.layer1.attention"):
        assert_equal(actual, reference(policy, inputs, case))
