"""Conversations and pairs to records: rendered, measured, split; every row accounted for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from groundup import console
from groundup.batch import Chain, Record
from groundup.config.schema import ChatSettings, DataSettings, StageSettings
from groundup.data import (
    Conversation,
    Ledger,
    Message,
    Pair,
    read_conversations,
    read_labelled,
    read_pairs,
)
from groundup.data.workers import map_ordered, worker_count
from groundup.errors import UserError
from groundup.machine import probe
from groundup.stages.context import Context
from groundup.stages.heldout import check_parts, keep_heldout, read_parts
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.chat import BadConversation, Rendered, render, render_pair, render_whole

Item = Conversation | Pair
RowKind = Literal["conversations", "pairs", "labelled"]
PAIR_KINDS = ("reward", "dpo")
"""Kinds of stages that read pairs; of dpo, all losses but kto."""


@dataclass(frozen=True)
class Prompt:
    """A question, and the answer that the data gives; None for a question of the recipe's own."""

    messages: tuple[Message, ...]
    reference: str | None

    @property
    def text(self) -> str:
        return self.messages[-1].content if self.messages else ""  # a conversation may begin with its answer


@dataclass(frozen=True)
class Rows:
    """What a stage trains and evaluates on."""

    train: list[Record]
    heldout: list[Record]
    """Numbered on from the last of `train`."""
    prompts: list[Prompt]
    ledger: dict[str, Any]


def read_rows(context: Context, tokenizer: Tokenizer) -> Rows:
    """Read, render and split the rows of an `sft`, `reward` or `dpo` stage; the held-out part is written to `data/`.

    Raises UserError when too many rows are unusable, nothing is left to train or evaluate on, or all labels are equal.
    """
    settings = context.settings
    ledger = Ledger(context.stage.quarantine)
    train_items, heldout_items = read_parts(
        settings, lambda data: read_items(data, ledger, row_kind(settings)), as_row, ledger
    )
    renderer = Renderer(
        tokenizer,
        context.recipe.chat,
        settings.max_length,
        getattr(settings, "loss_on", "all"),
        whole=settings.kind == "reward",
    )
    train = list(renderer.chains(train_items, ledger))
    heldout = list(renderer.chains(heldout_items, ledger))
    check_parts(settings, train, heldout, ledger, "max_length")
    check_labels([item for item, _ in train], settings.data)
    keep_heldout(context, (as_row(item) for item, _ in heldout), ledger)
    return Rows(
        records_of(train, 0),
        records_of(heldout, len(train)),
        [prompt_of(item) for item, _ in heldout if getattr(item, "label", None) is not False],
        ledger.as_dict(),
    )


def row_kind(settings: StageSettings) -> RowKind:
    """What the rows of a stage are."""
    if getattr(settings, "loss", None) == "kto":
        return "labelled"
    return "pairs" if settings.kind in PAIR_KINDS else "conversations"


def read_items(data: DataSettings, ledger: Ledger, kind: RowKind) -> list[Item]:
    """The rows of `data` as conversations, as conversations with a label, or as pairs."""
    if kind == "pairs":
        return list(read_pairs(data, ledger))
    return list(read_labelled(data, ledger) if kind == "labelled" else read_conversations(data, ledger))


def records_of(rendered: Sequence[tuple[Item, tuple[Chain, ...]]], first: int) -> list[Record]:
    """Records numbered from `first`, with the columns `label` and `margin` where rows have them."""
    margins = any(isinstance(item, Pair) and item.margin is not None for item, _ in rendered)
    records = []
    for index, (item, chains) in enumerate(rendered, first):
        group: dict[str, float] = {}
        if isinstance(item, Pair):
            group = {"margin": item.margin or 0.0} if margins else {}
        elif item.label is not None:
            group = {"label": float(item.label)}
        records.append(Record(index, chains, group=group))
    return records


def check_labels(items: Sequence[Item], data: DataSettings) -> None:
    """UserError where all answers are good ones, or all are bad ones: nothing tells them apart."""
    labels = {item.label for item in items if isinstance(item, Conversation)}
    if len(labels) == 1 and None not in labels:
        raise UserError(
            f"every row that is trained on has the label {str(labels.pop()).lower()}",
            where=", ".join(data.path),
            why="kto learns from answers of both kinds, good ones and bad ones",
            fix="add rows with the other label",
        )


BATCH_ROWS = 256
SMALL_CHARS = 32_000_000
"""Less text than this is tokenized in about half a minute, of which other processes need a part to start."""
MOST_WORKERS = 16
WORKER_BYTES = 1 << 30
"""A process holds the libraries and the tokenizer: some 600 MB, of which a part is shared."""


def _chars(items: Sequence[Item]) -> int:
    return sum(
        len(message.content)
        for item in items
        for message in (
            (*item.prompt, *item.chosen, *item.rejected) if isinstance(item, Pair) else item.messages
        )
    )


@dataclass(frozen=True)
class Renderer:
    """Items to records through the one chat rendering."""

    tokenizer: Tokenizer
    chat: ChatSettings
    max_length: int
    loss_on: Literal["all", "last"] = "all"
    whole: bool = False
    """The whole conversation, read at its last token, as a reward model does: nothing is predicted."""

    def chains(self, items: Sequence[Item], ledger: Ledger) -> Iterator[tuple[Item, tuple[Chain, ...]]]:
        """(item, its chains) of every item that can be used; the others are quarantined or filtered, and counted."""
        batches = (items[first : first + BATCH_ROWS] for first in range(0, len(items), BATCH_ROWS))
        wanted, jobs = worker_count(0, batches, _chars, SMALL_CHARS)
        machine = probe()
        most = min(machine.cores, MOST_WORKERS, machine.available_bytes // WORKER_BYTES)
        workers = max(1, min(wanted, most))
        with console.progress("Tokenizing", total=len(items), unit="row") as bar:
            for batch, results in map_ordered(self.tried, jobs, workers):
                for item, found in zip(batch, results):
                    bar.advance()
                    if isinstance(found, str):
                        ledger.quarantine_kept(item.origin, found, as_row(item))
                    else:
                        yield item, found

    def tried(self, items: Sequence[Item]) -> list[tuple[Chain, ...] | str]:
        """Of each its chains, or why it cannot be used. A process may do it for another."""
        return [self._tried(item) for item in items]

    def _tried(self, item: Item) -> tuple[Chain, ...] | str:
        try:
            rendered = self.render(item)
        except BadConversation as error:
            return str(error)
        if max(len(one.token) for one in rendered) > self.max_length:
            return f"longer than {self.max_length} tokens"
        if len(rendered) == 2 and np.array_equal(rendered[0].token, rendered[1].token):
            return "chosen and rejected are the same tokens"
        return tuple(self._chain(one) for one in rendered)

    def _chain(self, one: Rendered) -> Chain:
        if not self.whole:
            return Chain(one.token, one.scored)
        # A target of -1 behind the text: its only read is at the last token, and predicts nothing.
        return Chain(np.append(one.token, np.int32(-1)), np.append(one.scored, True))

    def render(self, item: Item) -> tuple[Rendered, ...]:
        if isinstance(item, Pair) and self.whole:
            sides = ((*item.prompt, *side) for side in (item.chosen, item.rejected))
            return tuple(render_whole(self.tokenizer, side, self.chat, tools=item.tools) for side in sides)
        if isinstance(item, Pair):
            return render_pair(self.tokenizer, item, self.chat)
        return (
            render(
                self.tokenizer,
                item.messages,
                self.chat,
                loss_on=self.loss_on,
                tools=item.tools,
                scored_from=item.scored_from,
            ),
        )


def prompt_of(item: Item) -> Prompt:
    """What the model is asked, and what the data answers (the chosen side of a pair)."""
    if isinstance(item, Pair):
        return Prompt(tuple(item.prompt), item.chosen[-1].content)
    return Prompt(tuple(item.messages[:-1]), item.messages[-1].content)


def asked(texts: Sequence[str]) -> list[Prompt]:
    """The recipe's own questions."""
    return [Prompt((Message("user", text),), None) for text in texts]


def as_row(item: Item) -> dict[str, Any]:
    """The item as a row in TRL's layout, which reads back as the same item."""
    if isinstance(item, Pair):
        sides = {"prompt": item.prompt, "chosen": item.chosen, "rejected": item.rejected}
    elif item.scored_from:
        sides = {"prompt": item.messages[: item.scored_from], "completion": item.messages[item.scored_from :]}
    else:
        sides = {"messages": item.messages}
    row: dict[str, Any] = {
        name: [message.as_dict() for message in messages] for name, messages in sides.items()
    }
    tools = getattr(item, "tools", None)
    columns = {name: getattr(item, name, None) for name in ("label", "margin")}
    row |= {name: value for name, value in columns.items() if value is not None}
    return row | ({"tools": list(tools)} if tools else {})
