"""Conversations to tokens, and which of them the loss sees: the one way for training, evaluation and chat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from groundup.config.schema import ChatSettings
from groundup.data.types import Message, Pair
from groundup.tokenizer.spans import Span, answer_spans, end_of_turn_token
from groundup.tokenizer.template import BadConversation, Template, special_tokens

__all__ = [
    "BadConversation",
    "Rendered",
    "render",
    "render_pair",
    "render_prompt",
    "render_whole",
    "stop_tokens",
]


KEPT_CHARS = 20
"""Of an answer's end, to see whether a template wrote it: the beginning may be reasoning, which some write anew."""


@dataclass(frozen=True, eq=False)
class Rendered:
    """A conversation as the model reads it.

    token: int32 [T]. scored: bool [T]; the loss has token t as a target where scored[t]. text: what the tokens say.
    """

    token: np.ndarray
    scored: np.ndarray
    text: str


def render(
    tokenizer: Any,
    messages: Sequence[Message],
    chat: ChatSettings,
    *,
    loss_on: Literal["all", "last"] = "all",
    tools: Sequence[dict[str, Any]] | None = None,
    scored_from: int = 0,
) -> Rendered:
    """A conversation to learn from: the assistant's turns are scored, each to its end-of-turn token inclusive.

    loss_on "last" scores only the last turn; turns before message number `scored_from` are never scored. What stands
    after the last scored token is left out: nothing reads it.

    Raises:
        BadConversation: this conversation cannot be used.
        UserError: no conversation can, because there is no template or it cannot be analysed.
    """
    template = Template.of(tokenizer, chat, tools)
    _check(template, messages)
    if not messages or messages[-1].role != "assistant":
        raise BadConversation("the last message is not an assistant's")
    rows = template.messages(messages)
    added = len(rows) - len(messages)
    answers = [
        i + added for i, m in enumerate(messages) if m.role == "assistant" and i >= scored_from
    ]  # never empty: the last one is an answer
    if loss_on == "last":
        answers = answers[-1:]
    text = template.fill(rows)
    spans = answer_spans(template, rows, answers, text)
    for index, span in zip(answers, spans, strict=True):
        _check_kept(rows[index], text[span.start : span.content_end], last=index == answers[-1])
    _check_tools(template, text)
    return _score(tokenizer, text, spans)


def render_pair(tokenizer: Any, pair: Pair, chat: ChatSettings) -> tuple[Rendered, Rendered]:
    """Prompt and chosen, prompt and rejected; only what follows the prompt is scored. Raises as `render` does."""
    chosen, rejected = (
        render(tokenizer, [*pair.prompt, *side], chat, tools=pair.tools, scored_from=len(pair.prompt))
        for side in (pair.chosen, pair.rejected)
    )
    return chosen, rejected


def render_prompt(
    tokenizer: Any,
    messages: Sequence[Message],
    chat: ChatSettings,
    *,
    tools: Sequence[dict[str, Any]] | None = None,
) -> Rendered:
    """A conversation for the model to continue: it ends with the generation prompt, and nothing is scored."""
    template = Template.of(tokenizer, chat, tools)
    _check(template, messages)
    text = template.fill(template.messages(messages), add_generation_prompt=True)
    return _score(tokenizer, text, [])


def render_whole(
    tokenizer: Any,
    messages: Sequence[Message],
    chat: ChatSettings,
    *,
    tools: Sequence[dict[str, Any]] | None = None,
) -> Rendered:
    """A conversation to judge: all that the template writes, also behind the last turn, and nothing is scored.

    So whoever applies the template with transformers has the same tokens. Raises as `render` does.
    """
    template = Template.of(tokenizer, chat, tools)
    _check(template, messages)
    rows = template.messages(messages)
    text = template.fill(rows)
    said = messages[-1].content.strip()[-KEPT_CHARS:]
    if said not in text:
        raise BadConversation("the chat template leaves an answer out")
    return _score(tokenizer, text, [])


def stop_tokens(tokenizer: Any, chat: ChatSettings) -> tuple[int, ...]:
    """Ids that end an assistant's turn: the tokenizer's end of text, and what the chat template ends a turn with."""
    found = set() if tokenizer.eos_token_id is None else {tokenizer.eos_token_id}
    if chat.chat_template or getattr(tokenizer, "chat_template", None):
        found.add(tokenizer.convert_tokens_to_ids(end_of_turn_token(Template.of(tokenizer, chat))))
    return tuple(sorted(found))


def _score(tokenizer: Any, text: str, spans: list[Span]) -> Rendered:
    """Tokens of the whole text at once (tokenization is not prefix-stable), and which begin inside a span.

    A token that begins before a span and reaches into it holds text of the prompt, so it is not scored.
    """
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    token = np.array(encoded["input_ids"], dtype=np.int32)
    offset = np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    # Some tokenizers trim white space off the offsets: a token really begins, at the latest, where the last one ended.
    begin = offset[:, 0].copy()
    begin[1:] = np.minimum(begin[1:], np.maximum.accumulate(offset[:, 1])[:-1])
    scored = np.zeros(len(token), dtype=bool)
    for span in spans:
        scored |= (begin >= span.start) & (begin < span.end)
    scored[:1] = False  # nothing stands before the first token, so nothing predicts it
    if not spans:
        return Rendered(token, scored, text)
    if not scored.any():
        raise BadConversation("the loss sees no token")
    kept = int(np.flatnonzero(scored)[-1]) + 1
    return Rendered(token[:kept], scored[:kept], text[: spans[-1].end])


def _check(template: Template, messages: Sequence[Message]) -> None:
    """Text that looks like a special token would become one, and could end a turn in its middle."""
    pattern = special_tokens(template.tokenizer)
    for message in messages:
        for said in (message.content, message.reasoning_content or ""):
            if found := pattern.search(said):
                raise BadConversation(
                    f"special token inside content: {found[0]} in a message of role {message.role!r}",
                    fix="remove it from the text, or write it differently",
                )


def _check_kept(row: dict[str, Any], answer: str, *, last: bool) -> None:
    """A template that leaves out what the assistant said would teach an empty answer."""
    if any(call.get("function", call).get("name", "") not in answer for call in row.get("tool_calls", ())):
        raise BadConversation("the chat template does not write tool calls")
    reasoning = (row.get("reasoning_content") or "").strip()
    if last and reasoning not in answer:
        raise BadConversation("the chat template does not write reasoning_content")
    if row["content"].strip() and not answer.strip():
        raise BadConversation("the chat template leaves an answer out")


def _check_tools(template: Template, text: str) -> None:
    for tool in template.tools or ():
        if tool.get("function", tool).get("name", "") not in text:
            raise BadConversation("the chat template does not write tools")
