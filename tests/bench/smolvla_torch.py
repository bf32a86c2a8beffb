"""SmolVLA in plain PyTorch, eager: the peer of our policy where LeRobot is not installed, and what writes random weights and inputs for all peers.

It needs nothing but torch. Names of weights and mathematics are those of LeRobot's `smolvla` (frozen backbone, no special tokens around images,
as many layers of the expert as of the text model), its sizes come from a description of the model as `case.json` has it.

Shapes: B samples, L tokens of the prefix, T steps of a chunk, D width of the text model, H heads, N head dims, A padded action dims.
"""

import json
import math
import struct
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_WAVELENGTH = 10_000
STATE_DIM, ACTION_DIM = 6, 6
# Number formats in a safetensors file.
KINDS = {"F32": torch.float32, "I64": torch.int64}


def description(num_layers: int, cameras: list[str]) -> dict:
    """The published policy of 450 M parameters, with this many layers of the text model, as a description."""
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    text = {"hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": num_layers, "num_attention_heads": 15}
    sizes = {
        "vision": vision | {"image_size": 512, "patch_size": 16, "layer_norm_eps": 1e-6},
        "text": text
        | {"num_key_value_heads": 5, "head_dim": 64, "vocab_size": 49280, "rms_norm_eps": 1e-5, "rope_theta": 100000.0},
        "scale_factor": 4,
        "image_token_id": 336,
        "tie_word_embeddings": False,
    }
    backbone = {"train_expert_only": True, "freeze_vision_encoder": True, "load_vlm_weights": False}
    backbone |= {"vlm_model_name": None, "hub_cache": None, "num_vlm_layers": num_layers, "sizes": sizes}
    expert = {
        "expert_width_multiplier": 0.75,
        "self_attn_every_n_layers": 2,
        "add_image_special_tokens": False,
        "max_state_dim": 32,
        "max_action_dim": 32,
        "chunk_size": 50,
        "train_state_proj": True,
        "latent_head": "vector_flow",
        "latent_dropout": 0.0,
        "smolvla_checkpoint": None,
        "num_expert_layers": num_layers,
        "prefix_length": None,
        "image_special_tokens": None,
    }
    flow = {"num_steps": 10, "min_period": 4e-3, "max_period": 4.0, "time_beta_alpha": 1.5, "time_beta_beta": 1.0}
    return {
        "backbone": backbone,
        "cameras": cameras,
        "empty_cameras": 0,
        "resize_imgs_with_padding": [512, 512],
        "action_dim": ACTION_DIM,
        "latent": None,
        "flow": flow,
        "arch": {"expert": expert},
    }


def fresh_weights(model: dict) -> dict[str, Tensor]:
    """Weights of a described model: matrices from a normal distribution (std 0.02), norms the identity, biases zero."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Policy(model).named_parameters()}

    def draw(name: str, shape: torch.Size) -> Tensor:
        if name.endswith("bias"):
            return torch.zeros(shape)
        return torch.ones(shape) if "norm" in name else torch.randn(shape) * 0.02

    return {name: draw(name, shape) for name, shape in shapes.items()}


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes a safetensors file of float32 and int64 tensors."""
    kinds, header, end = {kind: name for name, kind in KINDS.items()}, {}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": kinds[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with path.open("ab") as file:
        file.truncate(8 + len(text) + end)
    # Mapped, because torch alone, without NumPy, has no other fast way from a tensor to a file.
    content = torch.from_file(str(path), shared=True, size=8 + len(text) + end, dtype=torch.uint8)[8 + len(text) :]
    for name, tensor in tensors.items():
        begin, end = header[name]["data_offsets"]
        content[begin:end] = tensor.detach().contiguous().flatten().view(torch.uint8)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file of float32 and int64 tensors: private maps of the file where they are aligned in it, else copies."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    content = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)[8 + length :]
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            kind, (begin, end) = KINDS[entry["dtype"]], entry["data_offsets"]
            part = content[begin:end]
            part = part.clone() if part.storage_offset() % kind.itemsize else part
            tensors[name] = part.view(kind).view(entry["shape"])
    return tensors


def tree(**modules: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict(modules)


def attend(q_BHTN: Tensor, k_BHLN: Tensor, v_BHLN: Tensor, mask_BTL: Tensor | None = None) -> Tensor:
    """Attention `[B,T,H·N]`; keys and values may have fewer heads."""
    k, v = (x.repeat_interleave(q_BHTN.shape[1] // x.shape[1], dim=1) for x in (k_BHLN, v_BHLN))
    mask = None if mask_BTL is None else mask_BTL[:, None]
    return F.scaled_dot_product_attention(q_BHTN, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def rotation(positions_BL: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines `[B,1,L,N/2]` of rotary positions."""
    half = dim // 2
    wavelengths = MAX_WAVELENGTH ** (torch.arange(half, device=positions_BL.device) / half)
    angles = (positions_BL[..., None] / wavelengths)[:, None]
    return angles.cos(), angles.sin()


def rotate(x_BHLN: Tensor, by: tuple[Tensor, Tensor]) -> Tensor:
    (cos, sin), (first, second) = by, x_BHLN.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x_BHLN.dtype)


class VisionLayer(nn.Module):
    def __init__(self, sizes: dict):
        super().__init__()
        width, inner, eps = sizes["hidden_size"], sizes["intermediate_size"], sizes["layer_norm_eps"]
        self.num_heads = sizes["num_attention_heads"]
        names = ("q_proj", "k_proj", "v_proj", "out_proj")
        self.self_attn = nn.ModuleDict({name: nn.Linear(width, width) for name in names})
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.mlp = tree(fc1=nn.Linear(width, inner), fc2=nn.Linear(inner, width))

    def forward(self, x_BLD: Tensor) -> Tensor:
        y, own = self.layer_norm1(x_BLD), self.self_attn
        heads = (own[name](y).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for name in list(own)[:3])
        x = x_BLD + own["out_proj"](attend(*heads))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.layer_norm2(x)), approximate="tanh"))


class DecoderLayer(nn.Module):
    """Of the text model, and of the expert, some of whose layers project keys and values of the text model."""

    def __init__(self, width: int, inner: int, text: dict, context: int | None = None):
        super().__init__()
        self.dim, eps = text["head_dim"], text["rms_norm_eps"]
        num_q, num_kv = text["num_attention_heads"] * self.dim, text["num_key_value_heads"] * self.dim
        linear = lambda a, b: nn.Linear(a, b, bias=False)  # noqa: E731
        self.self_attn = tree(q_proj=linear(width, num_q), o_proj=linear(num_q, width))
        self.self_attn.update({name: linear(context or width, num_kv) for name in ("k_proj", "v_proj")})
        self.mlp = tree(gate_proj=linear(width, inner), up_proj=linear(width, inner), down_proj=linear(inner, width))
        self.input_layernorm, self.post_attention_layernorm = nn.RMSNorm(width, eps), nn.RMSNorm(width, eps)

    def project(self, name: str, x_BLD: Tensor) -> Tensor:
        """Heads `[B,H,L,N]`."""
        return self.self_attn[name](x_BLD).unflatten(-1, (-1, self.dim)).transpose(1, 2)

    def finish(self, x_BLD: Tensor, attended: Tensor) -> Tensor:
        """What follows attention."""
        x = x_BLD + self.self_attn["o_proj"](attended)
        y, mlp = self.post_attention_layernorm(x), self.mlp
        return x + mlp["down_proj"](F.silu(mlp["gate_proj"](y)) * mlp["up_proj"](y))


class Policy(nn.Module):
    """The policy of a description. Inputs are those of `batch.safetensors`, images of any size in [0, 1]."""

    def __init__(self, model: dict):
        super().__init__()
        sizes, self.own, self.flow, self.described = (
            model["backbone"]["sizes"],
            model["arch"]["expert"],
            model["flow"],
            model,
        )
        vision, text = sizes["vision"], sizes["text"]
        width, patch, self.shuffle = text["hidden_size"], vision["patch_size"], sizes["scale_factor"]
        seen = vision["hidden_size"]
        vision_model = tree(
            embeddings=tree(
                patch_embedding=nn.Conv2d(3, seen, patch, stride=patch),
                position_embedding=nn.Embedding((vision["image_size"] // patch) ** 2, seen),
            ),
            encoder=tree(layers=nn.ModuleList(VisionLayer(vision) for _ in range(vision["num_hidden_layers"]))),
            post_layernorm=nn.LayerNorm(seen, eps=vision["layer_norm_eps"]),
        )
        connector = tree(modality_projection=tree(proj=nn.Linear(seen * self.shuffle**2, width, bias=False)))
        layers = range(text["num_hidden_layers"])
        text_model = tree(
            embed_tokens=nn.Embedding(text["vocab_size"], width),
            layers=nn.ModuleList(DecoderLayer(width, text["intermediate_size"], text) for _ in layers),
            norm=nn.RMSNorm(width, text["rms_norm_eps"]),
        )
        vlm = tree(
            model=tree(vision_model=vision_model, connector=connector, text_model=text_model),
            lm_head=nn.Linear(width, text["vocab_size"], bias=False),
        )
        expert = int(width * self.own["expert_width_multiplier"])
        inner = 256 * math.ceil(4 * int(2 * expert / 3) / 256)
        keys = text["num_key_value_heads"] * text["head_dim"]
        lm_expert = tree(
            layers=nn.ModuleList(
                DecoderLayer(expert, inner, text, keys if self.is_cross(index) else None) for index in layers
            ),
            norm=nn.RMSNorm(expert, text["rms_norm_eps"]),
        )
        self.model = tree(
            vlm_with_expert=tree(vlm=vlm.requires_grad_(False), lm_expert=lm_expert),
            state_proj=nn.Linear(self.own["max_state_dim"], width),
            action_in_proj=nn.Linear(self.own["max_action_dim"], expert),
            action_out_proj=nn.Linear(expert, self.own["max_action_dim"]),
            action_time_mlp_in=nn.Linear(2 * expert, expert),
            action_time_mlp_out=nn.Linear(expert, expert),
        )

    def is_cross(self, layer: int) -> bool:
        """A layer of the expert that attends to the prefix alone."""
        every = self.own["self_attn_every_n_layers"]
        return every <= 0 or layer % every > 0

    def hold_in_bfloat16(self) -> None:
        """Backbone and expert, as LeRobot's published checkpoints."""
        self.model["vlm_with_expert"].to(torch.bfloat16)

    def see(self, image_BCHW: Tensor) -> Tensor:
        """Tokens `[B,L,D]` of an image."""
        vlm = self.model["vlm_with_expert"]["vlm"]["model"]
        tower, width = vlm["vision_model"], self.described["resize_imgs_with_padding"]
        weight = tower["embeddings"]["patch_embedding"].weight
        pixels = pad_resize(image_BCHW, width[1], width[0]) * 2 - 1
        x = tower["embeddings"]["patch_embedding"](pixels.to(weight.dtype)).flatten(2).transpose(1, 2)
        x = x + tower["embeddings"]["position_embedding"].weight
        for layer in tower["encoder"]["layers"]:
            x = layer(x)
        r, side = self.shuffle, math.isqrt(x.shape[1])
        cells = tower["post_layernorm"](x).view(len(x), side // r, r, side // r, r, -1)
        tokens = vlm["connector"]["modality_projection"]["proj"](
            cells.permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(1, 2)
        )
        return tokens * tokens.shape[-1] ** 0.5

    def remember(self, inputs: dict[str, Tensor]) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Which tokens of the prefix are real, and the keys and values `[B,H,L,N]` that each layer of the expert reads of it."""
        text = self.model["vlm_with_expert"]["vlm"]["model"]["text_model"]
        embed = text["embed_tokens"]
        parts = [self.see(inputs[f"camera.{camera}"]) for camera in self.described["cameras"]]
        num_seen = sum(part.shape[1] for part in parts)
        parts.append(embed(inputs["language.ids"]) * embed.embedding_dim**0.5)
        state = self.model["state_proj"](
            F.pad(inputs["state"], (0, self.own["max_state_dim"] - inputs["state"].shape[1]))
        )
        x = torch.cat([*parts, state[:, None].to(embed.weight.dtype)], dim=1)
        valid_BL = F.pad(F.pad(inputs["language.is_valid"].bool(), (num_seen, 0), value=True), (0, 1), value=True)
        # The state sees all, nothing else sees the state.
        mask_BLL = valid_BL[:, None].repeat(1, x.shape[1], 1)
        mask_BLL[:, :-1, -1] = False
        memory, layers = [], text["layers"]
        turn = rotation(valid_BL.cumsum(1) - 1, layers[0].dim)
        expert = self.model["vlm_with_expert"]["lm_expert"]["layers"]
        for index, layer in enumerate(layers):
            y = layer.input_layernorm(x)
            k, v = rotate(layer.project("k_proj", y), turn), layer.project("v_proj", y)
            if index + 1 < len(layers):
                x = layer.finish(x, attend(rotate(layer.project("q_proj", y), turn), k, v, mask_BLL))
            if self.is_cross(index):
                k, v = (
                    expert[index].project(f"{name}_proj", own.transpose(1, 2).flatten(2))
                    for name, own in (("k", k), ("v", v))
                )
            memory.append((k, v))
        return valid_BL, memory

    def velocity(
        self, noisy_BTA: Tensor, time_B: Tensor, valid_BL: Tensor, memory: list[tuple[Tensor, Tensor]]
    ) -> Tensor:
        """The velocity `[B,T,A]` of the flow at a time."""
        actions, expert = self.model["action_in_proj"](noisy_BTA), self.model["vlm_with_expert"]["lm_expert"]
        fraction = torch.linspace(0, 1, actions.shape[-1] // 2, dtype=torch.float64, device=time_B.device)
        least, largest = self.flow["min_period"], self.flow["max_period"]
        angles = time_B[:, None] * (2 * math.pi / (least * (largest / least) ** fraction))
        time = torch.cat([angles.sin(), angles.cos()], dim=1).to(actions.dtype)[:, None].expand_as(actions)
        x = self.model["action_time_mlp_in"](torch.cat([actions, time], dim=2))
        x = self.model["action_time_mlp_out"](F.silu(x)).to(expert["norm"].weight.dtype)
        steps = torch.arange(x.shape[1], device=x.device)[None]
        dim = expert["layers"][0].dim
        turn, turn_after = rotation(steps, dim), rotation(steps + valid_BL.sum(1, keepdim=True), dim)
        mask_BTL = valid_BL[:, None].expand(-1, x.shape[1], -1)
        causal_BTT = (steps <= steps.transpose(0, 1)).expand(len(x), -1, -1)
        joint_BTL = torch.cat([mask_BTL, causal_BTT], dim=2)
        for index, (layer, (k, v)) in enumerate(zip(expert["layers"], memory, strict=True)):
            y, is_cross = layer.input_layernorm(x), self.is_cross(index)
            q = rotate(layer.project("q_proj", y), turn if is_cross else turn_after)
            if not is_cross:
                k = torch.cat([k, rotate(layer.project("k_proj", y), turn_after)], dim=2)
                v = torch.cat([v, layer.project("v_proj", y)], dim=2)
            x = layer.finish(x, attend(q, k, v, mask_BTL if is_cross else joint_BTL))
        return self.model["action_out_proj"](expert["norm"](x).float())

    def loss(self, inputs: dict[str, Tensor], noise: Tensor | None = None, time: Tensor | None = None) -> Tensor:
        """Mean squared error of the velocity over the steps that are not padding."""
        target = F.pad(inputs["actions"], (0, self.own["max_action_dim"] - inputs["actions"].shape[-1]))
        noise = torch.randn_like(target) if noise is None else noise
        if time is None:
            beta = torch.distributions.Beta(self.flow["time_beta_alpha"], self.flow["time_beta_beta"])
            time = beta.sample((len(target),)).to(target.device) * 0.999 + 0.001
        at = time[:, None, None]
        found = self.velocity(at * noise + (1 - at) * target, time, *self.remember(inputs))
        num_dims, is_real_BT = self.described["action_dim"], inputs["actions.is_pad"] == 0
        errors = (found - (noise - target)).square()[..., :num_dims] * is_real_BT[..., None]
        return errors.sum() / (is_real_BT.sum() * num_dims)

    @torch.no_grad()
    def chunk(self, inputs: dict[str, Tensor], noise: Tensor | None = None) -> Tensor:
        """Actions `[B,T,A]` without padded dims, by Euler's method from noise."""
        num_steps, batch = self.flow["num_steps"], len(inputs["state"])
        shape = batch, self.own["chunk_size"], self.own["max_action_dim"]
        x = torch.randn(shape, device=inputs["state"].device) if noise is None else noise
        memory = self.remember(inputs)
        for step in range(num_steps):
            time = torch.full((batch,), 1 - step / num_steps, device=x.device)
            x = x - self.velocity(x, time, *memory) / num_steps
        return x[..., : self.described["action_dim"]]


def pad_resize(image_BCHW: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, the aspect kept, zeros at the left and the top."""
    rows, columns = image_BCHW.shape[2:]
    ratio = max(columns / width, rows / height)
    size = int(rows / ratio), int(columns / ratio)
    image = F.interpolate(image_BCHW, size, mode="bilinear", align_corners=False)
    return F.pad(image, (width - size[1], 0, height - size[0], 0))
