"""Keys and values of texts that are being generated, and the attention that reads them.

Texts are samples of prompts. A prompt's keys and values are held once and read by all of its samples; each text holds
only those of its own tokens, of which all texts have equally many. Nothing is copied for a sample.

Shape letters: n prompts, g places for samples of each, B texts being decoded, P prompt tokens, m own tokens,
K key-value heads, r query heads of each, d.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.model.attention import ForestAttention
from groundup.model.scoring import Scoring
from groundup.model.tiles import KEY_MULTIPLE

FIRST_CAPACITY = 2 * KEY_MULTIPLE
SHRINK_BELOW = 0.75
"""Texts that ended leave their places empty until so small a share of the places would do; then the rest moves up."""


class PromptCache:
    """Attention for the step of every text at once; one per call of the generator, without gradients.

    Args:
        windows: sliding window of each layer, None for full attention; empty where layers say their own.
        prompt_tokens: lengths of the prompts.
        samples: how many texts continue each prompt, at least one.
    """

    def __init__(
        self,
        windows: Sequence[int | None],
        prompt_tokens: Sequence[int],
        samples: Sequence[int],
        device: torch.device,
    ) -> None:
        self.calls = 0
        self.own_tokens = 0
        """Tokens that every text has behind its prompt."""
        self._scoring_L = [Scoring(window=window) for window in windows]
        self._length_n = torch.tensor(prompt_tokens, device=device)
        self._group_B = [group for group, count in enumerate(samples) for _ in range(count)]
        self._slot_B = [slot for count in samples for slot in range(count)]
        self._shape = (len(samples), max(samples))
        self._longest = _rounded(max(prompt_tokens))
        self._prompt: dict[int, tuple[Tensor, Tensor]] = {}
        """[n, K, P, d] a layer, zeros behind shorter prompts."""
        self._own: dict[int, tuple[Tensor, Tensor]] = {}
        """Keys [n, K, g, d, capacity], as their product wants them, and values [n, K, g, capacity, d] a layer."""
        self._capacity = FIRST_CAPACITY
        self._bias: dict[tuple[int | None, int], tuple[Tensor, Tensor]] = {}
        self._place()

    def filling(self, forest: ForestAttention, first: int) -> Filling:
        """Attention over a row of whole prompts, from number `first` on, that keeps their keys and values here."""
        return Filling(self, forest, first)

    def begin(self) -> Tensor:
        """Before the layers run: every text's next position, int64 [B]."""
        self._bias = {}
        if self.own_tokens == self._capacity:
            self._capacity *= 2
            more = self._capacity - self.own_tokens
            for layer, (key, value) in self._own.items():
                self._own[layer] = F.pad(key, (0, more)), F.pad(value, (0, 0, 0, more))
        return self._prompt_B + self.own_tokens

    def finish(self) -> None:
        """After the layers ran: the tokens just given are part of the texts."""
        self.own_tokens += 1

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these of the B texts only, in this order."""
        self._group_B = [self._group_B[row] for row in rows]
        self._slot_B = [self._slot_B[row] for row in rows]
        groups = sorted(set(self._group_B))
        most = max(Counter(self._group_B).values())
        if len(groups) * most <= SHRINK_BELOW * math.prod(self._shape):
            self._move(groups, most)
        self._place()

    def _move(self, groups: list[int], most: int) -> None:
        """Fewer places: the texts that go on lie side by side again."""
        slots: list[list[int]] = [[] for _ in groups]
        for row, (group, slot) in enumerate(zip(self._group_B, self._slot_B, strict=True)):
            self._group_B[row] = groups.index(group)
            self._slot_B[row] = len(slots[self._group_B[row]])
            slots[self._group_B[row]].append(slot)
        index_n = torch.tensor(groups, device=self._length_n.device)
        # An empty place repeats a text: what is computed there is finite, and nobody reads it.
        slot_ng = torch.tensor(
            [each + each[:1] * (most - len(each)) for each in slots], device=index_n.device
        )
        for layer, held in self._own.items():
            key, value = (
                x.transpose(1, 2)[index_n[:, None], slot_ng].transpose(1, 2).contiguous() for x in held
            )
            self._own[layer] = key, value
        if len(groups) < self._shape[0]:
            self._prompt = {layer: (k[index_n], v[index_n]) for layer, (k, v) in self._prompt.items()}
            self._length_n = self._length_n[index_n]
        self._shape = (len(groups), most)

    def _place(self) -> None:
        """Which of the n * g places each text has; None where text number i has place i and none is empty."""
        places = [
            group * self._shape[1] + slot for group, slot in zip(self._group_B, self._slot_B, strict=True)
        ]
        device = self._length_n.device
        whole = places == list(range(math.prod(self._shape)))
        self._place_B = None if whole else torch.tensor(places, device=device)
        self._prompt_B = self._length_n[torch.tensor(self._group_B, device=device)]

    def hold(
        self, layer: int, key_TKd: Tensor, value_TKd: Tensor, first: int, spans: Sequence[slice]
    ) -> None:
        """Keys and values of prompts number `first` and on, which lie at `spans` of a row."""
        if layer not in self._prompt:
            key, value = (
                x.new_zeros(self._shape[0], x.shape[1], self._longest, x.shape[2])
                for x in (key_TKd, value_TKd)
            )
            self._prompt[layer] = key, value
        for held, new_TKd in zip(self._prompt[layer], (key_TKd, value_TKd), strict=True):
            for prompt, span in enumerate(spans, first):
                held[prompt, :, : span.stop - span.start] = new_TKd[span].transpose(0, 1)

    def __call__(
        self,
        layer: int,
        query_THd: Tensor,
        key_TKd: Tensor,
        value_TKd: Tensor,
        scoring: Scoring | None = None,
    ) -> Tensor:
        """Store this layer's new keys and values and attend; T is one token of each of B texts."""
        self.calls += 1
        scoring = scoring or self._scoring_L[layer]
        groups, slots = self._shape
        heads, dim = key_TKd.shape[1:]
        query = self._spread(query_THd).view(groups, slots, heads, -1, dim).transpose(1, 2).contiguous()
        each = query.view(groups * heads * slots, -1, dim)
        together = query.view(groups * heads, -1, dim)
        key_P, value_P = (x.flatten(0, 1) for x in self._prompt[layer])
        turned_key_m, value_m = self._store(layer, key_TKd, value_TKd)
        weight = self._weights(scoring, together, each, key_P, turned_key_m)
        prompt_weight, own_weight = weight.split((key_P.shape[1], value_m.shape[1]), -1)
        output = torch.bmm(prompt_weight.unflatten(0, together.shape[:2]), value_P)
        output = output.view(len(each), each.shape[1], -1)
        output = torch.baddbmm(output, own_weight.unflatten(0, each.shape[:2]), value_m)
        output = output.view(groups, heads, slots, -1, output.shape[-1]).transpose(1, 2)
        output = output.reshape(groups * slots, query_THd.shape[1], -1)
        return output if self._place_B is None else output.index_select(0, self._place_B)

    def _weights(
        self, scoring: Scoring, together: Tensor, each: Tensor, key_P: Tensor, turned_key_m: Tensor
    ) -> Tensor:
        """[n * K * g * r, P + m]: how much each query takes of the prompt's tokens and of its text's own."""
        scale = each.shape[-1] ** -0.5 if scoring.scale is None else scoring.scale
        bias_P, bias_m = self._biases(scoring.window, len(key_P) // self._shape[0], each.dtype)
        if not scoring.written_out:
            prompt = torch.baddbmm(bias_P, together, key_P.mT, alpha=scale).flatten(0, 1)
            own = torch.baddbmm(bias_m, each, turned_key_m, alpha=scale).flatten(0, 1)
            return torch.cat((prompt, own), -1).softmax(-1)
        prompt, own = (
            torch.bmm(together, key_P.mT).flatten(0, 1),
            torch.bmm(each, turned_key_m).flatten(0, 1),
        )
        score = torch.cat((prompt, own), -1).float() * scale
        if scoring.softcap is not None:
            score = scoring.softcap * torch.tanh(score / scoring.softcap)
        prompt, own = score.split((key_P.shape[1], own.shape[-1]), -1)
        prompt.unflatten(0, together.shape[:2]).add_(bias_P)
        own.unflatten(0, each.shape[:2]).add_(bias_m)
        if scoring.sinks_H is None:
            return score.softmax(-1).to(each.dtype)
        sinks = scoring.sinks_H.to(score.dtype).view(-1, 1, each.shape[1])  # [K, 1, r]
        sinks = sinks.expand(self._shape[0], -1, self._shape[1], -1).reshape(-1, 1)
        return torch.cat((score, sinks), -1).softmax(-1)[:, :-1].to(each.dtype)

    def _biases(self, window: int | None, heads: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """[n * K, 1, P] and [1, 1, m]: minus infinity where no token is, or one that the window has left behind."""
        if (window, heads) not in self._bias:
            device, now = self._length_n.device, self.own_tokens
            place_P = torch.arange(self._longest, device=device)
            place_m = torch.arange(_rounded(now + 1), device=device)
            seen_nP, seen_m = place_P < self._length_n[:, None], place_m <= now
            if window is not None:
                seen_nP &= place_P > self._length_n[:, None] + (now - window)
                seen_m &= place_m > now - window
            bias_P, bias_m = (
                torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, -math.inf)
                for seen in (seen_nP, seen_m)
            )
            self._bias[window, heads] = bias_P.repeat_interleave(heads, 0)[:, None], bias_m[None, None]
        return self._bias[window, heads]

    def _store(self, layer: int, key_TKd: Tensor, value_TKd: Tensor) -> tuple[Tensor, Tensor]:
        """The texts' own keys [n * K * g, d, m] and values [n * K * g, m, d] so far."""
        new_key, new_value = (
            self._spread(x).unflatten(0, self._shape).transpose(1, 2) for x in (key_TKd, value_TKd)
        )
        if layer not in self._own:
            key = new_key.new_zeros(*new_key.shape, self._capacity)
            value = new_value.new_zeros(*new_value.shape[:3], self._capacity, new_value.shape[-1])
            self._own[layer] = key, value
        key, value = self._own[layer]
        key[..., self.own_tokens] = new_key
        value[:, :, :, self.own_tokens] = new_value
        used = _rounded(self.own_tokens + 1)
        return key.flatten(0, 2)[:, :, :used], value.flatten(0, 2)[:, :used]

    def _spread(self, x_Bhd: Tensor) -> Tensor:
        """[n * g, h, d]: texts at their places, zeros at empty ones."""
        if self._place_B is None:
            return x_Bhd
        return x_Bhd.new_zeros(math.prod(self._shape), *x_Bhd.shape[1:]).index_copy_(0, self._place_B, x_Bhd)


class Filling:
    """What `PromptCache.filling` gives."""

    def __init__(self, cache: PromptCache, forest: ForestAttention, first: int) -> None:
        self.cache, self.forest, self.first = cache, forest, first
        self.spans = [slice(chain.start, chain.stop) for chain in forest.chains]

    @property
    def calls(self) -> int:
        return self.forest.calls

    @calls.setter
    def calls(self, calls: int) -> None:
        self.forest.calls = calls

    def __call__(
        self,
        layer: int,
        query_THd: Tensor,
        key_TKd: Tensor,
        value_TKd: Tensor,
        scoring: Scoring | None = None,
    ) -> Tensor:
        self.cache.hold(layer, key_TKd, value_TKd, self.first, self.spans)
        return self.forest(layer, query_THd, key_TKd, value_TKd, scoring)


def _rounded(tokens: int) -> int:
    """Up to a multiple that products and softmax like; there is few shapes of them then, too."""
    return -(-tokens // KEY_MULTIPLE) * KEY_MULTIPLE
