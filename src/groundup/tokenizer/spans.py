"""Where the assistant's turns stand in a rendered conversation, for any chat template.

Searching for an answer's text would be fooled by a user who says the same, and templates change what they are given
(they trim, or drop earlier reasoning). So each answer is replaced by a mark and the conversation rendered again: what
then stands after the mark is what follows the answer, and its length says where the answer ends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from groundup.errors import UserError
from groundup.tokenizer.template import BadConversation, Template, special_tokens


class Span(NamedTuple):
    """Characters from `start` up to `end`, of which the first from `content_end` on are the end-of-turn token."""

    start: int
    content_end: int
    end: int


def answer_span(template: Template, rows: list[dict[str, Any]], index: int, text: str) -> Span:
    """The characters of `text` that the model has to write for message number `index`, end of turn included.

    text: all of `rows`, rendered. Raises UserError where the template cannot be understood.
    """
    mark = _unused(text)
    before, after = _around_mark(template, rows, index, mark)
    if not text.endswith(after):
        raise _unclear("what follows an answer depends on the answer")
    return _span(template, rows, index, text, before, len(text) - len(after), mark)


def answer_spans(
    template: Template, rows: list[dict[str, Any]], indices: Sequence[int], text: str
) -> list[Span]:
    """`answer_span` of each of these messages, in order.

    Many answers are marked together, in one rendering. Where the text is what stands around the marks with the very
    answers between, that says where each one ends; else they are marked one by one.
    """
    if len(indices) < 2 or (found := _contents(template, rows, indices, text)) is None:
        return [answer_span(template, rows, index, text) for index in indices]
    mark = _unused(text)
    return [
        _span(template, rows, index, text, text[:begin], end, mark)
        for index, (begin, end) in zip(indices, found)
    ]


def _contents(
    template: Template, rows: list[dict[str, Any]], indices: Sequence[int], text: str
) -> list[tuple[int, int]] | None:
    """Where the text has these messages' contents, as they are or trimmed; None where that is not certain."""
    if any(set(rows[index]) != {"role", "content"} for index in indices):
        return None
    mark, marked = _unused(text), list(rows)
    for index in indices:
        marked[index] = rows[index] | {"content": f"{mark}{index}X"}
    try:
        pieces = re.split(rf"{mark}(\d+)X", template.fill(marked))
    except BadConversation:
        return None
    if pieces[1::2] != [str(index) for index in indices] or not text.startswith(pieces[0]):
        return None
    found, place = [], len(pieces[0])
    for index, after in zip(indices, pieces[2::2], strict=True):
        said = rows[index]["content"]
        as_written = (each for each in (said, said.strip()) if text.startswith(each + after, place))
        if (content := next(as_written, None)) is None:
            return None
        found.append((place, place + len(content)))
        place += len(content) + len(after)
    return found if place == len(text) else None


def _span(
    template: Template,
    rows: list[dict[str, Any]],
    index: int,
    text: str,
    before: str,
    content_end: int,
    mark: str,
) -> Span:
    """before: the text before the answer's content. mark: a word that does not occur in the text."""
    start = _start(template, rows, index, text, before, mark)
    if start > content_end:
        raise _unclear("an answer ends before it begins")
    ending = _end_of_turn(template, text, content_end)
    return Span(start, content_end, ending.end())


def end_of_turn_token(template: Template) -> str:
    """The token that the template puts after an answer."""
    rows = template.messages(())
    rows += [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello."}]
    text = template.fill(rows)
    return _end_of_turn(template, text, answer_span(template, rows, len(rows) - 1, text).content_end)[1]


def _start(
    template: Template, rows: list[dict[str, Any]], index: int, text: str, before: str, mark: str
) -> int:
    """Where the generation prompt ends: what stands there at chat time is never learned."""
    content = _common(before, text)
    try:
        prompt = template.fill(rows[:index], add_generation_prompt=True)
    except (
        BadConversation
    ):  # many templates refuse to answer nobody: the conversation begins with this answer
        return content
    if text.startswith(prompt):
        if text[len(prompt) : content].strip() and template.fill(rows[:index]) == prompt:
            return content  # the template knows no generation prompt: the turn's header is no answer
        return len(prompt)
    # Earlier turns look different when more follow (reasoning is dropped), so only the text since the previous
    # message is compared; and what the prompt has beyond the header (an empty <think>) may be missing here.
    prompt_after = _around_mark(template, rows[:index], index - 1, mark, add_generation_prompt=True)[1]
    text_after = _around_mark(template, rows, index - 1, mark)[1]
    if not text.endswith(text_after):
        return content
    return min(content, len(text) - len(text_after) + _common(prompt_after, text_after))


def _around_mark(
    template: Template,
    rows: list[dict[str, Any]],
    index: int,
    mark: str,
    *,
    add_generation_prompt: bool = False,
) -> tuple[str, str]:
    """What stands before and after the mark when it is all that message number `index` says."""
    marked = [*rows[:index], {"role": rows[index]["role"], "content": mark}, *rows[index + 1 :]]
    pieces = template.fill(marked, add_generation_prompt=add_generation_prompt).split(mark)
    if len(pieces) != 2:
        times = "not at all" if len(pieces) == 1 else f"{len(pieces) - 1} times"
        raise _unclear(f"it writes the content of role {rows[index]['role']!r} {times}")
    return pieces[0], pieces[1]


def _end_of_turn(template: Template, text: str, content_end: int) -> re.Match[str]:
    """The special tokens that close a turn, the last of them as group 1: one, or a run up to the tokenizer's EOS."""
    special = special_tokens(template.tokenizer).pattern
    eos = re.escape(template.tokenizer.eos_token or "")
    run = re.compile(rf"\s*(?:{special})*?({eos})") if eos else None
    found = run.match(text, content_end) if run else None
    found = found or re.compile(rf"\s*({special})").match(text, content_end)
    if not found:
        raise UserError(
            "The chat template writes no end-of-turn token after an answer.",
            why=f"what follows is {text[content_end : content_end + 20]!r}, so the model would not learn to stop",
            fix="end assistant turns of the template with a special token, such as eos_token",
        )
    return found


def _common(first: str, second: str) -> int:
    """How many characters two texts share at their beginning."""
    if second.startswith(first):
        return len(first)
    pairs = enumerate(zip(first, second))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


def _unused(text: str) -> str:
    """A word that does not occur in the text, and that no template would trim or split."""
    number = 0
    while (mark := f"GroundupMark{number}X") in text:
        number += 1
    return mark


def _unclear(why: str) -> UserError:
    return UserError(
        "The chat template cannot be analysed, so it is unknown which tokens to train on.",
        why=why,
        fix="set chat.chat_template to a template that writes every message once, one after the other",
    )
