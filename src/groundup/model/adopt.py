"""What is put into transformers' layers: our linear layers, casts of trained parameters, recomputation.

Everything is done to modules from outside, so that names stay transformers' own.
"""

from __future__ import annotations

import functools
import types
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from groundup.model.base import Linear
from groundup.model.llm import recomputed

LINEAR_KINDS = ("Linear", "FalconLinear")
"""Names of the classes that compute x Wᵀ + bias; others derive from `nn.Linear` and do more."""
TRANSPOSED_KIND = "Conv1D"
"""GPT-2's: the same with W kept as [in, out]."""


@dataclass
class Precision:
    """The compute dtype, which may change as long as the model lives."""

    dtype: torch.dtype


def adopt_linears(body: nn.Module, prefix: str) -> frozenset[str]:
    """Put our `Linear` in the place of every plain linear layer; names of the weights that were turned round."""
    transposed = set()
    for name, module in list(body.named_modules()):
        kind = type(module).__name__
        if kind not in (*LINEAR_KINDS, TRANSPOSED_KIND):
            continue
        ours = Linear(0, 0, bias=False)
        ours.weight, ours.bias = module.weight, module.bias
        if kind == TRANSPOSED_KIND:
            weight = module.weight
            ours.weight = nn.Parameter(weight.detach().T.contiguous(), requires_grad=weight.requires_grad)
            transposed.add(f"{prefix}.{name}.weight")
        ours.eval()
        parent, _, leaf = name.rpartition(".")
        setattr(body.get_submodule(parent), leaf, ours)
    return frozenset(transposed)


def cast_at_use(body: nn.Module, precision: Precision) -> None:
    """Give every module that owns parameters its trained ones in the compute dtype, while its forward runs.

    Frozen ones are stored in it, or wider where a model asks for that; narrower ones are widened. An embedding is
    cast behind the look-up instead: so its gradient is summed in float32.
    """
    for module in body.modules():
        if isinstance(module, Linear) or not any(True for _ in module.parameters(recurse=False)):
            continue
        if isinstance(module, nn.Embedding):
            module.register_forward_hook(functools.partial(_cast_output, precision))
        else:
            module.register_forward_pre_hook(functools.partial(_lend, precision))
            module.register_forward_hook(_take_back, always_call=True)


def _cast_output(precision: Precision, module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return output.to(precision.dtype)


def _lend(precision: Precision, module: nn.Module, args: Any) -> None:
    """Cast copies take the parameters' places; autograd brings the gradients back through the casts."""
    own = module._parameters
    module.__dict__["_masters"] = {
        name: p
        for name, p in own.items()
        if p is not None and p.is_floating_point() and p.dtype != precision.dtype
        if p.requires_grad or p.itemsize < precision.dtype.itemsize
    }
    for name, parameter in module.__dict__["_masters"].items():
        own[name] = parameter.to(precision.dtype)


def _take_back(module: nn.Module, args: Any, output: Any) -> None:
    module._parameters.update(module.__dict__.pop("_masters", {}))


def recompute_layers(body: nn.Module, recompute: bool) -> None:
    """Whether each decoder layer keeps only its input for the backward."""
    for layer in _layers(body):
        layer.__dict__.pop("forward", None)
        if recompute:
            layer.__dict__["forward"] = types.MethodType(_forward_recomputed, layer)


def _forward_recomputed(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    forward = functools.partial(type(layer).forward, layer)
    return recomputed(forward, *args, **kwargs) if torch.is_grad_enabled() else forward(*args, **kwargs)


def _layers(body: nn.Module) -> list[nn.Module]:
    """The decoder's layers: the list of modules that holds most of the parameters."""
    lists: list[nn.ModuleList] = [module for module in body.modules() if isinstance(module, nn.ModuleList)]
    largest = max(lists, key=lambda found: sum(p.numel() for p in found.parameters()))
    return list(largest)
