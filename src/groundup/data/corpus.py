"""Clean documents on their way to the stage's files: the texts on disk, a few numbers of each in memory."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import xxhash

from groundup.data.split import is_held_out
from groundup.data.types import Origin
from groundup.store.files import to_json


class Corpus:
    """D documents, numbered in the order in which they were added. A context manager.

    Memory is about 140 bytes a document: 40 in columns, the rest for knowing exact duplicates.
    """

    def __init__(self, path: Path, holdout: float, seed: int) -> None:
        self.path = path
        """JSON lines {"text"}, one a document; whole once `close` was called."""
        self._holdout, self._seed = holdout, seed
        self._seen: set[bytes] = set()
        self._file_paths: dict[str, int] = {}
        self._source, self._file, self._heldout = array("H"), array("L"), array("B")
        self._line, self._bytes, self._draw = array("Q"), array("Q"), array("Q")
        self._out = path.open("w", encoding="utf-8", newline="\n")

    def add(self, text: str, key: str, origin: Origin, source: int) -> bool:
        """False, and nothing added, where this content is here already. `key`: the text's content hash."""
        digest = bytes.fromhex(key)
        if digest in self._seen:
            return False
        self._seen.add(digest)
        self._out.write(to_json({"text": text}) + "\n")
        self._source.append(source)
        self._file.append(self._file_paths.setdefault(origin.path, len(self._file_paths)))
        self._line.append(origin.line)
        self._bytes.append(len(text.encode("utf-8", "backslashreplace")))
        self._heldout.append(is_held_out(key, self._holdout))
        self._draw.append(xxhash.xxh3_64_intdigest(digest, seed=self._seed))
        return True

    def close(self) -> None:
        """No more documents come."""
        self._out.close()
        self._seen.clear()

    def __len__(self) -> int:
        return len(self._source)

    @property
    def source_D(self) -> Any:
        return np.array(self._source, np.int64)

    @property
    def bytes_D(self) -> Any:
        return np.array(self._bytes, np.int64)

    @property
    def draw_D(self) -> Any:
        """A number for each, as good as random, that depends on the content and the seed alone."""
        return np.array(self._draw, np.uint64)

    def origin(self, number: int) -> Origin:
        if not hasattr(self, "_names"):
            self._names = list(self._file_paths)
        return Origin(self._names[self._file[number]], self._line[number])

    def texts(self, numbers: Any) -> Iterator[tuple[int, str]]:
        """The documents with these numbers, which ascend."""
        wanted = set(np.asarray(numbers).tolist())
        with self.path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file):
                if number in wanted:
                    yield number, json.loads(line)["text"]

    def write(self, folder: Path, times_D: Any) -> dict[str, dict[str, int]]:
        """`train.jsonl` and `heldout.jsonl`; a document to train on as often as `times_D` says, a held-out one once.

        Returns documents and bytes of both.
        """
        counts = {"documents": {"train": 0, "heldout": 0}, "bytes": {"train": 0, "heldout": 0}}
        with (
            self.path.open("rb") as file,
            (folder / "train.jsonl").open("wb") as train,
            (folder / "heldout.jsonl").open("wb") as heldout,
        ):
            for line, times, held_out, size in zip(file, times_D.tolist(), self._heldout, self._bytes):
                if not times:
                    continue
                part, out, copies = ("heldout", heldout, 1) if held_out else ("train", train, times)
                counts["documents"][part] += copies
                counts["bytes"][part] += copies * size
                out.write(line * copies)
        return counts

    def __enter__(self) -> Corpus:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._out.close()
