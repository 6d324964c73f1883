"""Documents into token shards, beside `tokenizers` alone and beside datatrove's tokenizer, with Qwen3's vocabulary.

Ours and datatrove read JSON lines and write token files. `encode_batch` alone has the documents in memory before and
throws its ids away: no program that uses it can be faster.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from data_session import Session, compared, cut_into, growth, labelled
from table import Row, failed, memory

BATCH = 1000
"""Documents of one call of encode_batch alone: enough for all cores."""
TOKENIZER = "tokenizer/qwen3/tokenizer.json"


def rows(session: Session) -> Iterator[Row]:
    """1x, 2x, 4x of the input, then speed and memory beside each peer."""
    given = {"tokenizer": session.data / TOKENIZER, "processes": session.processes}
    ours = yield from growth(session, "tokens", tokens_ours, **given)
    if ours is None:
        return
    for function, peer, settings in (
        (tokens_alone, labelled("tokenizers"), "encode_batch alone, without reading or writing"),
        (tokens_alone_fast, labelled("tokenizers"), "encode_batch_fast alone, without reading or writing"),
        (tokens_datatrove, labelled("datatrove"), f"{session.processes} processes"),
    ):
        theirs = session.run(function, documents=session.documents(), **given)
        if "error" in theirs:
            yield failed("tokens", peer, settings, theirs["error"], "MB/s")
            continue
        speeds = (session.megabytes / ours["seconds"], session.megabytes / theirs["seconds"])
        yield compared("tokens", peer, settings, "MB/s", *speeds)
        yield memory("tokens", peer, settings, "GB, peak", ours["peak_bytes"], theirs["peak_bytes"])


def tokens_ours(documents: Path, tokenizer: Path, processes: int, folder: Path) -> dict[str, Any]:
    core = opened(tokenizer, processes)
    from groundup.stages.tokenizer import texts
    from groundup.tokenizer import write_shards

    given = SimpleNamespace(backend_tokenizer=core, get_vocab=core.get_vocab, eos_token_id=0)
    began = time.perf_counter()
    write_shards(folder / "shards", lambda first: texts(documents, first), given, source="benchmark")
    return {"seconds": time.perf_counter() - began}


def tokens_alone(documents: Path, tokenizer: Path, processes: int, folder: Path) -> dict[str, Any]:
    return alone(documents, opened(tokenizer, processes).encode_batch)


def tokens_alone_fast(documents: Path, tokenizer: Path, processes: int, folder: Path) -> dict[str, Any]:
    """Without offsets, which shards do not need either."""
    return alone(documents, opened(tokenizer, processes).encode_batch_fast)


def opened(tokenizer: Path, processes: int) -> Any:
    """The tokenizer, on as many threads as the others have processes."""
    os.environ |= {"TOKENIZERS_PARALLELISM": "true", "RAYON_NUM_THREADS": str(processes)}
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(tokenizer))


def alone(documents: Path, encode: Any) -> dict[str, Any]:
    with documents.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    began = time.perf_counter()
    for first in range(0, len(texts), BATCH):
        encode(texts[first : first + BATCH])
    return {"seconds": time.perf_counter() - began}


def tokens_datatrove(documents: Path, tokenizer: Path, processes: int, folder: Path) -> dict[str, Any]:
    """Its reader and tokenizer, a task a process; the file is cut into as many beforehand."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    cut_into(folder / "in", documents, processes)
    writing = DocumentTokenizer(str(folder / "out"), str(tokenizer), eos_token=None, shuffle_documents=False)
    began = time.perf_counter()
    LocalPipelineExecutor(
        [JsonlReader(str(folder / "in")), writing],
        tasks=processes,
        workers=processes,
        logging_dir=str(folder / "log"),
    ).run()
    return {"seconds": time.perf_counter() - began}
