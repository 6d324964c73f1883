"""Keys and values of texts that are being generated, and the attention that reads them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


class KVCache:
    """Grows as tokens come; one per call of the generator, without gradients.

    A row's tokens fill its slots 0, 1, 2, … in order, whatever padding stood behind its prompt.

    Args:
        windows: sliding window of each layer, None for full attention.
        capacity_tokens: slots to begin with; more are made when needed.
    """

    def __init__(self, windows: Sequence[int | None], capacity_tokens: int = 256) -> None:
        self.window_L = windows
        self.capacity_tokens = capacity_tokens
        self.length_B: Tensor | None = None
        """Tokens held of each row."""
        self._held: list[tuple[Tensor, Tensor]] = []
        self._slot_BS = torch.empty(0)
        self._visible: dict[int | None, Tensor] = {}

    def begin(self, position_BS: Tensor) -> None:
        """Before the layers run: where this call's tokens go, and what each of them sees."""
        rows, steps = position_BS.shape
        if self.length_B is None:
            self.length_B = position_BS.new_zeros(rows)
        self._slot_BS = self.length_B[:, None] + torch.arange(steps, device=position_BS.device)
        used = int(self._slot_BS.max()) + 1
        while used > self.capacity_tokens:
            self.capacity_tokens *= 2
        slot = torch.arange(used, device=position_BS.device)
        for window in set(self.window_L):
            visible_BSm = slot <= self._slot_BS[:, :, None]
            if window is not None:
                visible_BSm &= slot > self._slot_BS[:, :, None] - window
            self._visible[window] = visible_BSm

    def finish(self, length_B: Tensor) -> None:
        """After the layers ran: how many of the tokens just given were true. The next ones overwrite the others."""
        assert self.length_B is not None
        self.length_B = self.length_B + length_B

    def select(self, index: Tensor) -> None:
        """Keep only these rows, in this order; for rows that are finished."""
        assert self.length_B is not None
        self.length_B = self.length_B[index]
        self._held = [(key[index], value[index]) for key, value in self._held]

    def __call__(self, layer: int, query_THd: Tensor, key_TKd: Tensor, value_TKd: Tensor) -> Tensor:
        """Store this layer's new keys and values and attend; T is B rows times S steps."""
        rows, steps = self._slot_BS.shape
        all_heads, dim = query_THd.shape[1:]
        heads = key_TKd.shape[1]
        visible_BSm = self._visible[self.window_L[layer]]
        key, value = self._store(layer, key_TKd, value_TKd)
        used = visible_BSm.shape[-1]
        # The query heads of a key-value head lie side by side as rows: nothing is repeated.
        query = query_THd.view(rows, steps, heads, -1, dim).transpose(1, 2).reshape(rows, heads, -1, dim)
        mask = visible_BSm.repeat_interleave(all_heads // heads, dim=1)[:, None]
        output = F.scaled_dot_product_attention(query, key[:, :, :used], value[:, :, :used], attn_mask=mask)
        return output.view(rows, heads, steps, -1, dim).transpose(1, 2).reshape(rows * steps, all_heads, dim)

    def _store(self, layer: int, key_TKd: Tensor, value_TKd: Tensor) -> tuple[Tensor, Tensor]:
        rows, steps = self._slot_BS.shape
        heads, dim = key_TKd.shape[1:]
        if layer == len(self._held):
            empty = key_TKd.new_zeros(rows, heads, self.capacity_tokens, dim)
            self._held.append((empty, empty.clone()))
        missing = self.capacity_tokens - self._held[layer][0].shape[2]
        if missing > 0:
            key, value = self._held[layer]
            self._held[layer] = F.pad(key, (0, 0, 0, missing)), F.pad(value, (0, 0, 0, missing))
        row = torch.arange(rows, device=key_TKd.device)[:, None]
        for held, new_TKd in zip(self._held[layer], (key_TKd, value_TKd), strict=True):
            held[row, :, self._slot_BS] = new_TKd.view(rows, steps, heads, dim)
        return self._held[layer]
