"""One training step of stage 1 in plain PyTorch: the peer of `bench_step`, and a second opinion on the model's mathematics.

`laq.py RUN_DIR` reads the weights and the configuration of a run of `hlrp train-laq`, computes the validation losses of its last step again, and times
training steps (loss, gradients, clipping, fused AdamW) over one batch that is on the device. It prints one JSON line. `--device` and `--precision` as in a
configuration, `--batch-size` repeats the batch's samples up to so many. Encoders `pixel`, `conv` and `dinov3` (transformers' own, with the decoders `token` and
`aux`); quantizers `nsvq` and `ema_vq`; decoders `pixel` and `difference`.

Shapes: B samples, T = 2 frames, H×W tokens, N tokens, D token width, S code slots, Q width of a code vector, K codes.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from hlrp_rs import Checkpoint, Dataset, compose_config
from timing import timed
from torch import Tensor, nn

REPO = Path(__file__).resolve().parent.parent.parent
LOGIT_SCALE, NUM_NULL, MIN_NORM = 8.0, 2, 1e-12
MIN_VARIANCE, MIN_CHANGE, MIN_UNIT, EPS = 1e-10, 1e-6, 1e-4, 1e-5
FEATURE_EPS = 1e-6
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
DECODERS = ("token", "pixel", "difference", "aux")
# Where the loss of a decoder is in the metrics, unless it is `<name>_loss`.
METRICS = {"token": "dino_loss"}
# Kernel, stride and padding of the grid encoder's convolutions, for an 8×8 grid and four slots.
GRID_CONVS = [((3, 3), 2, 1), ((3, 3), 1, 0)]


class GammaNorm(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.gamma)


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int, dim_head: int, cross: bool):
        super().__init__()
        inner = heads * dim_head
        self.heads, self.dim_head = heads, dim_head
        self.norm = GammaNorm(dim)
        self.to_q, self.to_kv = nn.Linear(dim, inner, bias=False), nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)
        self.q_scale, self.k_scale = nn.Parameter(torch.ones(dim_head)), nn.Parameter(torch.ones(dim_head))
        if cross:
            self.context_norm = GammaNorm(dim)
            self.null_kv = nn.Parameter(torch.randn(heads, 2 * NUM_NULL, dim_head))

    def forward(self, x: Tensor, bias: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        split = lambda y: y.unflatten(-1, (self.heads, self.dim_head)).transpose(1, 2)  # noqa: E731
        q = split(self.to_q(self.norm(x)))
        k, v = map(split, self.to_kv(x if context is None else self.context_norm(context)).chunk(2, dim=-1))
        if context is not None:
            null_k, null_v = self.null_kv.unflatten(1, (NUM_NULL, 2)).unbind(dim=2)
            k, v = (torch.cat([null.expand(len(x), -1, -1, -1), y], dim=2) for null, y in ((null_k, k), (null_v, v)))
        q, k = (F.normalize(y, dim=-1, eps=MIN_NORM) * scale for y, scale in ((q, self.q_scale), (k, self.k_scale)))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=LOGIT_SCALE)
        return self.to_out(out.transpose(1, 2).flatten(2))


class Geglu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=-1)
        return value * F.gelu(gate)


class Peg(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.dsconv = nn.Conv3d(dim, dim, 3, groups=dim)

    def forward(self, x_BTHWD: Tensor) -> Tensor:
        x = F.pad(x_BTHWD.permute(0, 4, 1, 2, 3), (1, 1, 1, 1, 2, 0))
        return self.dsconv(x).permute(0, 2, 3, 4, 1)


def feed_forward(dim: int) -> nn.Sequential:
    inner = int(4 * (2 / 3) * dim)
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, 2 * inner, bias=False),
        Geglu(),
        nn.Dropout(0.0),
        nn.Linear(inner, dim, bias=False),
    )


class Transformer(nn.Module):
    """Over the tokens of a frame, or of a grid position; with a context of action tokens."""

    def __init__(self, config: dict, depth: int, over_space: bool, cross: bool):
        super().__init__()
        dim, heads = config["dim"], (config["heads"], config["dim_head"])
        self.over_space, self.layers = over_space, nn.ModuleList()
        for _ in range(depth):
            parts = {"0": Peg(dim), "1": Attention(dim, *heads, cross=False), "3": feed_forward(dim)}
            self.layers.append(nn.ModuleDict(parts | ({"2": Attention(dim, *heads, cross=True)} if cross else {})))
        self.norm_out = GammaNorm(dim)

    def forward(self, x: Tensor, bias: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        shape = x.shape
        for layer in self.layers:
            x = x + layer["0"](x)
            if self.over_space:
                x = x + layer["1"](x.flatten(2, 3).flatten(0, 1), bias).view(shape)
            else:
                by_place = x.permute(0, 2, 3, 1, 4)
                attended = layer["1"](by_place.flatten(0, 2)).view(by_place.shape)
                x = x + attended.permute(0, 3, 1, 2, 4)
            if context is not None:
                x = x + layer["2"](x.flatten(1, 3), context=context).view(shape)
            x = x + layer["3"](x)
        return self.norm_out(x)


class PositionBias(nn.Module):
    def __init__(self, dim: int, heads: int, grid: int):
        super().__init__()
        act = nn.LeakyReLU(0.1)
        self.net = nn.ModuleList(
            [nn.Sequential(nn.Linear(2, dim), act), nn.Sequential(nn.Linear(dim, dim), act), nn.Linear(dim, heads)]
        )
        place = torch.stack(torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij"), dim=-1).view(-1, 2)
        offset = (place[:, None] - place[None, :]).float()
        self.register_buffer("offset", offset.sign() * (offset.abs() + 1).log(), persistent=False)

    def forward(self) -> Tensor:
        x = self.offset
        for layer in self.net:
            x = layer(x)
        return x.permute(2, 0, 1)


class Patches(nn.Sequential):
    def __init__(self, channels: int, patch: int, dim: int):
        length = channels * patch * patch
        super().__init__(nn.Identity(), nn.LayerNorm(length), nn.Linear(length, dim), nn.LayerNorm(dim))
        self.patch = patch

    def forward(self, frames_BTCHW: Tensor) -> Tensor:
        b, t, c, h, w = frames_BTCHW.shape
        p = self.patch
        x = frames_BTCHW.view(b, t, c, h // p, p, w // p, p).permute(0, 1, 3, 5, 2, 4, 6).flatten(4)
        return super().forward(x)


class ConvEncoder(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        num_layers, dim, width = (
            config["patch_size"].bit_length() - 1,
            config["dim"],
            config["encoder"]["conv"]["width"],
        )
        channels = [2 * config["channels"], *(min(width << layer, dim) for layer in range(num_layers - 1)), dim]
        sizes = zip(channels[:-1], channels[1:], strict=True)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in sizes)
        self.norm_out = nn.LayerNorm(dim)

    def forward(self, frames_BTCHW: Tensor) -> Tensor:
        first = frames_BTCHW[:, :1]
        x = torch.cat([(first - 0.5).expand_as(frames_BTCHW), (frames_BTCHW - first) * 10], dim=2).flatten(0, 1)
        for index, conv in enumerate(self.convs):
            x = conv(F.relu(x) if index else x)
        return self.norm_out(x.permute(0, 2, 3, 1)).unflatten(0, frames_BTCHW.shape[:2])


class DinoFeatures(nn.Module):
    """Patch features of a frozen DINOv3, averaged over the cells of the token grid."""

    def __init__(self, config: dict):
        from transformers import DINOv3ViTConfig, DINOv3ViTModel  # the other encoders need torch alone

        super().__init__()
        sizes = config["encoder"]["dinov3"]["sizes"]
        self.model = DINOv3ViTModel(DINOv3ViTConfig(**sizes)).requires_grad_(False)
        self.patch, self.num_extra = sizes["patch_size"], 1 + sizes["num_register_tokens"]
        self.grid = config["image_size"] // config["patch_size"]
        for name, values in IMAGENET.items():
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "DinoFeatures":
        del mode
        return super().train(False)

    @torch.no_grad()
    def forward(self, frames_BTCHW: Tensor) -> Tensor:
        images = frames_BTCHW.flatten(0, 1)
        side = max(round(images.shape[-1] / self.patch), 1) * self.patch
        if side != images.shape[-1]:
            images = F.interpolate(images, (side, side), mode="bilinear")
        tokens = self.model((images - self.mean) / self.std).last_hidden_state[:, self.num_extra :]
        cells = tokens.unflatten(1, (side // self.patch, -1)).permute(0, 3, 1, 2)
        return F.adaptive_avg_pool2d(cells, self.grid).permute(0, 2, 3, 1).unflatten(0, frames_BTCHW.shape[:2])


class ConvNetwork(nn.Module):
    def __init__(self, config: dict, grid: int, depth: int):
        super().__init__()
        dim, num_slots = config["dim"], config["quantizer"]["code_seq_len"]
        self.position = nn.Parameter(torch.zeros(grid, grid, dim))
        parts = lambda: {  # noqa: E731
            "norm": nn.LayerNorm(dim),
            "conv": nn.Conv2d(dim, dim, 3, padding=1),
            "modulate": nn.Linear(num_slots * dim, 2 * dim),
            "out": nn.Linear(dim, dim),
        }
        self.blocks = nn.ModuleList(nn.ModuleDict(parts()) for _ in range(depth))
        self.norm_out = nn.LayerNorm(dim)

    def forward(self, canvas: Tensor, bias: Tensor | None, context: Tensor) -> Tensor:
        x = canvas.squeeze(1) + self.position
        for block in self.blocks:
            y = block["conv"](block["norm"](x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            scale, shift = block["modulate"](context.flatten(1))[:, None, None].chunk(2, dim=-1)
            x = x + block["out"](F.gelu(y * (scale + 1) + shift))
        return self.norm_out(x).unsqueeze(1)


class Quantizer(nn.Module):
    """From tokens to the change, its code and the action tokens. Buffers are those of the run."""

    def __init__(self, config: dict):
        super().__init__()
        own = config["quantizer"]
        slots, width, codes = own["code_seq_len"], own["code_dim"], own["codebook_size"]
        channels = own["grid_width"] or width
        self.is_nsvq, self.has_norm, self.own = "nsvq" in own, own["normalization"] == "batch_norm", own
        self.project_in, self.project_out = nn.Linear(config["dim"], channels), nn.Linear(width, config["dim"])
        first, last = GRID_CONVS
        self.cnn_encoder = nn.Sequential(
            nn.Conv2d(channels, channels, *first), nn.ReLU(), nn.Conv2d(channels, width, *last)
        )
        if own["slot_embedding"]:
            self.slot_embedding = nn.Parameter(torch.zeros(slots, config["dim"]))
        rows = torch.zeros(codes, width)
        if self.is_nsvq:
            self.codebooks = nn.Parameter(rows)
        else:
            self.register_buffer("codebooks", rows)
            self.register_buffer("code_use", torch.zeros(codes))
            self.register_buffer("code_sums", rows.clone())
        if self.has_norm:
            self.change_norm = nn.ParameterDict(
                {name: nn.Parameter(torch.zeros(slots, width), False) for name in ("mean", "variance")}
            )

    def change(self, x_BTND: Tensor) -> Tensor:
        x = self.project_in(x_BTND)
        b, t, n, q = x.shape
        side = int(n**0.5)
        slots = self.cnn_encoder(x.view(b * t, side, side, q).permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        first, second = slots.unflatten(0, (b, t)).unbind(dim=1)
        return second - first

    def forward(self, change: Tensor, swap: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Action tokens `[B,S,D]` of what `swap` makes of the latents, and the quantizer's own loss."""
        if self.has_norm:
            mean, variance = change.mean(0), change.var(0, correction=0)
            if not self.training:
                mean, variance = self.change_norm["mean"], self.change_norm["variance"]
            change = (change - mean) / (variance + MIN_VARIANCE).sqrt()
        with torch.no_grad():
            ids = torch.cdist(change.flatten(0, 1), self.codebooks).argmin(-1)
        codes, loss = self.codebooks[ids].view_as(change), change.new_zeros(())
        if not self.training:
            vectors = codes
        elif self.is_nsvq:
            noise, length = torch.randn_like(change), lambda x: x.norm(dim=-1, keepdim=True)
            vectors = change + (length(change - codes) / length(noise) + 1e-12) * noise
        else:
            vectors = change + (codes - change).detach()
            loss = F.mse_loss(change, codes) * self.own["ema_vq"]["commitment_weight"]
            self.move_codes(change.detach().flatten(0, 1), ids)
        tokens = self.project_out(swap(vectors))
        return tokens + self.slot_embedding if self.own["slot_embedding"] else tokens, loss

    @torch.no_grad()
    def move_codes(self, change: Tensor, ids: Tensor) -> None:
        decay = self.own["ema_vq"]["decay"]
        one_hot = F.one_hot(ids, len(self.codebooks)).float()
        self.code_use.lerp_(one_hot.sum(0), 1 - decay)
        self.code_sums.lerp_(one_hot.T @ change, 1 - decay)
        total = self.code_use.sum()
        self.codebooks.copy_(
            self.code_sums / ((self.code_use + EPS) / (total + EPS * len(self.code_use)) * total)[:, None]
        )


class Laq(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        self.config = config
        patch, dim, channels = config["patch_size"], config["dim"], config["channels"]
        grid = config["image_size"] // patch
        by_convolution, encoder = config["decoder_network"] == "conv", config["encoder"]
        if config["spatial_depth"] or not by_convolution:
            self.spatial_rel_pos_bias = PositionBias(dim, config["heads"], grid)
        if "conv" in encoder:
            self.encoder = self.conv_encoder = ConvEncoder(config)
        elif "dinov3" in encoder:
            self.dino_feature_extractor, self.dino_encoder = DinoFeatures(config), nn.Module()
            width = encoder["dinov3"]["sizes"]["hidden_size"]
            self.encoder = self.dino_encoder.proj = nn.Linear(width, dim)
        else:
            self.encoder = self.pixel_projection = Patches(channels, patch, dim)
        self.enc_spatial_transformer = Transformer(config, config["spatial_depth"], True, False)
        self.enc_temporal_transformer = Transformer(config, config["temporal_depth"], False, False)
        self.vq = Quantizer(config)
        self.decoders = [name for name in DECODERS if config["decoders"][name]["enabled"]]
        for name in self.decoders:
            depth, of_tokens = config["decoders"][name]["depth"], name == "token"
            network = ConvNetwork(config, grid, depth) if by_convolution else Transformer(config, depth, True, True)
            setattr(self, "dino_decoder" if of_tokens else f"{name}_decoder", network)
            head = nn.Linear(dim, width if of_tokens else channels * patch * patch)
            if of_tokens:
                self.dino_to_features = head
            else:
                setattr(self, f"{name}_to_pixels", nn.Sequential(head))
        if "aux" in self.decoders:
            self.aux_context_projection = Patches(channels, patch, dim)
            self.aux_rel_pos_bias = PositionBias(dim, config["heads"], grid)
        self.difference_unit = nn.ParameterDict({"mean_square": nn.Parameter(torch.ones(()), False)})

    def forward(
        self, frames_BTCHW: Tensor, swap: Callable[[Tensor], Tensor] = lambda vectors: vectors
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum that is trained, and the loss of each decoder, which sees what `swap` makes of the latents `[B,S,Q]`."""
        features = self.dino_feature_extractor(frames_BTCHW) if hasattr(self, "dino_feature_extractor") else None
        tokens = self.encoder(frames_BTCHW if features is None else features)
        bias = self.spatial_rel_pos_bias() if hasattr(self, "spatial_rel_pos_bias") else None
        mixed = self.enc_temporal_transformer(self.enc_spatial_transformer(tokens, bias))
        with torch.autocast(frames_BTCHW.device.type, enabled=False):
            action_tokens, total = self.vq(self.vq.change(mixed.flatten(2, 3).float()), swap)
        first, second = frames_BTCHW.unbind(dim=1)
        losses = {}
        for name in self.decoders:
            own = self.config["decoders"][name]
            seen = [tokens[:, :1], bias, action_tokens]
            if name == "aux":
                seen[:2] = self.aux_context_projection(frames_BTCHW[:, :1]), self.aux_rel_pos_bias()
                seen[2] = action_tokens.detach()
            elif own["detached"]:
                seen = [x if x is None else x.detach() for x in seen]
            error = self.error(name, seen, first, second, features)
            if own["motion_weight"]:
                change = (second - first).abs().mean(1, keepdim=True)
                weight = 1 + own["motion_weight"] * change / change.mean().clamp_min(MIN_CHANGE)
                weight = F.adaptive_avg_pool2d(weight, error.shape[-2:])
                losses[name] = (error * weight).mean() / weight.mean()
            else:
                losses[name] = error.mean()
            total = total + losses[name] * own["loss_weight"]
        return total, losses

    def error(self, name: str, seen: list, first: Tensor, second: Tensor, features: Tensor | None) -> Tensor:
        """Squared errors `[B,C,H,W]` of a decoder that has seen a canvas, a bias and action tokens."""
        if name == "token":
            target = F.layer_norm(features[:, 1:], features.shape[-1:], eps=FEATURE_EPS)
            error = (self.dino_to_features(self.dino_decoder(*seen)) - target).square()
            return error.squeeze(1).permute(0, 3, 1, 2)
        difference = second - first
        target = difference / self.unit(difference) if name == "difference" else second
        patches = getattr(self, f"{name}_to_pixels")(getattr(self, f"{name}_decoder")(*seen)).squeeze(1)
        return (unpatchify(patches, self.config["patch_size"]) - target).square()

    def unit(self, difference: Tensor) -> Tensor:
        if self.training:
            # As after many steps: the running mean hardly moves.
            self.difference_unit["mean_square"].lerp_(difference.square().mean(), 1e-3)
        return self.difference_unit["mean_square"].sqrt().clamp_min(MIN_UNIT)


def unpatchify(patches_BHWP: Tensor, patch: int) -> Tensor:
    b, h, w, length = patches_BHWP.shape
    x = patches_BHWP.view(b, h, w, length // patch**2, patch, patch).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(b, -1, h * patch, w * patch)


def load(run_dir: Path) -> tuple[Laq, dict]:
    """The model of a run, with its weights, and the run's configuration."""
    session = json.loads((run_dir / "run.json").read_text())["sessions"][0]
    config = compose_config(session["overrides"], REPO / "config")
    model, tensors = Laq(config["model"]), Checkpoint.load(run_dir).tensors()
    # The files of transformers have other names than its modules.
    tensors = {name.replace("extractor.model.layer", "extractor.model.model.layer"): x for name, x in tensors.items()}
    missing = model.load_state_dict(tensors, strict=False).missing_keys
    # The encoder is there under its own name, nothing is masked, and only one decoder has a unit.
    unused = ("encoder.", "difference_unit.", "dino_feature_extractor.model.embeddings.mask_token")
    if absent := [name for name in missing if not name.startswith(unused)]:
        raise SystemExit(f"error: the run has no {', '.join(absent)}")
    return model, config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    parser.add_argument("--batch-size", type=int, help="of the timed steps; that of the run's batch by default")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.allow_tf32 = False
    model, config = load(arguments.run_dir)
    model.to(arguments.device)
    is_bf16 = arguments.precision == "bf16-mixed"
    autocast = torch.autocast(torch.device(arguments.device).type, torch.bfloat16, enabled=is_bf16)
    side = config["model"]["image_size"]
    batches = Dataset(config["data"], (side, side)).validation(limit_batches=config["validation"]["limit_batches"])
    frames = [batch["images"]["primary"].to(arguments.device).float() / 255 for batch in batches]
    rows = [json.loads(line) for line in (arguments.run_dir / "metrics.jsonl").read_text().splitlines()]
    known = [row for row in rows if "val/loss" in row][-1]
    with torch.no_grad(), autocast:
        found = [model.eval()(batch)[1] for batch in frames]
    errors = {}
    for name in model.decoders:
        mean = sum(losses[name].item() * len(batch) for losses, batch in zip(found, frames, strict=True)) / sum(
            map(len, frames)
        )
        errors[name] = abs(mean / known[f"val/{METRICS.get(name, f'{name}_loss')}"] - 1)

    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    batch_size = arguments.batch_size or len(frames[0])
    batch_BTCHW = torch.cat([frames[0]] * -(-batch_size // len(frames[0])))[:batch_size]

    def step() -> None:
        with autocast:
            loss, _ = model(batch_BTCHW)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    figures = timed(step, arguments.steps, arguments.device, warm_up=5)
    print(json.dumps({"step_ms": 1e3 * figures["mean_s"], "batch_size": batch_size, "errors": errors, **figures}))


if __name__ == "__main__":
    main()
