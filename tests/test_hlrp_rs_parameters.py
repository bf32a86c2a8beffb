"""The policy's weights are the caller's: whatever Python does to them, Rust computes with what is there at the next call."""

import copy
import pickle

import pytest
import torch
from hlrp_rs import HlrpError, HlrpValueError, Policy
from memory import SLACK, resident_kib
from tiny_policy import LATENT, MULTITASK, SIDE, RustPolicy, make_pair, observation, processor, targets


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> RustPolicy:
    return make_pair(tmp_path_factory.mktemp("policy")).rust


@pytest.fixture
def policy(original) -> RustPolicy:
    return copy.deepcopy(original)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return observation(generator), targets(generator)


def draws(policy: RustPolicy, seen: dict) -> dict:
    """The same noise and times at every call."""
    size = len(seen["task"])
    generator = torch.Generator().manual_seed(4)
    expert = policy.policy.model["arch"]["expert"]
    shapes = {"latent": LATENT.values(), "action": (expert["chunk_size"], expert["max_action_dim"])}
    noise = {head: torch.randn(size, *shape, generator=generator) for head, shape in shapes.items()}
    time = {head: torch.rand(size, generator=generator) for head in shapes}
    return {"noise": noise, "time": time}


def loss(policy: RustPolicy, batch) -> torch.Tensor:
    return policy(*batch, **draws(policy, batch[0]))["loss"]


def test_steps_of_adamw_move_the_parameters_that_rust_computes_with(policy, batch):
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        value = loss(policy, batch)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(later < earlier for earlier, later in zip(losses[:3], losses[1:4], strict=True))


def test_the_gradient_is_that_of_finite_differences(policy, batch):
    name = "model/action_out_proj/weight"
    weight = policy.tree[name]
    loss(policy, batch).backward()
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        step = 1e-2
        weight.add_(step * direction)
        above = loss(policy, batch)
        weight.sub_(2 * step * direction)
        below = loss(policy, batch)
    torch.testing.assert_close((above - below) / (2 * step), (weight.grad * direction).sum(), rtol=1e-2, atol=1e-4)


def test_load_state_dict_is_seen_at_the_next_call(policy, batch):
    before = loss(policy, batch)
    state = {name: tensor * 1.1 for name, tensor in policy.state_dict().items()}
    other = copy.deepcopy(policy)
    policy.load_state_dict(state)
    assert loss(policy, batch) != before
    assert loss(other, batch) == before
    other.load_state_dict(policy.state_dict(), assign=True)
    assert loss(other, batch) == loss(policy, batch)


def test_storage_that_is_swapped_is_seen_at_the_next_call(policy, batch):
    """As averaged weights are swapped in for an evaluation, and `.to()` replaces what a parameter holds."""
    before = loss(policy, batch)
    averaged = {name: tensor.detach() * 0.9 for name, tensor in policy.tree.items()}
    kept = {name: tensor.data for name, tensor in policy.tree.items()}
    for name, tensor in policy.tree.items():
        tensor.data = averaged[name]
    assert loss(policy, batch) != before
    for name, tensor in policy.tree.items():
        tensor.data = kept[name]
    assert loss(policy, batch) == before
    policy.to(torch.float64).to(torch.float32)
    assert loss(policy, batch) == before


def test_copies_are_independent_and_pickles_are_whole(policy, batch):
    twin = copy.deepcopy(policy)
    revived = pickle.loads(pickle.dumps(policy))
    before = loss(policy, batch)
    with torch.no_grad():
        policy.tree["model/state_proj/weight"].add_(1.0)
    assert loss(policy, batch) != before
    assert loss(twin, batch) == before
    assert loss(revived, batch) == before


def test_only_parameters_that_ask_for_it_get_a_gradient(policy, batch):
    frozen = policy.policy.frozen()
    for name, tensor in policy.tensors().items():
        tensor.requires_grad_(name not in frozen)
    loss(policy, batch).backward()
    assert frozen
    for name, tensor in policy.tensors().items():
        assert (tensor.grad is None) == (name in frozen), name


@pytest.mark.slow
def test_a_thousand_steps_leave_memory_flat(policy):
    generator = torch.Generator().manual_seed(6)
    seen, taught = observation(generator, size=1), targets(generator, size=1)
    latent_only = MULTITASK | {"mode": "latent"}

    def steps(count: int) -> None:
        for step in range(count):
            policy.zero_grad(set_to_none=True)
            policy(seen, taught, MULTITASK if step % 10 == 0 else latent_only)["loss"].backward()
            if step % 10 == 0:
                policy.policy.sample(policy.tensors(), seen, "latent")

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the sizes are too small to share
    steps(100)
    before = resident_kib()
    steps(1000)
    torch.set_num_threads(num_threads)
    assert resident_kib() - before < SLACK


def test_names_and_shapes_and_formats_must_fit(policy, batch):
    tensors = policy.tensors()
    name = "model.state_proj.weight"
    rest = {key: tensor for key, tensor in tensors.items() if key != name}
    wrong = [
        (rest, f"1 missing ({name}), 0 unknown"),
        (tensors | {"model.extra": torch.zeros(1)}, "0 missing (), 1 unknown (model.extra)"),
        (tensors | {name: torch.zeros(2, 3)}, f"weight `{name}` is Float [2, 3], the model needs Float [48, 7]"),
        (tensors | {name: tensors[name].half()}, f"weight `{name}` is Half [48, 7], the model needs Float [48, 7]"),
        (tensors | {name: None}, f"parameters `{name}`: a torch.Tensor is needed"),
        ([1, 2], "parameters: a mapping from names to tensors is needed"),
    ]
    for parameters, text in wrong:
        with pytest.raises(HlrpValueError) as caught:
            policy.policy.loss(parameters, *batch, MULTITASK)
        assert text in str(caught.value)
        with pytest.raises(ValueError, match="hint:"):
            policy.policy.check(parameters)
    policy.policy.check(tensors)


def test_wrong_inputs_are_named(policy, batch):
    seen, taught = batch
    image = seen["images"]["top"]

    def refused(text: str, seen=seen, taught=taught, objective=MULTITASK, **options):
        with pytest.raises(HlrpValueError) as caught:
            policy.policy.loss(policy.tensors(), seen, taught, objective, **options)
        assert text in str(caught.value)
        assert "hint:" in str(caught.value)

    refused("camera `top`: images are Float [1, 3, 40, 72]", seen | {"images": {"top": image[:1]}})
    refused("camera `top`: images are Float [3, 40, 72, 3]", seen | {"images": {"top": image.permute(0, 2, 3, 1)}})
    refused("the policy has no camera `wrist`", seen | {"images": {"wrist": image}})
    refused("it has no image of any camera", seen | {"images": {}})
    refused("`task` is missing", {"images": seen["images"]})
    refused("task: a list of texts is needed", seen | {"task": "push"})
    refused("unknown key `tasks`", seen | {"tasks": []})
    refused("state: shape [3, 99]", seen | {"state": torch.zeros(3, 99)})
    refused(
        "actions: shape [3, 5, 3] where [B, 6, 3] is needed",
        taught=taught | {"actions": torch.zeros(3, 5, 3)} | {"action_is_pad": None},
    )
    refused("latent actions: the batch has none", taught={"actions": taught["actions"]})
    refused("a mask is Float [3, 6] where bool [3, 6]", taught=taught | {"action_is_pad": torch.zeros(3, 6)})
    refused("objective: ", objective=MULTITASK | {"mode": "both"})
    refused("objective: missing field `latent_loss_weight`", objective={"mode": "actions", "action_loss_weight": 1.0})
    refused("unknown reduction `sum`", reduction="sum")
    refused('noise["action"]: this is Float [1]', noise={"action": torch.zeros(1)})


def test_what_libtorch_refuses_is_an_exception_with_its_own_text(policy, batch, capfd):
    seen, taught = batch
    with pytest.raises(HlrpError, match="^libtorch: ") as caught:
        policy.policy.loss(policy.tensors(), seen | {"state": seen["state"].to("meta")}, taught, MULTITASK)
    assert not isinstance(caught.value, ValueError)
    assert "Exception raised from" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_description_must_be_whole(policy):
    model = policy.policy.model
    narrow = {"expert": model["arch"]["expert"] | {"max_action_dim": 2}}
    with pytest.raises(HlrpValueError, match="model: missing field `cameras`"):
        Policy({key: value for key, value in model.items() if key != "cameras"}, processor(), ".")
    with pytest.raises(HlrpValueError, match=r"model.arch.expert.max_action_dim: 2, but actions have 3 dimensions"):
        Policy(model | {"arch": narrow}, processor(), policy.policy.tokenizer_folder)
    with pytest.raises(FileNotFoundError, match="^/no/folder/tokenizer.json: "):
        Policy(model, processor(), "/no/folder")


def test_pictures_of_bytes_and_of_numbers_are_the_same(policy, batch):
    seen, taught = batch
    as_bytes = (seen["images"]["top"] * 255).round().to(torch.uint8)
    as_floats = as_bytes.float() / 255
    values = [loss(policy, (seen | {"images": {"top": image}}, taught)) for image in (as_bytes, as_floats)]
    assert values[0] == values[1]
    prepared = policy.policy.prepare_images(as_bytes)
    assert prepared.shape == (3, 3, SIDE, SIDE)
    assert prepared.min() >= -1
    assert prepared.max() <= 1
