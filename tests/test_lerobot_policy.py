"""The policy `hlrp_smolvla_shared` as a PyTorch module: what it computes, what it sees, and that nothing of its weights is kept outside."""

import copy
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lerobot_modules import ACTION, BATCH, STATE, TASK, fixed_draws, make_batch, make_policy, refused
from lerobot_world import CHUNK, smolvla_policy
from memory import SLACK, resident_kib

TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
# A gradient that is zero in exact arithmetic (the bias of keys) comes out as noise far below this.
SMALLEST_GRADIENT = 1e-6


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max()).item()


# --- The same mathematics as LeRobot's smolvla ---


@pytest.mark.parametrize("train_expert_only", [True, False])
def test_loss_gradients_and_chunks_equal_those_of_smolvla(plugin, vlm, tmp_path, train_expert_only):
    """The same weights through both policies and both preprocessors."""
    from lerobot.policies.factory import make_pre_post_processors

    options = {"train_expert_only": train_expert_only, "freeze_vision_encoder": train_expert_only}
    theirs = smolvla_policy(vlm, STATE, ACTION, **options).train()
    theirs.save_pretrained(tmp_path / "smolvla")
    ours = make_policy(
        init_mode="smolvla", smolvla_checkpoint=tmp_path / "smolvla", vlm_model_name=str(vlm), **options
    ).train()

    statistics = {
        key: {"mean": torch.full((2,), 0.3), "std": torch.full((2,), 1.7)} for key in ("observation.state", "action")
    }
    batches = []
    for policy in (ours, theirs):
        preprocessor, _ = make_pre_post_processors(policy.config, dataset_stats=statistics)
        batches.append(preprocessor(make_batch()))
    noise, time = torch.randn(BATCH, CHUNK, 32), torch.rand(BATCH) * 0.9 + 0.05
    our_loss, metrics = ours.forward(batches[0], noise=noise, time=time)
    their_loss, _ = theirs.forward(batches[1], noise=noise, time=time)
    assert our_loss.item() == pytest.approx(their_loss.item(), rel=TOLERANCE)
    assert metrics["action_loss"] == pytest.approx(their_loss.item(), rel=TOLERANCE)

    our_loss.backward()
    their_loss.backward()
    parameters = dict(theirs.named_parameters())
    assert dict(ours.named_parameters()).keys() == parameters.keys()
    with_gradient = {name for name, parameter in parameters.items() if parameter.grad is not None}
    assert {name for name, parameter in ours.named_parameters() if parameter.grad is not None} == with_gradient
    assert len(with_gradient) > 20
    for name in with_gradient:
        expected = parameters[name].grad
        error = (ours.get_parameter(name).grad - expected).abs().max()
        assert error < GRADIENT_TOLERANCE * expected.abs().max().clamp_min(SMALLEST_GRADIENT), name

    chunk = ours.predict_action_chunk(batches[0], noise=noise)
    assert relative_error(chunk, theirs.predict_action_chunk(batches[1], noise=noise)) < TOLERANCE
    per_sample, _ = ours.forward(batches[0], noise=noise, time=time, reduction="none")
    expected, _ = theirs.forward(batches[1], noise=noise, time=time, reduction="none")
    assert relative_error(per_sample, expected) < TOLERANCE


# --- What it sees and learns ---


def test_the_policy_sees_frame_t_only(multitask):
    """Frame t+k teaches through the teacher; the policy's own view of a sample does not change with it."""
    batch = make_batch(with_pairs=True)
    other = copy.deepcopy(batch)
    other["observation.image"][:, 1] = torch.rand_like(other["observation.image"][:, 1])
    other["observation.state"][:, 1] += 5.0
    noise, time = fixed_draws()
    _, metrics = multitask.forward(batch, noise=noise, time=time)
    _, perturbed = multitask.forward(other, noise=noise, time=time)
    assert perturbed["action_loss"] == metrics["action_loss"]
    chunk = multitask.predict_action_chunk(batch, noise=noise)
    assert torch.equal(chunk, multitask.predict_action_chunk(other, noise=noise))
    other["observation.image"][:, 0] = 1 - other["observation.image"][:, 0]
    assert not torch.equal(chunk, multitask.predict_action_chunk(other, noise=noise)), "frame t does matter"


def test_latent_labels_are_those_of_the_teacher(multitask, laq):
    """The teacher gets the pictures as they were recorded, and pairs that leave the episode do not count."""
    import hlrp_rs

    batch = make_batch(with_pairs=True)
    batch["observation.image_is_pad"][2, 1] = True
    targets = multitask._targets(batch)
    frames = (batch["observation.image"] * 255).round().to(torch.uint8)
    teacher = hlrp_rs.Teacher.load(laq)
    assert torch.equal(targets["latents"], teacher.vectors(teacher.codes(frames)))
    assert targets["latent_is_valid"].tolist() == [True, True, False, True]
    assert multitask.forward(batch)[1]["num_latent_samples"] == 3


def test_actions_of_unlabelled_episodes_teach_nothing(plugin, pusht_artifact, laq):
    policy = make_policy(
        stage2_artifact=pusht_artifact,
        stage3_training_mode="multitask",
        laq_checkpoint_path=laq,
        labelled_episodes=[1, 3],
    ).train()
    batch, other = make_batch(with_pairs=True), make_batch(with_pairs=True)
    other["action"][[0, 2]] += 100.0
    noise, time = fixed_draws()
    loss, metrics = policy.forward(batch, noise=noise, time=time)
    assert metrics["num_action_samples"] == 2
    per_sample, same = policy.forward(batch, noise=noise, time=time, reduction="none")
    assert per_sample.shape == (BATCH,)
    assert same["num_action_samples"] == 2
    assert policy.forward(other, noise=noise, time=time)[0].item() == loss.item()
    other["action"][1] += 100.0
    assert policy.forward(other, noise=noise, time=time)[0].item() != loss.item()

    policy.eval()
    with torch.no_grad():
        held_out = policy.forward(batch, noise=noise, time=time)[1]
    assert held_out["num_action_samples"] == BATCH, "held-out data is measured on all of its actions"


def test_a_batch_without_a_labelled_episode_has_a_loss_and_gradients(plugin, pusht_artifact):
    policy = make_policy(stage2_artifact=pusht_artifact, labelled_episodes=[99]).train()
    loss, metrics = policy.forward(make_batch())
    loss.backward()
    assert (loss.item(), metrics["action_loss"], metrics["num_action_samples"]) == (0.0, 0.0, 0.0)
    gradients = [parameter.grad for parameter in policy.parameters() if parameter.requires_grad]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_metric_names_are_the_same_in_every_mode(plugin, pusht_artifact, laq):
    names = []
    for mode in ("action", "latent", "multitask"):
        policy = make_policy(stage2_artifact=pusht_artifact, stage3_training_mode=mode, laq_checkpoint_path=laq)
        names.append(list(policy.forward(make_batch(with_pairs=True))[1]))
    assert names == [["action_loss", "num_action_samples", "latent_loss", "num_latent_samples"]] * 3


def test_weights_add_the_parts_up(plugin, pusht_artifact, laq):
    policy = make_policy(
        stage2_artifact=pusht_artifact,
        stage3_training_mode="multitask",
        laq_checkpoint_path=laq,
        action_loss_weight=2.0,
        latent_loss_weight=0.5,
    )
    loss, metrics = policy.forward(make_batch(with_pairs=True))
    assert loss.item() == pytest.approx(2.0 * metrics["action_loss"] + 0.5 * metrics["latent_loss"], rel=1e-6)


def test_the_held_out_loss_works_without_gradient(policy):
    policy.eval()
    with torch.no_grad():
        loss, _ = policy.forward(make_batch())
    assert loss.isfinite()
    assert not loss.requires_grad


def test_an_empty_instruction_becomes_the_default(policy):
    policy.config.default_task = TASK
    noise, _ = fixed_draws()
    batch = make_batch()
    expected = policy.predict_action_chunk(batch, noise=noise)
    assert torch.equal(policy.predict_action_chunk(batch | {"task": [""] * BATCH}, noise=noise), expected)
    assert not torch.equal(policy.predict_action_chunk(batch | {"task": ["Open it"] * BATCH}, noise=noise), expected)


# --- An ordinary module ---


def test_only_what_trains_asks_for_gradients(policy):
    trained = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    assert not [name for name in trained if name.startswith("model.vlm_with_expert.vlm.")], "the backbone is frozen"
    assert not [name for name in trained if name.startswith("model.latent_")], "the latent head takes no part"
    assert {"model.action_in_proj.weight", "model.state_proj.bias"} <= trained
    loss, _ = policy.forward(make_batch())
    loss.backward()
    assert {name for name, parameter in policy.named_parameters() if parameter.grad is not None} == trained


def test_train_returns_the_policy_and_leaves_frozen_parts_in_evaluation(policy):
    assert policy.train() is policy
    assert policy.training
    assert not policy.get_submodule("model.vlm_with_expert.vlm").training
    assert policy.get_submodule("model.vlm_with_expert.lm_expert").training
    assert policy.eval() is policy


def test_optimizer_steps_move_what_rust_computes_with(policy):
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=1e-3)
    noise, time = fixed_draws()
    losses = []
    for _ in range(5):
        loss, _ = policy.forward(make_batch(), noise={"action": noise["action"]}, time={"action": time["action"]})
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)


def test_moves_copies_and_swaps_of_weights_are_followed(policy):
    """Weights of a copy, of an averaged model or of a state dict count, whatever storage they lie in."""
    noise = {"action": torch.randn(BATCH, CHUNK, 32)}
    batch = make_batch()
    first = policy.predict_action_chunk(batch, noise=noise)
    twin = copy.deepcopy(policy)
    assert torch.equal(twin.predict_action_chunk(batch, noise=noise), first)

    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.1)
    other = twin.predict_action_chunk(batch, noise=noise)
    assert not torch.equal(other, first)
    assert torch.equal(policy.predict_action_chunk(batch, noise=noise), first), "the copy has its own weights"

    kept = {name: parameter.data for name, parameter in policy.named_parameters()}
    for name, parameter in policy.named_parameters():
        parameter.data = twin.get_parameter(name).data
    assert torch.equal(policy.predict_action_chunk(batch, noise=noise), other), "an averaged model was swapped in"
    for name, parameter in policy.named_parameters():
        parameter.data = kept[name]
    assert torch.equal(policy.predict_action_chunk(batch, noise=noise), first), "and out again"

    policy.load_state_dict(twin.state_dict())
    assert torch.equal(policy.predict_action_chunk(batch, noise=noise), other)
    policy.to(torch.float64).to(torch.float32)
    assert torch.equal(policy.predict_action_chunk(batch, noise=noise), other)


@pytest.mark.slow  # a minute of passes
def test_a_thousand_passes_leave_memory_flat(policy):
    batch = make_batch()

    def passes(count: int) -> int:
        for _ in range(count):
            policy.forward(batch)[0].backward()
            policy.zero_grad()
        return resident_kib()

    warm = passes(100)
    assert passes(1000) - warm < SLACK


# --- Acting ---


def test_a_chunk_is_executed_before_the_next_is_predicted(plugin, pusht_artifact):
    policy = make_policy(stage2_artifact=pusht_artifact, n_action_steps=3).eval()
    noise, batch = torch.randn(BATCH, CHUNK, 32), make_batch()
    chunk = policy.predict_action_chunk(batch, noise=noise)
    actions = torch.stack([policy.select_action(batch, noise=noise) for _ in range(3)], dim=1)
    assert torch.equal(actions, chunk[:, :3])
    other = make_batch(seed=1)
    assert torch.equal(policy.select_action(other, noise=noise), policy.predict_action_chunk(other, noise=noise)[:, 0])
    policy.reset()
    assert torch.equal(policy.select_action(batch, noise=noise), chunk[:, 0]), "nothing is left of the last episode"


def test_a_blind_policy_gives_the_mean_action_whatever_it_sees(plugin, pusht_artifact):
    from lerobot.configs import NormalizationMode
    from lerobot.policies.factory import make_pre_post_processors

    policy = make_policy(stage2_artifact=pusht_artifact, blind=True).eval()
    statistics = {"action": {"mean": torch.tensor([3.0, -7.0]), "std": torch.tensor([2.0, 5.0])}}
    statistics["observation.state"] = statistics["action"]
    _, to_actions = make_pre_post_processors(policy.config, dataset_stats=statistics)
    for seed in (0, 1):
        actions = to_actions(policy.select_action(make_batch(seed)))
        assert torch.equal(actions, statistics["action"]["mean"].expand(BATCH, ACTION))
    with refused("blind gives the mean action, but actions are scaled by MIN_MAX"):
        make_policy(
            stage2_artifact=pusht_artifact, blind=True, normalization_mapping={"ACTION": NormalizationMode.MIN_MAX}
        )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_actions_are_float32_and_detached(plugin, pusht_artifact, dtype):
    policy = make_policy(stage2_artifact=pusht_artifact, dtype=dtype).eval()
    action = policy.select_action(make_batch())
    assert (action.dtype, action.requires_grad, tuple(action.shape)) == (torch.float32, False, (BATCH, ACTION))
    action.numpy()


# --- A plan of latent actions ---


def joint_artifact(folder: Path, source: Path, mode: str = "multitask") -> Path:
    """An artifact whose latents and actions have one flow, trained in `mode` of stage 2."""
    shutil.copytree(source, folder)
    record = json.loads((folder / "artifact.json").read_text())
    record["policy"]["model"]["arch"]["expert"]["latent_head"] = "joint_flow"
    record["policy"]["objective"]["mode"] = mode
    (folder / "artifact.json").write_text(json.dumps(record))
    return folder


def sampled(policy, mode: str, batch: dict, noise: dict, **options) -> torch.Tensor:
    """What stage 2 predicts in `mode`."""
    return policy._network.sample(
        dict(policy.named_parameters()), policy._observe(batch), mode, noise=noise, **options
    )["actions"]


def test_actions_of_a_joint_flow_see_its_plan_unless_it_is_left_out(plugin, pusht_artifact, tmp_path):
    policy = make_policy(stage2_artifact=joint_artifact(tmp_path / "joint", pusht_artifact)).eval()
    batch, (noise, _) = make_batch(), fixed_draws()
    with_plan, without = (sampled(policy, mode, batch, noise) for mode in ("multitask", "actions"))
    assert not torch.equal(with_plan, without)
    assert torch.equal(policy.predict_action_chunk(batch, noise=noise), with_plan)
    assert torch.equal(policy.select_action(batch, noise=noise), with_plan[:, 0])
    policy.save_pretrained(tmp_path / "saved")
    again = type(policy).from_pretrained(tmp_path / "saved").eval()
    assert torch.equal(again.predict_action_chunk(batch, noise=noise), with_plan)
    policy.config.latent_plan = False
    assert torch.equal(policy.predict_action_chunk(batch, noise=noise), without)
    separate = make_policy(stage2_artifact=pusht_artifact).eval()
    expected = sampled(separate, "actions", batch, noise)
    assert torch.equal(separate.predict_action_chunk(batch, noise=noise), expected), (
        "a latent head of its own is no plan"
    )


def test_real_time_chunking_guides_the_actions_of_a_joint_flow(plugin, pusht_artifact, tmp_path):
    from lerobot.policies.rtc.configuration_rtc import RTCConfig

    policy = make_policy(stage2_artifact=joint_artifact(tmp_path / "joint", pusht_artifact)).eval()
    batch, (noise, _) = make_batch(), fixed_draws()
    free = policy.predict_action_chunk(batch, noise=noise)
    policy.config.rtc_config = RTCConfig(execution_horizon=CHUNK - 2)
    options = {"inference_delay": 2, "prev_chunk_left_over": torch.zeros(BATCH, CHUNK, ACTION)}
    chunk = policy.predict_action_chunk(batch, noise=noise, **options)
    guidance = policy._guidance(2, options["prev_chunk_left_over"], None)
    assert torch.equal(chunk, sampled(policy, "multitask", batch, noise, guidance=guidance))
    assert not torch.equal(chunk, free)


def test_a_plan_is_seen_where_actions_were_trained_with_it(plugin, pusht_artifact, laq, tmp_path, caplog):
    """What trained the weights last decides, in stage 2 and here."""
    batch, (noise, time) = make_batch(with_pairs=True), fixed_draws()

    def sees_plan(policy) -> bool:
        chunk = policy.predict_action_chunk(batch, noise=noise)
        with_plan, without = (sampled(policy, mode, batch, noise) for mode in ("multitask", "actions"))
        assert torch.equal(chunk, with_plan) != torch.equal(chunk, without)
        return torch.equal(chunk, with_plan)

    def trained(policy):
        policy.train().forward(batch, noise=noise, time=time)[0].backward()
        return policy

    actions = make_policy(stage2_artifact=joint_artifact(tmp_path / "actions", pusht_artifact, "actions"))
    assert not sees_plan(actions)
    with_teacher = {"stage3_training_mode": "multitask", "laq_checkpoint_path": laq}
    artifact = joint_artifact(tmp_path / "joint", pusht_artifact)
    assert not sees_plan(make_policy(stage2_artifact=tmp_path / "actions", **with_teacher)), "nothing is learned yet"
    assert sees_plan(trained(make_policy(stage2_artifact=tmp_path / "actions", **with_teacher)))
    meta = SimpleNamespace(fps=10, total_episodes=BATCH, tasks=None)
    assert not caplog.records
    policy = make_policy(stage2_artifact=artifact, dataset_meta=meta)
    (record,) = caplog.records
    assert "trains and predicts them without it" in record.getMessage()
    assert sees_plan(policy) and not sees_plan(trained(policy))
    policy.save_pretrained(tmp_path / "saved")
    assert not sees_plan(type(policy).from_pretrained(tmp_path / "saved"))


# --- Number formats ---


def test_weights_held_in_bfloat16_compute_what_autocast_computes(plugin, pusht_artifact):
    noise, batch = torch.randn(BATCH, CHUNK, 32), make_batch()
    masters = make_policy(stage2_artifact=pusht_artifact).eval()
    held = make_policy(stage2_artifact=pusht_artifact, dtype="bfloat16").eval()
    with torch.autocast("cpu", torch.bfloat16):
        expected = masters.predict_action_chunk(batch, noise=noise)
    assert torch.equal(held.predict_action_chunk(batch, noise=noise), expected)
    formats = {name: parameter.dtype for name, parameter in held.named_parameters()}
    layer = "model.vlm_with_expert.lm_expert.layers.0"
    assert formats[f"{layer}.mlp.up_proj.weight"] == torch.bfloat16
    assert formats[f"{layer}.input_layernorm.weight"] == formats["model.action_in_proj.weight"] == torch.float32


def test_training_in_bfloat16_moves_float32_weights(plugin, pusht_artifact):
    meta = SimpleNamespace(fps=10, total_episodes=BATCH, tasks=None)
    policy = make_policy(stage2_artifact=pusht_artifact, dtype="bfloat16", dataset_meta=meta).train()
    reference = make_policy(stage2_artifact=pusht_artifact, dataset_meta=meta).train()
    noise, time = fixed_draws()
    loss = policy.forward(make_batch(), noise=noise, time=time)[0]
    with torch.autocast("cpu", torch.bfloat16):
        expected = reference.forward(make_batch(), noise=noise, time=time)[0]
    assert loss.item() == expected.item()
    loss.backward()
    expected.backward()
    wanted = dict(reference.named_parameters())
    for name, parameter in policy.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None) == wanted[name].requires_grad
        if parameter.requires_grad:
            assert parameter.dtype == torch.float32 and torch.equal(parameter.grad, wanted[name].grad), name
        elif name.endswith("q_proj.weight"):
            assert parameter.dtype == torch.bfloat16


def test_a_policy_held_in_bfloat16_is_not_trained(plugin, pusht_artifact):
    policy = make_policy(stage2_artifact=pusht_artifact, dtype="bfloat16").train()
    with pytest.raises(RuntimeError, match="built for evaluation"):
        policy.forward(make_batch())


def test_a_dimension_that_is_constant_in_the_statistics_keeps_its_scale(plugin, pusht_artifact):
    from lerobot.policies.factory import make_pre_post_processors

    policy = make_policy(stage2_artifact=pusht_artifact)
    vector = {"mean": torch.tensor([5.0, 0.0]), "std": torch.tensor([0.0, 2.0])}
    statistics = {"observation.state": vector, "action": vector}
    preprocessor, postprocessor = make_pre_post_processors(policy.config, dataset_stats=statistics)
    batch = preprocessor({"observation.state": torch.tensor([5.5, 4.0]), "task": ""})
    assert torch.allclose(batch["observation.state"], torch.tensor([[0.5, 2.0]]))
    assert torch.allclose(postprocessor(torch.tensor([[0.5, 2.0]])), torch.tensor([[5.5, 4.0]]))

    broken = statistics | {"action": vector | {"std": torch.tensor([float("nan"), 1.0])}}
    with pytest.raises(ValueError, match="the statistics of action have a std that is not a finite number"):
        make_pre_post_processors(policy.config, dataset_stats=broken)


def test_a_value_far_outside_of_its_statistics_is_warned_of_once(plugin, pusht_artifact, caplog):
    policy = make_policy(stage2_artifact=pusht_artifact).train()
    batch = make_batch()
    policy.forward(batch)
    assert not caplog.records
    batch["observation.state"][0] = 1e6
    batch["action"][1, -1] = float("nan")  # a padded step
    for _ in range(2):
        loss, values = policy.forward(batch)
        assert torch.isfinite(loss)
        assert set(values) == {"action_loss", "num_action_samples", "latent_loss", "num_latent_samples"}
    (record,) = caplog.records
    assert "a normalised state value is 1e+06" in record.getMessage()
