"""Autograd functions that pass over memory less often than the plain formulas do; each has its formula above it.

They get weights as arguments, from the module that owns them, already in the compute dtype.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """w * x / rms(x), over the last dimension; in float32, and rounded before the weight as Hugging Face does."""
    return _RMSNorm.apply(x, weight_D, eps)


class _RMSNorm(torch.autograd.Function):
    """With n = x / rms and u = w * grad: dx = (u - n mean(u n)) / rms and dw = sum(grad n)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        wide = x.to(_wide(x))
        inverse_rms = torch.rsqrt(torch.linalg.vecdot(wide, wide)[..., None] / x.shape[-1] + eps)
        ctx.save_for_backward(x, weight_D, inverse_rms)
        return (wide * inverse_rms).to(x.dtype) * weight_D

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight_D, inverse_rms = ctx.saved_tensors
        normed = x.to(_wide(x)) * inverse_rms
        weight_grad = None
        if ctx.needs_input_grad[1]:
            weight_grad = (grad.to(normed.dtype) * normed).flatten(0, -2).sum(0).to(weight_D.dtype)
        through = (grad * weight_D).to(normed.dtype)
        mean = torch.linalg.vecdot(through, normed)[..., None] / x.shape[-1]
        through.addcmul_(normed, mean, value=-1).mul_(inverse_rms)
        return through.to(x.dtype), weight_grad, None


def lora_linear(
    x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None, a_rI: Tensor, b_Or: Tensor, scaling: float
) -> Tensor:
    """x Wᵀ + bias + scaling (x Aᵀ) Bᵀ, with W and bias frozen; [T, O]."""
    return _LoraLinear.apply(x_TI, weight_OI, bias_O, a_rI, b_Or, scaling)


class _LoraLinear(torch.autograd.Function):
    """With h = x Aᵀ and k = scaling grad B: dx = grad W + k A, dA = kᵀ x and dB = scaling gradᵀ h."""

    @staticmethod
    def forward(
        ctx: Any,
        x_TI: Tensor,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        a_rI: Tensor,
        b_Or: Tensor,
        scaling: float,
    ) -> Tensor:
        inner_Tr = x_TI @ a_rI.T
        ctx.save_for_backward(x_TI, weight_OI, a_rI, b_Or, inner_Tr)
        ctx.scaling = scaling
        return torch.nn.functional.linear(x_TI, weight_OI, bias_O).addmm_(inner_Tr, b_Or.T, alpha=scaling)

    @staticmethod
    def backward(ctx: Any, grad_TO: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
        x_TI, weight_OI, a_rI, b_Or, inner_Tr = ctx.saved_tensors
        inner_grad_Tr = (grad_TO @ b_Or).mul_(ctx.scaling)
        x_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = (grad_TO @ weight_OI).addmm_(inner_grad_Tr, a_rI)
        return x_grad, None, None, inner_grad_Tr.T @ x_TI, (grad_TO.T @ inner_Tr).mul_(ctx.scaling), None


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
