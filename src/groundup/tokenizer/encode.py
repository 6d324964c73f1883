"""Documents to token ids at the speed of the tokenizer itself: reading and writing go on while it works."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Core

from groundup.errors import UserError
from groundup.store.files import fingerprint

BATCH_CHARACTERS = 2**20
BATCH_DOCUMENTS = 2**10
"""A batch ends at either: enough documents for all cores, and few enough to bound memory."""

ENCODERS = 2
"""Batches inside the tokenizer at a time. It spreads each over all cores; a second one fills the cores that the first
one's last documents leave idle."""

UNREACHABLE = -1e5
"""The score of a unigram piece that no text may become: any other way to spell it costs less."""


class Encoder:
    """A tokenizer for documents: what it adds in front stays (its BOS), each ends with EOS, and text is only text.

    Text that looks like a special token, `<|eos|>` or `<s>`, comes out as the letters that it is written with. The
    tokenizer given is left alone: this works on a copy.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Raises UserError where the tokenizer has no end-of-text token."""
        if tokenizer.eos_token_id is None:
            raise UserError("The tokenizer has no end-of-text token.", fix="set its eos_token")
        self.eos: int = tokenizer.eos_token_id
        self.vocab_size: int = max(tokenizer.get_vocab().values()) + 1
        """Every id is smaller; more than the number of tokens where ids have holes."""
        self.dtype = np.dtype("<u2" if self.vocab_size <= 2**16 else "<u4")
        self._core = without_special_text(tokenizer.backend_tokenizer)
        self.fingerprint = fingerprint([self._core.to_str(), self.eos])
        """The same for tokenizers that give the same ids."""

    def batches(self, texts: Iterable[str]) -> Iterator[tuple[list[str], list[np.ndarray]]]:
        """Batches of documents in order, and the ids of each document, of `dtype`.

        The documents behind those that are given out are read and encoded meanwhile, a bounded number of them.
        """
        with ThreadPoolExecutor(ENCODERS, thread_name_prefix="encode") as pool:
            running: deque[tuple[list[str], Any]] = deque()
            try:
                for batch in batches_of(texts):
                    running.append((batch, pool.submit(self._core.encode_batch_fast, batch)))
                    if len(running) > ENCODERS:
                        yield self._finished(*running.popleft())
                while running:
                    yield self._finished(*running.popleft())
            finally:
                for _, future in running:
                    future.cancel()

    def _finished(self, batch: list[str], future: Any) -> tuple[list[str], list[np.ndarray]]:
        return batch, [self._ids(encoding.ids) for encoding in future.result()]

    def _ids(self, ids: list[int]) -> np.ndarray:
        return np.array(ids if ids[-1:] == [self.eos] else [*ids, self.eos], dtype=self.dtype)


class Beginnings:
    """First tokens of texts, which are only text, behind what the tokenizer puts before a text (its BOS)."""

    def __init__(self, tokenizer: Any, tokens: int) -> None:
        self.tokenizer, self.tokens = tokenizer, tokens
        self._core = without_special_text(tokenizer.backend_tokenizer)

    def of(self, text: str) -> tuple[tuple[int, ...], str]:
        """The ids, and what they say without BOS. Fewer of a short text, and where a character would be cut."""
        token = self._core.encode(text).ids
        first = int(token[:1] == [self.tokenizer.bos_token_id])
        token = token[: first + self.tokens]
        while len(token) > first + 1 and self._ends_badly(token):
            token = token[:-1]
        said = self.tokenizer.decode(token[first:], clean_up_tokenization_spaces=False)
        return tuple(token), said

    def _ends_badly(self, token: list[int]) -> bool:
        """With the EOS that some tokenizers add, or in the middle of a character."""
        said = self.tokenizer.decode(token)
        return token[-1] == self.tokenizer.eos_token_id or said.endswith("\N{REPLACEMENT CHARACTER}")


def batches_of(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts in order, in lists of at most `BATCH_DOCUMENTS`, and few more characters than `BATCH_CHARACTERS`."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= BATCH_CHARACTERS or len(batch) == BATCH_DOCUMENTS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def without_special_text(core: Core) -> Core:
    """A copy that makes a special token of no text, neither by looking for its name nor by the model's own rules.

    Tokenizers that come from SentencePiece have their special tokens among the model's pieces, so `<s>` in a text could
    be put together from its letters even where nobody looks for it.
    """
    described = json.loads(core.to_str())
    special = {token["content"] for token in described["added_tokens"] if token["special"]}
    described["truncation"] = described["padding"] = None
    model = described["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [
            [piece, UNREACHABLE if piece in special else score] for piece, score in model["vocab"]
        ]
    if model["type"] == "BPE":
        model["merges"] = [pair for pair in model["merges"] if _joined(pair) not in special]
    copy = Core.from_str(json.dumps(described, ensure_ascii=False))
    copy.encode_special_tokens = True
    return copy


def _joined(pair: str | list[str]) -> str:
    """What a merge makes; older files write it as one string with a space."""
    return "".join(pair.split(" ") if isinstance(pair, str) else pair)
