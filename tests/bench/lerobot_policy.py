"""`hlrp_smolvla_shared` beside LeRobot's `smolvla`, same weights, inside LeRobot: its training step and its way to an action.

Both policies take turns in one process. A training step is LeRobot's `update_policy` (preprocessing, forward, backward, clipping, AdamW) on
a batch of PushT's shape; a chunk is what `lerobot-eval` does when its queue is empty. Weights are random, sizes are those of `SIZES`.
The last line is a JSON object.

    python tests/bench/lerobot_policy.py [--size small|full] [--device cpu] [--batch-size 8] [--rounds 5]
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
# As `hlrp` starts LeRobot, and before torch is imported.
os.environ.update({"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "2000"})
sys.path[:0] = [str(REPO / "tests" / "support"), str(REPO / "lerobot_policy_hlrp" / "src")]

import torch  # noqa: E402
from accelerate import Accelerator  # noqa: E402
from lerobot.configs import FeatureType, PolicyFeature  # noqa: E402
from lerobot.policies.factory import make_policy_config, make_pre_post_processors  # noqa: E402
from lerobot.scripts.lerobot_train import update_policy  # noqa: E402
from lerobot.utils.logging_utils import AverageMeter, MetricsTracker  # noqa: E402
from smolvla_reference import REAL_TEXT, REAL_VISION, vlm_folder  # noqa: E402

import lerobot_policy_hlrp  # noqa: E402, F401

CHUNK, STATE_DIM, ACTION_DIM = 50, 2, 2
TASK = "Push the T-shaped block onto the T-shaped target."

# `full` is the published model; `small` has its shape at a size that two cores train in seconds.
SIZES = {
    "full": {"vision": REAL_VISION, "text": REAL_TEXT, "scale_factor": 4, "side": 512, "picture": 480},
    "small": {
        "vision": REAL_VISION
        | {
            "hidden_size": 192,
            "intermediate_size": 768,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "image_size": 128,
        },
        "text": REAL_TEXT
        | {
            "hidden_size": 320,
            "intermediate_size": 864,
            "num_hidden_layers": 8,
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "vocab_size": 512,
        },
        "scale_factor": 2,
        "side": 128,
        "picture": 96,
    },
}


def make_batch(batch_size: int, picture: int, *, with_actions: bool) -> dict:
    """A batch as LeRobot's loop hands it to the preprocessor."""
    moments = (1,) if with_actions else ()
    batch = {
        "observation.image": torch.randint(0, 256, (batch_size, *moments, 3, picture, picture)) / 255,
        "observation.state": torch.randn(batch_size, *moments, STATE_DIM),
        "task": [TASK] * batch_size,
    }
    if with_actions:
        batch["action"] = torch.randn(batch_size, CHUNK, ACTION_DIM)
        batch["action_is_pad"] = torch.zeros(batch_size, CHUNK, dtype=torch.bool)
    return batch


def make_policies(size: dict, device: str, folder: Path) -> dict:
    """Both policies with the same weights."""
    from lerobot.policies.factory import get_policy_class

    vlm = vlm_folder(folder / "vlm", size["vision"], size["text"], size["scale_factor"])
    common = {
        "input_features": {
            "observation.image": PolicyFeature(FeatureType.VISUAL, (3, size["picture"], size["picture"])),
            "observation.state": PolicyFeature(FeatureType.STATE, (STATE_DIM,)),
        },
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (ACTION_DIM,))},
        "vlm_model_name": str(vlm),
        "load_vlm_weights": False,
        "num_vlm_layers": size["text"]["num_hidden_layers"],
        "resize_imgs_with_padding": (size["side"], size["side"]),
        "device": device,
        "push_to_hub": False,
    }
    smolvla = get_policy_class("smolvla")(make_policy_config("smolvla", **common)).float()
    smolvla.save_pretrained(folder / "smolvla")
    start = {"init_mode": "smolvla", "smolvla_checkpoint": folder / "smolvla"}
    ours = get_policy_class("hlrp_smolvla_shared")(make_policy_config("hlrp_smolvla_shared", **common, **start))
    return {"smolvla": smolvla.to(device), "hlrp": ours.to(device)}


class Contestant:
    """A policy with what LeRobot puts around it."""

    def __init__(self, policy, accelerator: Accelerator, device: str):
        statistics_by_key = {
            key: {"mean": torch.zeros(2), "std": torch.ones(2)} for key in ("observation.state", "action")
        }
        self.policy, self.accelerator, self.device = policy, accelerator, device
        self.preprocess, self.postprocess = make_pre_post_processors(policy.config, dataset_stats=statistics_by_key)
        self.optimizer = policy.config.get_optimizer_preset().build(policy.get_optim_params())
        meters = {name: AverageMeter(name) for name in ("loss", "grad_norm", "lr", "update_s", "gpu_mem_gb")}
        self.tracker = MetricsTracker(1, 1, 1, meters, accelerator=accelerator)

    def seconds(self, work, batch: dict) -> float:
        """Wall time of one piece of work."""
        self._wait()
        begin = time.perf_counter()
        work(batch)
        self._wait()
        return time.perf_counter() - begin

    def step(self, batch: dict) -> None:
        update_policy(self.tracker, self.policy, self.preprocess(dict(batch)), self.optimizer, 10.0, self.accelerator)

    def chunk(self, batch: dict) -> None:
        self.policy.eval()
        self.policy.reset()
        with torch.inference_mode():
            self.postprocess(self.policy.select_action(self.preprocess(dict(batch)))).numpy()

    def _wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(0)
    size = SIZES[args.size]
    accelerator = Accelerator(cpu=args.device == "cpu")
    with tempfile.TemporaryDirectory(prefix="hlrp-bench-") as folder:
        policies = make_policies(size, args.device, Path(folder))
        contestants = {name: Contestant(policy, accelerator, args.device) for name, policy in policies.items()}
        step_batch = make_batch(args.batch_size, size["picture"], with_actions=True)
        chunk_batch = make_batch(1, size["picture"], with_actions=False)
        times = {(name, work): [] for name in contestants for work in ("step", "chunk")}
        for round_number in range(args.rounds + 1):
            for name, contestant in contestants.items():
                step = contestant.seconds(contestant.step, step_batch)
                chunk = contestant.seconds(contestant.chunk, chunk_batch)
                if round_number > 0:
                    times[name, "step"].append(step)
                    times[name, "chunk"].append(chunk)
        if args.device != "cpu":
            policies["hlrp"].config.cuda_graph = True
            chunks = [
                contestants["hlrp"].seconds(contestants["hlrp"].chunk, chunk_batch) for _ in range(args.rounds + 3)
            ]
            times["hlrp", "graph"] = chunks[3:]  # the third call records
    median = {key: statistics.median(values) for key, values in times.items()}
    figures = {
        name: {"samples_per_s": args.batch_size / median[name, "step"], "chunk_ms": 1e3 * median[name, "chunk"]}
        for name in contestants
    }
    if ("hlrp", "graph") in median:
        figures["hlrp"]["graph_chunk_ms"] = 1e3 * median["hlrp", "graph"]
    num_parameters = sum(parameter.numel() for parameter in policies["smolvla"].parameters())
    print(json.dumps({"size": args.size, "device": args.device, "num_parameters": num_parameters, **figures}))


if __name__ == "__main__":
    main()
