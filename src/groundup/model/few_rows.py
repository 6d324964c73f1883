"""Products of a weight with the few rows that generation has, with the weight prepared for many of them.

PyTorch's product of a CPU lays a bfloat16 weight out anew in each call, which takes longer than the product itself, and
takes float32 ones to a library that is slow for few rows on some processors. oneDNN, which PyTorch carries for
`torch.compile`, multiplies by a weight that was laid out once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

EXPECTED_ROWS = 16
"""What the layout is chosen for; it serves any number of rows."""

COPIED_BYTES = 2_000_000_000
"""Of larger models no second copy is made, but of what must be cast or folded."""


def may_copy(model: nn.Module, dtype: torch.dtype) -> bool:
    """Whether the model is small enough that its weights may be held in another order beside it."""
    return sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize <= COPIED_BYTES


class FewRows:
    """x Wᵀ + bias for weights that stay as they are; without gradients.

    Args:
        weights: [O, I] each: layers of one input, whose outputs stand side by side.
        biases: [O] or None for each.
        copy: whether memory may be taken for the weights in another order.
    """

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor | None], copy: bool = True) -> None:
        self._sizes = [len(weight) for weight in weights]
        self._parts = list(zip(weights, biases, strict=True))
        self._packed = False
        if not copy:
            return
        if len(weights) > 1:
            filled = [
                weight.new_zeros(len(weight)) if bias is None else bias
                for weight, bias in zip(weights, biases)
            ]
            some = any(bias is not None for bias in biases)
            self._parts = [(torch.cat(list(weights)), torch.cat(filled) if some else None)]
        if can_pack(weights[0]):
            ((weight, bias),) = self._parts
            self._parts = [(torch.ops.mkldnn._reorder_linear_weight(weight, EXPECTED_ROWS), bias)]
            self._packed = True

    def __call__(self, x_NI: Tensor) -> Sequence[Tensor]:
        """[N, O] of each weight."""
        if self._packed:
            ((weight, bias),) = self._parts
            product = torch.ops.mkldnn._linear_pointwise(x_NI, weight, bias, "none", [], "")
            return product.split(self._sizes, -1)
        products = [
            few_rows(x_NI, weight) if bias is None else few_rows(x_NI, weight).add_(bias)
            for weight, bias in self._parts
        ]
        return products[0].split(self._sizes, -1) if len(products) == 1 else products

    def onto(self, total_NO: Tensor, x_NI: Tensor) -> Tensor:
        """total + x Wᵀ + bias, of the only weight."""
        ((weight, bias),) = self._parts
        if self._packed:
            return torch.ops.mkldnn._linear_pointwise.binary(x_NI, total_NO, weight, bias, "add")
        total = few_rows(x_NI, weight, total_NO)
        return total if bias is None else total.add_(bias)


def can_pack(weight: Tensor) -> bool:
    """Whether this PyTorch and this processor have oneDNN's products for such a weight."""
    ops = torch.ops.mkldnn
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not (hasattr(ops, "_reorder_linear_weight") and hasattr(ops, "_linear_pointwise")):
        return False
    if weight.dtype == torch.bfloat16:
        return bool(ops._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32


def few_rows(x_NI: Tensor, weight_OI: Tensor, onto_NO: Tensor | None = None) -> Tensor:
    """x Wᵀ, or onto + x Wᵀ, for the few rows that generation has, with a weight as it is; [N, O].

    On a CPU in float32 it is taken as (W xᵀ)ᵀ, which the library's kernels do faster: up to twice as fast for 4 rows.
    """
    if len(x_NI) == 1 or x_NI.dtype != torch.float32 or x_NI.device.type != "cpu":
        turned = weight_OI.T
        return torch.mm(x_NI, turned) if onto_NO is None else torch.addmm(onto_NO, x_NI, turned)
    if onto_NO is None:
        return torch.mm(weight_OI, x_NI.T).T.contiguous()
    return torch.addmm(onto_NO.T, weight_OI, x_NI.T).T.contiguous()
