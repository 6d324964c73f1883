"""Near duplicates: texts of which most words are the same, and which one of each cluster stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.data.dedup.candidates import Comparison
from groundup.data.dedup.clusters import CLUSTERS_FILE, NearDuplicates
from groundup.data.workers import processors
from groundup.store.atomic import explained

if TYPE_CHECKING:
    from groundup.config.schema import NearDuplicateSettings

__all__ = ["CLUSTERS_FILE", "NearDuplicates", "find_near_duplicates"]


def find_near_duplicates(
    documents: Path,
    settings: NearDuplicateSettings,
    scratch: Path,
    *,
    processes: int = 0,
    on_documents: Callable[[int], object] = lambda count: None,
) -> NearDuplicates:
    """Which documents of a file of JSON lines with a `text` are near duplicates of others.

    A document's number is its line's, from 0. The result is the same for every engine and number of processes.
    `scratch/clusters.jsonl` is written; what else the search writes there is removed at its end.

    Args:
        documents: is read several times, and must not change meanwhile.
        scratch: a folder with room for about 160 bytes a document at the default threshold; made if missing.
        processes: 0 means one for each core. Ray has its own workers.
        on_documents: told how many more documents have been signed; comparing them has a progress of its own.

    Raises:
        UserError: a line without a text, no room on the disk, a package or a cluster that is not there.
    """
    comparison = Comparison(documents.absolute(), settings.shingle_words, settings.threshold)
    with explained(scratch, "The search for near duplicates could not read or write its files."):
        scratch.mkdir(parents=True, exist_ok=True)
        if settings.engine == "embedded":
            from groundup.data.dedup.embedded import search

            return search(comparison, scratch, processes or processors(), on_documents)
        from groundup.data.dedup import on_daft

        ray = settings.engine == "ray"
        cores = processes or processors()
        return on_daft.search(comparison, scratch, cores, on_documents, ray, settings.ray_address)
