"""Low-rank adapters (LoRA, arXiv 2106.09685): y = W x + scaling · B (A x), with W frozen and A, B float32.

A model has one adapter of its own, the one that is saved. Further ones may stand beside it on the same base weights, a
value function's or a frozen copy to compare with; one at a time is active, or none.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from groundup.config.schema import LoraSettings
from groundup.errors import UserError
from groundup.model.base import Linear
from groundup.model.functions import lora_linear
from groundup.model.llm import LanguageModel

OWN = "own"
"""The name of a model's own adapter among those that can be active."""


class Factor(nn.Module):
    """One of the two small matrices: a module of its own, so that its name is PEFT's and it reads its own weight."""

    def __init__(self, in_features: int, out_features: int, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features, dtype=torch.float32, device=device))

    def forward(self, dtype: torch.dtype) -> Tensor:
        return self.weight.to(dtype)


class Factors(nn.Module):
    """The two factors of a further adapter at one layer."""

    def __init__(self, own_a: Factor, own_b: Factor) -> None:
        super().__init__()
        (r, inputs), outputs = own_a.weight.shape, len(own_b.weight)
        self.lora_A = Factor(inputs, r, own_a.weight.device)
        self.lora_B = Factor(r, outputs, own_b.weight.device)
        self.lora_A.weight.data.copy_(own_a.weight)
        self.lora_B.weight.data.copy_(own_b.weight)


class LoraLinear(Linear):
    """A linear layer that keeps its own parameters' names and has two factors beside them."""

    def __init__(self, base: Linear, settings: LoraSettings) -> None:
        nn.Module.__init__(self)
        self.weight, self.bias = base.weight, base.bias
        self.scaling = settings.scaling
        outputs, inputs = base.weight.shape
        self.lora_A = Factor(inputs, settings.r, base.weight.device)
        self.lora_B = Factor(settings.r, outputs, base.weight.device)
        self.others = nn.ModuleDict()
        self.active: str | None = OWN
        """Which adapter takes part; None: the base alone."""

    def forward(self, x: Tensor) -> Tensor:
        if self.active is None:
            return super().forward(x)
        factors: Any = self if self.active == OWN else self.others[self.active]
        bias = None if self.bias is None else self.bias.to(x.dtype)
        weight, a, b = self.weight.to(x.dtype), factors.lora_A(x.dtype), factors.lora_B(x.dtype)
        flat = lora_linear(x.flatten(0, -2), weight, bias, a, b, self.scaling)
        return flat.unflatten(0, x.shape[:-1])

    @torch.no_grad()
    def folded(self, dtype: torch.dtype) -> Tensor:
        """W and the active factors' product, added in float32 and rounded once."""
        if self.active is None:
            return super().folded(dtype)
        factors: Any = self if self.active == OWN else self.others[self.active]
        update = self.scaling * (factors.lora_B.weight @ factors.lora_A.weight)
        return (self.weight.float() + update).to(dtype)

    def merged(self) -> Linear:
        """The plain layer of the same outputs, with the own adapter."""
        assert self.active == OWN
        plain = Linear(0, 0, bias=False)
        plain.weight = nn.Parameter(self.folded(self.weight.dtype), requires_grad=False)
        plain.bias = self.bias
        return plain


def attach_lora(model: LanguageModel, settings: LoraSettings, seed: int = 0) -> list[str]:
    """Freeze the model, in its compute dtype, and give the target layers their factors; returns the layers' names.

    A is drawn as PEFT draws it (uniform, Kaiming with a = sqrt 5), B is zero: the model's answers do not change yet.

    Raises:
        UserError: a target names no layer.
    """
    names = find_targets(model, settings.target_modules)
    assert not has_lora(model), "merge the first adapter before attaching another"
    _freeze(model)
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        base = model.get_submodule(name)
        assert isinstance(base, Linear)
        layer = LoraLinear(base, settings)
        bound = 1 / math.sqrt(layer.lora_A.weight.shape[1])
        drawn = torch.empty(layer.lora_A.weight.shape).uniform_(-bound, bound, generator=generator)
        layer.lora_A.weight.data.copy_(drawn)
        _replace(model, name, layer)
    model.lora = settings
    return names


def find_targets(model: LanguageModel, targets: str | list[str]) -> list[str]:
    """Full names of the linear layers that are meant, by PEFT's rule: the whole name or its last parts."""
    layers = [name for name, module in model.named_modules() if isinstance(module, Linear)]
    if targets == "all-linear":
        return layers
    chosen = set()
    for target in targets:
        matched = [name for name in layers if name == target or name.endswith("." + target)]
        if not matched:
            short = sorted({name.rpartition(".")[2] for name in layers})
            near = difflib.get_close_matches(target, short + layers, n=3, cutoff=0.4)
            raise UserError(
                f"target_modules names {target!r}, which is no linear layer of this model",
                why=f"its linear layers are {', '.join(short)}",
                fix=f"did you mean {' or '.join(near)}?"
                if near
                else "use all-linear, or names from that list",
            )
        chosen.update(matched)
    return [name for name in layers if name in chosen]


def lora_layers(model: LanguageModel) -> dict[str, LoraLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


def has_lora(model: LanguageModel) -> bool:
    return bool(lora_layers(model))


def lora_state(model: LanguageModel) -> dict[str, Tensor]:
    """The own adapter's factors alone, named `<layer>.lora_A.weight` and `<layer>.lora_B.weight`."""
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if ".lora_" in name and ".others." not in name
    }


def copy_adapter(model: LanguageModel, name: str, trainable: bool) -> None:
    """A further adapter that begins as the own one stands now."""
    for layer in lora_layers(model).values():
        layer.others[name] = Factors(layer.lora_A, layer.lora_B).requires_grad_(trainable)


@contextmanager
def using_adapter(model: LanguageModel, name: str | None) -> Iterator[None]:
    """Meanwhile the adapter `name` is active, or none at all: one set of weights serves a policy and its reference."""
    layers = list(lora_layers(model).values())
    assert layers, "the model has no adapter to switch"
    before = [layer.active for layer in layers]
    for layer in layers:
        layer.active = name
    try:
        yield
    finally:
        for layer, active in zip(layers, before, strict=True):
            layer.active = active


def merge_lora(model: LanguageModel) -> LanguageModel:
    """Fold the factors into the weights and take them off; the same model, plain and frozen."""
    for name, layer in lora_layers(model).items():
        _replace(model, name, layer.merged())
    model.lora = None
    return model


def _freeze(model: LanguageModel) -> None:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.data = parameter.data.to(model.compute_dtype)


def _replace(model: LanguageModel, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
