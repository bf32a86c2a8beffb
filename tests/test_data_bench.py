"""`hlrp data bench`: a mixture is measured as its training would load it."""

import json
import time

import pytest
from conftest import DATA, one_error, program, run

PUSHT = "{root: %s/pusht_scripted, cameras: {primary: observation.image}, state_key: null, action_key: null, num_val_episodes: 2, weight: 0.25}"
LAQ = ["experiment=laq_tiny", "data.loader.batch_size=8", "data.loader.prefetch_batches=2"]
VLA = ["experiment=vla_tiny", "data.loader.batch_size=8", "data.loader.prefetch_batches=2"]
MIXED = [*LAQ, f"+data.sources.pusht={PUSHT % DATA}", "data.loader.mixing_block=8"]


def bench(*words: object):
    return run([program("hlrp"), "data", "bench", *map(str, words)])


def figures(*words: object) -> dict:
    result = bench(*words, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_a_mixture_has_the_shares_of_its_weights():
    measured = figures(*MIXED, "--batches", 10, "data.loader.num_workers=1")
    assert measured["sources"] == {
        "metaworld_mt5": {"target": 0.75, "realised": 0.75},
        "pusht": {"target": 0.25, "realised": 0.25},
    }
    assert (measured["num_batches"], measured["batch_size"], measured["num_workers"]) == (10, 8, 1)
    assert measured["image_size"] == [64, 64]
    assert measured["samples_per_s"] == pytest.approx(8 * measured["batches_per_s"])
    assert 0 < measured["wait_p50_s"] <= measured["wait_p99_s"]
    assert 0 < measured["open_s"] < measured["first_batch_s"]
    assert measured["cpu_s_per_sample"] > 0 and 5 < measured["peak_resident_mb"] < 2000
    assert 0 <= measured["worker_idle"] <= 1 and 0.5 < measured["consumer_wait"] <= 1
    assert measured["num_bad_samples"] == 0


def test_a_slow_training_does_not_wait_for_its_data():
    began = time.monotonic()
    measured = figures(*LAQ, "--consumer-ms", 150)
    assert measured["num_batches"] == 8, "four times what is made ahead"
    assert time.monotonic() - began > 8 * 0.15
    assert measured["batches_per_s"] < 1 / 0.15
    assert measured["consumer_wait"] < 0.2 < 0.5 < measured["worker_idle"]


def test_the_table_is_readable():
    result = bench(*MIXED)
    assert result.returncode == 0, result.stderr
    for line in [
        "laq_tiny: ",
        "batches of 8 samples, 2 images of 64x64",
        "batches per second",
        "99 %",
        "memory at its peak",
    ]:
        assert line in result.stdout, result.stdout
    [row] = [line.split() for line in result.stdout.splitlines() if line.strip().startswith("pusht")]
    assert row[1:3] == ["25.00", "%"], result.stdout


def test_stage_2_is_measured_without_a_teacher():
    """Its frames have the policy's size; the teacher's pair is that of the request."""
    measured = figures(*VLA, "data.request.image_deltas=[0,20]")
    assert measured["image_size"] == [64, 64]
    native = figures(*VLA, "policy.processor.frame_size=null", "policy.objective.mode=actions", "--image-size", 32, 48)
    assert native["image_size"] == [32, 48]
    recorded = figures(*VLA, "policy.processor.frame_size=null", "policy.objective.mode=actions")
    assert recorded["image_size"] == [128, 128]


def test_frames_between_a_pair_are_loaded_where_the_training_needs_them():
    assert "2 images of" in bench(*LAQ).stdout
    assert "3 images of" in bench(*LAQ, "model.triplets.additivity_weight=0.1").stdout


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([*LAQ, "--batches", 7], ["--batches", "2 are made ahead", "at least 8"]),
        ([*LAQ, "--consumer-ms=-1"], ["--consumer-ms", "out of range"]),
        ([*LAQ, "--consumer-ms=nan"], ["--consumer-ms", "out of range"]),
        ([*LAQ, "--image-size", 0, 64], ["--image-size"]),
        ([*LAQ, "data.loader.batch_size=0"], ["data.loader.batch_size"]),
        ([*LAQ, "data.sources.metaworld_mt5.root=/nowhere"], ["data.sources.metaworld_mt5.root", "/nowhere"]),
        ([*MIXED, "data.sources.pusht.weight=-1"], ["data.sources.pusht.weight", "-1 is out of range"]),
        ([*VLA], ["data.request.image_deltas", "teacher", "[0,20]"]),
        (["experiment=pipeline_tiny"], ["experiment.stage", "pipeline"]),
        (
            [
                *VLA,
                "policy.processor.frame_size=null",
                "policy.objective.mode=actions",
                f"+data.sources.pusht={PUSHT % DATA}",
                "data.sources.pusht.action_key=action",
            ],
            ["--image-size", "height and width"],
        ),
    ],
)
def test_what_cannot_be_measured_is_an_error(words, names):
    one_error(bench(*words), 2, names)
