"""Ways of running that a model in Rust cannot support."""

import os

# What accelerate sets for its plugins.
REFUSED = {
    "ACCELERATE_USE_FSDP": "FSDP shards parameters",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed shards parameters",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM shards parameters",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "this parallelism shards parameters",
}
HINT = "hint: use one GPU or plain data parallelism (accelerate launch --multi_gpu)"


def refuse_unsupported_launch(environment: dict[str, str] = os.environ) -> None:
    """Refuses launches that shard parameters or compile the forward pass."""
    for name, reason in REFUSED.items():
        if environment.get(name, "false").lower() in ("true", "1"):
            raise RuntimeError(f"{reason}, and the forward pass in Rust needs them whole\n{HINT}")
    if environment.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no":
        refuse_compile()


def refuse_compile() -> None:
    """Says why torch.compile is of no use."""
    raise RuntimeError(
        "torch.compile sees no Python operations here: the forward pass is compiled Rust already\n"
        "hint: run without torch.compile (accelerate: dynamo_backend no)"
    )
