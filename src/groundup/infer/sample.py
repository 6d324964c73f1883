"""One next token from a row of logits: the likeliest, or drawn after temperature, top-k and top-p."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from groundup.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 keep the whole vocabulary."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise UserError(f"temperature is {self.temperature}", fix="use 0 (greedy) or a positive number")
        if self.top_k < 0:
            raise UserError(f"top_k is {self.top_k}", fix="use 0 (no limit) or a positive number of tokens")
        if not 0.0 < self.top_p <= 1.0:
            raise UserError(f"top_p is {self.top_p}", fix="use a number above 0, at most 1 (1: no limit)")


def row_random(seed: int, row: int) -> Random:
    """The randomness of one row: a function of the two numbers alone, the same on every device.

    Hence a row's draws do not depend on what else is in its batch, and no generator needs to be saved.
    """
    return Random(f"groundup/generate/{seed}/{row}")


def pick(logits_BV: Tensor, sampling: Sampling, random_B: list[Random]) -> tuple[Tensor, Tensor]:
    """Chosen token of each row, int64 [B], and its log-probability, float32 [B].

    The log-probability is the model's own: temperature 1, whole vocabulary, whatever was used to draw. It is
    what a policy-gradient objective calls `old_logp`.

    Raises UserError where a row's logits are not finite numbers.
    """
    logits_BV = logits_BV.float()
    lse_B = torch.logsumexp(logits_BV, dim=-1)
    if not bool(torch.isfinite(lse_B).all()):
        raise UserError(
            "the model's output holds numbers that are not finite",
            why="its weights are damaged, its training diverged, or its dtype overflows",
            fix="try float32, or an earlier checkpoint",
        )
    if sampling.temperature == 0.0:
        token_B = logits_BV.argmax(dim=-1)
    else:
        draw_B = torch.tensor([random.random() for random in random_B], dtype=torch.float64)
        token_B = _draw(logits_BV, sampling, draw_B.to(logits_BV.device))
    logp_B = logits_BV.gather(-1, token_B[:, None])[:, 0] - lse_B
    return token_B, logp_B


def _draw(logits_BV: Tensor, sampling: Sampling, draw_B: Tensor) -> Tensor:
    """The token at which the cumulative probability passes `draw_B`, uniform in [0, 1)."""
    probability_BK, token_BK = kept(logits_BV, sampling)
    cumulative_BK = probability_BK.double().cumsum(dim=-1)
    threshold_B1 = draw_B[:, None] * cumulative_BK[:, -1:]
    # The first place *above* the threshold: a token of probability zero never is.
    place_B1 = torch.searchsorted(cumulative_BK, threshold_B1, right=True)
    place_B1 = place_B1.clamp(max=cumulative_BK.shape[-1] - 1)
    return place_B1[:, 0] if token_BK is None else token_BK.gather(-1, place_B1)[:, 0]


def kept(logits_BV: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor | None]:
    """Weights of the tokens that may be drawn, [B, K], and their ids [B, K] (None: K is the vocabulary in order).

    In Hugging Face's order: temperature, the `top_k` likeliest, then of these the fewest likeliest whose share
    reaches `top_p` (nucleus sampling, arXiv 1904.09751). Tokens outside weigh zero; weights need not sum to one.
    """
    # Subtracting the largest first keeps a small temperature from overflowing.
    scaled_BV = (logits_BV - logits_BV.amax(dim=-1, keepdim=True)) / sampling.temperature
    if sampling.top_k == 0 and sampling.top_p == 1.0:
        return scaled_BV.softmax(dim=-1), None
    if 0 < sampling.top_k < scaled_BV.shape[-1]:
        scaled_BK, token_BK = scaled_BV.topk(sampling.top_k, dim=-1)
    else:
        scaled_BK, token_BK = scaled_BV.sort(dim=-1, descending=True, stable=True)
    probability_BK = scaled_BK.softmax(dim=-1)
    before_BK = probability_BK.double().cumsum(dim=-1) - probability_BK
    return probability_BK.masked_fill(before_BK >= sampling.top_p, 0.0), token_BK
