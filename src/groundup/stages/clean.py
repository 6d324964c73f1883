"""Raw text to clean documents, each once, with a part held out by content.

Passes: read and refine (in several processes), exact duplicates on the way; near duplicates; the mixture; two files.
All but the last work in a scratch folder: a pass that was killed leaves nothing that is taken for a result.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from groundup import console
from groundup.config.schema import CleanSettings
from groundup.data import Document, Ledger, read_documents
from groundup.data.corpus import Corpus
from groundup.data.dedup import find_near_duplicates
from groundup.data.dropped import Dropped
from groundup.data.mix import Mixture, mix
from groundup.data.refine import Refiner, refiner_of
from groundup.data.workers import map_ordered, worker_count
from groundup.errors import UserError
from groundup.stages.context import REHEARSAL_DOCUMENTS, Context
from groundup.store.atomic import TEMPORARY, explained
from groundup.store.files import publish_folder

BATCH_CHARS = 500_000
"""Text that a process is given at a time."""
REHEARSAL_HOLDOUT = 0.2
LEFT_OUT = "left out of the mix"


def run(context: Context) -> dict[str, Any]:
    """Write `data/train.jsonl`, `data/heldout.jsonl` and `dropped.jsonl`; every document read is accounted for."""
    stage, settings = context.stage, context.settings
    holdout = max(settings.holdout, REHEARSAL_HOLDOUT) if context.rehearse else settings.holdout
    ledger = Ledger(stage.quarantine)
    with (
        explained(stage.root, "The documents could not be written."),
        tempfile.TemporaryDirectory(dir=stage.root, prefix=TEMPORARY) as scratch,
        Dropped(stage.dropped) as dropped,
        Corpus(Path(scratch) / "documents.jsonl", holdout, context.recipe.seed) as corpus,
    ):
        _refine(context, ledger, corpus, dropped)
        times_D = np.ones(len(corpus), np.int64)
        if settings.near_duplicates:
            _drop_near_duplicates(context, Path(scratch), ledger, corpus, dropped, times_D)
        mixture = _mix(settings, corpus, times_D, ledger)
        if mixture:
            left_out = (times_D > 0) & (mixture.times_D == 0)
            times_D = mixture.times_D
            for number, text in corpus.texts(np.flatnonzero(left_out)):
                ledger.filter_kept(LEFT_OUT)
                dropped.add(corpus.origin(number), LEFT_OUT, text)
        counts: dict[str, Any] = {}

        def write(folder: Path) -> None:
            counts.update(corpus.write(folder, times_D))
            if not counts["documents"]["train"] or not counts["documents"]["heldout"]:
                raise _too_few(ledger, settings)

        publish_folder(stage.data, write)
    for line in ledger.decisions():
        console.say(f"  {line}")
    console.say(f"  {ledger}")
    mixed = {"mix": _told(settings, mixture)} if mixture else {}
    return {"kind": "clean", "rows": ledger.as_dict(), **counts, **mixed, "dropped": dropped.samples}


def _refine(context: Context, ledger: Ledger, corpus: Corpus, dropped: Dropped) -> None:
    """Every document read, judged, and either in `corpus` or in `dropped`."""
    settings = context.settings
    refiner = refiner_of(settings)
    _say_contamination(refiner)
    wanted = 1 if context.rehearse else settings.workers
    workers, batches = worker_count(wanted, _batches(context, ledger), _chars)
    if workers > 1:
        console.say(f"  cleaning in {workers} processes")
    with console.progress("Cleaning", unit="document") as bar:
        for (source, documents), results in map_ordered(_Task(refiner), batches, workers):
            for document, refined in zip(documents, results):
                if refined.reason:
                    ledger.filter(refined.reason)
                    dropped.add(document.origin, refined.reason, refined.text, refined.detail)
                elif corpus.add(refined.text, refined.key, document.origin, source):
                    ledger.keep()
                    ledger.notes.update(refined.notes)
                else:
                    ledger.deduplicate()
            bar.advance(len(documents))
    corpus.close()


def _chars(batch: tuple[int, list[Document]]) -> int:
    return sum(len(document.text) for document in batch[1])


class _Task:
    """What a process does with a batch; only texts come back, not where they are from."""

    def __init__(self, refiner: Refiner) -> None:
        self.refiner = refiner

    def __call__(self, batch: tuple[int, list[Document]]) -> list[Any]:
        return self.refiner([document.text for document in batch[1]])


def _batches(context: Context, ledger: Ledger) -> Iterator[tuple[int, list[Document]]]:
    """The number of a source and some documents of it, in reading order."""
    for source, data in enumerate(context.settings.sources):
        if context.rehearse:
            few = min(data.subset or REHEARSAL_DOCUMENTS, REHEARSAL_DOCUMENTS)
            data = data.model_copy(update={"subset": few})
        batch: list[Document] = []
        chars = 0
        for document in read_documents(data, ledger):
            batch.append(document)
            chars += len(document.text)
            if chars >= BATCH_CHARS:
                yield source, batch
                batch, chars = [], 0
        if batch:
            yield source, batch


def _drop_near_duplicates(
    context: Context, scratch: Path, ledger: Ledger, corpus: Corpus, dropped: Dropped, times_D: Any
) -> None:
    """Sets times_D to 0 for those that go, and moves the list of clusters into the stage's folder."""
    settings = context.settings
    with console.progress("Comparing", total=len(corpus), unit="document") as bar:
        found = find_near_duplicates(
            corpus.path,
            settings.near_duplicates,
            scratch / "near",
            processes=settings.workers,
            on_documents=bar.advance,
        )
    kept_for = dict(zip(found.dropped.tolist(), found.kept_for.tolist()))
    for number, text in corpus.texts(found.dropped):
        ledger.deduplicate_kept()
        dropped.add(
            corpus.origin(number),
            "near duplicate",
            text,
            f"of {corpus.origin(kept_for[number])}, which stays",
        )
    times_D[found.dropped] = 0
    shutil.move(found.clusters, context.stage.clusters)


def _mix(settings: CleanSettings, corpus: Corpus, times_D: Any, ledger: Ledger) -> Mixture | None:
    """UserError where nothing is left of a source: none of the others can then have its share."""
    if not settings.mix:
        return None
    weights = [source.weight for source in settings.mix]
    bytes_D = corpus.bytes_D * times_D
    bytes_S = np.bincount(corpus.source_D, bytes_D, len(weights))
    for source, size in zip(settings.mix, bytes_S):
        if not size:
            raise UserError(
                "Nothing is left of one source of the mixture.",
                where=", ".join(source.path),
                why=f"the mixture has a share of each; in all {_most_frequent(ledger)}",
                fix="ask less of the documents (dropped.jsonl shows what was dropped), or take it out of `mix`",
            )
    mixture = mix(corpus.source_D, bytes_D, corpus.draw_D, weights, settings.mix_repeat)
    for told, source in zip(mixture.sources, settings.mix):
        left = f", {told['left_out']:,} documents left out" if told["left_out"] else ""
        console.say(
            f"  mix: {told['share']:.1%} {', '.join(source.path)}, used {told['times']:.2f} times{left}"
        )
    return mixture


def _told(settings: CleanSettings, mixture: Mixture) -> dict[str, Any]:
    """The mixture by the names of its sources."""
    names = [
        ", ".join(source.path) + (f" ({source.split})" if source.split else "") for source in settings.mix
    ]
    return dict(zip(names, mixture.sources))


def _say_contamination(refiner: Refiner) -> None:
    if found := refiner.contamination:
        short = f", {found.short:,} of them too short to be found" if found.short else ""
        console.say(f"  decontaminating against {found.texts:,} texts{short}")


def _most_frequent(ledger: Ledger) -> str:
    """How many were read, and the reasons that cost most."""
    lost = (ledger.filtered + ledger.quarantined).most_common(3)
    return "; ".join(
        [f"{ledger.rows_in:,} rows were read", *(f"{count:,} {reason}" for reason, count in lost)]
    )


def _too_few(ledger: Ledger, settings: CleanSettings) -> UserError:
    return UserError(
        f"{ledger.kept} documents are too few to hold any out",
        where=", ".join(name for source in settings.sources for name in source.path),
        why=_most_frequent(ledger),
        fix="add text, raise holdout, or ask less of the documents; dropped.jsonl shows what was dropped",
    )
