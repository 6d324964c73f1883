"""Raw text to clean documents, each once, with a part held out by content."""

from __future__ import annotations

import json
from typing import Any

from groundup import console
from groundup.data import Ledger, clean_text, content_hash, is_held_out, read_documents
from groundup.errors import UserError
from groundup.stages.context import REHEARSAL_DOCUMENTS, Context
from groundup.store.files import publish_folder

MOST_EXAMPLES = 5
EXAMPLE_CHARS = 200


def run(context: Context) -> dict[str, Any]:
    """Write `data/train.jsonl` and `data/heldout.jsonl`; every document read is accounted for in the result."""
    ledger = Ledger(context.stage.quarantine)
    counts: dict[str, dict[str, int]] = {}
    dropped: list[dict[str, str]] = []
    publish_folder(context.stage.data, lambda folder: _write(context, folder, ledger, counts, dropped))
    for line in ledger.decisions():
        console.say(f"  {line}")
    console.say(f"  {ledger}")
    return {"kind": "clean", "rows": ledger.as_dict(), **counts, "dropped": dropped}


def _write(context: Context, folder: Any, ledger: Ledger, counts: dict[str, Any], dropped: list[Any]) -> None:
    settings = context.settings
    data = settings.data
    if context.rehearse:
        data = data.model_copy(
            update={"subset": min(data.subset or REHEARSAL_DOCUMENTS, REHEARSAL_DOCUMENTS)}
        )
    holdout = max(settings.holdout, 0.2) if context.rehearse else settings.holdout
    counts |= {"documents": {"train": 0, "heldout": 0}, "bytes": {"train": 0, "heldout": 0}}
    seen: set[str] = set()
    with (
        (folder / "train.jsonl").open("w", encoding="utf-8") as train,
        (folder / "heldout.jsonl").open("w", encoding="utf-8") as heldout,
        console.progress("Reading", unit="document") as bar,
    ):
        for document in read_documents(data, ledger):
            bar.advance()
            text = clean_text(document.text)
            if len(text) < settings.min_chars:
                reason = f"shorter than {settings.min_chars} characters"
                ledger.filter(reason)
                if len(dropped) < MOST_EXAMPLES:
                    dropped.append({"reason": reason, "text": text[:EXAMPLE_CHARS]})
                continue
            key = content_hash(text)
            if key in seen:
                ledger.deduplicate()
                continue
            seen.add(key)
            ledger.keep()
            part, file = ("heldout", heldout) if is_held_out(key, holdout) else ("train", train)
            counts["documents"][part] += 1
            counts["bytes"][part] += len(text.encode("utf-8"))
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    if not counts["documents"]["train"] or not counts["documents"]["heldout"]:
        raise UserError(
            f"{ledger.kept} documents are too few to hold any out",
            where=", ".join(data.path),
            why=str(ledger),
            fix="add text, or raise holdout",
        )
