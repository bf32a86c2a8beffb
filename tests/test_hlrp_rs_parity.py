"""`hlrp_rs.Policy` against LeRobot's `smolvla` policy, called from Python on the same random weights."""

import pytest
import torch
from tiny_policy import ACTIONS_ONLY, BATCH, CHUNK, make_pair, observation, targets

TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=["expert alone", "everything trains"])
def pair(request, tmp_path_factory):
    free = request.param == "everything trains"
    options = {"train_expert_only": not free, "freeze_vision_encoder": not free}
    return make_pair(tmp_path_factory.mktemp("policy"), **options)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return observation(generator), targets(generator)


def lerobot_batch(pair, seen: dict, taught: dict) -> dict:
    ids, mask = pair.rust.policy.tokenize(seen["task"])
    return {
        "observation.images.top": seen["images"]["top"],
        "observation.state": seen["state"],
        "observation.language.tokens": ids,
        "observation.language.attention_mask": mask,
        "action": taught["actions"],
        "action_is_pad": taught["action_is_pad"],
    }


def both_losses(pair, batch, reduction: str):
    """LeRobot's loss and ours for the same noise and times."""
    seen, taught = batch
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(BATCH, CHUNK, pair.lerobot.config.max_action_dim, generator=generator)
    time = torch.tensor([0.1, 0.5, 0.9])
    theirs, _ = pair.lerobot.forward(lerobot_batch(pair, seen, taught), noise=noise, time=time, reduction=reduction)
    draws = {"noise": {"action": noise}, "time": {"action": time}}
    ours = pair.rust(seen, taught, ACTIONS_ONLY, reduction=reduction, **draws)
    return theirs, ours["loss"]


def test_texts_are_cut_as_lerobot_cuts_them(pair):
    from lerobot.processor import TokenizerProcessorStep

    tasks = ["push the block " * 20 + "\n", "pick\n"]
    config = pair.lerobot.config
    step = TokenizerProcessorStep(
        tokenizer_name=config.vlm_model_name,
        padding=config.pad_language_to,
        padding_side="right",
        max_length=config.tokenizer_max_length,
    )
    seen = step._tokenize_text(tasks)
    ids, mask = pair.rust.policy.tokenize(tasks)
    assert ids.shape[1] == config.tokenizer_max_length
    assert torch.equal(ids, seen["input_ids"]) and torch.equal(mask, seen["attention_mask"].bool())


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_losses_are_equal(pair, batch, reduction):
    theirs, ours = both_losses(pair, batch, reduction)
    assert ours.shape == theirs.shape == (() if reduction == "mean" else (BATCH,))
    torch.testing.assert_close(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


def test_gradients_are_equal(pair, batch):
    trained = {name: p for name, p in pair.lerobot.named_parameters() if p.requires_grad}
    for name, tensor in pair.rust.tensors().items():
        tensor.requires_grad_(name in trained)
    pair.rust.zero_grad()
    pair.lerobot.zero_grad()
    theirs, ours = both_losses(pair, batch, "mean")
    theirs.backward()
    ours.backward()
    mine = pair.rust.tensors()
    with_gradient = [name for name, parameter in trained.items() if parameter.grad is not None]
    assert len(with_gradient) > 30
    for name in with_gradient:
        torch.testing.assert_close(mine[name].grad, trained[name].grad, rtol=1e-4, atol=TOLERANCE, msg=name)


def test_sampled_chunks_are_equal(pair, batch):
    seen, taught = batch
    noise = torch.randn(BATCH, CHUNK, pair.lerobot.config.max_action_dim, generator=torch.Generator().manual_seed(3))
    theirs = pair.lerobot.predict_action_chunk(lerobot_batch(pair, seen, taught), noise=noise)
    ours = pair.rust.policy.sample(pair.rust.tensors(), seen, "actions", noise={"action": noise})
    assert set(ours) == {"actions"}
    assert ours["actions"].dtype == torch.float32
    torch.testing.assert_close(ours["actions"], theirs, rtol=TOLERANCE, atol=TOLERANCE)


def test_parameters_that_no_loss_reaches_are_those_without_gradient(pair, batch):
    """Static knowledge against autograd: what is called unused gets no gradient, and everything else gets one."""
    policy, tensors = pair.rust.policy, pair.rust.tensors()
    for tensor in tensors.values():
        tensor.requires_grad_(True)
        tensor.grad = None
    pair.rust(*batch, ACTIONS_ONLY)["loss"].backward()
    silent = {name for name, tensor in tensors.items() if tensor.grad is None}
    unused = policy.unused_in("actions")
    assert {name for name in silent if "lm_expert" not in name and "vlm." not in name} == {
        f"model.latent_{way}_proj.{kind}" for way in ("in", "out") for kind in ("weight", "bias")
    }
    assert silent <= unused
    never = {name for name, _, reachable in policy.parameter_specs() if not reachable}
    assert never <= unused
    assert any("lm_head" in name for name in never)
    for name in set(tensors) - unused:
        assert tensors[name].grad is not None, name
