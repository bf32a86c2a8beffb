"""Benchmarks of start-up, loader, training steps and policies, beside their peers, in one run: prints Markdown tables.

Peers: LeRobot's DataLoader (OMP_NUM_THREADS=1, its faster setting), raw FFmpeg decoding of the same files, the loaders of `peers.py`, stage 1
in plain PyTorch, and LeRobot's SmolVLA policy. Every figure is the median of several rounds in which the programs take turns, so that a drifting machine
meets all alike.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import EXAMPLES, REPO, json_of, median
from peers import peer_tables, rlds_tables

sys.path += [str(REPO / "tests"), str(REPO / "tests/support")]
BATCH_SIZE = 32
PARTS = (
    "startup",
    "loader",
    "peers",
    "rlds",
    "mixture",
    "laq_step",
    "label",
    "tracking",
    "checkpoint",
    "overlap",
    "smolvla",
    "policy",
)


def ours(dataset: Path, workers: int, batches: int, *options: object) -> dict:
    words = ["--workers", workers, "--batches", batches, "--batch-size", BATCH_SIZE, *options]
    return json_of([EXAMPLES / "bench_loader", dataset, *words])


def lerobot(dataset: Path, workers: int, batches: int, *options: str) -> dict:
    script = REPO / "tests" / "bench" / "peer_loader.py"
    words = ["--workers", workers, "--batches", batches, "--batch-size", BATCH_SIZE]
    return json_of([sys.executable, script, "lerobot", dataset, *words, *options])


def raw_ffmpeg(dataset: Path) -> dict:
    """Decodes every video of a dataset from beginning to end on one thread; two frames count as a pair."""
    frames, before = 0, resource.getrusage(resource.RUSAGE_CHILDREN)
    for video in sorted(dataset.glob("videos/*/*/*.mp4")):
        command = ["ffmpeg", "-v", "info", "-nostdin", "-threads", "1", "-i", str(video), "-f", "null", "-"]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        frames += int(re.findall(r"frame=\s*(\d+)", result.stderr)[-1])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"samples_per_s": frames / 2 / cpu, "cpu_s_per_sample": 2 * cpu / frames}


def loader_table(dataset: Path, cache: str, batches: int, num_rounds: int) -> list[str]:
    """One row per loader; `cache` is an empty folder for the frame cache."""
    # Opened five times: clips are spread over windows of batches, which a whole dataset fills and this cut of one does not.
    clips = ("--anchors-per-clip", 8, "--sources", 5)
    contestants = {
        "hlrp, 1 decode thread": lambda: ours(dataset, 1, batches),
        "hlrp, 2 decode threads": lambda: ours(dataset, 2, batches),
        "hlrp, clips of 8, 1 decode thread": lambda: ours(dataset, 1, batches, *clips),
        "hlrp, clips of 8, 2 decode threads": lambda: ours(dataset, 2, batches, *clips),
        "hlrp, frame cache": lambda: ours(dataset, 1, 8 * batches, "--cache", cache),
        "LeRobot DataLoader, uint8, 0 workers": lambda: lerobot(dataset, 0, batches),
        "LeRobot DataLoader, uint8, 2 workers": lambda: lerobot(dataset, 2, batches),
        "LeRobot DataLoader, float32 (its default), 0 workers": lambda: lerobot(dataset, 0, batches, "--float"),
        "raw FFmpeg, sequential, 1 thread": lambda: raw_ffmpeg(dataset),
    }
    results = {name: [] for name in contestants}
    for _ in range(num_rounds):
        for name, measure in contestants.items():
            results[name].append(measure())
    peer = min(median(results[name], "cpu_s_per_sample") for name in results if name.startswith("LeRobot"))
    lines = [
        f"\n### {dataset.name}\n",
        "| loader | pairs/s | CPU ms per pair | per CPU-second, LeRobot's best = 1 | first batch, s |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, rounds in results.items():
        cpu, first = median(rounds, "cpu_s_per_sample"), median(rounds, "first_batch_s")
        first_text = f"{first:.3f}" if first is not None else ""
        lines.append(
            f"| {name} | {median(rounds, 'samples_per_s'):.0f} | {1e3 * cpu:.3f} | {peer / cpu:.2f} | {first_text} |"
        )
    return lines


# DINOv3 ViT-S/16.
# Training steps of stage 1, in float32 as their peers: overrides of `hlrp train-laq`.
STEPS = {
    "laq_tiny": ["experiment=laq_tiny"],
    "laq_conv": ["experiment=laq_conv_tiny"],
    "laq_pixel, two layers of each kind, batch 4": [
        *["experiment=laq_pixel", "model.spatial_depth=2", "model.temporal_depth=2", "model.decoders.pixel.depth=2"],
        *["data.loader.batch_size=4", "precision=32-true"],
    ],
    "laq_dino, DINOv3 ViT-S/16 of fresh weights, two layers of each kind, batch 4": [
        *["experiment=laq_dino", "model.spatial_depth=2", "model.temporal_depth=2", "model.decoders.token.depth=2"],
        *["model.decoders.aux.depth=2", "model/encoder=dinov3_vits16"],
        *["data.loader.batch_size=4", "precision=32-true"],
    ],
}


# Of them that are timed in each round.
NUM_STEPS = 5


def step_table(num_rounds: int, threads: int) -> list[str]:
    """Training steps beside the same mathematics in plain PyTorch, whose losses of the same weights agree."""
    from conftest import train_laq_command

    script, environment = REPO / "tests/bench/laq.py", threads_of(threads)
    lines = [
        f"\n### One training step of stage 1, {threads} threads\n",
        "| | with data, ms | without, ms | plain PyTorch, without, ms | ratio of the times | largest difference of a loss |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, words in STEPS.items():
        ours, peers = [], []
        with tempfile.TemporaryDirectory(prefix="hlrp-bench-") as folder:
            run_dir = Path(folder) / "run"
            short = ["training.max_steps=2", "training.scheduler.warmup_steps=1", "validation.check_interval=2"]
            short += ["training.checkpoint.every_n_steps=2", "validation.limit_batches=1", f"logging.run_dir={run_dir}"]
            command = train_laq_command(*words, *short, "validation.probes.enabled=false", "logging.min_free_gb=0.1")
            subprocess.run(command, cwd=REPO, check=True, capture_output=True)
            for _ in range(num_rounds):
                own = [EXAMPLES / "bench_step", *words, f"num_threads={threads}", "--steps", NUM_STEPS]
                ours.append(json_of(own, environment))
                peer = [sys.executable, script, run_dir, "--threads", threads, "--steps", NUM_STEPS]
                peers.append(json_of(peer, environment))
        own, peer = median(ours, "step_without_data_ms"), median(peers, "step_ms")
        error = max(max(figures["errors"].values()) for figures in peers)
        cells = f"{median(ours, 'step_ms'):.1f} | {own:.1f} | {peer:.1f} | {own / peer:.2f} | {error:.0e}"
        lines.append(f"| {name} | {cells} |")
    return lines


def threads_of(num: int) -> dict[str, str]:
    """Environment in which a program computes on so many threads, as `hlrp` starts programs."""
    return {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "2000", "OMP_NUM_THREADS": str(num)}


def label_table(dataset: Path, num_rounds: int, threads: int) -> list[str]:
    """`hlrp label` with laq_tiny beside a loop over LeRobot's DataLoader with the same model."""
    from conftest import program, train_laq_command

    script = REPO / "tests/bench/lerobot_label.py"
    ours, cached, loops = (
        "hlrp label",
        "hlrp label, from a frame cache that is there",
        {"loop": 0, "loop, 2 workers": 2},
    )
    rounds = {name: [] for name in (ours, cached, *loops)}
    environment = threads_of(threads)
    with tempfile.TemporaryDirectory(prefix="hlrp-bench-") as folder:
        run_dir = Path(folder) / "laq"
        words = ["experiment=laq_tiny", "training.max_steps=2", "training.scheduler.warmup_steps=1"]
        words += ["validation.probes.enabled=false", "validation.limit_batches=1", f"logging.run_dir={run_dir}"]
        subprocess.run(train_laq_command(*words), cwd=REPO, check=True, capture_output=True)
        cache = ["--cache-dir", str(Path(folder) / "cache")]

        def label(name: str, *words: str) -> dict:
            out, start = Path(folder) / name, time.perf_counter()
            command = [program("hlrp"), "label", str(run_dir), str(dataset), "--out", str(out), *words]
            subprocess.run(command, cwd=REPO, check=True, capture_output=True, env=os.environ | environment)
            num_labels = json.loads((out / "label_manifest.json").read_text())["num_valid_labels"]
            return {"pairs_per_s": num_labels / (time.perf_counter() - start)}

        label("fills-the-cache", *cache)
        for index in range(num_rounds):
            rounds[ours].append(label(f"decoded-{index}"))
            rounds[cached].append(label(f"cached-{index}", *cache))
            for name, workers in loops.items():
                peer = [sys.executable, script, run_dir, dataset, "--workers", workers, "--threads", threads]
                rounds[name].append(json_of(peer, environment))
    rates = {name: median(of, "pairs_per_s") for name, of in rounds.items()}
    peer = max(rates[name] for name in loops)
    return [
        f"\n### Labels of {dataset.name} by laq_tiny, {threads} threads\n",
        "| | pairs/s, start and files included | ratio to the best loop |",
        "|---|---:|---:|",
        *(f"| {name} | {rate:.0f} | {rate / peer:.2f} |" for name, rate in rates.items()),
    ]


def tracking_table(num_rounds: int) -> list[str]:
    """What recording costs the training thread: ten scalars a step, 100 steps/s, all sinks on; W&B is a stand-in on this machine."""
    pause_ms = 10
    with stand_in() as recorder:
        words = [[recorder.folder / str(index), 0, 1000, pause_ms] for index in range(num_rounds)]
        rounds = [json_of([EXAMPLES / "record_wandb", *word], recorder.env()) for word in words]
    us_per_step = median(rounds, "us_per_step")
    return [
        "\n### Recording, 100 steps/s, all sinks\n",
        "| | |",
        "|---|---:|",
        f"| training thread, µs per step | {us_per_step:.1f} |",
        f"| share of the step | {us_per_step / (1e3 * pause_ms):.3%} |",
        *faults_table(num_rounds),
    ]


# What a W&B service may do to a training: the fault of the stand-in.
SERVICES = {
    "healthy service": {},
    "silent service": {"match": "file_stream", "delay": 3600, "times": 10**6},
    "failing service": {"match": "", "status": 500, "times": 10**6},
}
NOT_RECORDED = "not recorded on W&B"


def faults_table(num_rounds: int) -> list[str]:
    """The step time of one training while the W&B service is well, silent or failing. It is asked thirty times as often as usual."""
    from conftest import MINI, train_laq_command
    from wandb_world import FAST

    words = [
        *MINI,
        "training.max_steps=150",
        "num_threads=1",
        "validation.check_interval=1000",
        "training.checkpoint.every_n_steps=1000",
    ]
    words += [*FAST, "logging.wandb.upload_interval_s=0.5", "logging.wandb.finish_timeout_s=0.1"]
    times = {name: [] for name in (NOT_RECORDED, *SERVICES)}
    with stand_in() as recorder:
        for index in range(num_rounds):
            for name, of_rounds in times.items():
                recorder.heal()
                if fault := SERVICES.get(name):
                    recorder.fail(**fault)
                run_dir = recorder.folder / f"{name.split()[0]}-{index}"
                use = f"logging.use_wandb={'false' if name == NOT_RECORDED else 'true'}"
                command = train_laq_command(*words, use, f"logging.run_dir={run_dir}")
                result = subprocess.run(command, cwd=REPO, capture_output=True, text=True, env=recorder.env())
                if result.returncode:
                    sys.exit(f"error: the training with a {name} failed:\n{result.stderr}")
                rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
                rates = [row["perf/steps_per_sec"] for row in rows if "perf/steps_per_sec" in row]
                of_rounds.append(1000 / statistics.median(rates))
    plain = statistics.median(times[NOT_RECORDED])
    lines = ["\n### One training step under faults of the W&B service\n"]
    lines += ["| | ms, median of a training | in all rounds | ratio |", "|---|---:|---:|---:|"]
    for name, of_rounds in times.items():
        middle, spread = statistics.median(of_rounds), f"{min(of_rounds):.2f} to {max(of_rounds):.2f}"
        lines.append(f"| {name} | {middle:.2f} | {spread} | {middle / plain:.3f} |")
    return lines


@contextlib.contextmanager
def stand_in():
    """A W&B service on this machine."""
    from wandb_world import Recorder

    with tempfile.TemporaryDirectory(prefix="hlrp-bench-") as folder:
        recorder = Recorder(Path(folder))
        try:
            yield recorder
        finally:
            recorder.stop()


def policy_table(num_rounds: int) -> list[str]:
    """The policy inside LeRobot beside LeRobot's smolvla, which is 1 in the ratios: small, and of the published size where memory allows."""
    lines = []
    for size, batch_size in (("small", 8), ("full", 2)):
        if size == "full" and available_gb() < 16:
            lines.append("\nThe published size inside LeRobot needs 16 GB of free memory: left out.")
            continue
        words = ["--size", size, "--batch-size", batch_size, "--rounds", num_rounds]
        figures = json_of([sys.executable, REPO / "tests" / "bench" / "lerobot_policy.py", *words])
        ours, peer = figures["hlrp"], figures["smolvla"]
        lines += [
            f"\n### Policy inside LeRobot ({figures['num_parameters'] / 1e6:.0f} M parameters, batch {batch_size})\n",
            "| | training, samples/s | ratio | one action chunk, ms | ratio |",
            "|---|---:|---:|---:|---:|",
        ]
        for name, row in (("hlrp_smolvla_shared", ours), ("LeRobot smolvla", peer)):
            speed, latency = row["samples_per_s"], row["chunk_ms"]
            ratios = speed / peer["samples_per_s"], peer["chunk_ms"] / latency
            lines.append(f"| {name} | {speed:.2f} | {ratios[0]:.2f} | {latency:.0f} | {ratios[1]:.2f} |")
    return lines


def smolvla_table(num_rounds: int, threads: int) -> list[str]:
    """The expert model beside LeRobot's own policy, eager, with the real sizes and the same weights; each in its own process."""
    num_layers = 16 if available_gb() >= 10 else 8
    script = REPO / "tests" / "bench" / "smolvla.py"
    works = [(work, precision) for work in ("step", "chunk") for precision in ("float32", "bf16")]
    results = {(work, who): [] for work in works for who in ("hlrp", "LeRobot")}
    environment = threads_of(threads)
    with tempfile.TemporaryDirectory(prefix="hlrp-bench-") as folder:
        subprocess.run([sys.executable, script, "write", folder, "--layers", str(num_layers)], check=True, cwd=REPO)
        for _ in range(num_rounds):
            for work in works:
                words = [*work, threads, 2]
                results[work, "hlrp"].append(json_of([EXAMPLES / "bench_policy", folder, *words], environment))
                static = ["--static-cache"] if work[0] == "chunk" else []
                peer = [sys.executable, script, "time", folder, *words, *static]
                results[work, "LeRobot"].append(json_of(peer, environment))
    lines = [
        f"\n### SmolVLA, {num_layers} text layers, one 480x640 camera, {threads} threads\n",
        "| | hlrp, s | LeRobot, s | faster | hlrp, CPU s | LeRobot, CPU s | faster | hlrp, peak GB | LeRobot, peak GB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    names = {"step": "training step, batch 2", "chunk": "action chunk, 10 steps"}
    rows = {f"{names[work[0]]}, {work[1]}": (results[work, "hlrp"], results[work, "LeRobot"]) for work in works}
    for work in works[2:]:
        static = [figures["static"] for figures in results[work, "LeRobot"]]
        rows[f"{names[work[0]]}, {work[1]}; LeRobot, static prefix cache"] = results[work, "hlrp"], static
    for name, (ours, peer) in rows.items():
        cells = [name]
        for key in ("wall_s", "cpu_s"):
            pair = median(ours, key), median(peer, key)
            cells += [f"{pair[0]:.2f}", f"{pair[1]:.2f}", f"{pair[1] / pair[0]:.2f}"]
        cells += [f"{median(rounds, 'peak_gb'):.1f}" for rounds in (ours, peer)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def timed_rows(run_dir: Path) -> list[dict]:
    """The lines of a run's metrics that have times."""
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if "time/compute" in row]


def checkpoint_table(threads: int) -> list[str]:
    """How long the training waits for a checkpoint of SmolVLA's size, all of it trained, beside what writing it takes."""
    from conftest import train_vla_command

    if available_gb() < 18:
        return ["\nCheckpoints of the published size need 18 GB of free memory: left out."]
    with tempfile.TemporaryDirectory(prefix="hlrp-bench-") as folder:
        folder, run_dir = Path(folder), Path(folder) / "run"
        subprocess.run(
            [sys.executable, REPO / "tests/bench/smolvla.py", "write", folder / "policy"], check=True, cwd=REPO
        )
        # Random weights of the published size, in the published layout.
        write = (
            "import sys; from transformers import AutoConfig, AutoModelForImageTextToText as Model; "
            "Model.from_config(AutoConfig.from_pretrained(sys.argv[1])).save_pretrained(sys.argv[1])"
        )
        subprocess.run([sys.executable, "-c", write, folder / "policy" / "vlm"], check=True, cwd=REPO)
        every = 4
        command = train_vla_command(
            "experiment=vla_smolvla",
            "policy.objective.mode=actions",
            "policy.teacher.checkpoint=null",
            f"policy.model.backbone.vlm_model_name={folder / 'policy' / 'vlm'}",
            "policy.model.backbone.sizes=null",
            "policy.model.backbone.train_expert_only=false",
            f"num_threads={threads}",
            "precision=32-true",
            "data.loader.batch_size=1",
            f"training.max_steps={3 * every}",
            f"training.checkpoint.every_n_steps={every}",
            "training.scheduler.warmup_steps=1",
            "training.log_every_n_steps=1",
            "validation.check_interval=1000000",
            "validation.limit_batches=1",
            "logging.min_free_gb=1",
            f"logging.run_dir={run_dir}",
        )
        log = subprocess.run(command, cwd=REPO, check=True, capture_output=True, text=True).stderr
        rows = {row["step"]: row for row in timed_rows(run_dir)}
        num_bytes = sum(file.stat().st_size for file in (run_dir / f"checkpoints/step-{every:06}").iterdir())
    written = statistics.median(float(seconds) for seconds in re.findall(r"written in ([0-9.]+) s", log))
    waited = statistics.median(rows[step + 1]["time/checkpoint"] for step in (every, 2 * every))
    step = statistics.median(row["time/compute"] for number, row in rows.items() if number % every == 0)
    return [
        f"\n### Checkpoint of {num_bytes / 1e9:.1f} GB, {threads} threads\n",
        "| | s | of a training step of one sample |",
        "|---|---:|---:|",
        f"| a training step | {step:.2f} | 1.00 |",
        f"| written, while the training goes on | {written:.2f} | {written / step:.2f} |",
        f"| the training waits (copy of the tensors) | {waited:.2f} | {waited / step:.2f} |",
    ]


def overlap_table(num_rounds: int) -> list[str]:
    """A step of two processes whose network is slow, beside its computation and what the network needs for the gradients."""
    from conftest import TARGET

    rates = (400, 200, 100, 50)
    steps: dict[int | None, list[float]] = {rate: [] for rate in (None, *rates)}
    with tempfile.TemporaryDirectory(prefix="hlrp-bench-") as folder:
        library = Path(folder) / "slow_network.so"
        source = REPO / "tests/support/slow_network.c"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", source, "-o", library], check=True)
        for number in range(num_rounds):
            for rate, times in steps.items():
                run_dir = Path(folder) / f"run-{number}-{rate}"
                words = ["experiment=laq_pixel", "model.dim=512", "model.image_size=64", "model.patch_size=8"]
                words += ["model.spatial_depth=4", "model.temporal_depth=4", "model.decoders.pixel.depth=2"]
                words += ["data.loader.batch_size=8", "num_processes=2", "num_threads=1", "training.max_steps=8"]
                words += ["training.scheduler.warmup_steps=1", "training.log_every_n_steps=1"]
                words += ["validation.check_interval=1000000", "validation.limit_batches=1", "logging.min_free_gb=0.1"]
                words += ["training.checkpoint.every_n_steps=1000000", "validation.probes.enabled=false"]
                command = [TARGET / "hlrp-train-laq", *words, f"logging.run_dir={run_dir}"]
                slow = {"LD_PRELOAD": str(library), "NETWORK_MB_PER_S": str(rate)} if rate else {}
                run = subprocess.run(command, cwd=REPO, env=os.environ | slow, capture_output=True, text=True)
                if run.returncode:
                    sys.exit(run.stderr)
                times.append(statistics.median(row["time/compute"] for row in timed_rows(run_dir)[2:]))
                num_values = int(re.search(r"training (\d+) parameters", run.stderr)[1])
    compute = statistics.median(steps[None])
    lines = [
        f"\n### Gradients of {num_values / 1e6:.0f} M parameters, two processes of one thread\n",
        "| network, MB/s | step, s | its computation, s | its gradients on the network, s | step / sum of both |",
        "|---|---:|---:|---:|---:|",
    ]
    for rate in rates:
        # Of a sum over two processes each sends as much as it has.
        step, network = statistics.median(steps[rate]), 4 * num_values / (1e6 * rate)
        ratio = step / (compute + network)
        lines.append(f"| {rate} | {step:.2f} | {compute:.2f} | {network:.2f} | {ratio:.2f} |")
    return lines


def mixture_table(num_rounds: int) -> list[str]:
    """Opening and first batch of 25 sources with 24 million anchors, as LeRobot and as RLDS, files in the page cache."""
    lines = [
        f"\n### First batch of 25 sources, {num_rounds} rounds\n",
        "| format | anchors, millions | opened, s | first batch, s (aim: 1) | memory then, MB (aim: 200) |",
        "|---|---:|---:|---:|---:|",
    ]
    with tempfile.TemporaryDirectory(prefix="hlrp-bench-") as folder:
        for name, options in (("LeRobot v3", []), ("RLDS, 1024 shards each", ["--rlds"])):
            root = Path(folder) / "-".join(["large", *options])
            subprocess.run([sys.executable, REPO / "tests/bench/large_mixture.py", root, *options], check=True)
            # The first of them writes the index of RLDS, and brings the files into memory.
            words = ("--sources", 25, "--index-dir", Path(folder) / "index")
            rounds = [ours(root, 2, 16, *words) for _ in range(num_rounds + 1)][1:]
            cells = [median(rounds, key) for key in ("open_s", "first_batch_s", "first_batch_resident_mb")]
            anchors = rounds[0]["num_anchors"] / 1e6
            lines.append(f"| {name} | {anchors:.1f} | {cells[0]:.2f} | {cells[1]:.2f} | {cells[2]:.0f} |")
    return lines


def available_gb() -> float:
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    return int(line.split()[1]) / 1e6


def startup_table(num_rounds: int) -> list[str]:
    """How long the commands take that people type on login nodes, beside `git --version`."""
    hlrp = EXAMPLES.parent / "hlrp"
    commands = {
        "git --version": ["git", "--version"],
        "hlrp --help": [hlrp, "--help"],
        "hlrp submit --help": [hlrp, "submit", "--help"],
        "hlrp jobs list --help": [hlrp, "jobs", "list", "--help"],
        "hlrp submit experiment=laq_cluster cluster=lrz_x100 submit.dry_run=true": [
            *[hlrp, "submit", "experiment=laq_cluster", "cluster=lrz_x100"],
            *["cluster.allowed_roots=null", "submit.dry_run=true"],
        ],
    }
    results = {name: [] for name in commands}
    for _ in range(10 * num_rounds):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, cwd=REPO, check=True, capture_output=True)
            results[name].append(1000 * (time.perf_counter() - start))
    lines = ["\n### Start-up\n", "| command | ms |", "|---|---:|"]
    return [*lines, *(f"| `{name}` | {statistics.median(times):.1f} |" for name, times in results.items())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    embedded = [REPO / "tests/data/metaworld_mt5", REPO / "tests/data/bench_480"]
    parser.add_argument("datasets", nargs="*", type=Path, default=embedded, help="LeRobot v3 folders")
    parser.add_argument(
        "--only", choices=PARTS, action="append", help="a part to run, may be given again; all by default"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=os.cpu_count(),
        help="threads of the training steps, the labels and the SmolVLA part",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=24, help=f"timed batches of {BATCH_SIZE} pairs (at least 16)")
    args = parser.parse_args()
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    print(f"{cpu.split(':')[1].strip()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}")
    parts = args.only or PARTS
    for dataset in args.datasets if "loader" in parts else []:
        with tempfile.TemporaryDirectory(prefix="hlrp-bench-") as cache:
            print("\n".join(loader_table(dataset.resolve(), cache, args.batches, args.rounds)), flush=True)
    tables = {
        "peers": lambda: peer_tables(args.datasets, args.rounds),
        "rlds": lambda: rlds_tables(args.datasets, args.rounds),
        "mixture": lambda: mixture_table(args.rounds),
        "startup": lambda: startup_table(args.rounds),
        "laq_step": lambda: step_table(args.rounds, args.threads),
        "label": lambda: label_table(embedded[0], args.rounds, args.threads),
        "tracking": lambda: tracking_table(args.rounds),
        "checkpoint": lambda: checkpoint_table(args.threads),
        "overlap": lambda: overlap_table(args.rounds),
        "smolvla": lambda: smolvla_table(args.rounds, args.threads),
        "policy": lambda: policy_table(args.rounds),
    }
    for part, table in tables.items():
        if part in parts:
            print("\n".join(table()), flush=True)


if __name__ == "__main__":
    main()
