"""A scalar head: one number for the text up to a place, as reward models and value functions have it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Score(nn.Module):
    """`score` of Hugging Face's sequence classifiers with one label: weight [1, D] without a bias, in float32."""

    def __init__(self, hidden_size: int, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, hidden_size, dtype=torch.float32, device=device))

    def forward(self, hidden_ND: Tensor) -> Tensor:
        """Float32 [N]."""
        return F.linear(hidden_ND.to(self.weight.dtype), self.weight)[:, 0]

    @torch.no_grad()
    def initialize(self, deviation: float, seed: int) -> Score:
        """Drawn as transformers draws it: normal, with the config's `initializer_range` as deviation."""
        generator = torch.Generator().manual_seed(seed)
        self.weight.copy_(torch.randn(self.weight.shape, generator=generator) * deviation)
        return self
