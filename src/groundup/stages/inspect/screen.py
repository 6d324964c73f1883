"""The screen of `groundup data inspect`: findings and numbers for people, and rows with what the loss sees in color."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from groundup import console

WIDTH_MOST = 110
LABEL = 10
BAR = 24
HEAD_CHARS, TAIL_CHARS = 320, 120
FEW_PATHS = 3
COLORS = {"error": "bold red", "warning": "bold yellow", "note": "cyan"}
VERDICTS = {"usable": "bold green", "usable with warnings": "bold yellow", "not usable": "bold red"}
TRAINED, MASKED = "bold green", "dim"
BLOCKS = " ▏▎▍▌▋▊▉█"

Line = Sequence[tuple[str, str]]
"""Pieces of a line, each with its style."""


def show(summary: dict[str, Any]) -> None:
    """Print it, as wide as the terminal."""
    width = min(shutil.get_terminal_size((80, 24)).columns, WIDTH_MOST) - 1
    for line in lines(summary, width, console.colored()):
        console.say_styled(line)


def lines(summary: dict[str, Any], width: int, colored: bool) -> Iterator[Line]:
    """The whole screen. Without color, what the loss sees stands in [[ ]]."""
    yield from _head(summary, width)
    yield [("", "")]
    for label, text in _facts(summary):
        yield from _labelled(label, text, width)
    yield from _length(summary, width)
    if summary["findings"]:
        yield [("", "")]
    for finding in summary["findings"]:
        yield from _finding(finding, width)
    if summary.get("rows"):
        yield from _rows(summary["rows"], width, colored)


def _head(summary: dict[str, Any], width: int) -> Iterator[Line]:
    paths = summary["paths"]
    more = f" and {len(paths) - FEW_PATHS} more" if len(paths) > FEW_PATHS else ""
    yield [(_visible(", ".join(paths[:FEW_PATHS]) + more), "bold")]
    counts = [f"{n} {level}{'s' * (n != 1)}" for level, n in summary["counts"].items() if n]
    yield [
        (summary["verdict"].upper(), VERDICTS[summary["verdict"]]),
        (f"  {', '.join(counts) or 'nothing to complain of'}", ""),
    ]
    if not summary["recognised"]:
        yield from _labelled("What", f"{summary['kind']}: plain text", width)
    for layout, text in _recognised(summary).items():
        yield from _labelled("What", f"{layout}: {text}", width)


def _recognised(summary: dict[str, Any]) -> dict[str, str]:
    """What each layout was recognised by, with the files that have it where there are several."""
    found: dict[str, tuple[str, list[str]]] = {}
    for one in summary["recognised"]:
        key = f"{one['kind']}, layout {one['layout']}"
        found.setdefault(key, (one["evidence"], []))[1].append(Path(one["path"]).name)
    several = len(summary["recognised"]) > 1
    return {
        key: evidence + (f" ({names[0]}" + (f" and {len(names) - 1} more)" if names[1:] else ")")) * several
        for key, (evidence, names) in found.items()
    }


def _facts(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    ledger = summary["ledger"]
    filtered, unusable = sum(ledger["filtered"].values()), sum(ledger["quarantined"].values())
    yield (
        "Rows",
        f"{ledger['in']:,} read = {ledger['kept']:,} kept + {filtered:,} filtered"
        f" + {ledger['deduplicated']:,} duplicates + {unusable:,} unusable",
    )
    for said in summary["splits"].values():
        yield "", said
    if summary["roles"]:
        roles = ", ".join(f"{name} {count:,}" for name, count in summary["roles"].items())
        turns = [int(number) for number in summary["answers_per_row"]]
        each = f"{min(turns)} to {max(turns)}" if min(turns) < max(turns) else str(turns[0])
        tools = f"; {summary['rows_with_tools']:,} rows have tools" if summary["rows_with_tools"] else ""
        yield "Turns", f"{roles}; {each} answer{'s' * (each != '1')} a row{tools}"
    if len(summary["scripts"]):
        total = sum(summary["scripts"].values())
        yield "Scripts", ", ".join(f"{name} {n / total:.1%}" for name, n in summary["scripts"].items())
    if answers := summary["answer_characters"]:
        which = "chosen " if summary["pairs"] else ""
        yield "Answers", f"{which}{_spread(answers)} characters"
    if pairs := summary["pairs"]:
        votes = pairs["longer_chosen"] + pairs["shorter_chosen"]
        share = f"{pairs['longer_chosen'] / votes:.1%}" if votes else "none"
        if pairs["rejected_characters"]:
            yield "", f"rejected {_spread(pairs['rejected_characters'])} characters"
        yield "Bias", f"the longer answer is chosen in {share} of {votes:,} pairs of unequal length"
    yield from _token_facts(summary)


def _spread(values: dict[str, int]) -> str:
    return f"{values['shortest']:,} to {values['longest']:,}, median {values['median']:,}"


def _token_facts(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if summary["model"] is None:
        yield "Tokens", "not counted: --model M shows lengths in tokens, chat template and loss"
        return
    if chat := summary["chat"]:
        ends = " or ".join(chat["end_of_turn"])
        same = _all(chat["same_as_tokenizer"], chat["compared"])
        yield "Template", f"same tokens as the tokenizer's own apply_chat_template in {same} rows compared"
        if summary["loss"]:
            yield "", f"end of turn {ends}, learned in {_all(chat['end_of_turn_learned'], chat['rows'])} rows"
    if loss := summary["loss"]:
        yield "Loss", f"sees {loss['trained_tokens']:,} of {loss['tokens']:,} tokens, {loss['share']:.1%}"


def _all(count: int, total: int) -> str:
    return f"all {total:,}" if count == total else f"{count:,} of {total:,}"


def _length(summary: dict[str, Any], width: int) -> Iterator[Line]:
    length = summary["length"]
    if not length["rows"]:
        return
    sampled = f"; of {length['rows']:,} rows drawn from all of them (--subset 0 takes all)"
    text = f"in {length['unit']}: {_spread(length)}, 99% up to {length['p99']:,}"
    yield from _labelled("Length", text + (sampled if summary["sampled"] else ""), width)
    most = max(bucket["rows"] for bucket in length["histogram"])
    over = length.get("over")
    side = max(len(_range(bucket)) for bucket in length["histogram"])
    for bucket in length["histogram"]:
        beyond = bool(over) and bucket["to"] > over["limit"]
        line = f"{_range(bucket):>{side}}  {_bar(bucket['rows'] / most)} {bucket['rows']:,}"
        yield [(" " * LABEL + line, "yellow" if beyond and bucket["rows"] else "")]
    if over:
        limits = f"max_length {length['max_length']:,}"
        limits += (
            f", the model reads {length['context']:,}"
            if length["context"]
            else ", context of the model unknown"
        )
        lost = f"{over['rows']:,} rows with {over['share_of_tokens']:.1%} of the tokens are longer"
        lost = f"{lost}, {over['what_happens']}" if over["rows"] else "all fit"
        yield from _labelled("Limit", f"{limits}: {lost}", width)


def _range(bucket: dict[str, int]) -> str:
    return f"up to {bucket['to']:,}"


def _bar(share: float) -> str:
    eighths = round(share * BAR * 8)
    if share and not eighths:
        eighths = 1
    full, rest = divmod(eighths, 8)
    return ("█" * full + (BLOCKS[rest] if rest else "")).ljust(BAR)


def _finding(finding: dict[str, Any], width: int) -> Iterator[Line]:
    level = finding["level"]
    text = _visible(finding["what"])
    body = textwrap.wrap(text, width - LABEL, break_on_hyphens=False) or [""]
    yield [(f"{level:<{LABEL}}", COLORS[level]), (body[0], "bold" if level == "error" else "")]
    yield from ([(" " * LABEL + line, "")] for line in body[1:])
    if finding["examples"]:
        yield from _labelled("", f"at {_visible(_places(finding['examples']))}", width)
    yield from _labelled("", f"fix: {_visible(finding['fix'])}", width)


def _places(examples: Sequence[str]) -> str:
    """`rows.jsonl:3, 5, 8`: the file's name once; `--json` has whole paths."""
    path, said = "", []
    for example in examples:
        before, _, line = example.rpartition(":")
        said.append(line if before == path else f"{_short(before)}:{line}")
        path = before
    return ", ".join(said)


def _short(path: str) -> str:
    return Path(path).name or path


def _labelled(label: str, text: str, width: int) -> Iterator[Line]:
    body = textwrap.wrap(_visible(text), width - LABEL, break_on_hyphens=False) or [""]
    yield [(f"{label:<{LABEL}}", "bold"), (body[0], "")]
    yield from ([(" " * LABEL + line, "")] for line in body[1:])


def _rows(rows: Sequence[dict[str, Any]], width: int, colored: bool) -> Iterator[Line]:
    legend: Line = [("what the loss sees", TRAINED), (" and ", ""), ("what it does not", MASKED)]
    if not colored:
        legend = [("[[what the loss sees]] and what it does not", "")]
    yield [("", "")]
    yield [("Rows as the model reads them: ", "bold"), *legend]
    for row in rows:
        yield [(f"── {_visible(_places([row['place']]))} {'─' * 20}", "bold cyan")]
        for number, side in enumerate(row["sides"]):
            pieces = side["pieces"]
            if number:  # the prompt was shown
                pieces = pieces[1:] if not pieces[0]["trained"] else pieces
            if side["name"] in ("chosen", "rejected"):
                yield [(f"{side['name']}, {side['tokens']:,} tokens with the prompt:", "bold")]
            yield [
                (_shown(piece, colored), (TRAINED if piece["trained"] else MASKED) if colored else "")
                for piece in pieces
            ]


def _shown(piece: dict[str, Any], colored: bool) -> str:
    text = piece["text"]
    if len(text) > HEAD_CHARS + TAIL_CHARS + 40:
        left_out = len(text) - HEAD_CHARS - TAIL_CHARS
        text = f"{text[:HEAD_CHARS]} … {left_out:,} characters … {text[-TAIL_CHARS:]}"
    text = _visible(text)
    return f"[[{text}]]" if piece["trained"] and not colored else text


def _visible(text: str) -> str:
    """Control characters as signs: a row must not be able to steer the terminal that shows it."""
    return "".join(_sign(c) if (c < " " and c not in "\n\t") or "\x7f" <= c <= "\x9f" else c for c in text)


def _sign(character: str) -> str:
    return chr(0x2400 + ord(character)) if character < " " else "␡"
