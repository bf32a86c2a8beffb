"""One training step and one action chunk of LeRobot's own SmolVLA policy, eager, and the folder that lets ours do the same.

`smolvla.py write FOLDER` makes the weights and a batch; `smolvla.py time FOLDER WORK PRECISION THREADS REPEATS` prints one JSON line.
WORK is `step` (loss, gradients, clipping, AdamW; LeRobot's defaults: only the expert trains) or `chunk` (one observation, ten
steps of the sampler). PRECISION is `float32`, or `bf16`: backbone and expert held in bfloat16, as published checkpoints are.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from smolvla_reference import (  # noqa: E402
    REAL_TEXT,
    REAL_VISION,
    build_policy,
    expert_model,
    save_weights,
    vlm_folder,
)

CAMERAS, STATE_DIM, ACTION_DIM, NUM_TOKENS = ("front", "wrist"), 6, 6, 48
PICTURE = (480, 640)


def make_policy(folder: Path):
    sizes = json.loads((folder / "sizes.json").read_text())
    cameras = CAMERAS[: sizes["num_cameras"]]
    return build_policy(folder / "vlm", cameras, STATE_DIM, ACTION_DIM, num_vlm_layers=sizes["num_layers"])


def write(folder: Path, num_layers: int, batch_size: int, num_cameras: int = 1) -> None:
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    vlm_folder(folder / "vlm", REAL_VISION, REAL_TEXT | {"num_hidden_layers": num_layers}, scale_factor=4)
    (folder / "sizes.json").write_text(json.dumps({"num_layers": num_layers, "num_cameras": num_cameras}))
    policy = make_policy(folder)
    (folder / "case.json").write_text(json.dumps({"model": expert_model(policy, latent=None)}))
    save_weights(dict(policy.named_parameters()), folder / "weights.safetensors")
    chunk = (batch_size, policy.config.chunk_size)
    batch = {
        "language.ids": torch.randint(3, 300, (batch_size, NUM_TOKENS)),
        "language.is_valid": torch.ones(batch_size, NUM_TOKENS, dtype=torch.int64),
        "state": torch.randn(batch_size, STATE_DIM),
        "actions": torch.randn(*chunk, ACTION_DIM),
        "actions.is_pad": torch.zeros(chunk, dtype=torch.int64),
    }
    for camera in CAMERAS[:num_cameras]:
        batch[f"camera.{camera}"] = torch.rand(batch_size, 3, *PICTURE)
    save_weights(batch, folder / "batch.safetensors")
    save_weights({name: tensor[:1] for name, tensor in batch.items()}, folder / "observation.safetensors")


def kernels_of(run: Callable[[], None]) -> list[list]:
    """Name, executions and seconds of each kernel or copy that a GPU executes in one run."""
    with torch.profiler.profile() as profile:
        run()
    events = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return [[event.name, 1, event.device_time_total / 1e6] for event in events]


def measure(
    folder: Path, work: str, precision: str, threads: int, repeats: int, device: str = "cpu"
) -> dict[str, float | list]:
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False
    is_cuda = device != "cpu"
    policy = make_policy(folder)
    policy.load_state_dict(load_file(folder / "weights.safetensors"), strict=False)
    if precision == "bf16":
        policy.model.vlm_with_expert.to(torch.bfloat16)
    policy.config.device = device
    policy.to(device)
    inputs = load_file(folder / ("batch.safetensors" if work == "step" else "observation.safetensors"), device=device)
    batch = {
        "observation.language.tokens": inputs["language.ids"],
        "observation.language.attention_mask": inputs["language.is_valid"].bool(),
        "observation.state": inputs["state"],
        **{f"observation.images.{name}": inputs[f"camera.{name}"] for name in CAMERAS if f"camera.{name}" in inputs},
        "action": inputs["actions"],
        "action_is_pad": inputs["actions.is_pad"].bool(),
    }
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    preset = policy.config.get_optimizer_preset()
    optimizer = preset.build(trained)

    def step() -> None:
        loss, _ = policy(dict(batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, preset.grad_clip_norm, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad()

    def chunk() -> None:
        policy.predict_action_chunk(dict(batch))

    def run() -> None:
        {"step": step, "chunk": chunk}[work]()
        if is_cuda:
            torch.cuda.synchronize()

    warm_up, seconds = 3 if is_cuda else 1, []
    for repeat in range(repeats + warm_up):
        start = time.perf_counter(), time.process_time()
        run()
        if repeat >= warm_up:
            seconds.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    wall, cpu = zip(*seconds, strict=True)
    wall = sorted(wall)
    peak = torch.cuda.max_memory_reserved() if is_cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "wall_s": wall[0],
        "p50_s": wall[round((len(wall) - 1) * 0.5)],
        "p99_s": wall[round((len(wall) - 1) * 0.99)],
        "cpu_s": min(cpu),
        "peak_gb": peak / 1e9,
        "kernels": kernels_of(run) if is_cuda else [],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    writing = commands.add_parser("write")
    writing.add_argument("folder", type=Path)
    writing.add_argument("--layers", type=int, default=REAL_TEXT["num_hidden_layers"])
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
    timing.set_defaults(
        call=lambda args: print(
            json.dumps(measure(args.folder, args.work, args.precision, args.threads, args.repeats, args.device))
        )
    )
    args = parser.parse_args()
    args.call(args)


if __name__ == "__main__":
    main()
