"""Our loader beside those of others, for LeRobot datasets and for RLDS: CPU time for the same random samples.

The peers have an environment of their own, `target/peers`, on top of the project's (scripts/peers.sh). What is compared is the CPU time of a
program and all its threads for each sample, user and system, once it is running; every program has one core. Before that, images of all
programs are compared.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from measure import EXAMPLES, REPO, json_of, median, output_of

PEERS = REPO / "target/peers/bin"
# Frames of a sample: offsets from its anchor, and samples in a batch (64 frames of each camera).
REQUESTS = {"2 (t, t+5)": ("0,5", 32), "8 (t to t+7)": ("0,1,2,3,4,5,6,7", 8)}
# Opened five times: clips are spread over windows of batches, which a whole dataset fills and these cuts of one do not.
CLIPS = ("--anchors-per-clip", 8, "--sources", 5)
# How far images may differ, the largest and the mean difference in levels: decoders of videos agree and conversions to RGB round otherwise; of
# JPEG images the inverse transform and the smaller colour planes round otherwise, too.
VIDEO_TOLERANCE, JPEG_TOLERANCE = (2, 0.5), (8, 0.5)
NUM_COMPARED = 16


@cache
def peer_python() -> Path:
    """The Python of the peers, which are installed where they are missing."""
    subprocess.run([REPO / "scripts/peers.sh"], check=True)
    return PEERS / "python"


def on_one_core(command: list) -> list:
    """The command on the machine's last core."""
    return ["taskset", "-c", os.cpu_count() - 1, *command]


def frames_of(command: list) -> np.ndarray:
    """Images that a program writes: `uint8 [T,3,H,W]`."""
    head, _, content = output_of(command).partition(b"\n")
    height, width = map(int, head.split())
    return np.frombuffer(content, np.uint8).reshape(-1, 3, height, width)


def compare_frames(ours: list, peers: dict[str, list], tolerance: tuple[int, float]) -> list[str]:
    """Ends the benchmark where a peer's images are not ours; else says how far they differ."""
    frames, lines = frames_of(ours).astype(int), []
    for name, command in peers.items():
        theirs = frames_of(command)
        assert theirs.shape == frames.shape, f"{name} has images of the shape {theirs.shape}, we {frames.shape}"
        difference = np.abs(theirs - frames)
        text = f"{name} {difference.max()} levels at most, {difference.mean():.3f} on average"
        if difference.max() > tolerance[0] or difference.mean() > tolerance[1]:
            sys.exit(f"error: images differ from ours: {text}")
        lines.append(text)
    return lines


def two_cameras(dataset: Path, out: Path) -> Path:
    """The same dataset with a second camera, whose files are copies of the first one's."""
    shutil.copytree(dataset, out)
    info = json.loads((out / "meta/info.json").read_text())
    (camera,) = (key for key, feature in info["features"].items() if feature["dtype"] == "video")
    second = f"{camera}2"
    info["features"][second] = info["features"][camera]
    (out / "meta/info.json").write_text(json.dumps(info, indent=4))
    shutil.copytree(out / "videos" / camera, out / "videos" / second)
    statistics = json.loads((out / "meta/stats.json").read_text())
    (out / "meta/stats.json").write_text(json.dumps(statistics | {second: statistics[camera]}, indent=4))
    for path in (out / "meta/episodes").rglob("*.parquet"):
        table = pq.read_table(path)
        for name in table.column_names:
            for prefix in ("videos", "stats"):
                if name.startswith(f"{prefix}/{camera}/"):
                    table = table.append_column(name.replace(camera, second), table[name])
        pq.write_table(table, path)
    return out


def convert(dataset: Path, out: Path) -> dict:
    """Writes a copy for Lance; what that took. The second program of the environment only starts and ends: its time is no conversion."""

    def timed(*words: object) -> tuple[float, float]:
        before, start = os.times(), time.perf_counter()
        output_of([PEERS / "lerobot-lance-convert", *words])
        after = os.times()
        cpu = sum(after[2:4]) - sum(before[2:4])
        return cpu, time.perf_counter() - start

    idle, (cpu, wall) = timed("--help"), timed("--root", dataset, "--out", out)
    size = [sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) for folder in (dataset, out)]
    return {"cpu_s": cpu, "cpu_s_of_start": idle[0], "wall_s": wall, "mb": size[0] / 1e6, "lance_mb": size[1] / 1e6}


def in_turns(contestants: dict[str, list], num_rounds: int) -> dict[str, float]:
    """CPU milliseconds of each program for a sample, the median of the rounds."""
    results = {name: [] for name in contestants}
    for _ in range(num_rounds):
        for name, command in contestants.items():
            results[name].append(json_of(on_one_core(command)))
    return {name: 1e3 * median(rounds, "cpu_s_per_sample") for name, rounds in results.items()}


def row(cells: list[str], times: dict[str, float], ratios: list[tuple[str, str]]) -> str:
    """A line of a table: the times of all programs, then of some pairs how often the first is in the second."""
    cells = cells + [f"{time:.2f}" for time in times.values()] + [f"{times[b] / times[a]:.2f}" for a, b in ratios]
    return f"| {' | '.join(cells)} |"


def head(names: list[str], columns: list[str]) -> list[str]:
    return [f"| {' | '.join([*names, *columns])} |", "|" + "---|" * len(names) + "---:|" * len(columns)]


def peer_tables(datasets: list[Path], num_rounds: int) -> list[str]:
    """LeRobot datasets: ours, Lance, LeRobot's DataLoader and torchcodec's decoder, for one and two cameras, two and eight frames."""
    python, script = peer_python(), REPO / "tests/bench/peer_loader.py"
    names = ["ours", "ours, clips of 8", "Lance", "LeRobot", "torchcodec alone"]
    ratios = [("ours", "Lance"), ("ours, clips of 8", "Lance")]
    titles = ["Lance / ours", "Lance / ours, clips"]
    lines = [
        f"\n### Samples of LeRobot datasets: CPU ms for each, one core, {num_rounds} rounds\n",
        *head(["images", "cameras", "frames"], names + titles),
    ]
    notes = []
    with tempfile.TemporaryDirectory(prefix="hlrp-bench-") as folder:
        for dataset in map(Path.resolve, datasets):
            for num_cameras in (1, 2):
                place = Path(folder) / f"{dataset.name}-{num_cameras}"
                root = two_cameras(dataset, place) if num_cameras == 2 else dataset
                lance = place.with_suffix(".lance-copy")
                converted = convert(root, lance)
                features = json.loads((root / "meta/info.json").read_text())["features"]
                camera, feature = next((key, value) for key, value in features.items() if value["dtype"] == "video")
                size = "{0[1]}×{0[0]}".format(feature["shape"])
                notes.append(
                    f"Converted {dataset.name}, {num_cameras} camera(s): {converted['cpu_s']:.1f} CPU s, of which {converted['cpu_s_of_start']:.1f} "
                    f"for starting Python, {converted['wall_s']:.1f} s; {converted['mb']:.1f} MB become {converted['lance_mb']:.1f} MB."
                )
                frames = ",".join(map(str, range(5, 5 + NUM_COMPARED)))
                peers = {"Lance": ("lance", lance), "LeRobot": ("lerobot", root), "torchcodec": ("torchcodec", root)}
                commands = {name: [python, script, *words, "--frames", frames] for name, words in peers.items()}
                same = compare_frames([EXAMPLES / "frames", root, camera, frames], commands, VIDEO_TOLERANCE)
                notes.append(f"Images beside ours, {dataset.name}, {num_cameras} camera(s): {'; '.join(same)}.")
                for request, (deltas, batch_size) in REQUESTS.items():
                    # Small images are read so fast that a few batches are below what the clock of CPU time resolves.
                    scale = 1 if feature["shape"][0] > 256 else 4
                    words = ["--deltas", deltas, "--batch-size", batch_size, "--batches", 16 * scale]
                    own = [EXAMPLES / "bench_loader", root, "--cameras", num_cameras, *words]
                    contestants = {names[0]: own, names[1]: [*own, *CLIPS]}
                    contestants |= {
                        name: [python, script, *of, *words] for name, of in zip(names[2:], peers.values(), strict=True)
                    }
                    times = in_turns(contestants, num_rounds)
                    lines.append(row([size, str(num_cameras), request], times, ratios))
                    print(lines[-1], file=sys.stderr, flush=True)
    return [*lines, "", *notes]


def rlds_tables(datasets: list[Path], num_rounds: int) -> list[str]:
    """The same recordings as RLDS, written by TensorFlow Datasets: ours and tfds."""
    python, script = peer_python(), REPO / "tests/bench/tfds_loader.py"
    names = ["ours", "ours, clips of 8", "tfds, decodes episodes", "tfds, decodes pairs", "tfds, decodes pairs exactly"]
    kinds = ["decoded", "encoded", "exact"]
    ratios = [(own, peer) for own in names[:1] for peer in names[2:]]
    lines = [
        f"\n### Pairs (t, t+5) of RLDS datasets: CPU ms for each, one core, {num_rounds} rounds\n",
        *head(["images"], names + [f"{peer} / ours" for _, peer in ratios]),
    ]
    notes = []
    with tempfile.TemporaryDirectory(prefix="hlrp-bench-") as folder:
        for dataset in map(Path.resolve, datasets):
            out, index = Path(folder) / dataset.name, Path(folder) / f"{dataset.name}-index"
            command = [python, script, "write", dataset, "--out", out]
            subprocess.run([str(word) for word in command], cwd=REPO, check=True, capture_output=True)
            (root,) = (path.parent for path in out.rglob("dataset_info.json"))
            rows = ",".join(map(str, range(NUM_COMPARED)))
            ours = [EXAMPLES / "frames", root, "observation/image", rows, "--index-dir", index]
            peers = {"tfds": [python, script, "frames", root, "--num-frames", NUM_COMPARED]}
            same = compare_frames(ours, peers, JPEG_TOLERANCE)
            notes.append(f"Images beside ours, {dataset.name}: {'; '.join(same)}.")
            height, width = frames_of(ours).shape[2:]
            words = ["--deltas", "0,5", "--batch-size", 32, "--batches", 16 if height > 256 else 128]
            own = [EXAMPLES / "bench_loader", root, "--index-dir", index, *words]
            contestants = {names[0]: own, names[1]: [*own, *CLIPS]}
            contestants |= {
                name: [python, script, kind, root, *words] for name, kind in zip(names[2:], kinds, strict=True)
            }
            lines.append(row([f"{width}×{height}"], in_turns(contestants, num_rounds), ratios))
            print(lines[-1], file=sys.stderr, flush=True)
    return [*lines, "", *notes]
