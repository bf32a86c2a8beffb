"""Checks that hlrp computes the same on a GPU as on the CPU, then times it beside eager PyTorch, within a few minutes.

Every line is written to results.md of the output folder as soon as it is known, so that a run that is cut short still reports.
Full logs of the programs are in the same folder. Exit code 1 when a check failed or the time did not suffice for everything.
"""

import argparse
import importlib.util
import json
import math
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from runner import REPO, Kit

KIT = Path(__file__).resolve().parent
# Dense bf16 rate in FLOP/s by what the device's name holds.
PEAK_FLOPS = [row.split("\t") for row in (REPO / "rust/torch-ext/src/peak_flops.tsv").read_text().splitlines()]
# A dataset of the repository that is read without FFmpeg.
DATA = [
    "data.sources.metaworld_mt5.root=tests/data/embedded_images",
    "data.sources.metaworld_mt5.cameras.primary=observation.images.front",
    "data.sources.metaworld_mt5.num_val_episodes=1",
    "data.request.image_deltas=[0,5]",
    "logging.min_free_gb=0.1",
    "logging.sinks.png=false",
]
NUM_CORES = len(os.sched_getaffinity(0))
SMOLVLA = REPO / "tests" / "bench" / "smolvla.py"
NUM_STEPS = 50
# What the engine logs at the first step of a CUDA graph.
RECORDED = "is recorded as a CUDA graph"
SHORT = [f"training.max_steps={NUM_STEPS}", "training.scheduler.warmup_steps=5", "training.log_every_n_steps=1"]
NO_VALIDATION = [
    "validation.check_interval=1000000",
    "validation.limit_batches=2",
    "training.checkpoint.every_n_steps=1000000",
]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="run.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cpu", action="store_true", help="the same checks on the CPU, benchmarks with tiny sizes")
    parser.add_argument("--out", type=Path, default=KIT / "results", help="folder of the report and the logs")
    parser.add_argument("--minutes", type=float, default=6, help="time for everything")
    parser.add_argument("--only", help=f"parts to run, separated by commas, of {', '.join(PARTS)}")
    parser.add_argument("--batch-size", type=int, help="of the training benchmarks; 64, with --cpu 2")
    args = parser.parse_args()
    names = list(PARTS) if args.only is None else args.only.split(",")
    if unknown := set(names) - set(PARTS):
        parser.error(f"--only: unknown part {', '.join(sorted(unknown))}; the parts are {', '.join(PARTS)}")
    device = "cpu" if args.cpu else "cuda"
    if not args.cpu and not torch.cuda.is_available():
        sys.exit("error: torch sees no GPU\nhint: check nvidia-smi and CUDA_VISIBLE_DEVICES, or use run.sh --cpu")
    work = Path(tempfile.mkdtemp(prefix="hlrp-gpu-kit-"))
    kit = Kit(args.out.resolve(), work, device, 60 * args.minutes, args.batch_size or (2 if args.cpu else 64))
    begin = time.monotonic()
    try:
        kit.line(f"# {machine(args.cpu)}")
        run_parts(kit, names)
        kit.line()
        kit.line(f"{time.monotonic() - begin:.0f} s; {kit.outcome()}")
    finally:
        shutil.rmtree(work)
    sys.exit(1 if kit.failed or kit.left_out else 0)


def run_parts(kit: Kit, names: list[str]) -> None:
    """These parts, each within its fraction of the time; what one leaves over is for those after it."""
    times = [PARTS[name][0] for name in names]
    for index, name in enumerate(names):
        kit.part(name, PARTS[name][1], times[index] / sum(times[index:]))


def machine(is_cpu: bool) -> str:
    """What computes."""
    if is_cpu:
        return f"{platform.machine()} CPU, {NUM_CORES} cores, torch {torch.__version__}"
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split("\n")[0]
    except FileNotFoundError:
        driver = "unknown"
    return f"{torch.cuda.get_device_name(0)}, {NUM_CORES} CPU cores, driver {driver}, torch {torch.__version__}"


def golden(kit: Kit) -> None:
    """Every recorded case, in float32 without TF32, then under bf16 autocast."""
    kit.line("\n## Reference numbers\n")
    num_cases = len(list((REPO / "tests" / "golden").glob("*/config.json")))
    for precision in ("32-true", "bf16-mixed"):
        name = f"golden-{precision}"
        command = [KIT / "bin" / "hlrp-golden", "tests/golden", "--device", kit.device, "--precision", precision]
        text = kit.run(name, command, expected=(0, 1))
        if text is None:
            continue
        (kit.out / f"{name}.txt").write_text(text)
        cases = [line for line in text.splitlines() if not line.startswith(" ")]
        failed = [line.split()[0] for line in cases if " FAIL " in line]
        num_ok = sum(" ok " in line for line in cases)
        what = f"{num_ok} of {num_cases} cases" + (f"; wrong: {', '.join(failed)}" if failed else "")
        kit.check(name, num_ok == num_cases, what)


def largest_difference(ours: dict[int, float], reference: dict[int, float]) -> float:
    """Of the losses of two runs, relative to the reference; infinite where a loss is missing or not finite."""
    differences = [abs(ours.get(step, math.nan) - loss) / abs(loss) for step, loss in reference.items()]
    return max(differences) if differences and all(map(math.isfinite, differences)) else math.inf


def losses(run: Path, metric: str = "train/loss") -> dict[int, float]:
    """A metric of a run by step."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row[metric] for row in rows if metric in row}


def train(kit: Kit) -> None:
    """Both stages for 50 steps here and on the CPU, from the same weights, then a kill and a resume."""
    kit.line("\n## Training\n")
    teacher = [f"policy.teacher.checkpoint={kit.work / 'laq-cpu'}", "data.request.image_deltas=[0]"]
    for stage, extra in (("laq", []), ("vla", teacher)):
        program = [KIT / "bin" / f"hlrp-train-{stage}", f"experiment={stage}_tiny"]
        common = [*DATA, *extra, *NO_VALIDATION]
        # What both devices begin with: the weights after one step on the CPU.
        start = kit.work / f"{stage}-start"
        one_step = ["training.max_steps=1", "training.scheduler.type=none", *place(kit, f"{stage}-start", "cpu")]
        if kit.run(f"{stage}-start", [*program, *common, *one_step]) is None:
            continue
        runs = [
            kit.run(
                f"{stage}-{device}",
                [
                    *program,
                    *common,
                    *SHORT,
                    *place(kit, f"{stage}-{device}", device),
                    f"training.load_weights_from={start}",
                ],
            )
            for device in dict.fromkeys(["cpu", kit.device])
        ]
        if None not in runs:
            compare_losses(kit, stage)
    is_there = (kit.work / f"laq-{kit.device}").exists()
    for check in (resume, exchange) if kit.device == "cpu" else (resume, graph, exchange):
        if is_there:
            check(kit)
        else:
            kit.leave_out(check.__name__, "left out, there is no run to compare with")


def place(kit: Kit, run: str, device: str) -> list[str]:
    """Where a run computes and writes."""
    return [f"device={device}", f"logging.run_dir={kit.work / run}"]


def short_laq(kit: Kit, run: str, *options: str) -> list:
    """The command of a run of stage 1 that begins as those of `train` do."""
    start = f"training.load_weights_from={kit.work / 'laq-start'}"
    words = ["experiment=laq_tiny", *DATA, *SHORT, *NO_VALIDATION, *place(kit, run, kit.device), start, *options]
    return [KIT / "bin" / "hlrp-train-laq", *words]


def compare_losses(kit: Kit, stage: str) -> None:
    """The first loss, which is the same but for the noise that stage 2 draws on its device, and the mean of the last ten."""
    reference, ours = (losses(kit.work / f"{stage}-{device}") for device in ("cpu", kit.device))
    last = [
        statistics.fmean([values[step] for step in range(NUM_STEPS - 9, NUM_STEPS + 1)]) for values in (reference, ours)
    ]
    ratio = last[1] / last[0]
    what = f"first loss {ours[1]:.5f} (CPU {reference[1]:.5f}), last ten {last[1]:.5f} (CPU {last[0]:.5f}), ratio {ratio:.3f}"
    is_same_start = stage == "vla" or abs(ours[1] / reference[1] - 1) < 1e-3
    kit.check(f"{stage}_tiny", is_same_start and 0.8 < ratio < 1.25, what)


def resume(kit: Kit) -> None:
    """A run that is killed and resumed reaches what an undisturbed one reaches."""
    whole, killed = kit.work / f"laq-{kit.device}", kit.work / "laq-killed"
    command = short_laq(kit, killed.name, "training.checkpoint.every_n_steps=10")
    with (kit.out / "laq-killed.log").open("w") as log:
        process = subprocess.Popen(command, cwd=REPO, stdout=log, stderr=log)
        while process.poll() is None and not (killed / "checkpoints" / "step-000020").exists() and kit.left() > 0:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    if kit.left() <= 0:
        return kit.leave_out("resume after SIGKILL", "stopped, the time is up")
    if kit.run("laq-resumed", [KIT / "bin" / "hlrp-train-laq", "--resume", killed]) is None:
        return
    worst = largest_difference(losses(killed), losses(whole))
    kit.check("resume after SIGKILL", worst < 1e-3, f"largest relative difference of a loss {worst:.1e}")


def exchange(kit: Kit) -> None:
    """A run that exchanges its gradients, with itself alone, through NCCL (without a GPU through Gloo) computes what one without exchange does."""
    rank = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "HLRP_STORE": kit.work / "store"}
    variables = [f"{name}={value}" for name, value in rank.items()]
    if kit.run("laq-exchange", ["env", *variables, *short_laq(kit, "laq-exchange")]) is None:
        return
    worst = largest_difference(*(losses(kit.work / run) for run in ("laq-exchange", f"laq-{kit.device}")))
    backend = "Gloo" if kit.device == "cpu" else "NCCL"
    is_used = kit.said("laq-exchange", f"exchange through {backend}")
    what = f"largest relative difference of a loss {worst:.1e}" + ("" if is_used else "; nothing was exchanged")
    kit.check(f"gradients through {backend}", is_used and worst < 1e-3, what)


def graph(kit: Kit) -> None:
    """A run whose steps are recorded once and replayed computes what one without does, validations and averaged weights in between."""
    options = ["validation.check_interval=10", "training.ema.enabled=true"]
    for name, value in (("laq-plain", "false"), ("laq-graph", "true")):
        if kit.run(name, short_laq(kit, name, *options, f"training.cuda_graph={value}")) is None:
            return
    plain, recorded = kit.work / "laq-plain", kit.work / "laq-graph"
    metrics = ("train/loss", "val/loss")
    worst = max(largest_difference(losses(recorded, metric), losses(plain, metric)) for metric in metrics)
    is_recorded = kit.said("laq-graph", RECORDED)
    what = f"largest relative difference of a loss {worst:.1e}" + ("" if is_recorded else "; no step was recorded")
    kit.check("steps as a CUDA graph", is_recorded and worst < 1e-3, what)


def busy(kernels: list[list]) -> str:
    """Cells of a table: executions of kernels, and the milliseconds that they took."""
    return f"{sum(calls for _, calls, _ in kernels)} | {1e3 * sum(seconds for _, _, seconds in kernels):.1f}"


def fused_attention(kit: Kit, kernels: dict[str, list[list]]) -> None:
    """In each of these works attention takes kernels that never write a matrix of scores: flash, memory-efficient or cuDNN's."""
    words = ("flash", "fmha", "cutlassF", "sdpa")
    for name, executed in kernels.items() if kit.device != "cpu" else ():
        fused = sorted({kernel[:60] for kernel, *_ in executed if any(word in kernel for word in words)})
        scores = sorted({kernel[:60] for kernel, *_ in executed if "softmax" in kernel.lower()})
        what = ", ".join(fused) or "none"
        kit.check(
            f"fused attention in {name}",
            bool(fused) and not scores,
            f"{what}; scores in memory: {', '.join(scores)}" if scores else what,
        )


def mfu(kit: Kit, flops: float, seconds: float) -> str:
    """Fraction of the device's dense bf16 rate that counted operations reach."""
    if kit.device == "cpu":
        return ""
    name = torch.cuda.get_device_name(0)
    peak = next((float(peak) for key, peak in PEAK_FLOPS if key in name), None)
    return f"{100 * flops / seconds / peak:.1f} %" if peak else ""


def tail(row: dict, key: str, repeats: int) -> str:
    """A p99 in milliseconds; of fewer than a hundred it is the largest, and says so. Empty where the program does not report it."""
    if row.get(key) is None:
        return ""
    milliseconds = row[key] * (1e3 if key.endswith("_s") else 1)
    return f"{milliseconds:.1f}" + (f" (largest of {repeats})" if repeats < 100 else "")


LAQ_COLUMNS = ["pairs/s", "without data", "step, ms", "p50, ms", "p99, ms", "peer / hlrp", "waiting for data", "MFU"]
LAQ_COLUMNS += ["memory, GB", "kernels", "of which busy, ms", "host waits"]


# Experiment, precision, whether steps are recorded.
LAQ_TINY = [("laq_tiny", "32-true", False)]
LAQ = [
    ("laq_pixel", "bf16-mixed", False),
    ("laq_pixel", "bf16-mixed", True),
    ("laq_dino", "bf16-mixed", False),
    ("laq_dino", "bf16-mixed", True),
]
LAQ_FLOAT32 = [("laq_pixel", "32-true", False)]


def laq(kit: Kit) -> None:
    """The training step of stage 1."""
    laq_table(kit, LAQ_TINY if kit.is_tiny else LAQ)


def laq_float32(kit: Kit) -> None:
    """The training step of stage 1 in float32; on the CPU `laq` has timed it."""
    if not kit.is_tiny:
        laq_table(kit, LAQ_FLOAT32)


def laq_table(kit: Kit, experiments: list[tuple[str, str, bool]]) -> None:
    """A training step of each, beside the same mathematics in plain PyTorch. Times are of steps over one batch, without loading."""
    batch_size = kit.batch_size
    kit.line("\n## Stage 1, a training step\n")
    kit.line(f"| model | program | batch | {' | '.join(LAQ_COLUMNS)} |")
    kit.line(f"|---|---|{'---:|' * (1 + len(LAQ_COLUMNS))}")
    kernels, peers = {}, {}
    for experiment, precision, is_graph in experiments:
        name = f"{experiment}-{precision}" + ("-graph" if is_graph else "")
        steps = 5 if experiment == "laq_tiny" else (40 if precision == "bf16-mixed" else 10)
        words = [f"experiment={experiment}", f"device={kit.device}", *DATA, f"precision={precision}"]
        words += [f"data.loader.batch_size={batch_size}", f"data.loader.num_workers={NUM_CORES}"]
        if experiment == "laq_pixel":
            words.append("model.quantizer.nsvq.refresh_schedule=[]")  # a step like all others
        if experiment == "laq_dino":
            words.append("model/encoder=dinov3_vits16")  # fresh weights: nothing is downloaded
        graph = f"training.cuda_graph={str(is_graph).lower()}"
        ours = kit.figures(name, [KIT / "bin" / "bench_step", "--steps", steps, "--percentiles", *words, graph])
        if not ours:
            continue
        if is_graph and not kit.said(name, RECORDED):
            kit.check(name, False, "no step was recorded as a CUDA graph")
            continue
        if precision == "bf16-mixed" and not is_graph:
            kernels[experiment] = ours["kernels"]
        alone = ours["step_without_data_ms"] / 1e3
        p50 = f"{ours['step_p50_ms']:.1f}" if ours.get("step_p50_ms") is not None else ""
        wait = f"{100 * ours['data_wait_fraction']:.1f} %" if ours.get("data_wait_fraction") is not None else ""
        cells = [f"{ours['pairs_per_s']:.0f}", f"{batch_size / alone:.0f}", f"{1e3 * alone:.1f}", p50]
        known = peers.get(f"{experiment}, {precision}") if is_graph else None
        ratio = f"{known['mean_s'] / alone:.2f}" if known else ""
        cells += [tail(ours, "step_p99_ms", steps), ratio, wait, mfu(kit, ours["flops"], alone)]
        cells.append(f"{ours['peak_gb']:.1f}")
        cells.append("as above | | " if is_graph else f"{busy(ours['kernels'])} | {ours['host_waits']}")
        program = f"hlrp{', CUDA graph' if is_graph else ''}"
        kit.line(f"| {experiment}, {precision} | {program} | {batch_size} | {' | '.join(cells)} |")
        if not is_graph and (peer := laq_peer(kit, experiment, precision, words, ours, steps)):
            peers[f"{experiment}, {precision}"] = peer
    fused_attention(kit, kernels)
    for name, peer in peers.items():
        errors, most = list(peer["errors"].values()), 0.05 if "bf16" in name else 1e-4
        error = max(errors) if all(map(math.isfinite, errors)) else math.inf
        kit.check(f"validation losses of {name}", error < most, f"at most {error:.1e} from those of plain PyTorch")


def laq_peer(kit: Kit, experiment: str, precision: str, words: list[str], ours: dict, steps: int) -> dict | None:
    """A row for plain PyTorch, which computes the same from the weights of a run of one step; the run's losses are compared."""
    name, batch_size = f"{experiment}-{precision}", ours["batch_size"]
    row = f"| {experiment}, {precision} | PyTorch, eager | {batch_size} |"
    if experiment == "laq_dino" and not importlib.util.find_spec("transformers"):
        kit.line(
            f"{row} left out: its DINOv3 is that of transformers, which is not installed |{' |' * (len(LAQ_COLUMNS) - 1)}"
        )
        return None
    run = kit.work / f"{name}-weights"
    once = ["training.max_steps=1", "training.scheduler.type=none", "training.checkpoint.every_n_steps=1"]
    once += ["validation.check_interval=1", "validation.limit_batches=1", "validation.probes.enabled=false"]
    once.append(f"logging.run_dir={run}")
    if kit.run(f"{name}-weights", [KIT / "bin" / "hlrp-train-laq", *words, *once]) is None:
        return None
    script, threads = REPO / "tests" / "bench" / "laq.py", ["--threads", NUM_CORES, "--batch-size", batch_size]
    options = ["--steps", steps, "--device", kit.device, "--precision", precision, *threads]
    peer = kit.figures(f"{name}-torch", [sys.executable, script, run, *options])
    shutil.rmtree(run)
    if not peer:
        return None
    mean = peer["mean_s"]
    cells = ["", f"{batch_size / mean:.0f}", f"{1e3 * mean:.1f}", f"{1e3 * peer['p50_s']:.1f}"]
    cells += [tail(peer, "p99_s", steps), f"{1e3 * mean / ours['step_without_data_ms']:.2f}", ""]
    cells.append(mfu(kit, ours["flops"], mean))
    kit.line(f"{row} {' | '.join(cells)} | {peer['peak_gb']:.1f} | {busy(peer['kernels'])} | |")
    return peer


POLICY_COLUMNS = ["p50, ms", "p99, ms", "samples/s", "peer / hlrp", "MFU", "memory, GB", "kernels", "of which busy, ms"]
POLICY_COLUMNS.append("host waits")


def policy(kit: Kit) -> None:
    """The SmolVLA-shaped policy of 450 M parameters, beside LeRobot's own where it is installed, else the same in plain PyTorch."""
    kit.line("\n## SmolVLA, random weights\n")
    kit.line(f"| work | precision | program | {' | '.join(POLICY_COLUMNS)} |")
    kit.line(f"|---|---|---|{'---:|' * len(POLICY_COLUMNS)}")
    kernels = {}
    for num_cameras, pieces in ((1, ("chunk", "step")), (2, ("chunk",))):
        folder, views = kit.work / f"smolvla-{num_cameras}", "1 view" if num_cameras == 1 else f"{num_cameras} views"
        options = ["--batch-size", kit.batch_size if "step" in pieces else 1, "--cameras", num_cameras]
        options += ["--layers", 1] if kit.is_tiny else []
        if kit.run(f"smolvla-write-{num_cameras}", [sys.executable, SMOLVLA, "write", folder, *options]) is None:
            continue
        for work in pieces:
            for precision in ("bf16",) if work == "step" else ("bf16", "float32"):
                repeats = 2 if kit.is_tiny else (30 if work == "step" else 100)
                name, words = f"{work}-{num_cameras}-{precision}", [folder, work, precision, NUM_CORES, repeats]
                row = f"| {work}, {views} | {precision} |"
                ours = policy_rows(kit, name, row, words, kit.batch_size if work == "step" else 1)
                if ours and precision == "bf16":
                    kernels[f"{work}, {views}"] = ours["kernels"]
        shutil.rmtree(folder)
    fused_attention(kit, kernels)


def policy_rows(kit: Kit, name: str, row: str, words: list, batch_size: int) -> dict | None:
    """Rows that begin with `row`: ours, the peer, and ours as a CUDA graph, each beside what is known by then; the figures of the first."""
    has_lerobot, repeats = importlib.util.find_spec("lerobot") is not None, words[-1]
    words = [*words, "--device", kit.device]
    ours = [KIT / "bin" / "bench_policy", *words]
    peer = [sys.executable, SMOLVLA, "time", *words, "--peer", "lerobot" if has_lerobot else "torch"]
    peer += ["--static-cache"] if has_lerobot and "chunk" in words else []
    programs = {"hlrp": ours, "LeRobot" if has_lerobot else "PyTorch, eager": peer}
    if kit.device != "cpu":
        programs["hlrp, CUDA graph"] = [*ours, "--graph"]
    known = {}
    for program, command in programs.items():
        figures = kit.figures("-".join([name, *program.lower().replace(",", "").split()]), command)
        if not figures:
            continue
        rows = {program: figures}
        if "static" in figures:
            rows[f"{program}, static prefix cache"] = figures["static"]
        for title, of in rows.items():
            times = (of, known.get("hlrp")) if command == peer else (known.get("peer"), of)
            ratio = f"{times[0]['p50_s'] / times[1]['p50_s']:.2f}" if all(times) else ""
            cells = [f"{1e3 * of['p50_s']:.1f}", tail(of, "p99_s", repeats), f"{batch_size / of['p50_s']:.1f}", ratio]
            counted = of if "flops" in of else known.get("hlrp")
            cells += [mfu(kit, counted["flops"], of["p50_s"]) if counted else "", f"{of['peak_gb']:.1f}"]
            cells += [busy(of["kernels"]), str(of.get("host_waits", ""))]
            kit.line(f"{row} {title} | {' | '.join(cells)} |")
        known["peer" if command == peer else program] = figures
    return known.get("hlrp")


def lerobot(kit: Kit) -> None:
    """The policy inside LeRobot, where LeRobot and hlrp_rs are installed."""
    try:
        import hlrp_rs  # noqa: F401
        import lerobot  # noqa: F401
    except ImportError as error:
        kit.line(f"\nInside LeRobot: left out ({error}).")
        return
    kit.line("\n## Inside LeRobot\n")
    script = REPO / "tests" / "bench" / "lerobot_policy.py"
    size = ["--size", "small" if kit.is_tiny else "full", "--batch-size", kit.batch_size]
    size += ["--rounds", 1 if kit.is_tiny else 5]
    figures = kit.figures("lerobot-policy", [sys.executable, script, "--device", kit.device, *size])
    if not figures:
        return
    kit.line("| policy | training samples/s | chunk, ms |")
    kit.line("|---|---:|---:|")
    for key, name in (("hlrp", "hlrp_smolvla_shared"), ("smolvla", "LeRobot smolvla")):
        kit.line(f"| {name} | {figures[key]['samples_per_s']:.1f} | {figures[key]['chunk_ms']:.1f} |")
    if "graph_chunk_ms" in figures["hlrp"]:
        kit.line(f"| hlrp_smolvla_shared, CUDA graph | | {figures['hlrp']['graph_chunk_ms']:.1f} |")


# Relative time of each part, and what it does.
PARTS = {
    "golden": (1.5, golden),
    "train": (2.0, train),
    "laq": (2.0, laq),
    "policy": (2.5, policy),
    "lerobot": (1.0, lerobot),
    "laq-float32": (0.7, laq_float32),
}

if __name__ == "__main__":
    main()
