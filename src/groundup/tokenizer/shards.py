"""Token shards: tokenized documents on disk, read through memory maps.

A folder holds `shards.json`, and of each shard `shard-00000.bin`, the token ids of whole documents one after the other,
and `shard-00000.npy`, int64 [documents, 2]: where each document ends in the shard, and how many bytes of UTF-8 it has.
While a folder is being built, `shards.json` lists the shards that are whole and says that it is not complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from groundup import console
from groundup.errors import UserError
from groundup.store.atomic import explained, remove, sync_file
from groundup.store.files import hash_file, read_json, write_json
from groundup.tokenizer.encode import Encoder

TOKENS_PER_SHARD = 2**26
INDEX_FILE = "shards.json"
FORMAT = 2


@dataclass(frozen=True)
class Shard:
    """What `shards.json` says of one shard."""

    name: str
    documents: int
    tokens: int
    bytes: int
    bin_xxh3: str
    npy_xxh3: str


def write_shards(
    folder: Path,
    texts: Callable[[int], Iterable[str]],
    tokenizer: Any,
    *,
    source: str,
    tokens_per_shard: int = TOKENS_PER_SHARD,
    on_documents: Callable[[int], None] = lambda count: None,
) -> dict[str, int]:
    """Tokenize documents into a folder; returns its numbers of documents, tokens and bytes.

    Each begins with what the tokenizer adds (its BOS, if it has one) and ends with EOS. Text that looks like a special
    token stays text. A folder that was begun from the same source, with the same tokenizer, goes on behind its last
    whole shard and ends with the same bits; any other is replaced.

    texts: gives the documents from number so-and-so on. source: whatever tells one source from another, as a hash of
    its content. on_documents: told how many more are done, at once those of earlier shards.
    """
    encoder = Encoder(tokenizer)
    kept = {
        "format": FORMAT,
        "source": source,
        "tokenizer": encoder.fingerprint,
        "tokens_per_shard": tokens_per_shard,
        "dtype": encoder.dtype.str,
        "vocab_size": encoder.vocab_size,
        "eos_token_id": encoder.eos,
    }
    with explained(folder, "Token shards could not be written."):
        shards, complete = _begun(folder, kept)
        done = sum(shard.documents for shard in shards)
        if shards:
            console.say(f"  going on after {len(shards)} whole shards of {done:,} documents")
            on_documents(done)
        writer = None
        for batch, tokens in () if complete else encoder.batches(texts(done)):
            for text, ids in zip(batch, tokens, strict=True):
                writer = writer or _Writer(folder, len(shards))
                writer.add(ids, len(text.encode("utf-8")))
                if writer.tokens >= tokens_per_shard:
                    shards.append(writer.finish())
                    _describe(folder, kept, shards, complete=False)
                    writer = None
            on_documents(len(batch))
        if writer:
            shards.append(writer.finish())
        return _describe(folder, kept, shards, complete=True)


def _begun(folder: Path, kept: dict[str, Any]) -> tuple[list[Shard], bool]:
    """The whole shards of an earlier build of the same thing, and whether that is all. Anything else is removed."""
    described = read_json(folder / INDEX_FILE) if (folder / INDEX_FILE).is_file() else {}
    if any(described.get(key) != value for key, value in kept.items()):
        remove(folder)
        folder.mkdir(parents=True)
        _describe(folder, kept, [], complete=False)
        return [], False
    listed = [Shard(**shard) for shard in described["shards"]]
    shards = []
    for shard in listed:
        if _damage(folder, shard):
            break
        shards.append(shard)
    return shards, described["complete"] and len(shards) == len(listed)


def _describe(folder: Path, kept: dict[str, Any], shards: list[Shard], *, complete: bool) -> dict[str, int]:
    totals = {
        name: sum(getattr(shard, name) for shard in shards) for name in ("documents", "tokens", "bytes")
    }
    listed = [asdict(shard) for shard in shards]
    write_json(folder / INDEX_FILE, kept | {"complete": complete} | totals | {"shards": listed})
    return totals


class _Writer:
    """One shard on its way to the disk; the tokens of a single document are in memory."""

    def __init__(self, folder: Path, number: int) -> None:
        self._stem = folder / f"shard-{number:05d}"
        self._file = self._stem.with_suffix(".bin").open("wb")
        self._hash = xxhash.xxh3_128()
        self._ends: list[int] = []
        self._sizes: list[int] = []
        self.tokens = 0

    def add(self, ids: np.ndarray, size_bytes: int) -> None:
        self._file.write(ids.data)
        self._hash.update(ids.data)
        self.tokens += len(ids)
        self._ends.append(self.tokens)
        self._sizes.append(size_bytes)

    def finish(self) -> Shard:
        """Bring it to the disk: only what is there may be listed."""
        self._file.close()
        index = self._stem.with_suffix(".npy")
        np.save(index, np.stack([self._ends, self._sizes], axis=1).astype("<i8"))
        for path in (self._stem.with_suffix(".bin"), index):
            sync_file(path)
        return Shard(
            self._stem.name,
            len(self._ends),
            self.tokens,
            sum(self._sizes),
            self._hash.hexdigest(),
            hash_file(index),
        )


class TokenShards:
    """The documents of a folder that `write_shards` made, by number."""

    def __init__(self, folder: Path) -> None:
        """Opens without reading tokens. UserError where a file is missing or has another size than it should."""
        self.folder = folder
        described = read_json(folder / INDEX_FILE)
        if described.get("format") != FORMAT or not described["complete"]:
            raise _damaged(folder, "they are not complete, or another version of Groundup made them")
        self.total_tokens: int = described["tokens"]
        self.vocab_size: int = described["vocab_size"]
        self.eos_token_id: int = described["eos_token_id"]
        self._dtype = np.dtype(described["dtype"])
        self._shards = [Shard(**shard) for shard in described["shards"]]
        self._first = np.cumsum([0] + [shard.documents for shard in self._shards])
        self._indices = [self._index(shard) for shard in self._shards]
        self._maps = [self._map(shard) for shard in self._shards]

    def __len__(self) -> int:
        return int(self._first[-1])

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each document, int64, BOS and EOS included."""
        return np.concatenate(
            [np.empty(0, np.int64), *(np.diff(index[:, 0], prepend=0) for index in self._indices)]
        )

    @property
    def total_bytes(self) -> int:
        """Bytes of UTF-8 of all documents."""
        return sum(shard.bytes for shard in self._shards)

    def document(self, number: int) -> np.ndarray:
        """Token ids of one document, BOS and EOS included: a read-only view into the file."""
        if not 0 <= number < len(self):
            raise IndexError(f"document {number} of {len(self)}")
        shard = int(np.searchsorted(self._first, number, side="right")) - 1
        ends, place = self._indices[shard][:, 0], number - int(self._first[shard])
        return self._maps[shard][ends[place - 1] if place else 0 : ends[place]]

    def size_bytes(self, number: int) -> int:
        """Bytes of UTF-8 of one document."""
        shard = int(np.searchsorted(self._first, number, side="right")) - 1
        return int(self._indices[shard][number - int(self._first[shard]), 1])

    def verify(self, on_tokens: Callable[[int], None] = lambda count: None) -> None:
        """Reads everything. UserError where the content is no longer what was written.

        on_tokens: told how many more are read.
        """
        for shard in self._shards:
            if why := _damage(self.folder, shard):
                raise _damaged(self.folder / f"{shard.name}.bin", why)
            on_tokens(shard.tokens)

    def _index(self, shard: Shard) -> np.ndarray:
        path = self.folder / f"{shard.name}.npy"
        try:
            index = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise _damaged(path, str(error)) from error
        if index.shape != (shard.documents, 2):
            raise _damaged(path, f"it has shape {index.shape} instead of {(shard.documents, 2)}")
        return index

    def _map(self, shard: Shard) -> np.ndarray:
        path = self.folder / f"{shard.name}.bin"
        size_bytes = path.stat().st_size if path.is_file() else 0
        expected = shard.tokens * self._dtype.itemsize
        if size_bytes != expected:
            raise _damaged(path, f"it has {size_bytes:,} bytes instead of {expected:,}")
        return np.memmap(path, dtype=self._dtype, mode="r")


def _damage(folder: Path, shard: Shard) -> str:
    """What is wrong with a shard's files; empty if nothing."""
    for ending, expected in (("bin", shard.bin_xxh3), ("npy", shard.npy_xxh3)):
        path = folder / f"{shard.name}.{ending}"
        if not path.is_file():
            return f"{path.name} is missing"
        if hash_file(path) != expected:
            return f"the checksum of {path.name} differs"
    return ""


def _damaged(path: Path, why: str) -> UserError:
    return UserError("A token shard is damaged.", where=str(path), why=why, fix="run the shards stage again")
