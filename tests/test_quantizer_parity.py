"""The quantizers against vector-quantize-pytorch, on the same random changes: vectors, codes, losses, gradients and codebooks over three
training steps. `hlrp-golden` runs ours on what the library did."""

import json
from pathlib import Path

import pytest
import torch
from conftest import program, run
from safetensors.torch import save_file
from vector_quantize_pytorch import FSQ, VectorQuantize

NUM_STEPS = 3
PAIRS, SLOTS = 12, 4
SHARED = {
    "code_seq_len": SLOTS,
    "usage_decay": 0.9,
    "collapse_perplexity": 0.2,
    "normalization": "none",
    "normalization_decay": 0.95,
    "unquantized_steps": 0,
    "kmeans_start": False,
    "grid_width": None,
    "slot_embedding": False,
}


class Recorded:
    """A case folder of `hlrp-golden`, filled while the library's quantizer trains."""

    def __init__(self, folder: Path, quantizer: dict, weights: dict):
        self.folder, self.inputs, self.outputs = folder, {}, {}
        folder.mkdir(parents=True)
        config = {"quantizer": SHARED | quantizer, "num_steps": NUM_STEPS}
        (folder / "config.json").write_text(json.dumps(config))
        save_file(weights, folder / "weights.safetensors")

    def compare(self) -> None:
        save_file(
            {name: tensor.contiguous() for name, tensor in self.inputs.items()}, self.folder / "inputs.safetensors"
        )
        save_file(
            {name: tensor.contiguous() for name, tensor in self.outputs.items()}, self.folder / "outputs.safetensors"
        )
        result = run([program("hlrp-golden"), str(self.folder.parent)])
        assert result.returncode == 0, result.stdout + result.stderr
        assert f" ok    {len(self.outputs)}/{len(self.outputs)} recorded tensors" in result.stdout, result.stdout


def changes(dim: int, step: int) -> torch.Tensor:
    return torch.randn(PAIRS, SLOTS, dim, generator=torch.Generator().manual_seed(step)) * (1 + 0.3 * step)


@pytest.mark.parametrize("num_codes", [8, 64])
def test_ema_vq(tmp_path, num_codes):
    dim, decay, weight = 6, 0.8, 0.25
    torch.manual_seed(num_codes)
    library = VectorQuantize(
        dim=dim,
        codebook_size=num_codes,
        decay=decay,
        commitment_weight=weight,
        rotation_trick=False,
        threshold_ema_dead_code=0,
    )
    codebook = library._codebook
    start = torch.randn(1, num_codes, dim)
    codebook.embed.data.copy_(start)
    codebook.embed_avg.data.copy_(start)
    weights = {
        "codebooks": codebook.embed[0].clone(),
        "code_use": codebook.cluster_size[0].clone(),
        "code_sums": codebook.embed_avg[0].clone(),
    }
    ema_vq = {"decay": decay, "commitment_weight": weight, "restart_threshold": 0.0}
    case = Recorded(
        tmp_path / "cases" / "ema_vq", {"codebook_size": num_codes, "code_dim": dim, "ema_vq": ema_vq}, weights
    )
    library.train()
    for step in range(1, NUM_STEPS + 1):
        change, cotangent = changes(dim, step).requires_grad_(), torch.randn(PAIRS, SLOTS, dim)
        vectors, ids, loss = library(change)
        ((vectors * cotangent).sum() + loss.sum()).backward()
        case.inputs |= {f"step{step}.change": change.detach(), f"step{step}.cotangent": cotangent}
        case.outputs |= {
            f"step{step}.vectors": vectors.detach(),
            f"step{step}.ids": ids,
            f"step{step}.loss": loss.detach().reshape([]),
            f"step{step}.gradient": change.grad,
            f"step{step}.codebooks": codebook.embed[0].clone(),
            f"step{step}.code_use": codebook.cluster_size[0].clone(),
            f"step{step}.code_sums": codebook.embed_avg[0].clone(),
        }
    assert not torch.equal(case.outputs["step3.codebooks"], weights["codebooks"]), "the codes moved"
    library.eval()
    case.inputs["evaluation.change"] = changes(dim, 9)
    vectors, ids, _ = library(case.inputs["evaluation.change"])
    case.outputs |= {"evaluation.vectors": vectors, "evaluation.ids": ids}
    case.compare()


@pytest.mark.parametrize("levels", [[5, 5, 5], [8, 6, 5], [3, 4]])
def test_fsq(tmp_path, levels):
    dim = len(levels)
    library = FSQ(levels)
    quantizer = {"codebook_size": library.codebook_size, "code_dim": dim, "fsq": {"levels": levels}}
    case = Recorded(tmp_path / "cases" / "fsq", quantizer, {})
    for step in range(1, NUM_STEPS + 1):
        change, cotangent = changes(dim, step).requires_grad_(), torch.randn(PAIRS, SLOTS, dim)
        vectors, ids = library(change)
        (vectors * cotangent).sum().backward()
        case.inputs |= {f"step{step}.change": change.detach(), f"step{step}.cotangent": cotangent}
        case.outputs |= {
            f"step{step}.vectors": vectors.detach(),
            f"step{step}.ids": ids.long(),
            f"step{step}.gradient": change.grad,
        }
    case.inputs["evaluation.change"] = changes(dim, 9)
    vectors, ids = library(case.inputs["evaluation.change"])
    case.outputs |= {"evaluation.vectors": vectors, "evaluation.ids": ids.long()}
    case.compare()
