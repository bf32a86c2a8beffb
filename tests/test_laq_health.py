"""Codes that carry nothing are named while the training runs, and healthy recipes are left alone."""

import pytest
from conftest import MINI, read_metrics, run, train_laq_command

# The rule is judged at steps 100, 150 and 200; gain and noise from 150 steps after the warm-up on.
SHORT = [
    "training.max_steps=200",
    "validation.check_interval=200",
    "validation.limit_batches=1",
    "validation.probes.enabled=false",
]
SHORT += ["training.checkpoint.every_n_steps=200", "logging.min_free_gb=0.1"]
NSVQ = ["model/quantizer=nsvq", "model.quantizer.nsvq.refresh_schedule=[]"]

# What was done to the recipe of laq_tiny, what is said of it, and what is to be done.
UNHEALTHY = {
    "codes of other pairs in training: all in use, and empty": (
        ["model.latent_ablation=permute_batch"],
        "hardly use the codes",
        "set model.latent_ablation=none",
    ),
    "a decoder that may copy the first frame": (
        ["model=laq_pixel_tiny", "model/quantizer=ema_vq", "data.request.image_deltas=[0,2]"],
        "hardly use the codes",
        "let a decoder predict the change",
    ),
    "changes far smaller than the codes are apart": (
        ["model=laq_pixel_tiny", "data.request.image_deltas=[0,2]"],
        "signal/noise",
        "normalization=batch_norm",
    ),
    "a learning rate that is too high, no refresh": (
        [*NSVQ, "training.optimizer.lr=0.3"],
        "the codebook has collapsed",
        "refresh",
    ),
    "no learning": (
        ["training.optimizer.lr=1e-9", "training.scheduler.min_lr=0", "training.scheduler.warmup_start_lr=0"],
        "hardly use the codes",
        "raise training.optimizer.lr",
    ),
}
HEALTHY = [("laq_tiny", 1), ("laq_tiny", 2), ("laq_tiny", 3), ("laq_conv_tiny", 1), ("laq_conv_tiny", 2)]
HEALTHY += [("laq_conv_tiny", 3)]


def short_run(run_dir, *words: str):
    result = run(train_laq_command(*words, *SHORT, f"logging.run_dir={run_dir}"))
    assert result.returncode == 0, result.stderr
    return result


def warnings(result) -> list[str]:
    lines = (result.stdout + result.stderr).splitlines()
    return [line for line in lines if "[WARNING]" in line or "[WARN]" in line]


@pytest.mark.slow  # 200 steps of the recipe that ships: a minute each
@pytest.mark.parametrize("cause", UNHEALTHY)
def test_an_unhealthy_run_is_named_by_step_200(tmp_path, cause):
    words, sign, remedy = UNHEALTHY[cause]
    result = short_run(tmp_path / "run", "experiment=laq_tiny", *words)
    [found] = warnings(result)
    assert sign in found, found
    after = (result.stdout + result.stderr).split(found)[1]
    assert remedy in after.split("hint: ")[1].splitlines()[0], after[:500]


@pytest.mark.slow  # 200 steps, and probes at their end
def test_a_collapse_is_named_at_the_end_where_random_codes_are_worse_than_nothing(tmp_path):
    """What is fitted to random codes does harm on held-out episodes; one code for everything does not, and is empty all the same."""
    words = [word for word in MINI if not word.startswith(("training.", "validation.", "model.quantizer.nsvq"))]
    words += [
        "model.quantizer.nsvq.refresh_schedule=[]",
        "model.quantizer.codebook_size=64",
        "training.optimizer.lr=0.3",
    ]
    words += ["data.request.image_deltas=[0,2]", "data.sources.metaworld_mt5.num_val_episodes=20"]
    words += ["training.max_steps=200", "training.scheduler.warmup_steps=20", "validation.check_interval=200"]
    words += ["validation.limit_batches=4", "validation.probes.num_pairs=256"]
    result = run(train_laq_command(*words, f"logging.run_dir={tmp_path / 'run'}"))
    assert result.returncode == 0, result.stderr
    [last] = [line for line in read_metrics(tmp_path / "run") if "val/loss" in line]
    assert last["val/vq_perplexity"] < 1.1 and last["val/probe_random_codes_partial_r2"] < 0
    end = result.stdout[-3000:]
    for sign in ["the codebook has collapsed", "every slot has the same code", "no more about the actions", "hint: "]:
        assert sign in end, end


@pytest.mark.slow  # 350 steps at a small size
def test_steps_without_quantization_are_no_sign(tmp_path):
    words = [
        word for word in MINI if not word.startswith(("experiment=", "model=", "model.quantizer.nsvq", "training."))
    ]
    words += ["model.decoders.difference.depth=1", "model.quantizer.unquantized_steps=250", "training.max_steps=260"]
    words += [
        "model.quantizer.kmeans_start=true",
        "training.scheduler.warmup_steps=20",
        "validation.probes.enabled=false",
    ]
    result = run(train_laq_command("experiment=laq_tiny", *words, f"logging.run_dir={tmp_path / 'run'}"))
    assert result.returncode == 0, result.stderr
    assert "signal/noise" not in result.stdout + result.stderr


@pytest.mark.slow  # 200 steps of the recipes that ship: a minute each
@pytest.mark.parametrize(("experiment", "seed"), HEALTHY)
def test_a_healthy_run_is_left_alone(tmp_path, experiment, seed):
    assert warnings(short_run(tmp_path / "run", f"experiment={experiment}", f"seed={seed}")) == []


def test_what_a_validation_says_of_the_codes_does_not_depend_on_its_batches(tmp_path):
    """The other pair, whose codes a decoder sees for comparison, is one of another scene, whatever the size of a batch."""
    words = [
        "experiment=laq_conv_tiny",
        "validation.probes.enabled=false",
        "logging.min_free_gb=0.1",
        "training.log_every_n_steps=1",
    ]
    steps = ["training.max_steps=60", "training.scheduler.warmup_steps=20", "validation.check_interval=60"]
    result = run(train_laq_command(*words, *steps, f"logging.run_dir={tmp_path / 'run'}"))
    assert result.returncode == 0, result.stderr
    # One step that changes nothing: neither weights nor running averages.
    still = ["training.max_steps=1", "training.optimizer.lr=1e-12", "training.scheduler.min_lr=0"]
    still += [
        "training.scheduler.warmup_steps=0",
        "training.scheduler.warmup_start_lr=0",
        "validation.check_interval=1",
    ]
    still += ["model.quantizer.normalization_decay=0.999999", "model.quantizer.ema_vq.decay=0.999999"]
    still += ["model.quantizer.ema_vq.restart_threshold=0", f"training.load_weights_from={tmp_path / 'run'}"]
    found = {}
    for batch_size in (8, 64):
        batches = [f"data.loader.batch_size={batch_size}", "validation.limit_batches=null"]
        result = run(train_laq_command(*words, *still, *batches, f"logging.run_dir={tmp_path / str(batch_size)}"))
        assert result.returncode == 0, result.stderr
        [found[batch_size]] = [line for line in read_metrics(tmp_path / str(batch_size)) if "val/loss" in line]
    small, large = found[8], found[64]
    # Weights of moving pixels are relative to those of their batch.
    assert small["val/loss"] == pytest.approx(large["val/loss"], rel=0.01)
    gain = large["val/difference_code_gain"]
    # The same pairs are compared; neighbours in a batch would leave a tenth of the gain.
    assert gain > 0.02 and 0.5 < small["val/difference_code_gain"] / gain < 1.2
    assert small["val/latent_signal_to_noise"] == pytest.approx(large["val/latent_signal_to_noise"], rel=0.01)
