"""How the peers of the benchmarks time a piece of work: as `bench_step` and `bench_policy` do."""

import resource
import time
from collections.abc import Callable

import torch


def timed(run: Callable[[], object], repeats: int, device: str, warm_up: int | None = None) -> dict[str, float | list]:
    """Wall times in seconds (least, mean, median, p99), least CPU time, peak memory in GB, and the kernels of one run on a GPU.

    `warm_up` runs come first: three on a GPU, else one.
    """
    is_cuda = device != "cpu"
    warm_up = (3 if is_cuda else 1) if warm_up is None else warm_up
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()

    def complete() -> None:
        run()
        if is_cuda:
            torch.cuda.synchronize()

    seconds = []
    for repeat in range(warm_up + repeats):
        start = time.perf_counter(), time.process_time()
        complete()
        if repeat >= warm_up:
            seconds.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    wall, cpu = zip(*seconds, strict=True)
    wall = sorted(wall)
    quantile = lambda q: wall[int((len(wall) - 1) * q + 0.5)]  # noqa: E731
    peak = torch.cuda.max_memory_reserved() if is_cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "wall_s": wall[0],
        "mean_s": sum(wall) / len(wall),
        "p50_s": quantile(0.5),
        "p99_s": quantile(0.99),
        "cpu_s": min(cpu),
        "peak_gb": peak / 1e9,
        "kernels": kernels_of(complete) if is_cuda else [],
    }


def kernels_of(run: Callable[[], None]) -> list[list]:
    """Name, executions and seconds of each kernel or copy that a GPU executes in one run."""
    with torch.profiler.profile() as profile:
        run()
    events = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return [[event.name, 1, event.device_time_total / 1e6] for event in events]
