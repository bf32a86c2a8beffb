"""`bench_step`: the figures of a training step that tables of benchmarks show."""

import json
import resource

from conftest import DATA, program, run

FRAMES = [
    f"data.sources.metaworld_mt5.root={DATA / 'embedded_images'}",
    "data.sources.metaworld_mt5.cameras.primary=observation.images.front",
    "data.sources.metaworld_mt5.num_val_episodes=1",
    "data.request.image_deltas=[0,5]",
    "data.loader.batch_size=2",
]


def test_a_step_is_timed_with_and_without_data_and_nothing_is_saved():
    def no_large_file() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # a checkpoint has 22 MB

    words = ["--steps", "5", "--percentiles", "experiment=laq_tiny", *FRAMES]
    result = run([program("examples/bench_step"), *words], preexec_fn=no_large_file)
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout)
    assert 0 <= figures["data_wait_fraction"] < 1
    assert 0 < figures["step_p50_ms"] <= figures["step_p99_ms"]
    assert figures["step_ms"] > 0 and figures["step_without_data_ms"] > 0 and figures["flops"] > 1e9
    assert figures["host_waits"] == 0 and figures["kernels"] == []
