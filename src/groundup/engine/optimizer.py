"""The optimizer, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from groundup.config.schema import TrainSettings
from groundup.engine.muon import Muon


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW over the trained parameters, float32; or Muon for the decoder's matrices and AdamW for the rest.

    Weight decay (arXiv 1711.05101) spares vectors: norms and biases.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert named and all(p.dtype == torch.float32 for p in named.values())
    muon = settings.optim == "muon"
    inner = {name for name, p in named.items() if muon and p.ndim == 2 and ".layers." in name}
    rest = [p for name, p in named.items() if name not in inner]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    adamw: dict[str, Any] = {
        "lr": settings.learning_rate,
        "betas": (settings.adam_beta1, settings.adam_beta2),
        "fused": True,
    }
    if not inner:
        return torch.optim.AdamW(groups, **adamw)
    dtype = getattr(model, "compute_dtype", torch.float32)
    matrices = [named[name] for name in named if name in inner]
    return Muon(matrices, groups, dtype=dtype, weight_decay=settings.weight_decay, **adamw)


def learning_rate_at(step: int, total_steps: int, settings: TrainSettings) -> float:
    """The rate of step number `step` (from 0), as transformers' schedulers have it, but warm-up starts above zero.

    A first step with a rate of zero would be a step that trains nothing.
    """
    warmup_steps = math.ceil(total_steps * settings.warmup_ratio)
    if step < warmup_steps:
        return settings.learning_rate * (step + 1) / (warmup_steps + 1)
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    if settings.lr_scheduler_type == "cosine":
        return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))
    if settings.lr_scheduler_type == "linear":
        return settings.learning_rate * (1.0 - done)
    return settings.learning_rate
