"""Real-time chunking: a chunk that is predicted while the one before is executed begins as that one goes on, as LeRobot's `smolvla` has it."""

import time
from types import SimpleNamespace

import pytest
import torch
from lerobot_modules import ACTION, BATCH, STATE, TASK, make_batch, make_policy, refused
from lerobot_world import CHUNK, smolvla_policy

TOLERANCE = 1e-5
HORIZON = CHUNK - 2


def rtc(schedule: str = "LINEAR", **options):
    from lerobot.configs import RTCAttentionSchedule
    from lerobot.policies.rtc.configuration_rtc import RTCConfig

    defaults = {"execution_horizon": HORIZON, "prefix_attention_schedule": RTCAttentionSchedule(schedule)}
    return RTCConfig(**defaults | options)


@pytest.fixture(scope="module")
def policies(plugin, vlm, tmp_path_factory):
    """Our policy and LeRobot's with the same weights, and a batch preprocessed for each."""
    from lerobot.policies.factory import make_pre_post_processors

    folder = tmp_path_factory.mktemp("smolvla")
    theirs = smolvla_policy(vlm, STATE, ACTION).eval()
    theirs.save_pretrained(folder)
    ours = make_policy(init_mode="smolvla", smolvla_checkpoint=folder, vlm_model_name=str(vlm)).eval()
    statistics = {
        key: {"mean": torch.full((2,), 0.3), "std": torch.full((2,), 1.7)} for key in ("observation.state", "action")
    }
    batches = [
        make_pre_post_processors(policy.config, dataset_stats=statistics)[0](make_batch()) for policy in (ours, theirs)
    ]
    return ours, theirs, batches


def chunks(policies, config, **options) -> list[torch.Tensor]:
    """What both predict from the same noise."""
    ours, theirs, batches = policies
    noise = torch.randn(BATCH, CHUNK, 32, generator=torch.Generator().manual_seed(11))
    ours.config.rtc_config = theirs.config.rtc_config = config
    theirs.init_rtc_processor()
    return [
        policy.predict_action_chunk(dict(batch), noise=noise.clone(), **options)
        for policy, batch in zip((ours, theirs), batches, strict=True)
    ]


def left_over(*size: int) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(13))


@pytest.mark.parametrize("schedule", ["ZEROS", "ONES", "LINEAR", "EXP"])
@pytest.mark.parametrize("delay", [0, 2, CHUNK])
@pytest.mark.parametrize("shape", [(BATCH, CHUNK, ACTION), (BATCH, 3, ACTION), (CHUNK - 1, ACTION)])
def test_guided_chunks_equal_those_of_smolvla(policies, schedule, delay, shape):
    options = {"inference_delay": delay, "prev_chunk_left_over": left_over(*shape)}
    ours, theirs = chunks(policies, rtc(schedule), **options)
    assert (ours - theirs).abs().max() < TOLERANCE * theirs.abs().max()
    (free, _) = chunks(policies, None)
    assert not torch.equal(ours, free) or (schedule == "ZEROS" and delay == 0), "guidance changes the chunk"


@pytest.mark.parametrize("options", [{"max_guidance_weight": 1.5}, {"execution_horizon": 2}, {"execution_horizon": 0}])
def test_every_setting_means_what_it_means_in_smolvla(policies, options):
    ours, theirs = chunks(
        policies, rtc(**options), inference_delay=1, prev_chunk_left_over=left_over(BATCH, CHUNK, ACTION)
    )
    assert (ours - theirs).abs().max() < TOLERANCE * theirs.abs().max()


def test_the_horizon_of_a_call_goes_before_that_of_the_configuration(policies):
    options = {"inference_delay": 1, "prev_chunk_left_over": left_over(BATCH, CHUNK, ACTION)}
    ours, theirs = chunks(policies, rtc(), execution_horizon=3, **options)
    assert (ours - theirs).abs().max() < TOLERANCE * theirs.abs().max()
    assert torch.equal(ours, chunks(policies, rtc(execution_horizon=3), **options)[0])


def test_a_chunk_begins_where_the_one_before_goes_on(policies):
    """The hard prefix: the steps that are executed meanwhile are those of the chunk before, the others are free."""
    before = left_over(BATCH, CHUNK, ACTION)
    (guided, _) = chunks(policies, rtc("ZEROS"), inference_delay=3, prev_chunk_left_over=before)
    (free, _) = chunks(policies, None)

    def distance(chunk):
        return (chunk - before)[:, :3].abs().mean()

    assert distance(guided) < 0.1 * distance(free)


def test_without_anything_left_over_or_switched_off_the_chunk_is_free(policies):
    (free, _) = chunks(policies, None)
    assert torch.equal(chunks(policies, rtc(), inference_delay=0, prev_chunk_left_over=None)[0], free)
    before = left_over(BATCH, CHUNK, ACTION)
    assert torch.equal(chunks(policies, rtc(enabled=False), inference_delay=2, prev_chunk_left_over=before)[0], free)


def test_what_cannot_work_is_refused(policies, plugin, latent_artifact, laq):
    ours, _, (batch, _) = policies
    ours.config.rtc_config = rtc()
    with refused("select_action returns one action"):
        ours.select_action(dict(batch))
    with refused("left_over: actions of shape"):
        ours.predict_action_chunk(dict(batch), inference_delay=1, prev_chunk_left_over=left_over(CHUNK + 1, ACTION))
    for guidance, named in [({}, "`left_over` is missing"), ({"left_over": left_over(2, 2), "delay": 1}, "`delay`")]:
        with refused(f"guidance: .*{named}"):
            ours._network.sample({}, {"images": {}, "task": []}, "actions", guidance=guidance)
    assert ours.supports_rtc()
    options = {"stage2_artifact": latent_artifact, "stage3_training_mode": "latent", "laq_checkpoint_path": laq}
    assert not make_policy(**options).supports_rtc()


def test_a_saved_policy_keeps_its_setting(policies, tmp_path):
    from lerobot.configs import PreTrainedConfig

    ours, *_ = policies
    ours.config.rtc_config = rtc("EXP", max_guidance_weight=3.0)
    ours.save_pretrained(tmp_path)
    assert PreTrainedConfig.from_pretrained(tmp_path).rtc_config == ours.config.rtc_config


def test_lerobot_s_own_engine_runs_the_policy(policies):
    """Its thread asks for chunks while actions are taken from the queue, and hands over what is left of the chunk before."""
    from lerobot.policies.factory import make_pre_post_processors
    from lerobot.rollout.inference.rtc import RTCInferenceEngine, supports_rtc_inference

    ours, *_ = policies
    assert supports_rtc_inference(ours)
    calls = []
    ours.config.rtc_config = rtc()
    predict = ours.predict_action_chunk

    def watched(batch, **options):
        calls.append(options)
        return predict(batch, **options)

    statistics = {key: {"mean": torch.zeros(2), "std": torch.ones(2)} for key in ("observation.state", "action")}
    preprocessor, postprocessor = make_pre_post_processors(ours.config, dataset_stats=statistics)
    names = ["x", "y"]
    features = {
        "observation.state": {"dtype": "float32", "shape": (2,), "names": names},
        "observation.images.image": {"dtype": "image", "shape": (48, 96, 3), "names": ["height", "width", "channels"]},
    }
    ours.config.camera_map = {role: "observation.images.image" for role in ours.config.camera_map}
    robot = SimpleNamespace(robot_type="test", action_features=dict.fromkeys(names, float))
    ours.predict_action_chunk = watched
    engine = RTCInferenceEngine(
        ours,
        preprocessor,
        postprocessor,
        robot,
        ours.config.rtc_config,
        features,
        TASK,
        20.0,
        "cpu",
        rtc_queue_threshold=CHUNK - 1,
    )
    engine.start()
    engine.resume()
    try:
        actions, end = [], time.monotonic() + 60
        while len(actions) < 2 * CHUNK:
            assert time.monotonic() < end and not engine.failed, calls
            engine.notify_observation({"x": 0.1, "y": -0.2, "image": torch.zeros(48, 96, 3, dtype=torch.uint8).numpy()})
            action = engine.get_action(None)
            actions += [] if action is None else [action]
            time.sleep(0.05)
    finally:
        engine.stop()
        del ours.predict_action_chunk
    assert len(calls) >= 2
    assert calls[0]["prev_chunk_left_over"] is None
    assert any(call["prev_chunk_left_over"] is not None for call in calls[1:])
    assert all(action.shape == (ACTION,) and action.isfinite().all() for action in actions)
