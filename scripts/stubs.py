#!/usr/bin/env python3
"""Writes python/hlrp_rs/_core.pyi from the compiled extension: names, signatures and texts are its own, types come from the tables here.

    scripts/stubs.py            writes the file
    scripts/stubs.py --check    compares it; exit code 1 if it differs

A parameter or result without an entry here is an error, and so is an entry that nothing uses.
"""

import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

PATH = Path(__file__).resolve().parent.parent / "python" / "hlrp_rs" / "_core.pyi"

DESCRIPTION = "Mapping[str, Any] | str"

# Types by parameter name; `Class.function.name` or `function.name` where one name has several types.
PARAMETERS = {
    "_memo": "Any",
    "Policy.init.backbone": "Path | None",
    "Policy.from_backbone.backbone": "Path",
    "checkpoint": "Path",
    "codes": "Tensor",
    "config": DESCRIPTION,
    "config_dir": "Path",
    "cuda_graph": "bool",
    "device": "str",
    "feature": 'Literal["state", "action"]',
    "folder": "Path",
    "frames": "Tensor",
    "guidance": "Guidance | None",
    "hub_cache": "Path",
    "image_size": "tuple[int, int]",
    "images": "Tensor",
    "is_real": "Tensor | None",
    "limit_batches": "int | None",
    "locate_model.model": "str",
    "Policy.from_backbone.model": DESCRIPTION,
    "policy_description.model": DESCRIPTION,
    "action_dim": "int",
    "cameras": "Sequence[str]",
    "fields": "Mapping[str, Any]",
    "latent": "Mapping[str, int] | None",
    "Policy.model": DESCRIPTION,
    "mode": "Mode",
    "noise": "FlowTensors | None",
    "objective": "Objective",
    "observation": "Observation",
    "overrides": "Sequence[str]",
    "parameters": "Mapping[str, Tensor]",
    "path": "Path",
    "position": "Position | None",
    "processor": DESCRIPTION,
    "rank": "int",
    "reduction": 'Literal["mean", "none"]',
    "Dataset.train.seed": "int",
    "Teacher.load.seed": "int | None",
    "targets": "Targets",
    "task": "Sequence[str]",
    "time": "FlowTensors | None",
    "Policy.from_backbone.tokenizer_folder": "Path | None",
    "Policy.tokenizer_folder": "Path",
    "DatasetLabels.label.index": "Tensor",
    "prefix": "str",
    "root": "Path",
    "vectors": 'Literal["code", "continuous"] | None',
    "weights": 'Literal["trained", "random"]',
    "world_size": "int",
}

# Types of properties and results.
RESULTS = {
    "Initialised.fresh": "list[str]",
    "Initialised.ignored": "list[str]",
    "Initialised.num_loaded": "int",
    "Policy.__copy__": "Policy",
    "Policy.__deepcopy__": "Policy",
    "Policy.__reduce__": "tuple[Any, ...]",
    "Policy.action_dim": "int | None",
    "Policy.cameras": "list[str]",
    "Policy.castable": "set[str]",
    "Policy.check": "None",
    "Policy.chunk_size": "int | None",
    "Policy.from_backbone": "Policy",
    "Policy.frozen": "set[str]",
    "Policy.image_size": "tuple[int, int]",
    "Policy.init": "dict[str, Tensor]",
    "Policy.init_from_smolvla": "tuple[dict[str, Tensor], Initialised]",
    "Policy.latent_shape": "tuple[int, int] | None",
    "Policy.loss": "dict[str, Tensor]",
    "Policy.model": "dict[str, Any]",
    "Policy.normalization": "dict[str, Any] | None",
    "Policy.parameter_specs": "list[tuple[str, tuple[int, ...], bool]]",
    "Policy.prepare_images": "Tensor",
    "Policy.processor": "dict[str, Any]",
    "Policy.sample": "dict[str, Tensor]",
    "Policy.tokenize": "tuple[Tensor, Tensor]",
    "Policy.tokenizer_folder": "str",
    "Policy.unused_in": "set[str]",
    "Artifact.load": "Artifact",
    "Artifact.manifest": "dict[str, Any]",
    "Artifact.path": "str",
    "Artifact.policy": "Policy",
    "Artifact.teacher": "dict[str, Any] | None",
    "Artifact.tensors": "dict[str, Tensor]",
    "Artifact.tokenizer_folder": "str",
    "Checkpoint.config_yaml": "str",
    "Checkpoint.load": "Checkpoint",
    "Checkpoint.manifest": "dict[str, Any]",
    "Checkpoint.path": "str",
    "Checkpoint.step": "int",
    "Checkpoint.tensors": "dict[str, Tensor]",
    "Teacher.codes": "Tensor",
    "Teacher.device": "str",
    "Teacher.identity": "dict[str, Any]",
    "Teacher.label": "Targets",
    "Teacher.load": "Teacher",
    "Teacher.reconstruct": "tuple[Tensor, Tensor]",
    "Teacher.vectors": "Tensor",
    "DatasetLabels.identity": "dict[str, Any]",
    "DatasetLabels.label": "Targets",
    "DatasetLabels.open": "DatasetLabels",
    "Dataset.batch_size": "int",
    "Dataset.cameras": "list[str]",
    "Dataset.config": "dict[str, Any]",
    "Dataset.num_train_samples": "int",
    "Dataset.num_validation_samples": "int",
    "Dataset.train": "BatchStream",
    "Dataset.validation": "BatchStream",
    "BatchStream.__iter__": "BatchStream",
    "BatchStream.__next__": "Batch",
    "BatchStream.num_batches": "int | None",
    "BatchStream.position": "Position | None",
    "BatchStream.stats": "dict[str, float]",
    "backbone_sizes": "dict[str, Any]",
    "checkpoint_task": "dict[str, Any]",
    "compose_config": "dict[str, Any]",
    "locate_model": "str",
    "policy_description": "tuple[dict[str, Any], dict[str, Any]]",
    "smolvla_description": "tuple[dict[str, Any], dict[str, Any]]",
}

CONSTANTS = {
    "__version__": "Version of this package.",
    "LIBTORCH_VERSION": "Version of the libtorch that this package was built for, such as `2.11.0`.",
}

# What every class has, and texts of Python's own about it.
MACHINERY = {"__dict__", "__doc__", "__module__", "__new__", "__repr__", "__weakref__"}


class Types:
    """The tables, and which of their entries were used."""

    def __init__(self) -> None:
        self.used: set[str] = set()

    def parameter(self, function: str, name: str) -> str:
        for key in (f"{function}.{name}", name):
            if key in PARAMETERS:
                self.used.add(key)
                return PARAMETERS[key]
        raise SystemExit(
            f"error: {function}: the parameter `{name}` has no type\nhint: add it to PARAMETERS in {__file__}"
        )

    def result(self, name: str) -> str:
        if name not in RESULTS:
            raise SystemExit(f"error: `{name}` has no type\nhint: add it to RESULTS in {__file__}")
        self.used.add(name)
        return RESULTS[name]

    def check_all_used(self) -> None:
        if unused := sorted((PARAMETERS.keys() | RESULTS.keys()) - self.used):
            raise SystemExit(f"error: types of nothing: {', '.join(unused)}\nhint: remove them from {__file__}")


def text(documentation: str | None) -> str:
    """A docstring, or `...` where there is none."""
    if not documentation:
        return "..."
    lines = inspect.cleandoc(documentation)
    return f'"""{lines}"""' if "\n" not in lines else f'"""{lines}\n"""'


def signature(types: Types, name: str, function: object, first: str | None) -> str:
    """The parameters of `function` with types; `first` is its first one, `self` or `cls`."""
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in {"self", "cls"}]
    parts = [first] if first else []
    is_keyword_only = False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not is_keyword_only:
            parts.append("*")
            is_keyword_only = True
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        parts.append(f"{parameter.name}: {types.parameter(name, parameter.name)}{default}")
    return f"({', '.join(parts)})"


def function(types: Types, name: str, thing: object, *, first: str | None, decorator: str = "") -> str:
    """A function or method with its text."""
    documentation = None if name.split(".")[-1].startswith("__") and is_inherited(thing) else thing.__doc__
    head = f"{decorator}def {name.split('.')[-1]}{signature(types, name, thing, first)} -> {types.result(name)}:"
    return f"{head}\n{textwrap.indent(text(documentation), '    ')}"


def is_inherited(thing: object) -> bool:
    """Whether the text of a special method is Python's own."""
    return (getattr(object, thing.__name__, None) or getattr(type(iter([])), thing.__name__, None)) is not None


def member(types: Types, class_name: str, name: str, thing: object) -> str:
    full_name = f"{class_name}.{name}"
    if inspect.isgetsetdescriptor(thing):
        head = f"@property\ndef {name}(self) -> {types.result(full_name)}:"
        return f"{head}\n{textwrap.indent(text(thing.__doc__), '    ')}"
    if isinstance(thing, staticmethod):
        return function(types, full_name, thing.__func__, first=None, decorator="@staticmethod\n")
    return function(types, full_name, thing, first="self")


def class_stub(types: Types, thing: type) -> str:
    name = thing.__name__
    if issubclass(thing, Exception):
        bases = ", ".join(base.__name__ for base in thing.__bases__)
        return f"class {name}({bases}):\n{textwrap.indent(text(thing.__doc__), '    ')}"
    members = {key: value for key, value in vars(thing).items() if key not in MACHINERY}
    # Properties have no order of their own.
    properties = sorted(key for key, value in members.items() if inspect.isgetsetdescriptor(value))
    methods = [key for key in members if key not in properties]
    parts = [text(thing.__doc__) + "\n"]
    if thing.__text_signature__ is not None:
        parts.append(f"def __new__{signature(types, name, thing, 'cls')} -> {name}: ...")
    parts += [member(types, name, key, members[key]) for key in properties + methods]
    return f"@final\nclass {name}:\n{textwrap.indent(chr(10).join(parts), '    ')}"


def imports(body: str) -> str:
    """Import lines of the names in types."""
    from hlrp_rs import types as shared

    def used(names: list[str]) -> str:
        return ", ".join(sorted(name for name in names if re.search(rf"[:>\[|,] *{name}\b", body)))

    own = [name for name, value in vars(shared).items() if getattr(value, "__module__", "") == shared.__name__]
    return "\n".join(
        [
            f"from collections.abc import {used(['Mapping', 'Sequence'])}",
            f"from typing import {used(['Any', 'Literal'])}, final",
            "from torch import Tensor",
            f"from hlrp_rs.types import {used(own)}",
        ]
    )


def generate(module: ModuleType) -> str:
    """The text of the stub file."""
    types = Types()
    parts = [f"{name}: str\n{text(documentation)}" for name, documentation in CONSTANTS.items()]
    things = [thing for name, thing in vars(module).items() if not name.startswith("_") and name not in CONSTANTS]
    for thing in things:
        if isinstance(thing, type):
            parts.append(class_stub(types, thing))
        else:
            parts.append(function(types, thing.__name__, thing, first=None))
    types.check_all_used()
    body = "\n\n".join(parts)
    head = f"# Generated by scripts/stubs.py (make stubs); do not edit.\n{text(module.__doc__)}\n\n{imports(body)}"
    command = [sys.executable, "-m", "ruff"]
    source = f"{head}\n\n{body}\n"
    for arguments in (["check", "--quiet", "--fix", "--select=I"], ["format", "--quiet"]):
        ruff = [*command, *arguments, f"--stdin-filename={PATH}", "-"]
        source = subprocess.run(ruff, input=source, check=True, capture_output=True, text=True).stdout
    return source


def main() -> None:
    import torch  # noqa: F401, before the extension, which links its libraries
    from hlrp_rs import _core

    stubs = generate(_core)
    if sys.argv[1:] == ["--check"]:
        if PATH.read_text() != stubs:
            raise SystemExit(f"error: {PATH} is not what the extension says\nhint: make stubs")
    else:
        PATH.write_text(stubs)


if __name__ == "__main__":
    main()
