"""OpenAssistant's messages one a row, as the hub has them, joined by `parent_id` to conversations or preference pairs.

A message may stand before or after the one that it answers, in whatever file, so nothing can be said of any before all
are read. Until then texts lie in a temporary file; memory holds some 500 bytes a message.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from groundup.data.conversations import parse_messages_row
from groundup.data.ledger import Ledger
from groundup.data.messages import check_turns, checked, parse_message
from groundup.data.oasst import UNRANKED, rank_of, why_unwanted
from groundup.data.pairs import parse_prompted
from groundup.data.types import BadRow, Conversation, Origin, Pair
from groundup.store.atomic import explained

COLUMNS = ("parent_id", "rank", "deleted", "review_result", "tree_state")
"""What is read beside the text, where it is there."""

ORPHAN = "the message that it answers is missing"
JOINED = "joined to the conversation that another row stands for"
NOT_BEST = "not on the path of the answers ranked best"
UNANSWERED = "a question without an answer"
REJECTED = "joined to a pair as its rejected answer"
BETWEEN = "ranked between the best and the worst answer"
NOT_RANKED = "no two ranked answers to compare"
NO_ROOM = "Messages could not be written to a temporary file."


@dataclass(frozen=True)
class TreeMessage:
    """One row. parent: the id of the message that it answers; None: it is a tree's first."""

    row: dict[str, Any]
    origin: Origin
    id: str
    parent: str | None
    assistant: bool
    rank: float
    unwanted: str


def looks_flat(row: Mapping[str, Any]) -> bool:
    return "parent_id" in row and row.get("replies") is None


def looks_ranked(row: Mapping[str, Any]) -> bool:
    return looks_flat(row) and rank_of(row) != UNRANKED


def parse_flat(row: dict[str, Any], origin: Origin) -> TreeMessage:
    """A row {message_id, parent_id, text, role, rank, deleted, review_result, tree_state}. Raises BadRow."""
    message = parse_message({"role": row.get("role"), "content": checked(row.get("text"), "text")}, "text")
    check_turns([message])
    parent = row.get("parent_id")
    return TreeMessage(
        row,
        origin,
        checked(row.get("message_id"), "message_id"),
        None if parent is None or parent == "" else checked(parent, "parent_id"),
        message.role == "assistant",
        rank_of(row),
        why_unwanted(row),
    )


@dataclass(frozen=True, slots=True)
class _Node:
    parent: str | None
    assistant: bool
    rank: float
    unwanted: str
    place: int
    """Of its row, in the temporary file."""


class MessageTrees:
    """Messages until all are there. A context manager: the temporary file goes with it.

    kind: conversations: of each tree one, down the answers of the best rank, as `oasst.parse_root` has it; or pairs:
    for each question with two ranked answers the best against the worst.
    """

    def __init__(self, kind: str) -> None:
        self._pairs = kind == "pairs"
        self._number: dict[str, int] = {}
        self._nodes: list[_Node] = []
        self._replies: list[list[int]] = []
        self._file: IO[bytes] | None = None

    def __enter__(self) -> MessageTrees:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def add(self, message: TreeMessage, ledger: Ledger) -> None:
        """One more message; one whose id was there already is a copy."""
        if message.id in self._number:
            ledger.deduplicate()
            return
        with explained(Path(tempfile.gettempdir()), NO_ROOM):
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115, closed by __exit__
            place = self._file.tell()
            origin = message.origin
            line = [origin.path, origin.line, origin.byte, message.row]
            self._file.write(json.dumps(line, default=repr).encode() + b"\n")
        self._number[message.id] = len(self._nodes)
        self._nodes.append(_Node(message.parent, message.assistant, message.rank, message.unwanted, place))

    def joined(self, ledger: Ledger) -> Iterator[Conversation | Pair]:
        """What the messages are together, tree by tree. One row of each stands for it and gets no verdict here."""
        roots = self._link()
        reached = bytearray(len(self._nodes))
        for root in roots:
            wanted = self._wanted(root, reached, ledger)
            if wanted:
                yield from (self._compared if self._pairs else self._told)(wanted, ledger)
        for number in range(len(self._nodes)):
            if not reached[number]:
                row, origin = self._read(number)
                ledger.quarantine(origin, ORPHAN, row)

    def _link(self) -> list[int]:
        """Fills `_replies`; the trees' first messages."""
        if self._file:
            with explained(Path(tempfile.gettempdir()), NO_ROOM):
                self._file.flush()
        self._replies = [[] for _ in self._nodes]
        roots = []
        for number, node in enumerate(self._nodes):
            if node.parent is None:
                roots.append(number)
            elif (above := self._number.get(node.parent)) is not None:
                self._replies[above].append(number)
        return roots

    def _wanted(self, root: int, reached: bytearray, ledger: Ledger) -> dict[int, int]:
        """The messages that are not left out, the first one first, each with what it answers; others are filtered."""
        wanted: dict[int, int] = {}
        waiting = [(root, "", -1)]
        while waiting:
            number, why, above = waiting.pop()
            reached[number] = True
            why = why or self._nodes[number].unwanted
            if why:
                ledger.filter(why)
            else:
                wanted[number] = above
            waiting += [(reply, why, number) for reply in reversed(self._replies[number])]
        return wanted

    def _told(self, wanted: dict[int, int], ledger: Ledger) -> Iterator[Conversation]:
        """The conversation of a tree; its first message stands for it."""
        path = [next(iter(wanted))]
        while below := [reply for reply in self._replies[path[-1]] if reply in wanted]:
            path.append(min(below, key=lambda number: self._nodes[number].rank))
        fate = dict.fromkeys(wanted, NOT_BEST) | dict.fromkeys(path, JOINED)
        if not self._nodes[path[-1]].assistant:
            fate[path.pop()] = UNANSWERED
        if path:
            del fate[path[0]]
            rows, origins = zip(*(self._read(number) for number in path), strict=True)
            try:
                yield parse_messages_row({"messages": [_as_message(row) for row in rows]}, origins[0])
            except BadRow as error:
                ledger.quarantine(origins[0], str(error), rows[0])
        for why in fate.values():
            ledger.filter(why)

    def _compared(self, wanted: dict[int, int], ledger: Ledger) -> Iterator[Pair]:
        """The pairs of a tree; the chosen answer stands for each."""
        fate = dict.fromkeys(wanted, NOT_RANKED)
        for question in wanted:
            ranked = self._ranked(question, wanted)
            if len(ranked) < 2 or self._nodes[ranked[0]].rank == self._nodes[ranked[-1]].rank:
                continue
            path = _path(question, wanted)
            fate |= {number: JOINED for number in path if fate.get(number) in (NOT_RANKED, BETWEEN)}
            fate |= dict.fromkeys(ranked[1:-1], BETWEEN) | {ranked[-1]: REJECTED}
            del fate[ranked[0]]
            (chosen, origin), (rejected, _) = self._read(ranked[0]), self._read(ranked[-1])
            prompt = [_as_message(self._read(number)[0]) for number in path]
            sides = {"chosen": [_as_message(chosen)], "rejected": [_as_message(rejected)]}
            try:
                yield parse_prompted({"prompt": prompt, **sides}, origin)
            except BadRow as error:
                ledger.quarantine(origin, str(error), chosen)
        for why in fate.values():
            ledger.filter(why)

    def _ranked(self, question: int, wanted: dict[int, int]) -> list[int]:
        """The ranked answers to a question, the best first; none where it is no question."""
        if self._nodes[question].assistant:
            return []
        answers = [n for n in self._replies[question] if n in wanted and self._nodes[n].assistant]
        return sorted(
            (n for n in answers if self._nodes[n].rank != UNRANKED), key=lambda n: self._nodes[n].rank
        )

    def _read(self, number: int) -> tuple[dict[str, Any], Origin]:
        assert self._file is not None
        self._file.seek(self._nodes[number].place)
        path, line, byte, row = json.loads(self._file.readline())
        return row, Origin(path, line, byte)


def _path(number: int, above: Mapping[int, int]) -> list[int]:
    """The messages from a tree's first one down to this one."""
    path = []
    while number >= 0:
        path.append(number)
        number = above[number]
    return path[::-1]


def _as_message(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": row["role"], "content": row["text"]}
