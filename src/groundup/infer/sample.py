"""One next token for each row of logits: the likeliest, or drawn after temperature, top-k, top-p and min-p."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.errors import UserError

NUCLEUS_FIRST = 128
"""The likeliest tokens, looked at before the whole vocabulary is sorted for top-p: mostly they are enough."""

BLOCK = 128
"""Neighbouring tokens whose weights are summed first when one is drawn."""

BELOW_ONE = 1.0 - 2.0**-52
"""A draw stays under it, so that none falls behind the last token that has a weight."""


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen. `temperature` 0 is greedy; the other defaults keep the whole vocabulary."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise UserError(f"temperature is {self.temperature}", fix="use 0 (greedy) or a positive number")
        if self.top_k < 0:
            raise UserError(f"top_k is {self.top_k}", fix="use 0 (no limit) or a positive number of tokens")
        if not 0.0 < self.top_p <= 1.0:
            raise UserError(f"top_p is {self.top_p}", fix="use a number above 0, at most 1 (1: no limit)")
        if not 0.0 <= self.min_p < 1.0:
            raise UserError(f"min_p is {self.min_p}", fix="use 0 (no limit) or a number below 1")


PLAIN = Sampling(temperature=1.0)
"""Draws from the model's own distribution."""


def row_random(seed: int, row: int) -> Random:
    """The randomness of one row: a function of the two numbers alone, the same on every device.

    Hence a row's draws do not depend on what else is in its batch, and no generator needs to be saved.
    """
    return Random(f"groundup/generate/{seed}/{row}")


def pick(
    logits_BV: Tensor, sampling: Sampling | Sequence[Sampling], random_B: Sequence[Random]
) -> tuple[Tensor, Tensor]:
    """Chosen token of each row, int64 [B], and its log-probability, float32 [B].

    The log-probability is the model's own: temperature 1, whole vocabulary, whatever was used to draw. It is
    what a policy-gradient objective calls `old_logp`.

    sampling: for all rows, or one a row. Raises UserError where a row's logits are not finite numbers.
    """
    logits_BV = logits_BV.float()
    share_BV = logits_BV.softmax(dim=-1)
    top_B = logits_BV.amax(dim=-1)
    lse_B = top_B - share_BV.amax(dim=-1).log_()  # the softmax has summed already
    if not bool(torch.isfinite(lse_B).all()):
        raise UserError(
            "the model's output holds numbers that are not finite",
            why="its weights are damaged, its training diverged, or its dtype overflows",
            fix="try float32, or an earlier checkpoint",
        )
    sampling_B = [sampling] * len(logits_BV) if isinstance(sampling, Sampling) else list(sampling)
    drawn = [row for row, how in enumerate(sampling_B) if how.temperature > 0]
    if all(how == PLAIN for how in sampling_B):
        token_B = _draw(share_BV, random_B)
    elif len(drawn) == len(sampling_B):
        token_B = _draw(kept(logits_BV, sampling_B), random_B)
    else:
        token_B = logits_BV.argmax(dim=-1)
        if drawn:
            index = torch.tensor(drawn, device=logits_BV.device)
            some = [sampling_B[row] for row in drawn]
            token_B[index] = _draw(kept(logits_BV[index], some), [random_B[row] for row in drawn])
    return token_B, logits_BV.gather(-1, token_B[:, None])[:, 0] - lse_B


def _draw(weight_BV: Tensor, random_B: Sequence[Random]) -> Tensor:
    """The token at which the cumulative weight passes a share, uniform in [0, 1), of the whole.

    In the vocabulary's order, and in two steps: the block of tokens at which it passes, then the token inside it. The
    first token *above* is taken, and only a weight over zero lifts the sum above what it was before.
    """
    draw_B = torch.tensor([random.random() for random in random_B], dtype=torch.float64)
    draw_B1 = draw_B.to(weight_BV.device)[:, None]
    over = -weight_BV.shape[-1] % BLOCK
    weight_BCc = (F.pad(weight_BV, (0, over)) if over else weight_BV).unflatten(-1, (-1, BLOCK))
    block_BC = weight_BCc.sum(dim=-1).double()
    place_B1, inside_B1 = _passed(block_BC, draw_B1)
    index_B1c = place_B1[:, :, None].expand(-1, -1, BLOCK)
    token_B1, _ = _passed(weight_BCc.gather(1, index_B1c)[:, 0].double(), inside_B1)
    return (place_B1 * BLOCK + token_B1)[:, 0]


def _passed(weight_BN: Tensor, share_B1: Tensor) -> tuple[Tensor, Tensor]:
    """Where the cumulative weight passes the share of the whole, and which share of that very weight is passed, < 1."""
    cumulative_BN = weight_BN.cumsum(dim=-1)
    threshold_B1 = share_B1 * cumulative_BN[:, -1:]
    place_B1 = torch.searchsorted(cumulative_BN, threshold_B1, right=True).clamp_(max=weight_BN.shape[-1] - 1)
    here_B1 = weight_BN.gather(1, place_B1)
    before_B1 = cumulative_BN.gather(1, place_B1) - here_B1
    return place_B1, ((threshold_B1 - before_B1) / here_B1).clamp_(0.0, BELOW_ONE)


def kept(logits_BV: Tensor, sampling: Sampling | Sequence[Sampling]) -> Tensor:
    """Weights [B, V], zero for tokens that must not be drawn; they need not sum to one.

    In Hugging Face's order: temperature, the `top_k` likeliest, of these the fewest likeliest whose share reaches
    `top_p` (nucleus sampling, arXiv 1904.09751), and those at least `min_p` times as likely as the likeliest (arXiv
    2407.01082). Each is a limit on the logit, so tokens of one logit stay or go together.
    """
    sampling_B = [sampling] * len(logits_BV) if isinstance(sampling, Sampling) else sampling
    column = logits_BV.new_tensor
    temperature_B1 = column([how.temperature for how in sampling_B])[:, None]
    # Subtracting the largest first keeps a small temperature from overflowing.
    scaled_BV = (logits_BV - logits_BV.amax(dim=-1, keepdim=True)).div_(temperature_B1)
    if any(how.top_k for how in sampling_B):
        _drop_below(_top_k(scaled_BV, [how.top_k for how in sampling_B]), scaled_BV)
    if any(how.top_p < 1.0 for how in sampling_B):
        _drop_below(_top_p(scaled_BV, [how.top_p for how in sampling_B]), scaled_BV)
    if any(how.min_p for how in sampling_B):
        least = [math.log(how.min_p) if how.min_p else -math.inf for how in sampling_B]
        _drop_below(column(least), scaled_BV)
    return scaled_BV.exp_()


def _drop_below(least_B: Tensor, scaled_BV: Tensor) -> None:
    scaled_BV.masked_fill_(scaled_BV < least_B[:, None], -math.inf)


def _top_k(scaled_BV: Tensor, top_k: Sequence[int]) -> Tensor:
    """The k-th largest of each row, [B]; minus infinity where k is 0 or all."""
    last = [k - 1 if 0 < k < scaled_BV.shape[-1] else -1 for k in top_k]
    if max(last) < 0:
        return scaled_BV.new_full((len(last),), -math.inf)
    index_B = torch.tensor(last, device=scaled_BV.device)
    found_B = scaled_BV.topk(max(last) + 1).values.gather(-1, index_B.clamp(min=0)[:, None])[:, 0]
    return found_B.masked_fill_(index_B < 0, -math.inf)


def _top_p(scaled_BV: Tensor, top_p: Sequence[float]) -> Tensor:
    """The smallest of each row that its nucleus holds, [B]; minus infinity where p is 1."""
    least_B = scaled_BV.new_full((len(top_p),), -math.inf)
    limit_B = scaled_BV.new_tensor(top_p)
    total_B = scaled_BV.exp().sum(-1, dtype=torch.float64)
    waiting, looked_at = [row for row, p in enumerate(top_p) if p < 1.0], NUCLEUS_FIRST
    while waiting:
        looked_at = min(looked_at, scaled_BV.shape[-1])
        index_R = torch.tensor(waiting, device=scaled_BV.device)
        top_RK = scaled_BV[index_R].topk(looked_at).values
        weight_RK = top_RK.double().exp()
        before_RK = (weight_RK.cumsum(-1) - weight_RK) / total_B[index_R, None]
        # In float32: a share that is the limit but for its last bits is the limit.
        inside_R = (before_RK.to(limit_B.dtype) < limit_B[index_R, None]).sum(-1).clamp_(min=1)
        least_B[index_R] = top_RK.gather(-1, inside_R[:, None] - 1)[:, 0]
        # Where all that was looked at is inside, more may be.
        more = (inside_R == looked_at).tolist() if looked_at < scaled_BV.shape[-1] else [False] * len(waiting)
        waiting = [row for row, again in zip(waiting, more, strict=True) if again]
        looked_at *= 16
    return least_B
