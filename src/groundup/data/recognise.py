"""Which layout the rows of a file have: one decision from its first rows, with the evidence for it."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from groundup.config.schema import DataSettings
from groundup.data.findings import fix_for
from groundup.data.layouts import BY_NAME, KINDS, LAYOUTS, Kind, Layout, candidates
from groundup.data.raw import RawRow
from groundup.data.types import BadRow
from groundup.errors import UserError

SAMPLE_ROWS = 100
"""So many readable rows decide."""
JOIN = " + "

_OF_KIND = {
    "documents": "documents",
    "conversations": "conversations",
    "pairs": "pairs",
    "prompts": "prompts",
}
_REMEDY: dict[tuple[str, str], str] = {
    ("pairs", "conversations"): "train on them in a dpo stage; or learn the chosen answers: "
    "columns: {completion: chosen} beside a column prompt",
    ("pairs", "documents"): "train on them in a dpo stage",
    ("conversations", "documents"): "train on them in an sft stage",
    (
        "conversations",
        "pairs",
    ): "train on them in an sft stage; a dpo stage needs the columns chosen and rejected, or a column label "
    "with loss: kto",
    (
        "documents",
        "conversations",
    ): "pretrain on it with a clean stage; an sft stage needs a question and an answer",
    (
        "documents",
        "pairs",
    ): "pretrain on it with a clean stage; a dpo stage needs prompt, chosen and rejected",
    (
        "prompts",
        "conversations",
    ): "there is nothing to learn from a question alone: add the answers as a column completion",
    ("prompts", "pairs"): "add the two answers as columns chosen and rejected",
    ("prompts", "documents"): "say which column is the text: columns: {text: prompt}",
}
_CLASSIFICATION = (
    "an answer has to be words: write rows {prompt, completion} in which completion is the label's name; where the "
    "labels are words already: columns: {prompt: text, completion: label}"
)
_MEANS = {
    "completion": ("response", "answer", "output", "target", "reply", "generation", "solution"),
    "output": ("response", "completion", "answer", "target"),
    "answer": ("response", "solution", "output", "completion"),
    "input": ("context",),
    "prompt": ("query", "question", "instruction", "input", "problem"),
    "question": ("query", "problem", "prompt"),
    "messages": ("conversation", "dialog", "dialogue", "chat", "turns"),
    "rejected": ("reject", "loser", "rejected_response"),
    "chosen": ("choose", "winner", "chosen_response", "preferred"),
}
"""Other names under which our columns go about: only for the line of recipe that an error suggests."""


@dataclass(frozen=True)
class Recognised:
    """What the rows of a file are.

    layout: a name of the table; several, joined by " + ", where rows of several layouts of one kind stand together.
    evidence: in words, for people. columns: those that are read, under our names.
    """

    layout: str
    kind: Kind
    evidence: str
    columns: tuple[str, ...]

    @cached_property
    def layouts(self) -> tuple[Layout, ...]:
        return tuple(BY_NAME[name] for name in self.layout.split(JOIN))


def recognise(rows: Sequence[RawRow], spec: DataSettings, wanted: Kind | None) -> Recognised:
    """The layout of the rows, of which broken ones are passed over.

    wanted: what the rows are needed for; None takes the richest kind that they can be. Raises UserError where the
    layout is unknown, not of the wanted kind, or ambiguous.
    """
    readable = [row for row in rows if not row.problem and isinstance(row.value, dict)]
    if not readable:
        where = str(rows[0].origin) if rows else ", ".join(spec.path)
        why = (rows[0].problem or "not a JSON object") if rows else ""
        raise UserError("No row can be read.", where=where, why=why, fix=fix_for(why))
    where = str(readable[0].origin)
    ours = [renamed(row.value, spec.columns) for row in readable]
    if spec.layout:
        return _told(BY_NAME[spec.layout], ours, wanted, where)
    found = [candidates(row) for row in ours]
    if not any(found):  # perhaps all null
        found = [candidates(dict.fromkeys(row, "")) for row in ours]
    kind = wanted or _richest(found)
    counts: Counter[str] = Counter()
    for row, options in zip(ours, found):
        names = [layout.name for layout in options if layout.kind == kind]
        if len(names) > 1:
            raise _ambiguous(names, row, where)
        counts.update(names)
    if not counts:
        raise _unusable(found, ours, kind, where)
    return _recognised([BY_NAME[name] for name, _ in counts.most_common()], counts, ours, found)


def renamed(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The row under our names. A file's column that was given a name of ours loses its old one."""
    if not columns:
        return dict(row)
    kept = {n: value for n, value in row.items() if n not in columns.values() and n not in columns}
    return kept | {ours: row[theirs] for ours, theirs in columns.items() if theirs in row}


def layout_of(row: Mapping[str, Any], recognised: Recognised) -> Layout:
    """The layout that reads a row of a file. Raises BadRow where it has none of the file's."""
    layouts = recognised.layouts
    if len(layouts) > 1:
        names = {layout.name for layout in candidates(row)}
        found = next((layout for layout in layouts if layout.name in names), None)
        if found is None:
            raise BadRow(f"none of the file's layouts {recognised.layout}")
        return found
    for name in layouts[0].needs:
        if row.get(name) is None:
            raise BadRow(f"{name!r} is null" if name in row else f"no column {name!r}")
    return layouts[0]


def check_columns(spec: DataSettings, kind: Kind | None) -> None:
    """UserError when `columns` names something that no layout of the kind reads: it would do nothing."""
    layouts = [layout for layout in LAYOUTS if kind in (None, layout.kind)]
    allowed = sorted({name for layout in layouts for name in (*layout.needs, *layout.also)})
    for name in spec.columns:
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, 1)
            raise UserError(
                f"columns names {name!r}, which is no column here.",
                why="on the left stands our name, on the right the file's",
                fix=f"did you mean {near[0]}?" if near else f"our names are {', '.join(allowed)}",
            )


def _richest(found: Sequence[Sequence[Layout]]) -> Kind:
    """The kind that most rows can be; among equals the richer one."""
    counts = Counter(kind for options in found for kind in {layout.kind for layout in options})
    return max(KINDS, key=lambda kind: (counts[kind], -KINDS.index(kind)))


def _told(layout: Layout, rows: Sequence[Mapping[str, Any]], wanted: Kind | None, where: str) -> Recognised:
    """The layout that the recipe names, if the rows can have it."""
    if wanted not in (None, layout.kind):
        raise UserError(
            f"layout: {layout.name} makes {layout.kind}, and {wanted} are needed.",
            where=where,
            fix=f"take one of {_names(wanted)}; or {_REMEDY.get((layout.kind, str(wanted)), 'use another stage')}",
        )
    having = [row for row in rows if all(name in row for name in layout.needs)]
    if not having:
        missing = [name for name in layout.needs if not any(name in row for row in rows)]
        raise UserError(
            f"The rows have not the columns of layout: {layout.name}.",
            where=where,
            why=f"{' and '.join(missing) or 'some'} missing; there is {_shown(rows[0])}",
            fix=f"say which column is which: columns: {{{missing[0] if missing else layout.needs[0]}: their name}}",
        )
    evidence = f"the recipe says so; {', '.join(layout.needs)} in {len(having)} of {len(rows)} rows"
    return Recognised(layout.name, layout.kind, evidence, _read(layout, rows))


def _recognised(
    layouts: Sequence[Layout],
    counts: Counter[str],
    rows: Sequence[Mapping[str, Any]],
    found: Sequence[Sequence[Layout]],
) -> Recognised:
    said = []
    for layout in layouts:
        columns = _read(layout, rows)
        sign = f" ({layout.sign})" if layout.sign else ""
        of = f"{counts[layout.name]} of {len(rows)} rows" if len(rows) > 1 else "the row"
        said.append(f"{', '.join(columns)} in {of}{sign}")
    names = [layout.name for layout in layouts]
    other = {option.name for options in found for option in options if option.kind != layouts[0].kind}
    if other:
        said.append(f"could also be read as {', '.join(sorted(other))}")
    columns = tuple(dict.fromkeys(name for layout in layouts for name in _read(layout, rows)))
    return Recognised(JOIN.join(names), layouts[0].kind, "; ".join(said), columns)


def _read(layout: Layout, rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The columns that the layout reads and the rows have."""
    there = set().union(*rows)
    return tuple(name for name in (*layout.needs, *layout.also) if name in there)


def _ambiguous(names: Sequence[str], row: Mapping[str, Any], where: str) -> UserError:
    listed = "; ".join(f"{name} ({', '.join(BY_NAME[name].needs)})" for name in names)
    lines = " or ".join(f"data: {{path: …, layout: {name}}}" for name in names)
    return UserError(
        "The rows can be read in more than one way.",
        where=where,
        why=f"they could be {listed}",
        fix=f"say in the recipe which is meant: {lines}",
    )


def _unusable(
    found: Sequence[Sequence[Layout]], rows: Sequence[Mapping[str, Any]], wanted: Kind, where: str
) -> UserError:
    """No row has a layout of the wanted kind: another kind, or none at all."""
    others = Counter(layout.name for options in found for layout in options)
    if others:
        name = others.most_common(1)[0][0]
        kind = BY_NAME[name].kind
        remedy = _CLASSIFICATION if name == "classification" else _REMEDY.get((kind, wanted), "")
        if kind == "prompts":
            remedy = _suggestion(rows[0], wanted) or remedy
        if wanted == "documents":
            remedy += _text_column(rows[0], "; or say which column is the text: ")
        return UserError(
            f"The rows are {kind}, and {wanted} are needed here.",
            where=where,
            why=f"their layout is {name}: {_shown(rows[0])}",
            fix=remedy,
        )
    return UserError(
        "The columns are none that can be used here.",
        where=where,
        why=f"found {_shown(rows[0])}; accepted are {_names(wanted)}",
        fix=_suggestion(rows[0], wanted)
        or "say in the recipe which column is which, for example columns: {question: input}",
    )


def _names(kind: Kind | None) -> str:
    needs = (", ".join(layout.needs) for layout in LAYOUTS if kind in (None, layout.kind))
    return " | ".join(dict.fromkeys(needs))


def _shown(row: Iterable[str]) -> str:
    names = list(row)
    return ", ".join(name[:40] for name in names[:12]) + (", …" if len(names) > 12 else "") or "no columns"


def _suggestion(row: Mapping[str, Any], wanted: Kind) -> str:
    """The `columns` line that most likely settles it; empty where nothing is likely."""
    if wanted == "documents":
        return _text_column(row, "say in the recipe which column is the text: ")
    if wanted == "pairs" and {"chosen", "rejected"} <= row.keys():
        return "add a column with the prompt, or name it: columns: {prompt: its name}"
    ways = [way for layout in LAYOUTS if layout.kind == wanted and (way := _mapped(layout, row))]
    if not ways:
        return ""
    line = ", ".join(f"{ours}: {theirs}" for ours, theirs in min(ways, key=len).items())
    return f"say in the recipe which column is which, most likely columns: {{{line}}}"


def _mapped(layout: Layout, row: Mapping[str, Any]) -> dict[str, str]:
    """Which of the row's columns could be those that the layout needs under another name; empty where some are not."""
    mapped: dict[str, str] = {}
    for name in layout.needs:
        if name not in row:
            theirs = next((other for other in _MEANS.get(name, ()) if other in row), None)
            if theirs is None or theirs in mapped.values() or theirs in layout.needs:
                return {}
            mapped[name] = theirs
    return mapped


def _text_column(row: Mapping[str, Any], before: str) -> str:
    """The longest string is most likely the text."""
    texts = [name for name in row if isinstance(row[name], str)]
    longest = max(texts, key=lambda name: len(row[name]), default="")
    return f"{before}columns: {{text: {longest}}}" if longest else ""
