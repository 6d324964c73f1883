"""Rotary position embeddings (RoFormer, arXiv 2104.09864) and the scaling kinds that depend on nothing but position."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from groundup.model.config import ModelConfig


def frequencies(config: ModelConfig) -> tuple[Tensor, float]:
    """Angle per position of each pair of dimensions, float32 [head_dim / 2], and the factor on cosine and sine."""
    rope = config.rope_parameters
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device="cpu") / config.head_dim
    plain = 1.0 / (rope["rope_theta"] ** exponent)
    kind = rope["rope_type"]
    if kind == "linear":
        return plain / rope["factor"], 1.0
    if kind == "llama3":
        return _llama3(plain, rope), 1.0
    if kind == "yarn":
        return _yarn(plain, rope, config)
    return plain, 1.0  # "default"; "dynamic" equals it below config.position_limit


def _llama3(plain: Tensor, rope: Mapping[str, Any]) -> Tensor:
    """Llama 3.1: long wavelengths are stretched, short ones kept, those between blended."""
    low, high, context = (
        rope["low_freq_factor"],
        rope["high_freq_factor"],
        rope["original_max_position_embeddings"],
    )
    rotations = context * plain / (2 * math.pi)
    kept = ((rotations - low) / (high - low)).clamp(0.0, 1.0)
    return (1 - kept) * plain / rope["factor"] + kept * plain


def _yarn(plain: Tensor, rope: Mapping[str, Any], config: ModelConfig) -> tuple[Tensor, float]:
    """YaRN (arXiv 2309.00071), section 3.2 (ramp between dimensions) and 3.4 (attention factor)."""
    dim, context = config.head_dim, rope["original_max_position_embeddings"]
    factor = rope.get("factor") or config.max_position_embeddings / context

    def dimension_of(rotations: float) -> float:
        return dim * math.log(context / (rotations * 2 * math.pi)) / (2 * math.log(rope["rope_theta"]))

    low, high = dimension_of(rope.get("beta_fast") or 32), dimension_of(rope.get("beta_slow") or 1)
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    width = (high - low) or 0.001
    stretched = ((torch.arange(dim // 2, dtype=torch.float32, device="cpu") - low) / width).clamp(0.0, 1.0)
    return plain / factor * stretched + plain * (1 - stretched), _yarn_attention_factor(rope, factor)


def _yarn_attention_factor(rope: Mapping[str, Any], factor: float) -> float:
    def magnitude(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return magnitude(rope["mscale"]) / magnitude(rope["mscale_all_dim"])
    return magnitude(1.0)


def rotate(x_THd: Tensor, cos_Td: Tensor, sin_Td: Tensor) -> Tensor:
    """Turn each pair (i, i + head_dim/2) of every head by its position's angle; cos and sin have head_dim/2 columns."""
    return _Rotate.apply(x_THd, cos_Td, sin_Td)


class _Rotate(torch.autograd.Function):
    """The backward of a rotation is the rotation by minus the angle, so nothing but the angles is kept."""

    @staticmethod
    def forward(ctx: Any, x_THd: Tensor, cos_Td: Tensor, sin_Td: Tensor) -> Tensor:
        ctx.save_for_backward(cos_Td, sin_Td)
        return turn(x_THd, cos_Td, sin_Td)

    @staticmethod
    def backward(ctx: Any, grad_THd: Tensor) -> tuple[Tensor, None, None]:
        cos_Td, sin_Td = ctx.saved_tensors
        return turn(grad_THd, cos_Td, -sin_Td), None, None


def turn(x_THd: Tensor, cos_Td: Tensor, sin_Td: Tensor) -> Tensor:
    """`rotate` without its gradient."""
    half = x_THd.shape[-1] // 2
    first, second = x_THd[..., :half], x_THd[..., half:]
    cos, sin = cos_Td[:, None], sin_Td[:, None]
    turned = torch.empty_like(x_THd)
    torch.mul(first, cos, out=turned[..., :half]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=turned[..., half:]).addcmul_(first, sin)
    return turned
