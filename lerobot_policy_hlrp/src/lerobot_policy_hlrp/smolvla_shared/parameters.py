"""Parameters under dotted names, for a model whose computation happens elsewhere."""

from collections.abc import Iterable

from torch import Tensor, nn


class ParameterTree(nn.Module):
    """A node of the names: it holds parameters and computes nothing."""


def register(root: nn.Module, tensors: dict[str, Tensor], frozen: set[str]) -> None:
    """Makes every tensor a parameter of `root` under its dotted name; those in `frozen` get no gradient."""
    for name, tensor in tensors.items():
        *places, leaf = name.split(".")
        node = root
        for place in places:
            if place not in node._modules:
                node.add_module(place, ParameterTree())
            node = node._modules[place]
        node.register_parameter(leaf, nn.Parameter(tensor, requires_grad=name not in frozen))


def collect(root: nn.Module) -> dict[str, Tensor]:
    """Every parameter by its dotted name, as it is now."""
    found: dict[str, Tensor] = {}

    def visit(node: nn.Module, prefix: str) -> None:
        for leaf, parameter in node._parameters.items():
            found[prefix + leaf] = parameter
        for place, child in node._modules.items():
            visit(child, f"{prefix}{place}.")

    visit(root, "")
    return found


def frozen_modules(root: nn.Module) -> list[str]:
    """Names of the topmost modules without a parameter that trains."""
    found: list[str] = []
    for name, module in root.named_modules():
        is_inside = any(name.startswith(f"{above}.") for above in found)
        if name and not is_inside and not any_trains(module.parameters()):
            found.append(name)
    return found


def any_trains(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether one of them gets a gradient."""
    return any(parameter.requires_grad for parameter in parameters)
