"""Grad mode, inference mode, autocast, random state and the GIL are the caller's."""

import threading
import time

import pytest
import torch
from tiny_policy import MULTITASK, RustPolicy, make_pair, observation, targets


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> RustPolicy:
    return make_pair(tmp_path_factory.mktemp("policy")).rust


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return observation(generator), targets(generator)


def losses(policy, batch, seed=0, **options):
    torch.manual_seed(seed)
    return policy(*batch, **options)


def test_a_loss_can_be_differentiated_unless_the_caller_says_no(policy, batch):
    assert losses(policy, batch)["loss"].grad_fn is not None
    with torch.no_grad():
        quiet = losses(policy, batch)["loss"]
    with torch.inference_mode():
        inferred = losses(policy, batch)["loss"]
    assert quiet.grad_fn is None
    assert inferred.is_inference()
    assert losses(policy, batch)["loss"] == quiet == inferred.clone()


def test_parts_and_samples_carry_no_gradient(policy, batch):
    parts = losses(policy, batch)
    assert parts.keys() == {"loss", "latent_loss", "action_loss", "num_latent_samples", "num_action_samples"}
    assert all(not tensor.requires_grad for name, tensor in parts.items() if name != "loss")
    weighted = 0.3 * parts["latent_loss"] + 2.0 * parts["action_loss"]
    torch.testing.assert_close(parts["loss"].detach(), weighted)
    assert (parts["num_latent_samples"], parts["num_action_samples"]) == (2, 3)
    sample = policy.policy.sample(policy.tensors(), batch[0], "multitask")
    assert {name: (tensor.shape, tensor.requires_grad) for name, tensor in sample.items()} == {
        "actions": ((3, 6, 3), False),
        "latents": ((3, 2, 5), False),
    }


@pytest.mark.parametrize("mode", ["latent", "actions", "multitask"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_keys_are_the_same_in_every_mode(policy, batch, mode, reduction):
    parts = policy(*batch, MULTITASK | {"mode": mode}, reduction=reduction)
    assert parts.keys() == {"loss", "latent_loss", "action_loss", "num_latent_samples", "num_action_samples"}
    shape = () if reduction == "mean" else (3,)
    assert all(parts[name].shape == shape for name in ("loss", "latent_loss", "action_loss"))
    assert (parts["action_loss"] == 0).all() == (mode == "latent")
    assert parts["loss"].requires_grad


def test_a_batch_that_teaches_nothing_gives_zero_and_zero_gradients(policy, batch):
    seen, taught = batch
    nothing = taught | {
        "action_is_pad": torch.ones(3, 6, dtype=torch.bool),
        "latent_is_valid": torch.zeros(3, dtype=torch.bool),
    }
    policy.zero_grad()
    parts = policy(seen, nothing)
    parts["loss"].backward()
    assert parts["loss"] == 0
    assert (parts["num_latent_samples"], parts["num_action_samples"]) == (0, 0)
    head = policy.tree["model/latent_out_proj/weight"]
    assert head.grad is not None
    assert not head.grad.any()


def test_autocast_is_honoured_and_keeps_losses_and_samples_in_float32(policy, batch):
    exact = losses(policy, batch)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = losses(policy, batch)["loss"]
        sample = policy.policy.sample(policy.tensors(), batch[0], "actions")["actions"]
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert rounded.dtype == sample.dtype == torch.float32
    assert product.dtype == torch.bfloat16, "the caller's autocast goes on behind the call"
    assert rounded != exact
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.0)
    policy.zero_grad()
    rounded.backward()
    assert policy.tree["model/action_out_proj/weight"].grad.dtype == torch.float32
    assert losses(policy, batch)["loss"] == exact


def test_draws_come_from_the_generator_of_the_caller(policy, batch):
    first, again, other = (losses(policy, batch, seed=seed)["loss"] for seed in (7, 7, 8))
    assert first == again != other
    torch.manual_seed(7)
    policy(*batch)
    after = torch.get_rng_state()
    torch.manual_seed(7)
    assert not torch.equal(torch.get_rng_state(), after), "a call moves the generator on"


def test_given_noise_and_times_are_used_instead(policy, batch):
    state = torch.get_rng_state()
    noise = {"latent": torch.zeros(3, 2, 5), "action": torch.zeros(3, 6, 5)}
    times = {"latent": torch.full([3], 0.5), "action": torch.full([3], 0.5)}
    first, second = (policy(*batch, noise=noise, time=times)["loss"] for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state), "nothing is drawn"
    moved = policy(*batch, noise=noise, time=times | {"action": torch.full([3], 0.6)})
    assert moved["loss"] != first


def test_only_the_present_enters(policy, batch):
    """An observation is one moment: a stream of frames is refused rather than guessed at."""
    seen, taught = batch
    frames = seen["images"]["top"].unsqueeze(1).repeat(1, 2, 1, 1, 1)
    with pytest.raises(ValueError, match="give images of time t alone"):
        policy(seen | {"images": {"top": frames}}, taught)


def test_other_python_threads_run_while_rust_computes(policy):
    generator = torch.Generator().manual_seed(1)
    seen = observation(generator, size=96)
    done = threading.Event()
    ticks = []

    def tick():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    began = time.perf_counter()
    policy.policy.sample(policy.tensors(), seen, "actions")
    ended = time.perf_counter()
    done.set()
    thread.join()
    during = [moment for moment in ticks if began < moment < ended]
    longest = max(later - earlier for earlier, later in zip([began, *during], [*during, ended], strict=True))
    assert longest < 0.5 * (ended - began)


def test_threads_share_one_policy(policy, batch):
    expected = losses(policy, batch)["loss"].item()
    noise = {"latent": torch.zeros(3, 2, 5), "action": torch.zeros(3, 6, 5)}
    times = {"latent": torch.full([3], 0.5), "action": torch.full([3], 0.5)}
    alone = policy(*batch, noise=noise, time=times)["loss"].item()
    results = []

    def work():
        with torch.no_grad():
            results.extend(policy(*batch, noise=noise, time=times)["loss"].item() for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [alone] * 15
    assert losses(policy, batch)["loss"].item() == expected
    assert losses(policy, batch)["loss"].requires_grad, "grad mode belongs to each thread"
