"""Keys and values of texts that are being generated, and the attention that reads them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.model.scoring import Scoring, weigh


class KVCache:
    """Grows as tokens come; one per call of the generator, without gradients.

    A row's tokens fill its slots 0, 1, 2, … in order, whatever padding stood behind its prompt.

    Args:
        windows: sliding window of each layer, None for full attention; empty where layers say their own.
        capacity_tokens: slots to begin with; more are made when needed.
    """

    def __init__(self, windows: Sequence[int | None], capacity_tokens: int = 256) -> None:
        self.window_L = windows
        self.calls = 0
        self.capacity_tokens = capacity_tokens
        self.length_B: Tensor | None = None
        """Tokens held of each row."""
        self._held: dict[int, tuple[Tensor, Tensor]] = {}
        self._slot_BS = torch.empty(0)
        self._used = 0
        self._visible: dict[int | None, Tensor] = {}

    def begin(self, position_BS: Tensor) -> None:
        """Before the layers run: where this call's tokens go."""
        rows, steps = position_BS.shape
        if self.length_B is None:
            self.length_B = position_BS.new_zeros(rows)
        self._slot_BS = self.length_B[:, None] + torch.arange(steps, device=position_BS.device)
        used = int(self._slot_BS.max()) + 1
        while used > self.capacity_tokens:
            self.capacity_tokens *= 2
        self._used = used
        self._visible = {}

    def finish(self, length_B: Tensor) -> None:
        """After the layers ran: how many of the tokens just given were true. The next ones overwrite the others."""
        assert self.length_B is not None
        self.length_B = self.length_B + length_B

    def select(self, index: Tensor) -> None:
        """Keep only these rows, in this order; for rows that are finished."""
        assert self.length_B is not None
        self.length_B = self.length_B[index]
        self._held = {layer: (key[index], value[index]) for layer, (key, value) in self._held.items()}

    def __call__(
        self,
        layer: int,
        query_THd: Tensor,
        key_TKd: Tensor,
        value_TKd: Tensor,
        scoring: Scoring | None = None,
    ) -> Tensor:
        """Store this layer's new keys and values and attend; T is B rows times S steps."""
        self.calls += 1
        rows, steps = self._slot_BS.shape
        all_heads, dim = query_THd.shape[1:]
        heads = key_TKd.shape[1]
        visible_BSm = self._sees(self.window_L[layer] if scoring is None else scoring.window)
        key, value = (held[:, :, : self._used] for held in self._store(layer, key_TKd, value_TKd))
        query = query_THd.view(rows, steps, heads, -1, dim)
        if scoring is not None and scoring.written_out:
            query = query.flatten(2, 3).transpose(1, 2)
            key, value = (x.repeat_interleave(all_heads // heads, dim=1) for x in (key, value))
            output = weigh(query, key, value, visible_BSm[:, None], scoring)
            return output.transpose(1, 2).flatten(0, 1)
        # The query heads of a key-value head lie side by side as rows: nothing is repeated.
        query = query.transpose(1, 2).reshape(rows, heads, -1, dim)
        mask = visible_BSm.repeat_interleave(all_heads // heads, dim=1)[:, None]
        scale = scoring.scale if scoring else None
        output = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
        output = output.view(rows, heads, steps, -1, value.shape[-1]).transpose(1, 2)
        return output.reshape(rows * steps, all_heads, value.shape[-1])

    def _sees(self, window: int | None) -> Tensor:
        """[B, S, m]: which slots each of this call's tokens sees."""
        if window not in self._visible:
            slot = torch.arange(self._used, device=self._slot_BS.device)
            visible_BSm = slot <= self._slot_BS[:, :, None]
            if window is not None:
                visible_BSm &= slot > self._slot_BS[:, :, None] - window
            self._visible[window] = visible_BSm
        return self._visible[window]

    def _store(self, layer: int, key_TKd: Tensor, value_TKd: Tensor) -> tuple[Tensor, Tensor]:
        rows, steps = self._slot_BS.shape
        if layer not in self._held:
            key, value = (
                x_TKd.new_zeros(rows, x_TKd.shape[1], self.capacity_tokens, x_TKd.shape[2])
                for x_TKd in (key_TKd, value_TKd)
            )
            self._held[layer] = key, value
        missing = self.capacity_tokens - self._held[layer][0].shape[2]
        if missing > 0:
            key, value = self._held[layer]
            self._held[layer] = F.pad(key, (0, 0, 0, missing)), F.pad(value, (0, 0, 0, missing))
        row = torch.arange(rows, device=key_TKd.device)[:, None]
        for held, new_TKd in zip(self._held[layer], (key_TKd, value_TKd), strict=True):
            held[row, :, self._slot_BS] = new_TKd.view(rows, steps, *new_TKd.shape[1:])
        return self._held[layer]
