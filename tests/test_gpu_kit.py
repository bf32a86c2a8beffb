"""`make gpu-kit` packs what proves and times hlrp on a machine with a GPU; `run.sh --cpu` does the same checks without one."""

import importlib.util
import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import smolvla_torch
import torch

REPO = Path(__file__).resolve().parent.parent
GOLDEN = REPO / "tests" / "golden" / "smolvla_expert_1cam"
LARGEST = 20 << 20
# They build the programs once more, without FFmpeg, train nine short runs and time all models: fifteen minutes, worth it because a GPU is
# rarely at hand and the kit must work at once when one is.
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def kit() -> Path:
    subprocess.run(["make", "gpu-kit"], cwd=REPO, check=True)
    return REPO / "target" / "gpu-kit"


@slow
def test_the_kit_is_small_and_needs_no_ffmpeg(kit):
    archive = kit.with_suffix(".tar.xz")
    assert archive.stat().st_size < LARGEST
    with tarfile.open(archive) as files:
        names = set(files.getnames())
    assert {
        "gpu-kit/run.sh",
        "gpu-kit/kit.py",
        "gpu-kit/runner.py",
        "gpu-kit/bin/hlrp-golden",
        "gpu-kit/python/hlrp_rs/_core.abi3.so",
    } <= names
    for program in (kit / "bin").iterdir():
        libraries = subprocess.run(["readelf", "-d", program], capture_output=True, text=True, check=True).stdout
        assert "libav" not in libraries, program


@slow
def test_every_check_passes_without_a_gpu(kit, tmp_path):
    done = subprocess.run(
        ["bash", kit / "run.sh", "--cpu", "--out", tmp_path, "--minutes", "40"],
        env={"PYTHON": str(REPO / ".venv/bin/python"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    report = (tmp_path / "results.md").read_text()
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (
        "golden-32-true: ok",
        "golden-bf16-mixed: ok",
        "laq_tiny: ok",
        "vla_tiny: ok",
        "resume after SIGKILL: ok",
        "gradients through Gloo: ok",
        "validation losses of laq_tiny, 32-true: ok",
        "| laq_tiny, 32-true | hlrp |",
        "| laq_tiny, 32-true | PyTorch, eager |",
        "| step, 1 view | bf16 | hlrp |",
        "| step, 1 view | bf16 | LeRobot |",
        *(
            f"| chunk, {views} | {precision} | {program} |"
            for views in ("1 view", "2 views")
            for precision in ("bf16", "float32")
            for program in ("hlrp", "LeRobot", "LeRobot, static prefix cache")
        ),
        "| hlrp_smolvla_shared |",
        "| LeRobot smolvla |",
        "no check failed",
    ):
        assert line in report, line


@slow
def test_a_machine_without_a_gpu_is_named(kit, tmp_path):
    done = subprocess.run(
        ["bash", kit / "run.sh", "--out", tmp_path],
        env={"PYTHON": str(REPO / ".venv/bin/python"), "PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "torch sees no GPU" in done.stderr and "hint: " in done.stderr


def golden_policy() -> tuple[smolvla_torch.Policy, dict, dict]:
    """The plain policy with the sizes and weights of the golden case, the inputs of the case, and what LeRobot computed from them."""
    case = json.loads((GOLDEN / "config.json").read_text())
    fields, text = case["policy"], case["text_config"] | {"num_hidden_layers": case["policy"]["num_vlm_layers"]}
    model = smolvla_torch.description(fields["num_vlm_layers"], list(case["cameras"]))
    sizes = {"vision": case["vision_config"], "text": text, "scale_factor": case["scale_factor"]}
    model["backbone"]["sizes"] |= sizes
    model |= {name: fields[name] for name in model.keys() & fields.keys()} | {"action_dim": case["action_dim"]}
    for part in (model["flow"], model["arch"]["expert"]):
        part |= {name: fields[name] for name in part.keys() & fields.keys() - {"num_expert_layers", "prefix_length"}}
    policy = smolvla_torch.Policy(model)
    policy.load_state_dict(smolvla_torch.read_tensors(GOLDEN / "weights.safetensors"))
    recorded = smolvla_torch.read_tensors(GOLDEN / "inputs.safetensors")
    batch = {name.removeprefix("batch."): tensor for name, tensor in recorded.items()}
    inputs = {
        "language.ids": batch["observation.language.tokens"],
        "language.is_valid": batch["observation.language.attention_mask"],
        "state": batch["observation.state"],
        "actions": batch["action"],
        "actions.is_pad": torch.zeros(batch["action"].shape[:2], dtype=torch.int64),
        **{f"camera.{camera}": batch[f"observation.images.{camera}"] for camera in case["cameras"]},
    }
    noise = {name: recorded[name] for name in ("noise", "time", "sample_noise")}
    return policy, inputs | noise, smolvla_torch.read_tensors(GOLDEN / "outputs.safetensors")


def test_the_policy_in_plain_pytorch_is_lerobots():
    policy, inputs, expected = golden_policy()
    torch.testing.assert_close(policy.chunk(inputs, inputs["sample_noise"]), expected["sample.action_chunk"])
    loss = policy.loss(inputs, inputs["noise"], inputs["time"])
    torch.testing.assert_close(loss, expected["train.loss"])
    loss.backward()
    for name, parameter in policy.named_parameters():
        if f"grad.{name}" in expected:
            torch.testing.assert_close(parameter.grad, expected[f"grad.{name}"], rtol=1e-4, atol=1e-5)


def test_the_described_policy_is_lerobots_default(tmp_path):
    from smolvla_reference import REAL_TEXT, REAL_VISION, build_policy, expert_model, vlm_folder

    vlm = vlm_folder(tmp_path / "vlm", REAL_VISION, REAL_TEXT, scale_factor=4)
    with torch.device("meta"):
        policy = build_policy(vlm, ["front", "wrist"], smolvla_torch.STATE_DIM, smolvla_torch.ACTION_DIM)
        plain = smolvla_torch.Policy(smolvla_torch.description(16, ["front", "wrist"]))
    shapes = [{name: tensor.shape for name, tensor in of.named_parameters()} for of in (policy, plain)]
    assert shapes[0] == shapes[1]
    assert expert_model(policy, latent=None) == smolvla_torch.description(16, ["front", "wrist"])


def test_peers_need_torch_alone():
    """On a bare machine: neither LeRobot nor transformers, safetensors, YAML or NumPy."""
    hidden = ["lerobot", "transformers", "safetensors", "yaml", "numpy"]
    code = f"import sys; sys.modules |= dict.fromkeys({hidden}); sys.path.insert(0, 'tests/bench'); import laq, smolvla"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_static_prefix_cache_computes_what_lerobots_own_does(tmp_path, monkeypatch):
    import smolvla
    from lerobot.policies.smolvla import smolvlm_with_expert
    from smolvla_reference import ACTION_DIM, STATE_DIM, build_tiny_policy, tiny_vlm_folder

    monkeypatch.setattr(smolvlm_with_expert, "DynamicCache", smolvlm_with_expert.DynamicCache)
    torch.manual_seed(0)
    peer = smolvla.LerobotPeer.__new__(smolvla.LerobotPeer)
    peer.policy = build_tiny_policy(tiny_vlm_folder(tmp_path / "vlm", 4), ["front"])
    policy, shape = peer.policy, (1, peer.policy.config.chunk_size)
    inputs = {
        "language.ids": torch.randint(3, 300, (1, 12)),
        "language.is_valid": torch.ones(1, 12, dtype=torch.int64),
        "state": torch.randn(1, STATE_DIM),
        "actions": torch.randn(*shape, ACTION_DIM),
        "actions.is_pad": torch.zeros(shape, dtype=torch.int64),
        "camera.front": torch.rand(1, 3, 32, 32),
    }
    noise = torch.randn(*shape, policy.config.max_action_dim)
    plain = peer.chunk(inputs, noise)
    other = inputs | {"camera.front": torch.rand(1, 3, 32, 32)}
    other_plain = peer.chunk(other, noise)
    smolvla.make_static(peer)
    torch.testing.assert_close(peer.chunk(inputs, noise), plain)
    torch.testing.assert_close(peer.chunk(other, noise), other_plain)
    assert not torch.allclose(plain, other_plain)


@pytest.fixture
def script(monkeypatch, tmp_path):
    """`kit.py` as a module, its programs in `tmp_path/bin`."""
    monkeypatch.setenv("HLRP_REPO", str(REPO))
    monkeypatch.syspath_prepend(REPO / "scripts" / "gpu-kit")
    spec = importlib.util.spec_from_file_location("kit", REPO / "scripts" / "gpu-kit" / "kit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "KIT", tmp_path)
    return module


def test_a_hung_program_does_not_outlive_the_time(script, tmp_path):
    program = tmp_path / "bin" / "hlrp-train-laq"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    begin = time.monotonic()
    kit = script.Kit(tmp_path / "out", tmp_path, "cpu", seconds=0.5)
    script.resume(kit)
    assert time.monotonic() - begin < 30
    assert "resume after SIGKILL: stopped, the time is up" in (tmp_path / "out" / "results.md").read_text()
    assert kit.outcome() == "no check failed; not done: resume after SIGKILL"


def test_a_kit_without_time_is_no_success(script, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["run.sh", "--cpu", "--out", str(tmp_path / "out"), "--minutes", "0.01"])
    with pytest.raises(SystemExit) as end:
        script.main()
    assert end.value.code == 1
    report = (tmp_path / "out" / "results.md").read_text()
    assert (
        "no check failed; not done: golden-32-true, golden-bf16-mixed, laq-start, vla-start, resume, exchange,"
        in report
    ), report


def test_a_part_that_fails_leaves_the_others_alone(script, monkeypatch, tmp_path):
    golden, train = lambda kit: {}["no such key"], lambda kit: kit.line(f"{kit.left():.0f} s for training")
    monkeypatch.setattr(script, "PARTS", {"golden": (1, golden), "train": (1, train)})
    kit = script.Kit(tmp_path / "out", tmp_path, "cpu", seconds=100)
    script.run_parts(kit, ["golden", "train"])
    report = (tmp_path / "out" / "results.md").read_text()
    assert "- golden: FAILED, KeyError: 'no such key'" in report and "100 s for training" in report
    assert kit.failed == ["golden"] and "Traceback" in (tmp_path / "out" / "golden.log").read_text()


def test_a_case_that_is_not_computed_is_a_failed_check(script, monkeypatch, tmp_path):
    monkeypatch.setattr(script.Kit, "run", lambda *_, **__: "dinov3               ok    24/24 recorded tensors\n")
    kit = script.Kit(tmp_path / "out", tmp_path, "cpu", seconds=60)
    script.golden(kit)
    assert kit.failed == ["golden-32-true", "golden-bf16-mixed"]


@pytest.mark.parametrize("ours", [{1: 2.0}, {1: 2.0, 2: float("nan")}, {1: 2.1, 2: 4.0}])
def test_a_loss_that_is_missing_or_no_number_is_a_difference(script, ours):
    assert script.largest_difference(ours, {1: 2.0, 2: 4.0}) > 0.04
    assert script.largest_difference({1: 2.0, 2: 4.0}, {1: 2.0, 2: 4.0}) == 0


# What the programs report, in seconds: ours, and peers that take twice as long.
OURS = {"p50_s": 0.01, "p99_s": 0.02, "peak_gb": 1, "flops": 1e9, "host_waits": 1, "kernels": [["a", 2, 0.001]]}
OURS |= {"batch_size": 64, "pairs_per_s": 600, "step_without_data_ms": 100}
PEER = {"p50_s": 0.02, "p99_s": 0.03, "mean_s": 0.2, "peak_gb": 2, "kernels": [], "errors": {"pixel": 1e-6}}


def report_of_a_bare_machine(script, monkeypatch, tmp_path, ours: dict, log: str | None = None) -> str:
    """The tables of `laq` and `policy` on a GPU without LeRobot and transformers; `log` is that of every program, by default of one that records a graph."""
    peers = (".py", script.sys.executable)

    def figures(kit, name: str, command: list) -> dict:
        (kit.out / f"{name}.log").write_text(script.RECORDED if log is None else log)
        return PEER if str(command[0]).endswith(peers) else ours

    def run(kit, name: str, command: list) -> str:
        folder = next((word.split("=")[1] for word in map(str, command) if word.startswith("logging.run_dir=")), None)
        Path(folder or command[3]).mkdir()
        return ""

    monkeypatch.setattr(script.Kit, "figures", figures)
    monkeypatch.setattr(script.Kit, "run", run)
    monkeypatch.setattr(script.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(script, "mfu", lambda *_: "40 %")
    kit = script.Kit(tmp_path / "out", tmp_path, "cuda", seconds=60, batch_size=64)
    script.laq_table(kit, [*script.LAQ, *script.LAQ_FLOAT32])
    script.policy(kit)
    return (tmp_path / "out" / "results.md").read_text()


def test_a_bare_machine_times_ours_beside_plain_pytorch(script, monkeypatch, tmp_path):
    measured = {"step_p50_ms": 99, "step_p99_ms": 120, "data_wait_fraction": 0.01}
    report = report_of_a_bare_machine(script, monkeypatch, tmp_path, OURS | measured)
    tables = [part.split("\n\n")[1].splitlines() for part in report.split("\n## ")[1:]]
    for table in tables:
        assert {row.count("|") for row in table if row.startswith("|")} == {table[0].count("|")}, report
    for line in (
        "| laq_pixel, bf16-mixed | hlrp | 64 | 600 | 640 | 100.0 | 99.0 | 120.0 (largest of 40) |  | 1.0 % |",
        "| laq_pixel, bf16-mixed | PyTorch, eager | 64 |  | 320 | 200.0 | 20.0 | 30.0 (largest of 40) | 2.00 |",
        "| laq_pixel, bf16-mixed | hlrp, CUDA graph | 64 | 600 | 640 | 100.0 | 99.0 | 120.0 (largest of 40) | 2.00 |",
        "| laq_dino, bf16-mixed | PyTorch, eager | 64 | left out: ",
        "| chunk, 1 view | float32 | hlrp | 10.0 | 20.0 | 100.0 |  |",
        "| chunk, 2 views | bf16 | PyTorch, eager | 20.0 | 30.0 | 50.0 | 2.00 |",
        "| step, 1 view | bf16 | hlrp, CUDA graph | 10.0 | 20.0 (largest of 30) | 6400.0 | 2.00 |",
    ):
        assert line in report, report


def test_a_row_of_a_cuda_graph_needs_one(script, monkeypatch, tmp_path):
    assert script.RECORDED in (REPO / "rust/train/src/step_graph.rs").read_text()
    report = report_of_a_bare_machine(script, monkeypatch, tmp_path, OURS, log="")
    assert "- laq_pixel-bf16-mixed-graph: FAILED, no step was recorded as a CUDA graph" in report
    assert "| laq_pixel, bf16-mixed | hlrp, CUDA graph |" not in report


def test_what_a_program_does_not_report_is_an_empty_cell(script, monkeypatch, tmp_path):
    unknown = {"step_p50_ms": None, "step_p99_ms": None, "data_wait_fraction": None}
    report = report_of_a_bare_machine(script, monkeypatch, tmp_path, OURS | unknown)
    assert "| laq_pixel, bf16-mixed | hlrp | 64 | 600 | 640 | 100.0 |  |  |  |  | 40 % |" in report
