"""Token shards: tokenized documents on disk, read through memory maps.

A folder holds `shards.json`, and of each shard `shard-00000.bin`, the token ids of whole documents one after the other,
and `shard-00000.npy`, int64 [documents, 2]: where each document ends in the shard, and how many bytes of UTF-8 it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from groundup.errors import UserError
from groundup.store.files import hash_file, publish_folder, read_json, write_json

TOKENS_PER_SHARD = 2**26
DOCUMENTS_AT_ONCE = 256
INDEX_FILE = "shards.json"


@dataclass(frozen=True)
class Shard:
    """What `shards.json` says of one shard."""

    name: str
    documents: int
    tokens: int
    bin_xxh3: str
    npy_xxh3: str


def write_shards(
    folder: Path,
    texts: Iterable[str],
    tokenizer: Any,
    *,
    tokens_per_shard: int = TOKENS_PER_SHARD,
    on_documents: Callable[[int], None] = lambda count: None,
) -> dict[str, int]:
    """Tokenize documents into a new folder; returns its numbers of documents, tokens and bytes.

    Each begins with what the tokenizer adds (its BOS, if it has one) and ends with EOS. Text that looks like a special
    token stays text. The folder is whole or absent. on_documents: told how many more are done.
    """
    eos = tokenizer.eos_token_id
    if eos is None:
        raise UserError("The tokenizer has no end-of-text token.", fix="set its eos_token")
    dtype = np.dtype("<u2") if len(tokenizer) <= 2**16 else np.dtype("<u4")
    totals = {"documents": 0, "tokens": 0, "bytes": 0}

    def write(part: Path) -> None:
        shards: list[Shard] = []
        for tokens, sizes in _filled_shards(texts, tokenizer, eos, dtype, tokens_per_shard, on_documents):
            shards.append(_write_shard(part, f"shard-{len(shards):05d}", tokens, sizes))
            totals["documents"] += len(tokens)
            totals["tokens"] += shards[-1].tokens
            totals["bytes"] += sum(sizes)
        described = {"dtype": dtype.str, "vocab_size": len(tokenizer), "eos_token_id": eos, **totals}
        write_json(part / INDEX_FILE, described | {"shards": [asdict(shard) for shard in shards]})

    publish_folder(folder, write)
    return totals


def _filled_shards(
    texts: Iterable[str],
    tokenizer: Any,
    eos: int,
    dtype: np.dtype[Any],
    tokens_per_shard: int,
    on_documents: Callable[[int], None],
) -> Iterator[tuple[list[np.ndarray], list[int]]]:
    """Tokens of each document, and bytes of each, gathered until a shard is full."""
    core = tokenizer.backend_tokenizer
    texts, held, sizes, count = iter(texts), [], [], 0
    while batch := list(islice(texts, DOCUMENTS_AT_ONCE)):
        with _special_tokens_as_text(core):
            encodings = core.encode_batch_fast(batch)
        for text, encoding in zip(batch, encodings, strict=True):
            ids = encoding.ids if encoding.ids[-1:] == [eos] else [*encoding.ids, eos]
            held.append(np.array(ids, dtype=dtype))
            sizes.append(len(text.encode("utf-8")))
            count += len(ids)
            if count >= tokens_per_shard:
                yield held, sizes
                held, sizes, count = [], [], 0
        on_documents(len(batch))
    if held:
        yield held, sizes


@contextmanager
def _special_tokens_as_text(core: Any) -> Iterator[None]:
    before = core.encode_special_tokens
    core.encode_special_tokens = True
    core.no_truncation()
    core.no_padding()
    try:
        yield
    finally:
        core.encode_special_tokens = before


def _write_shard(folder: Path, name: str, tokens: list[np.ndarray], sizes: list[int]) -> Shard:
    binary, index = folder / f"{name}.bin", folder / f"{name}.npy"
    joined = np.concatenate(tokens)
    joined.tofile(binary)
    ends = np.cumsum([len(ids) for ids in tokens])
    np.save(index, np.stack([ends, np.array(sizes)], axis=1).astype("<i8"))
    return Shard(name, len(tokens), len(joined), hash_file(binary), hash_file(index))


class TokenShards:
    """The documents of a folder that `write_shards` made, by number."""

    def __init__(self, folder: Path) -> None:
        """Opens without reading tokens. UserError where a file is missing or has another size than it should."""
        self.folder = folder
        described = read_json(folder / INDEX_FILE)
        self.total_tokens: int = described["tokens"]
        self.vocab_size: int = described["vocab_size"]
        self.eos_token_id: int = described["eos_token_id"]
        self._dtype = np.dtype(described["dtype"])
        self._shards = [Shard(**shard) for shard in described["shards"]]
        indices = [self._index(shard) for shard in self._shards]
        self._maps = [self._map(shard) for shard in self._shards]
        joined = np.concatenate([np.empty((0, 2), np.int64), *indices])
        self.byte_counts = joined[:, 1]
        """Bytes of UTF-8 of each document, int64."""
        self._end = joined[:, 0]
        self._first = np.cumsum([0] + [shard.documents for shard in self._shards])

    def __len__(self) -> int:
        return int(self._first[-1])

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each document, int64, BOS and EOS included."""
        starts = np.concatenate([[0], self._end[:-1]])
        starts[self._first[:-1]] = 0
        return self._end - starts

    def document(self, number: int) -> np.ndarray:
        """Token ids of one document, BOS and EOS included: a read-only view into the file."""
        if not 0 <= number < len(self):
            raise IndexError(f"document {number} of {len(self)}")
        shard = int(np.searchsorted(self._first, number, side="right")) - 1
        start = 0 if number == self._first[shard] else self._end[number - 1]
        return self._maps[shard][start : self._end[number]]

    def verify(self) -> None:
        """Reads everything. UserError where the content is no longer what was written."""
        for shard in self._shards:
            for ending, expected in (("bin", shard.bin_xxh3), ("npy", shard.npy_xxh3)):
                path = self.folder / f"{shard.name}.{ending}"
                if hash_file(path) != expected:
                    raise _damaged(path, "its checksum differs")

    def _index(self, shard: Shard) -> np.ndarray:
        path = self.folder / f"{shard.name}.npy"
        try:
            index = np.load(path)
        except (OSError, ValueError) as error:
            raise _damaged(path, str(error)) from error
        if index.shape != (shard.documents, 2):
            raise _damaged(path, f"it has shape {index.shape} instead of {(shard.documents, 2)}")
        return index

    def _map(self, shard: Shard) -> np.ndarray:
        path = self.folder / f"{shard.name}.bin"
        size_bytes = path.stat().st_size if path.is_file() else 0
        if size_bytes != shard.tokens * self._dtype.itemsize:
            raise _damaged(
                path, f"it has {size_bytes:,} bytes instead of {shard.tokens * self._dtype.itemsize:,}"
            )
        return np.memmap(path, dtype=self._dtype, mode="r")


def _damaged(path: Path, why: str) -> UserError:
    return UserError("A token shard is damaged.", where=str(path), why=why, fix="run the shards stage again")
