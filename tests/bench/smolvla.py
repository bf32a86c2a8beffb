"""One training step and one action chunk of SmolVLA, eager, and the folder that lets ours do the same.

`smolvla.py write FOLDER` makes the weights and a batch; `smolvla.py time FOLDER WORK PRECISION THREADS REPEATS` prints one JSON line.
WORK is `step` (loss, gradients, clipping, AdamW; LeRobot's defaults: only the expert trains) or `chunk` (one observation, ten
steps of the sampler). PRECISION is `float32`, or `bf16`: backbone and expert held in bfloat16, as published checkpoints are.

The peer is LeRobot's own policy, or with `--peer torch` that of `smolvla_torch.py`, which needs torch alone; so does `write`.
`--static-cache` times LeRobot's chunk a second time (`static` in the JSON): what the prefix leaves for the ten steps is computed once, in memory that all
chunks share. Both have to compute the same actions from the same noise.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))

import torch  # noqa: E402
from smolvla_torch import ACTION_DIM, STATE_DIM, Policy, description, fresh_weights, read_tensors, write_tensors  # noqa: E402
from timing import timed  # noqa: E402
from torch import Tensor, nn  # noqa: E402

CAMERAS, NUM_LAYERS, NUM_TOKENS, VOCABULARY = ("front", "wrist"), 16, 48, 300
PICTURE = (480, 640)
# LeRobot's preset.
OPTIMIZER, CLIP_NORM = {"lr": 1e-4, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 1e-10}, 10.0
# Largest difference of an action, relative to the largest action, between two ways to compute a chunk.
TOLERANCE = {"float32": 1e-5, "bf16": 1e-2}


def write(folder: Path, num_layers: int, batch_size: int, num_cameras: int = 1) -> None:
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    model = description(num_layers, list(CAMERAS[:num_cameras]))
    (folder / "case.json").write_text(json.dumps({"model": model}))
    write_tensors(fresh_weights(model), folder / "weights.safetensors")
    chunk = (batch_size, model["arch"]["expert"]["chunk_size"])
    batch = {
        "language.ids": torch.randint(3, VOCABULARY, (batch_size, NUM_TOKENS)),
        "language.is_valid": torch.ones(batch_size, NUM_TOKENS, dtype=torch.int64),
        "state": torch.randn(batch_size, STATE_DIM),
        "actions": torch.randn(*chunk, ACTION_DIM),
        "actions.is_pad": torch.zeros(chunk, dtype=torch.int64),
    }
    for camera in model["cameras"]:
        batch[f"camera.{camera}"] = torch.rand(batch_size, 3, *PICTURE)
    write_tensors(batch, folder / "batch.safetensors")
    write_tensors({name: tensor[:1] for name, tensor in batch.items()}, folder / "observation.safetensors")
    if importlib.util.find_spec("lerobot"):
        from smolvla_reference import vlm_folder

        sizes = model["backbone"]["sizes"]
        vlm_folder(folder / "vlm", sizes["vision"], sizes["text"], sizes["scale_factor"])


class TorchPeer:
    """The policy of `smolvla_torch.py`."""

    def __init__(self, folder: Path, device: str, *, is_bf16: bool):
        with torch.device("meta"):
            self.policy = Policy(json.loads((folder / "case.json").read_text())["model"])
        self.policy.to_empty(device="cpu").load_state_dict(read_tensors(folder / "weights.safetensors"))
        if is_bf16:
            self.policy.hold_in_bfloat16()
        self.policy.to(device)

    def optimizer(self, trained: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(trained, **OPTIMIZER, fused=True)

    def loss(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.policy.loss(inputs)

    def chunk(self, inputs: dict[str, Tensor], noise: Tensor | None = None) -> Tensor:
        return self.policy.chunk(inputs, noise)


class LerobotPeer:
    """LeRobot's policy."""

    def __init__(self, folder: Path, device: str, *, is_bf16: bool):
        from smolvla_reference import build_policy

        model = json.loads((folder / "case.json").read_text())["model"]
        num_layers = model["backbone"]["num_vlm_layers"]
        self.policy = build_policy(folder / "vlm", model["cameras"], STATE_DIM, ACTION_DIM, num_vlm_layers=num_layers)
        self.policy.load_state_dict(read_tensors(folder / "weights.safetensors"), strict=False)
        if is_bf16:
            self.policy.model.vlm_with_expert.to(torch.bfloat16)
        self.policy.config.device = device
        self.policy.to(device)

    def optimizer(self, trained: list[Tensor]) -> torch.optim.Optimizer:
        return self.policy.config.get_optimizer_preset().build(trained)

    def loss(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.policy(self._batch(inputs))[0]

    def chunk(self, inputs: dict[str, Tensor], noise: Tensor | None = None) -> Tensor:
        return self.policy.predict_action_chunk(self._batch(inputs), noise=noise)

    def _batch(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            "observation.language.tokens": inputs["language.ids"],
            "observation.language.attention_mask": inputs["language.is_valid"].bool(),
            "observation.state": inputs["state"],
            **{
                f"observation.images.{name}": inputs[f"camera.{name}"] for name in CAMERAS if f"camera.{name}" in inputs
            },
            "action": inputs["actions"],
            "action_is_pad": inputs["actions.is_pad"].bool(),
        }


class StaticLayer:
    """Keys and values `[B,H,L,N]` of one layer in memory that is allocated once: the prefix, with room for the suffix."""

    def __init__(self, prefix: Tensor, room: int):
        size = (*prefix.shape[:2], prefix.shape[2] + room, prefix.shape[3])
        self.memory, self.length = [prefix.new_empty(size) for _ in range(2)], 0

    def append(self, *keys_and_values: Tensor) -> None:
        end = self.length + keys_and_values[0].shape[2]
        for memory, new in zip(self.memory, keys_and_values, strict=True):
            memory[:, :, self.length : end] = new
        self.length = end

    @property
    def keys(self) -> Tensor:
        return self.memory[0][:, :, : self.length]

    @property
    def values(self) -> Tensor:
        return self.memory[1][:, :, : self.length]


class StaticCache:
    """In the place of transformers' `DynamicCache`, which LeRobot fills anew for each chunk and whose tensors grow and shrink in each step.

    It also keeps what the expert's layers project of the prefix, which is the same in all steps of a chunk.
    """

    def __init__(self, room: int):
        self.room, self.layers, self.projected = room, [], {}

    def restart(self) -> "StaticCache":
        self.crop(0)
        self.projected.clear()
        return self

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        if layer == len(self.layers):
            self.layers.append(StaticLayer(keys, self.room))
        self.layers[layer].append(keys, values)
        return self.layers[layer].keys, self.layers[layer].values

    def crop(self, length: int) -> None:
        for layer in self.layers:
            layer.length = length

    def keep(self, projection: nn.Linear) -> None:
        """Lets a projection of the prefix compute once for each chunk."""
        project = projection.forward

        def forward(x: Tensor) -> Tensor:
            if projection not in self.projected:
                self.projected[projection] = project(x)
            return self.projected[projection]

        projection.forward = forward


def make_static(peer: LerobotPeer) -> None:
    """Gives the policy a static cache of its prefix, for chunks of one shape."""
    from lerobot.policies.smolvla import smolvlm_with_expert

    config, expert = peer.policy.config, peer.policy.model.vlm_with_expert.lm_expert
    cache = StaticCache(config.chunk_size)
    for index, layer in enumerate(expert.layers):
        if index % config.self_attn_every_n_layers:
            cache.keep(layer.self_attn.k_proj)
            cache.keep(layer.self_attn.v_proj)
    smolvlm_with_expert.DynamicCache = cache.restart


def measure(args: argparse.Namespace) -> dict[str, float | list | dict]:
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = False
    peer_of = {"lerobot": LerobotPeer, "torch": TorchPeer}[args.peer]
    peer = peer_of(args.folder, args.device, is_bf16=args.precision == "bf16")
    name = "batch.safetensors" if args.work == "step" else "observation.safetensors"
    inputs = {name: tensor.to(args.device) for name, tensor in read_tensors(args.folder / name).items()}
    trained = [parameter for parameter in peer.policy.parameters() if parameter.requires_grad]
    optimizer = peer.optimizer(trained)

    def step() -> None:
        peer.loss(inputs).backward()
        torch.nn.utils.clip_grad_norm_(trained, CLIP_NORM, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad()

    work: Callable[[], object] = {"step": step, "chunk": lambda: peer.chunk(inputs)}[args.work]
    figures = timed(work, args.repeats, args.device)
    if args.static_cache:
        expert = json.loads((args.folder / "case.json").read_text())["model"]["arch"]["expert"]
        noise = torch.randn(1, expert["chunk_size"], expert["max_action_dim"], device=args.device)
        plain = peer.chunk(inputs, noise)
        make_static(peer)
        # Twice: the second chunk finds what the first one left.
        difference = max((peer.chunk(inputs, noise) - plain).abs().max().item() for _ in range(2))
        difference /= plain.abs().max().item()
        if not difference < TOLERANCE[args.precision]:
            sys.exit(f"error: with a static cache the actions differ by {difference:.1e} of the largest")
        figures["static"] = timed(work, args.repeats, args.device) | {"difference": difference}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    writing = commands.add_parser("write")
    writing.add_argument("folder", type=Path)
    writing.add_argument("--layers", type=int, default=NUM_LAYERS)
    writing.add_argument("--batch-size", type=int, default=2)
    writing.add_argument("--cameras", type=int, default=1, choices=range(1, len(CAMERAS) + 1))
    writing.set_defaults(call=lambda args: write(args.folder, args.layers, args.batch_size, args.cameras))
    timing = commands.add_parser("time")
    timing.add_argument("folder", type=Path)
    timing.add_argument("work", choices=["step", "chunk"])
    timing.add_argument("precision", choices=["float32", "bf16"])
    timing.add_argument("threads", type=int)
    timing.add_argument("repeats", type=int)
    timing.add_argument("--device", default="cpu")
    timing.add_argument("--peer", choices=["lerobot", "torch"], default="lerobot")
    timing.add_argument("--static-cache", action="store_true", help="time LeRobot's chunk with a static cache too")
    timing.set_defaults(call=lambda args: print(json.dumps(measure(args))))
    args = parser.parse_args()
    args.call(args)


if __name__ == "__main__":
    main()
