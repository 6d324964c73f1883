"""A stage's rows, parted into those that are trained on and those that are held out; every one accounted for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from groundup import console
from groundup.config.schema import DataSettings
from groundup.data import Ledger, content_hash, split_rows
from groundup.data.split import Asked
from groundup.errors import UserError
from groundup.stages.context import Context
from groundup.store.files import write_text

Item = TypeVar("Item", bound=Asked)
Row = dict[str, Any]


def read_parts(
    settings: Any, read: Callable[[DataSettings], list[Item]], as_row: Callable[[Item], Row], ledger: Ledger
) -> tuple[list[Item], list[Item]]:
    """(to train on, held out): `eval_data`, or a part of `data`. Each row once; no prompt on both sides."""
    items = unique(read(settings.data), as_row, ledger)
    if settings.eval_data is None:
        return split_rows(items, settings.holdout)
    heldout = read(settings.eval_data)
    held = {item.key for item in heldout}
    train = [item for item in items if item.key not in held]
    for _ in range(len(items) - len(train)):
        ledger.filter_kept("its prompt is held out")
    return train, heldout


def unique(items: Sequence[Item], as_row: Callable[[Item], Row], ledger: Ledger) -> list[Item]:
    """Each row once; a copy is counted as deduplicated."""
    seen: set[str] = set()
    kept = []
    for item in items:
        key = content_hash(_line(as_row(item)))
        if key in seen:
            ledger.deduplicate_kept()
        else:
            seen.add(key)
            kept.append(item)
    return kept


def check_parts(
    settings: Any, train: Sequence[object], heldout: Sequence[object], ledger: Ledger, limit: str
) -> None:
    """Raise UserError where a part is empty, or too many are bad. limit: the setting for long ones, if any."""
    if not train or not heldout:
        raise UserError(
            f"no rows are left to {'evaluate' if train else 'train'} on",
            where=", ".join(settings.data.path),
            why=str(ledger),
            fix=f"add rows, {limit and f'raise {limit}, '}raise holdout, or give eval_data",
        )
    long = f"raise {limit} for long rows, repair or remove the others" if limit else "repair or remove them"
    ledger.check(settings.data.max_bad_rows, long)


def keep_heldout(context: Context, rows: Iterable[Row], ledger: Ledger) -> None:
    """Write the held-out rows to `data/`, where `eval` finds them, and say what became of all."""
    lines = [_line(row) for row in rows]
    write_text(context.stage.data / "heldout.jsonl", "".join(lines))
    for said in ledger.decisions():
        console.say(f"  {said}")
    console.say(f"  {ledger}; {len(lines)} of the kept rows are held out")


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False, default=str) + "\n"
