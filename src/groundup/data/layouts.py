"""The table of layouts: what a row can look like, and which parser reads it. One entry each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from groundup.data import conversations, documents, oasst, oasst_flat, pairs, textchat
from groundup.data.messages import system_messages
from groundup.data.oasst_flat import TreeMessage
from groundup.data.textchat import prompt_turns
from groundup.data.types import Conversation, Document, Origin, Pair, Prompt

Row = Mapping[str, Any]
Kind = Literal["documents", "conversations", "pairs", "prompts"]
Record = Document | Conversation | Pair | Prompt
Parsed = Record | TreeMessage
"""A row by itself; messages of a tree become records only together."""
KINDS: tuple[Kind, ...] = ("pairs", "conversations", "documents", "prompts")
"""The richer kind first: that is what a row is taken for where nothing asks for another."""


def _anything(row: Row) -> bool:
    return True


@dataclass(frozen=True)
class Layout:
    """needs: columns that a row must have. also: columns that are read where they are there.

    looks: what the values must look like; sign says so in words. parse: raises BadRow.
    """

    name: str
    kind: Kind
    needs: tuple[str, ...]
    parse: Callable[[dict[str, Any], Origin], Parsed]
    also: tuple[str, ...] = ()
    looks: Callable[[Row], bool] = _anything
    sign: str = ""

    def matches(self, row: Row) -> bool:
        """Whether the row has the columns, not null, and they look like it."""
        return all(row.get(name) is not None for name in self.needs) and self.looks(row)


def _parse_prompt(row: dict[str, Any], origin: Origin) -> Prompt:
    return Prompt(tuple(system_messages(row) + prompt_turns(row["prompt"], "prompt")), origin)


_TURN = ("system", "tools", "label", "kto_tag")
_PAIR = ("system", "tools", "margin")
_ALPACA = ("input", "system", "history")

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "ultrafeedback",
        "pairs",
        ("prompt", "chosen", "rejected"),
        pairs.parse_prompted,
        _PAIR,
        pairs.looks_like_ultrafeedback,
        "a text prompt that chosen and rejected repeat as messages",
    ),
    Layout("preference", "pairs", ("prompt", "chosen", "rejected"), pairs.parse_prompted, _PAIR),
    Layout(
        "alpaca_preference",
        "pairs",
        ("instruction", "chosen", "rejected"),
        pairs.parse_alpaca,
        (*_ALPACA, "margin"),
    ),
    Layout(
        "question_preference",
        "pairs",
        ("question", "chosen", "rejected"),
        pairs.parse_question,
        ("system", "margin"),
    ),
    Layout(
        "sharegpt_preference",
        "pairs",
        ("conversations", "chosen", "rejected"),
        pairs.parse_sharegpt,
        _PAIR,
    ),
    Layout(
        "messages_preference",
        "pairs",
        ("chosen_messages", "rejected_messages"),
        pairs.parse_messages_pair,
        _PAIR,
    ),
    Layout(
        "hh",
        "pairs",
        ("chosen", "rejected"),
        pairs.parse_hh,
        ("system", "margin"),
        pairs.looks_like_hh,
        r"both begin with \n\nHuman:",
    ),
    Layout(
        "implicit_preference",
        "pairs",
        ("chosen", "rejected"),
        pairs.parse_implicit,
        _PAIR,
        pairs.looks_implicit,
        "the prompt is what both begin with",
    ),
    Layout(
        "oasst_flat_preference",
        "pairs",
        ("message_id", "text", "role"),
        oasst_flat.parse_flat,
        oasst_flat.COLUMNS,
        oasst_flat.looks_ranked,
        "messages joined by parent_id; of each question the answer ranked best against the one ranked worst",
    ),
    Layout("messages", "conversations", ("messages",), conversations.parse_messages_row, _TURN),
    Layout("sharegpt", "conversations", ("conversations",), conversations.parse_sharegpt, _TURN),
    Layout(
        "unpaired_preference",
        "conversations",
        ("prompt", "completion", "label"),
        conversations.parse_completion,
        ("system", "tools"),
        sign="rows whose label is false are for loss: kto alone",
    ),
    Layout(
        "prompt_completion",
        "conversations",
        ("prompt", "completion"),
        conversations.parse_completion,
        ("system", "tools", "kto_tag"),
    ),
    Layout(
        "alpaca",
        "conversations",
        ("instruction", "output"),
        conversations.parse_alpaca,
        (*_ALPACA, "tools", "label", "kto_tag"),
    ),
    Layout(
        "question_answer", "conversations", ("question", "answer"), conversations.parse_question, ("system",)
    ),
    Layout(
        "oasst_tree",
        "conversations",
        ("message_tree_id", "prompt"),
        oasst.parse_tree,
        looks=oasst.looks_like_tree,
        sign="the answers ranked best",
    ),
    Layout(
        "oasst_messages",
        "conversations",
        ("message_id", "text", "role"),
        oasst.parse_root,
        ("replies",),
        looks=oasst.looks_like_root,
        sign="the answers ranked best",
    ),
    Layout(
        "oasst_flat",
        "conversations",
        ("message_id", "text", "role"),
        oasst_flat.parse_flat,
        oasst_flat.COLUMNS,
        oasst_flat.looks_flat,
        "messages joined by parent_id; of each tree the answers ranked best",
    ),
    Layout(
        "guanaco",
        "conversations",
        ("text",),
        textchat.parse_guanaco,
        looks=textchat.looks_like_guanaco,
        sign="text has turns ### Human: and ### Assistant:",
    ),
    Layout(
        "llama2",
        "conversations",
        ("text",),
        textchat.parse_llama2,
        looks=textchat.looks_like_llama2,
        sign="text has turns [INST] … [/INST]",
    ),
    Layout(
        "hh_text",
        "conversations",
        ("text",),
        textchat.parse_hh,
        looks=textchat.looks_like_hh,
        sign=r"text begins with \n\nHuman:",
    ),
    Layout(
        "classification", "documents", ("text", "label"), documents.parse_text, sign="the label is not read"
    ),
    Layout("text", "documents", ("text",), documents.parse_text),
    Layout("prompt", "prompts", ("prompt",), _parse_prompt, ("system",)),
)
BY_NAME = {layout.name: layout for layout in LAYOUTS}


def candidates(row: Row) -> list[Layout]:
    """The layouts that a row can be, in the table's order.

    One whose columns are all in another's, with more beside them, is not meant: of prompt, completion and label none
    is a prompt alone. Among those with the same columns and kind, the first in the table is the special one.
    """
    found = [layout for layout in LAYOUTS if layout.matches(row)]
    kept: list[Layout] = []
    for layout in found:
        columns = set(layout.needs)
        if any(columns < set(other.needs) for other in found):
            continue
        if not any(columns == set(other.needs) and layout.kind == other.kind for other in kept):
            kept.append(layout)
    return kept
