"""What a tokenizer makes of records: lengths, what the loss sees, and whether we render as the tokenizer does."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groundup.config.schema import ChatSettings
from groundup.data import Conversation, Document, Message, Pair, Prompt
from groundup.data.layouts import Record
from groundup.data.survey import Places
from groundup.store.files import read_json
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.chat import BadConversation, Rendered, render, render_pair, render_prompt, stop_tokens
from groundup.tokenizer.template import Template, special_tokens

COMPARED_ROWS = 300
"""A template is compared on so many rows: it is the same for all, and comparing is slow."""
NO_LIMIT_TOKENS = 10**9  # tokenizers without a limit name a huge one


@dataclass(frozen=True)
class Side:
    """A chain of tokens that is trained on. name: chosen, rejected, or what kind of record it is."""

    name: str
    messages: tuple[Message, ...]
    rendered: Rendered


class TokenSurvey:
    """Numbers over the records that were tokenized. Raises UserError where no conversation could be rendered."""

    def __init__(self, tokenizer: Tokenizer, chat: ChatSettings, kind: str) -> None:
        self.tokenizer, self.chat = tokenizer, chat
        self.stop: set[int] = set()
        self.places = Places()
        self.bad = Places()
        """Records that cannot be rendered, by reason."""
        self.length_tokens = array("q")
        """Of each record, the longer side of a pair."""
        self.all_tokens = self.scored_tokens = self.compared = 0
        if kind != "documents":
            Template.of(tokenizer, chat)  # raises where there is none
            self.stop = set(stop_tokens(tokenizer, chat))

    @property
    def rows(self) -> int:
        """Records that were tried."""
        return len(self.length_tokens) + self.bad.count.total()

    def add(self, record: Record) -> list[Side]:
        """Tokenize one record and count it; its sides, or none where it cannot be used."""
        try:
            sides = self._sides(record)
        except BadConversation as error:
            self.bad.note(str(error), record.origin)
            return []
        self.length_tokens.append(max(len(side.rendered.token) for side in sides))
        for side in sides:
            self.all_tokens += len(side.rendered.token)
            self.scored_tokens += int(side.rendered.scored.sum())
        if isinstance(record, (Conversation, Pair)):
            self._check_end(record, sides)
            if self.compared < COMPARED_ROWS:
                self.compared += 1
                self._compare(record, sides)
        return sides

    def _sides(self, record: Record) -> list[Side]:
        if isinstance(record, Document):
            return [Side("document", (), self._document(record))]
        if isinstance(record, Prompt):
            return [
                Side("prompt", record.messages, render_prompt(self.tokenizer, record.messages, self.chat))
            ]
        if isinstance(record, Pair):
            chains = render_pair(self.tokenizer, record, self.chat)
            names, answers = ("chosen", "rejected"), (record.chosen, record.rejected)
            return [
                Side(name, (*record.prompt, *answer), chain)
                for name, answer, chain in zip(names, answers, chains, strict=True)
            ]
        chain = render(
            self.tokenizer, record.messages, self.chat, tools=record.tools, scored_from=record.scored_from
        )
        return [Side("conversation", record.messages, chain)]

    def _document(self, record: Document) -> Rendered:
        """As shards have it: special tokens stay text, end of text behind it; all but the first token are learned."""
        if special_tokens(self.tokenizer).search(record.text):
            self.places.note("special_token_in_document", record.origin)
        encoded = self.tokenizer(record.text, verbose=False, split_special_tokens=True)["input_ids"]
        eos = self.tokenizer.eos_token_id
        ends = eos is None or encoded[-1:] == [eos]
        token = np.array(encoded if ends else [*encoded, eos], dtype=np.int32)
        return Rendered(token, np.arange(len(token)) > 0, record.text)

    def _check_end(self, record: Conversation | Pair, sides: Sequence[Side]) -> None:
        """Whether the loss sees an end of turn for each answer, and last of all."""
        learned_from = len(record.prompt) if isinstance(record, Pair) else record.scored_from
        for side in sides:
            learned = side.rendered.token[side.rendered.scored].tolist()
            answers = sum(m.role == "assistant" for m in side.messages[learned_from:])
            if learned[-1] not in self.stop or sum(token in self.stop for token in learned) < answers:
                self.places.note("end_of_turn_not_learned", record.origin)
                return

    def _compare(self, record: Conversation | Pair, sides: Sequence[Side]) -> None:
        """With the tokenizer's own rendering, and with what a chat would ask."""
        if not all(self._as_stock(side, record.tools) for side in sides):
            self.places.note("template_differs", record.origin)
        if not all(self._prompted(side, record.tools) for side in sides):
            self.places.note("chat_prompt_differs", record.origin)

    def _as_stock(self, side: Side, tools: Any) -> bool:
        """Whether `apply_chat_template` gives the same tokens; ours end at the last one that is learned."""
        template = Template.of(self.tokenizer, self.chat, tools)
        theirs = self.tokenizer.apply_chat_template(
            template.messages(side.messages),
            tools=template.tools,
            chat_template=template.source,
            tokenize=True,
            return_dict=False,
            **self.chat.chat_template_kwargs,
        )
        ours = side.rendered.token.tolist()
        rest = self.tokenizer.decode(theirs[len(ours) :], skip_special_tokens=False)
        # What the template writes behind the last end of turn is white space, or an end of text; never an answer.
        without = special_tokens(self.tokenizer).sub("", rest)
        return theirs[: len(ours)] == ours and not without.strip()

    def _prompted(self, side: Side, tools: Any) -> bool:
        """Whether the last answer is learned behind the very tokens that a chat would put there."""
        if len(side.messages) == 1:  # an answer to nobody: many templates refuse to ask for it
            return True
        asked = render_prompt(self.tokenizer, side.messages[:-1], self.chat, tools=tools).token
        return len(asked) <= len(side.rendered.token) and bool(
            (side.rendered.token[: len(asked)] == asked).all()
        )


def context_tokens(path: Path, tokenizer: Tokenizer) -> int | None:
    """Tokens that the model reads at most, from its config, GGUF file or tokenizer; None: unknown."""
    if path.is_file():
        from gguf import GGUFReader

        reader = GGUFReader(str(path))
        name = reader.get_field("general.architecture")
        field = reader.get_field(f"{name.contents()}.context_length") if name else None
        return int(field.contents()) if field else None
    if (config := path / "config.json").is_file():
        written = read_json(config)
        written = written.get("text_config", written) if isinstance(written, dict) else {}
        for key in ("max_position_embeddings", "n_positions", "max_sequence_length"):
            if isinstance(written.get(key), int):
                return int(written[key])
    limit = getattr(tokenizer, "model_max_length", None)
    return int(limit) if limit and limit < NO_LIMIT_TOKENS else None
