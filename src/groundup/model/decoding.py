"""Texts while they are being continued: each prompt is read once, then one token of every text at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from groundup.batch import Batch, text_row
from groundup.model.attention import ForestAttention
from groundup.model.cache import Filling, PromptCache
from groundup.model.interface import Attend

ROW_TOKENS = 4096
"""Prompts go through the model in rows of about so many tokens."""


class Decoding(Protocol):
    """Texts being continued; without gradients."""

    logits_BV: Tensor
    """Float32 [B, V]: what each text says of its next token."""

    def step(self, token_B: Tensor) -> None:
        """Give every text its next token, int64 [B]."""

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these texts only, in this order; before `step`, whose B it sets."""


class CachedDecoding:
    """With keys and values kept.

    Args:
        prompts: token ids, none empty.
        samples: how many texts continue each prompt.
        read: hidden states [n, D] of a row's reads, by the attention given.
        step: logits float32 [B, V] of one token of every text, from tokens [B], positions [B] and an attention.
        logits: float32 [n, V] of hidden states.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        samples: Sequence[int],
        windows: Sequence[int | None],
        device: torch.device,
        *,
        read: Callable[[Batch, Filling], Tensor],
        step: Callable[[Tensor, Tensor, Attend], Tensor],
        logits: Callable[[Tensor], Tensor],
    ) -> None:
        self._step = step
        self._cache = PromptCache(windows, [len(prompt) for prompt in prompts], samples, device)
        found = []
        for first, texts in _rows(prompts):
            row = text_row(texts).to(device)
            found.append(logits(read(row, self._cache.filling(ForestAttention(row, windows), first))))
        self.logits_BV = torch.cat(found).repeat_interleave(torch.tensor(samples, device=device), 0)

    @torch.no_grad()
    def step(self, token_B: Tensor) -> None:
        position_B = self._cache.begin()
        self.logits_BV = self._step(token_B, position_B, self._cache)
        self._cache.finish()

    def keep(self, rows: Sequence[int]) -> None:
        self._cache.keep(rows)


class TextDecoding:
    """The texts themselves, for models whose every token is computed from the whole text.

    Args:
        logits: float32 [V] behind a text's last token.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        samples: Sequence[int],
        device: torch.device,
        logits: Callable[[Tensor], Tensor],
    ) -> None:
        self._logits = logits
        texts = [torch.as_tensor(prompt, device=device) for prompt in prompts]
        counts = torch.tensor(samples, device=device)
        self._texts = [text for text, count in zip(texts, samples, strict=True) for _ in range(count)]
        self.logits_BV = torch.stack([logits(text) for text in texts]).repeat_interleave(counts, 0)

    @torch.no_grad()
    def step(self, token_B: Tensor) -> None:
        self._texts = [torch.cat(pair) for pair in zip(self._texts, token_B[:, None], strict=True)]
        self.logits_BV = torch.stack([self._logits(text) for text in self._texts])

    def keep(self, rows: Sequence[int]) -> None:
        self._texts = [self._texts[row] for row in rows]


def _rows(prompts: Sequence[Sequence[int]]) -> Iterator[tuple[int, Sequence[Sequence[int]]]]:
    """Neighbouring prompts that go through the model together, and the first one's number."""
    first = tokens = 0
    for number, prompt in enumerate(prompts):
        if number > first and tokens + len(prompt) > ROW_TOKENS:
            yield first, prompts[first:number]
            first, tokens = number, 0
        tokens += len(prompt)
    yield first, prompts[first:]
