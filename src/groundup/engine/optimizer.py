"""AdamW and the learning rate as a function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from groundup.config.schema import TrainSettings


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW over the trained parameters, float32. Weight decay (arXiv 1711.05101) spares vectors: norms and biases."""
    trained = [p for p in model.parameters() if p.requires_grad]
    assert trained and all(p.dtype == torch.float32 for p in trained)
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        fused=True,
    )


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
