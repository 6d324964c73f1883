"""What is wrong with data, in words that name the remedy; and what that means for the whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]
Verdict = Literal["usable", "usable with warnings", "not usable"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that an expert would point at.

    name: the same for the same kind of finding, for programs. count: rows, or 0 where it is about all of them.
    examples: places, as path:line.
    """

    level: Level
    name: str
    what: str
    fix: str
    count: int = 0
    examples: tuple[str, ...] = ()


def verdict(findings: Iterable[Finding]) -> Verdict:
    """An error stops a training stage, or would spoil what it learns; a warning costs quality."""
    levels = {finding.level for finding in findings}
    if "error" in levels:
        return "not usable"
    return "usable with warnings" if "warning" in levels else "usable"


_FIXES = {
    "not valid JSON": "repair the line: one whole JSON object a line",
    "not valid UTF-8": "save the file as UTF-8, for example iconv -f ORIGINAL -t UTF-8",
    "not a JSON object": "write each row as an object {…}",
    "empty answer": "fill in the answers, or remove the rows",
    "empty question": "fill in the questions, or remove the rows",
    "no answer": "add the assistant's answers, or remove the rows",
    "the last message is not": "end these rows with an answer, or cut them after the last one",
    "chosen equals rejected": "remove the rows: there is nothing to prefer",
    "the prompts of chosen": "pair answers to the same prompt, or give the prompt a column of its own",
    "chosen and rejected have no": "give the prompt a column of its own",
    "unknown role": "write system, user, assistant or tool",
    "special token inside": "take it out of the text, or write it differently",
    "the chat template refuses": "put the roles in the order that the template wants, or use another template",
    "the chat template does not write": "use a template that does: chat.chat_template in the recipe",
    "the chat template leaves": "use a template that writes every answer: chat.chat_template in the recipe",
    "the message that it answers": "name all files of the data set; what it answers is in another one, or lost",
    "no column": "add the column; if it has another name: columns: {ours: theirs}",
}


def fix_for(reason: str) -> str:
    """What to do about a quarantined row, by the ledger's reason."""
    found = (fix for start, fix in _FIXES.items() if reason.startswith(start))
    return next(found, "repair or remove the rows; a stage sets them aside in its quarantine file")
