"""Stage 2 artifacts of the predecessor become artifacts of ours, which compute the same.

The pooled policy is compared with what the predecessor's own one computed (tests/golden/vla_pooled), the expert with LeRobot's `smolvla`, of which the
predecessor's is a copy with a latent head.
"""

import json
import pickle
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from conftest import REPO, one_error, program, read_metrics, run
from hlrp_rs import Artifact, Teacher
from lerobot_modules import make_policy as make_plugin_policy
from safetensors.torch import load_file
from smolvla_reference import ACTION_DIM, BATCH, CHUNK, NUM_LAYERS, SIDE, STATE_DIM, TINY_TEXT, TINY_VISION
from test_smolvla_parity import CODES, Case, denoising_codes, make_policy

GOLDEN = REPO / "tests/golden/vla_pooled"
TOLERANCE = 1e-5
CONFIG_ERROR = 2
PROMPT = "You are a robot policy."
# Every artifact says this of itself.
MANIFEST = {
    "model_name": "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
    "torch_dtype": "fp32",
    "image_size": (64, 64),
    "flow_hidden_dim": 1024,
    "flow_steps": 8,
    "min_period": 0.004,
    "max_period": 4.0,
    "time_beta_alpha": 1.5,
    "time_beta_beta": 1.0,
    "source_backend": "smolvla_shared",
    "source_training_mode": "latent_flow",
    "source_run_dir": "runs/2026-02-16",
    "source_global_step": 20000,
}
POOLED_MANIFEST = MANIFEST | {"action_dim": 5, "latent_vector_dim": 12}
# Second names of modules that the predecessor's policy has after its first forward pass.
CACHED = {
    "_vision": "vlm.model.vision_model",
    "_connector": "vlm.model.connector",
    "_text": "vlm.model.text_model",
    "_embed": "vlm.model.text_model.embed_tokens",
}
# The backbone of tests/golden/vla_pooled/config.json and of smolvla_reference.
TINY = [
    "policy.model.backbone.vlm_model_name=null",
    *(f"policy.model.backbone.sizes.vision.{key}={value}" for key, value in TINY_VISION.items()),
    *(f"policy.model.backbone.sizes.text.{key}={value}" for key, value in TINY_TEXT.items()),
    f"policy.model.backbone.sizes.text.num_hidden_layers={NUM_LAYERS}",
    "policy.model.backbone.sizes.image_token_id=336",
    "policy.processor.tokenizer=tests/golden/tokenizer",
    "policy.model.resize_imgs_with_padding=[64,64]",
    "precision=32-true",
    "logging.min_free_gb=0.1",
]
POOLED = ["experiment=vla_pooled", *TINY, f'policy.processor.system_prompt="{PROMPT}"']
# Without the teacher it was trained with.
ALONE = ["policy.objective.mode=actions", "policy.model.latent={code_seq_len: 4, code_dim: 3}"]
SHORT = [
    "training.max_steps=2",
    "training.scheduler.warmup_steps=1",
    "training.log_every_n_steps=1",
    "validation.check_interval=2",
    "validation.limit_batches=1",
    "validation.num_fixed_samples=1",
    "data.loader.batch_size=2",
]


def with_copies(core: dict) -> dict:
    """The state of a policy that was used: its modules once more, under the names of the attributes that cache them."""
    copies = {
        f"{attribute}{name.removeprefix(module)}": tensor.clone()
        for attribute, module in CACHED.items()
        for name, tensor in core.items()
        if name.startswith(f"{module}.")
    }
    assert {name.split(".")[0] for name in copies} == CACHED.keys()
    return core | copies


def convert(source: Path):
    """Runs the script on a file of PyTorch."""
    return run(
        [sys.executable, "scripts/weights_to_safetensors.py", str(source), str(source.with_suffix(".safetensors"))]
    )


def write(folder: Path, core: dict, manifest: dict, version: str = "smolvla_shared.v1") -> Path:
    """An artifact as the predecessor writes it, converted."""
    folder.mkdir()
    content = {"schema_version": version, "manifest": {"schema_version": version} | manifest}
    torch.save(content | {"core_state_dict": OrderedDict(core)}, folder / "stage2.pt")
    result = convert(folder / "stage2.pt")
    assert result.returncode == 0, result.stderr
    return folder / "stage2.safetensors"


def import_vla(source: Path, out: Path, *words: object):
    return run([program("hlrp"), "import-vla", str(source), "--out", str(out), *map(str, words)])


def imported(source: Path, out: Path, *words: object) -> str:
    """Imports and returns what was said."""
    result = import_vla(source, out, *words)
    assert result.returncode == 0, result.stderr
    return result.stdout


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert (ours - theirs).abs().max().item() <= TOLERANCE * theirs.abs().max().item()


@pytest.fixture(scope="module")
def pooled_core() -> dict:
    return load_file(GOLDEN / "weights.safetensors")


@pytest.fixture(scope="module")
def pooled(tmp_path_factory, pooled_core) -> Path:
    """The converted artifact of a pooled policy with an action head."""
    return write(tmp_path_factory.mktemp("pooled") / "artifact", with_copies(pooled_core), POOLED_MANIFEST)


@pytest.fixture(scope="module")
def headless(tmp_path_factory, pooled_core) -> Path:
    """The same of a policy that learned latent actions alone."""
    core = {name: tensor for name, tensor in pooled_core.items() if not name.startswith("action_head")}
    return write(tmp_path_factory.mktemp("headless") / "artifact", core, POOLED_MANIFEST | {"action_dim": None})


# The pooled policy.


def test_a_pooled_policy_computes_what_the_predecessor_computed(pooled, tmp_path):
    said = imported(pooled, tmp_path / "out", *POOLED, *ALONE)
    assert f"stage2_artifact={tmp_path / 'out'}" in said and "load_weights_from" in said
    assert "no statistics of action, so it is not scaled" in said
    assert "action head was not trained" in said, "its manifest says that it learned latent actions alone"
    artifact = Artifact.load(tmp_path / "out")
    assert artifact.manifest["provenance"] == {"experiment": "vla_pooled", "step": 20000}
    inputs, outputs = (load_file(GOLDEN / f"{name}.safetensors") for name in ("inputs", "outputs"))
    instructions = json.loads((GOLDEN / "config.json").read_text())["instructions"]
    seen = {
        "images": {"primary": inputs["frames_u8"][:, 0].permute(0, 3, 1, 2).contiguous()},
        "task": instructions,
    }
    policy, weights = artifact.policy(), artifact.tensors()
    assert torch.equal(policy.tokenize(instructions)[0], inputs["input_ids"]), "prompt and tokenizer are the same"
    vectors = {"latent": inputs["sample_noise"].view(3, 4, 3)}
    predicted = policy.sample(weights, seen, "multitask", noise=vectors)
    assert_close(predicted["actions"][:, 0], outputs["predicted_actions"])
    assert_close(predicted["latents"].flatten(1), outputs["sampled_latents"])
    targets = {"actions": inputs["target_actions"].unsqueeze(1), "latents": inputs["target_latent_vectors"]}
    objective = {"mode": "multitask", "latent_loss_weight": 1.0, "action_loss_weight": 0.5}
    draws = {
        "noise": {"latent": inputs["mode.multitask.noise"].view(3, 4, 3)},
        "time": {"latent": inputs["mode.multitask.time"]},
    }
    loss = policy.loss(weights, seen, targets, objective, **draws)
    assert loss["loss"].item() == pytest.approx(outputs["mode.multitask.total"].item(), rel=TOLERANCE)


def test_a_missing_action_head_is_fresh_and_a_training_goes_on(headless, pooled_core, tmp_path):
    words = [*POOLED, *ALONE, "policy.model.action_dim=4"]
    said = imported(headless, tmp_path / "out", *words, "seed=7")
    assert "no action head: action_head.weight, action_head.bias are fresh, drawn from seed 7" in said
    imported(headless, tmp_path / "again", *words, "seed=7")
    ours, again = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "again"))
    assert all(torch.equal(tensor, again[name]) for name, tensor in ours.items()), "the seed decides"
    assert all(torch.equal(ours[name], pooled_core[name]) for name in ours if not name.startswith("action_head"))
    assert ours["action_head.weight"].shape == (4, TINY_TEXT["hidden_size"])
    start = f"training.load_weights_from={tmp_path / 'out' / 'model.safetensors'}"
    result = run([program("hlrp"), "train-vla", *POOLED, *ALONE, *SHORT, start, f"logging.run_dir={tmp_path / 'run'}"])
    assert result.returncode == 0, result.stderr
    assert any("train/loss" in line for line in read_metrics(tmp_path / "run"))


def test_a_pooled_policy_of_latent_actions_alone_goes_on_with_its_teacher(pooled_core, uninterrupted, tmp_path):
    identity = Teacher.load(uninterrupted).identity
    dim, width = identity["code_seq_len"] * identity["code_dim"], TINY_TEXT["hidden_size"]
    core = {name: tensor for name, tensor in pooled_core.items() if not name.startswith("action_head")}
    core |= {
        "latent_in_proj.weight": torch.randn(width, dim),
        "latent_fusion_out.weight": torch.randn(dim, width),
        "latent_fusion_out.bias": torch.randn(dim),
    }
    source = write(tmp_path / "artifact", core, MANIFEST | {"action_dim": None, "latent_vector_dim": dim})
    words = [*POOLED, f"policy.teacher.checkpoint={uninterrupted}"]
    said = imported(source, tmp_path / "out", *words)
    assert "standardised" in said and "fresh" not in said and "stage 3" not in said
    artifact = Artifact.load(tmp_path / "out")
    assert artifact.teacher == identity and artifact.policy().action_dim is None
    start = f"training.load_weights_from={tmp_path / 'out' / 'model.safetensors'}"
    result = run([program("hlrp"), "train-vla", *words, *SHORT, start, f"logging.run_dir={tmp_path / 'run'}"])
    assert result.returncode == 0, result.stderr


def test_the_prompt_that_its_manifest_does_not_say_is_asked_for(headless, tmp_path):
    words = [*POOLED, *ALONE, "policy.model.action_dim=4", "policy.processor.system_prompt="]
    assert "does not say its system prompt" in imported(headless, tmp_path / "out", *words)


# The expert.


# Dimensions that `make_policy` pads states and actions to.
MAX_STATE_DIM, MAX_ACTION_DIM = STATE_DIM + 6, ACTION_DIM + 5
EXPERT = [
    "experiment=vla_smolvla",
    *TINY,
    f"policy.model.backbone.num_vlm_layers={NUM_LAYERS}",
    f"policy.model.arch.expert.chunk_size={CHUNK}",
    f"policy.model.arch.expert.max_state_dim={MAX_STATE_DIM}",
    f"policy.model.arch.expert.max_action_dim={MAX_ACTION_DIM}",
    "policy.model.flow.num_steps=5",
]
EXPERT_ALONE = ["policy.objective.mode=actions", "policy.model.latent={code_seq_len: 4, code_dim: 5}"]
STATISTICS = {
    "action": {"mean": [0.5, -1.0, 2.0], "std": [1.0, 2.0, 0.5], "count": [7]},
    "observation.state": {"mean": torch.zeros(STATE_DIM), "std": torch.ones(STATE_DIM)},
    "observation.images.image": {"mean": [[[0.5]]], "std": [[[0.2]]]},
}
EXPERT_MANIFEST = MANIFEST | {
    "torch_dtype": "bf16",
    "flow_steps": 5,
    "source_training_mode": "multitask",
    "action_dim": MAX_ACTION_DIM,
    "latent_vector_dim": CODES["code_seq_len"] * CODES["code_dim"],
    "action_chunk_size": CHUNK,
    "code_seq_len": CODES["code_seq_len"],
    "tokenizer_max_length": 48,
    "pad_language_to": "longest",
    "system_prompt": None,
    "max_state_dim": MAX_STATE_DIM,
    "camera_keys": ["observation.images.image"],
    "normalization_stats": STATISTICS,
}


def theirs(lerobot) -> dict:
    """The weights of LeRobot's policy and its latent head under the predecessor's names, in bfloat16; the backbone is there twice."""
    heads = {"action_in_proj": "real_action_in_proj", "latent_in_proj": "action_in_proj"}
    core = {}
    for name, tensor in lerobot.state_dict().items():
        name = name.removeprefix("model.").replace("vlm_with_expert.", "smol_model.")
        module, _, rest = name.partition(".")
        core[f"{heads.get(module, module)}.{rest}"] = tensor.bfloat16()
    backbone = "smol_model."
    return core | {
        name.removeprefix(backbone): tensor.clone()
        for name, tensor in core.items()
        if name.startswith(f"{backbone}vlm.")
    }


@pytest.fixture(scope="module")
def lerobot(tmp_path_factory):
    """LeRobot's policy with two more projections; its weights are bfloat16 numbers."""
    policy = make_policy(Case(side=SIDE, pad_dims=True), tmp_path_factory.mktemp("lerobot"))
    with torch.no_grad():
        for tensor in policy.state_dict().values():
            tensor.copy_(tensor.bfloat16())
    return policy


@pytest.fixture(scope="module")
def expert(lerobot, tmp_path_factory) -> Path:
    """The converted artifact of an expert that learned latent and real actions."""
    folder = tmp_path_factory.mktemp("expert") / "artifact"
    return write(folder, theirs(lerobot), EXPERT_MANIFEST, "smolvla_shared.v2")


def test_an_expert_computes_what_lerobots_policy_computes(expert, lerobot, tmp_path):
    said = imported(expert, tmp_path / "out", *EXPERT, *EXPERT_ALONE)
    assert "the later frame of each pair" in said and "fresh" not in said
    artifact = Artifact.load(tmp_path / "out")
    processor = artifact.manifest["policy"]["processor"]
    assert processor["action"]["statistics"] == STATISTICS["action"]
    assert processor["state"]["statistics"]["std"] == [1.0] * STATE_DIM

    generator = torch.Generator().manual_seed(1)
    image = torch.rand(BATCH, 3, 40, 72, generator=generator)
    state = torch.randn(BATCH, STATE_DIM, generator=generator)
    noise = {
        "action": torch.randn(BATCH, CHUNK, MAX_ACTION_DIM, generator=generator),
        "latent": torch.randn(BATCH, *CODES.values(), generator=generator),
    }
    seen = {"images": {"primary": image}, "task": ["push the block", "open the small drawer", "pick"], "state": state}
    policy = artifact.policy()
    predicted = policy.sample(artifact.tensors(), seen, "multitask", noise=noise)
    ids, mask = policy.tokenize(seen["task"])
    batch = {
        "observation.images.top": image,
        "observation.state": state,
        "observation.language.tokens": ids,
        "observation.language.attention_mask": mask,
    }
    with torch.no_grad():
        chunk = lerobot.predict_action_chunk(dict(batch), noise=noise["action"])
        images, masks = lerobot.prepare_images(batch)
        with denoising_codes(lerobot):
            latents = lerobot.model.sample_actions(
                images, masks, ids, mask, lerobot.prepare_state(batch), noise=noise["latent"]
            )
    assert_close(predicted["actions"], chunk)
    assert_close(predicted["latents"], latents)


def latent_only(lerobot, teacher: Path, folder: Path) -> Path:
    """The artifact of an expert that learned the latent actions of `teacher` alone, and no statistics."""
    identity = Teacher.load(teacher).identity
    core = theirs(lerobot)
    width, dim = core["latent_out_proj.weight"].shape[1], identity["code_dim"]
    core |= {
        "action_in_proj.weight": torch.randn(width, dim),
        "latent_out_proj.weight": torch.randn(dim, width),
        "latent_out_proj.bias": torch.randn(dim),
    }
    manifest = EXPERT_MANIFEST | {
        "source_training_mode": "latent_flow",
        "latent_vector_dim": dim * identity["code_seq_len"],
        "code_seq_len": identity["code_seq_len"],
        "normalization_stats": {},
    }
    return write(folder, core, manifest, "smolvla_shared.v2")


def test_an_expert_goes_on_in_stage_2_and_in_stage_3(lerobot, uninterrupted, plugin, tmp_path):
    source = latent_only(lerobot, uninterrupted, tmp_path / "artifact")
    words = [*EXPERT, "policy.objective.mode=latent", f"policy.teacher.checkpoint={uninterrupted}"]
    out = tmp_path / "out"
    said = imported(source, out, *words)
    for note in ["what a state is", "which latent action model labelled", "standardised"]:
        assert note in said
    start = f"training.load_weights_from={out / 'model.safetensors'}"
    result = run([program("hlrp"), "train-vla", *words, *SHORT, start, f"logging.run_dir={tmp_path / 'run'}"])
    assert result.returncode == 0, result.stderr
    assert Artifact.load(out).teacher == Teacher.load(uninterrupted).identity

    policy = make_plugin_policy(stage2_artifact=out, chunk_size=CHUNK, n_action_steps=CHUNK)
    weights = load_file(out / "model.safetensors")
    started = {name: tensor for name, tensor in policy.state_dict().items() if name in weights}
    assert len(started) == len(weights)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in started.items())


# What does not fit.


def test_missing_unknown_and_reshaped_tensors_are_named(pooled_core, tmp_path):
    core = dict(pooled_core)
    del core["vlm.model.text_model.norm.weight"], core["action_head.bias"]
    core |= {"extra.weight": torch.zeros(3), "latent_in_proj.weight": torch.zeros(48, 13)}
    source = write(tmp_path / "artifact", core, POOLED_MANIFEST)
    names = [
        str(source),
        "missing: action_head.bias, vlm.model.text_model.norm.weight",
        "not of this model: extra.weight",
        "latent_in_proj.weight ([48, 13], the model has [48, 12])",
        "hint:",
    ]
    one_error(import_vla(source, tmp_path / "out", *POOLED, *ALONE), 1, names)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("copy", ["_text.layers.1.mlp.up_proj.weight", "_connector.modality_projection.proj.weight"])
def test_a_copy_that_differs_is_named_with_its_original(pooled_core, tmp_path, copy):
    core = with_copies(pooled_core)
    core[copy] = core[copy] + 1
    attribute = copy.split(".")[0]
    source = write(tmp_path / "artifact", core, POOLED_MANIFEST)
    names = [str(source), copy, f"{CACHED[attribute]}{copy.removeprefix(attribute)}", "hint:"]
    one_error(import_vla(source, tmp_path / "out", *POOLED, *ALONE), 1, names)


def test_an_experts_backbone_that_is_there_twice_and_differs(lerobot, tmp_path):
    core = theirs(lerobot)
    core["vlm.lm_head.weight"] = core["vlm.lm_head.weight"] + 1
    source = write(tmp_path / "artifact", core, EXPERT_MANIFEST, "smolvla_shared.v2")
    names = ["vlm.lm_head.weight", "smol_model.vlm.lm_head.weight", "hint:"]
    one_error(import_vla(source, tmp_path / "out", *EXPERT, *EXPERT_ALONE), 1, names)


def test_an_experiment_of_another_policy_is_refused_with_every_override(pooled, tmp_path):
    words = [
        *POOLED,
        "policy.objective.mode=actions",
        "policy.model.latent={code_seq_len: 2, code_dim: 3}",
        "policy.model.flow.num_steps=10",
        "policy.model.resize_imgs_with_padding=[96,64]",
    ]
    names = [
        "policy.model.resize_imgs_with_padding is [96,64], the artifact's is [64,64]",
        "'policy.model.flow.num_steps=8'",
        "'policy.model.resize_imgs_with_padding=[64,64]'",
        "policy.model.latent (its dimensions) is 6, the artifact's is 12",
        "policy.teacher.checkpoint",
    ]
    one_error(import_vla(pooled, tmp_path / "out", *words), 1, names)


def test_an_artifact_of_an_unknown_version(pooled_core, tmp_path):
    source = write(tmp_path / "artifact", pooled_core, POOLED_MANIFEST, "smolvla_shared.v0")
    names = [str(source.with_suffix(".json")), "smolvla_shared.v0", "smolvla_shared.v2", "hint:"]
    one_error(import_vla(source, tmp_path / "out", *POOLED, *ALONE), 1, names)


def test_a_manifest_that_is_missing_or_incomplete(pooled, tmp_path):
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(pooled.read_bytes())
    one_error(
        import_vla(alone, tmp_path / "out", *POOLED, *ALONE), 1, ["alone.json", "weights_to_safetensors.py", "hint:"]
    )
    said = json.loads(pooled.with_suffix(".json").read_text())
    del said["manifest"]["latent_vector_dim"]
    alone.with_suffix(".json").write_text(json.dumps(said))
    one_error(import_vla(alone, tmp_path / "out", *POOLED, *ALONE), 1, ["alone.json", "latent_vector_dim", "hint:"])


def test_actions_of_an_unknown_width_are_asked_for(headless, tmp_path):
    result = import_vla(headless, tmp_path / "out", *POOLED, *ALONE)
    one_error(result, CONFIG_ERROR, ["policy.model.action_dim", "how many dimensions", "hint:"])


def test_an_import_replaces_nothing_and_reads_no_file_of_pytorch(pooled, tmp_path):
    (tmp_path / "out").mkdir()
    one_error(import_vla(pooled, tmp_path / "out", *POOLED, *ALONE), 1, [str(tmp_path / "out"), "hint:"])
    source = pooled.with_suffix(".pt")
    one_error(import_vla(source, tmp_path / "new", *POOLED, *ALONE), 1, ["stage2.pt", "weights_to_safetensors.py"])
    again = convert(source)
    assert again.returncode == 1 and "exists" in again.stderr, "what was converted is not replaced"


def test_the_script_executes_nothing(tmp_path):
    class Attack:
        def __reduce__(self):
            return print, ("executed",)

    (tmp_path / "stage2.pt").write_bytes(pickle.dumps({"core_state_dict": Attack()}))
    result = convert(tmp_path / "stage2.pt")
    assert result.returncode == 1 and "executed" not in result.stdout
    assert "error:" in result.stderr and "hint:" in result.stderr and "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["stage2.pt"]
