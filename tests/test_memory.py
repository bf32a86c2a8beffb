"""Memory that runs out, and settings as large as they may be: an error with its own exit code, never a panic. Every run is bounded in time."""

import json
import resource
import signal
import subprocess

import pytest
from conftest import MINI, REPO, one_error, program, run, train_laq_command

OUT_OF_MEMORY = 71
# Codes of docs/exit_codes.md with which a program may end on a setting.
CODES = {0, 2, 65, 71, 74, 75}
# Address space of a training with the mini model, libraries included, and what is left to a larger one.
ADDRESS_SPACE = 12 << 30


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def test_a_model_that_does_not_fit_is_refused_before_the_run(tmp_path):
    words = [*MINI, "model.dim=32768", f"logging.run_dir={tmp_path / 'run'}"]
    result = run(train_laq_command(*words), preexec_fn=limited)
    one_error(result, OUT_OF_MEMORY, ["out of memory", "hint:"])
    assert not (tmp_path / "run").exists()


@pytest.mark.slow  # half a minute until the memory is used up
def test_a_batch_that_does_not_fit_ends_its_step(tmp_path):
    words = [*MINI, "model.dim=256", "model.heads=8", "data.loader.batch_size=2048", "data.loader.prefetch_batches=1"]
    result = run(train_laq_command(*words, f"logging.run_dir={tmp_path / 'run'}"), preexec_fn=limited)
    message = one_error(
        result, OUT_OF_MEMORY, ["data.loader.batch_size=2048", "last checkpoint: none yet", "hint: lower"]
    )
    assert "in step 1" in message, message
    assert "out of memory" in (tmp_path / "run/run.json").read_text()


def ends_well(tmp_path, setting: str) -> str | None:
    """What is wrong with how the program ends under a setting; a run that goes on is asked to stop."""
    command = train_laq_command(*MINI, "training.max_steps=2", setting, f"logging.run_dir={tmp_path / 'run'}")
    process = subprocess.Popen(
        command, cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=limited
    )
    try:
        _, stderr = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            _, stderr = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            return f"{setting}: it ignores SIGTERM: {process.communicate()[1][-500:]}"
    is_fine = process.returncode in CODES and "panicked" not in stderr
    return None if is_fine else f"{setting}: exit code {process.returncode}: {stderr[-800:]}"


# The largest that the schema lets pass.
LARGE = [
    "data.loader.batch_size=1048576",
    "data.loader.num_workers=1024",
    "data.loader.anchors_per_clip=1048576",
    "data.loader.memory_budget_mb=1099511627776",
    "model.quantizer.codebook_size=1048576",
    "model.decoders.pixel.depth=1048576",
    "num_threads=1024",
]


@pytest.mark.parametrize("setting", LARGE)
def test_a_large_setting_is_an_error_or_a_run(tmp_path, setting):
    assert ends_well(tmp_path, setting) is None


@pytest.mark.slow
def test_no_number_makes_the_program_panic(tmp_path):
    """Every number of the tree, at the ends of what its type and the schema allow. Minutes: each value is a run of its own."""
    shown = run([program("hlrp"), "config", "show", "--format=json", *MINI])
    numbers: list[str] = []

    def walk(value, path):
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{path}.{key}" if path else key)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers.append(path)

    walk(json.loads(shown.stdout), "")
    assert len(numbers) > 40
    faults = []
    for index, key in enumerate(numbers):
        for value in ("0", "1", "1e-300", "1e300", str(2**20), str(2**40), str(2**62)):
            folder = tmp_path / f"{index}_{value}"
            folder.mkdir()
            faults += filter(None, [ends_well(folder, f"{key}={value}")])
    assert faults == []
