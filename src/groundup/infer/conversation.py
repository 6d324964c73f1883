"""One answer in a conversation: fit it into the context, stream it, and notice when it goes in circles."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from groundup.data.types import Message
from groundup.errors import UserError
from groundup.infer.generate import generate
from groundup.infer.load import Loaded
from groundup.infer.stream import TextStream
from groundup.tokenizer import chat as templates

NGRAM_TOKENS = 4
NGRAMS_AT_LEAST = 16


@dataclass(frozen=True)
class Options:
    """How answers are drawn."""

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int | None

    def turn_seed(self, turn: int) -> int:
        """Another one for every turn, so that asking again may answer differently; without a seed: any."""
        return secrets.randbits(48) if self.seed is None else self.seed + turn


@dataclass(frozen=True)
class Reply:
    text: str
    token: list[int]
    seconds: float
    interrupted: bool


def fit(loaded: Loaded, messages: Sequence[Message], max_new_tokens: int) -> tuple[list[Message], list[int]]:
    """The newest messages that leave room for an answer in the context, and the prompt made of them.

    Room is `max_new_tokens`, but never asks for more than half of the context. Whole turns (a question and its
    answer) are dropped, oldest first. Raises UserError when the last message alone does not fit.
    """
    kept = list(messages)
    limit_tokens = loaded.context_tokens - min(max_new_tokens, loaded.context_tokens // 2)
    while True:
        prompt = templates.render_prompt(loaded.tokenizer, kept, loaded.chat).token.tolist()
        if len(prompt) <= limit_tokens:
            return kept, prompt
        if len(kept) <= 2:
            break
        del kept[:2]
    if len(prompt) < loaded.context_tokens:
        return kept, prompt
    raise too_long(len(prompt), loaded)


def fit_text(loaded: Loaded, text: str) -> list[int]:
    """The prompt for a base model: the text itself, with the tokenizer's own beginning. UserError if too long."""
    prompt = list(loaded.tokenizer(text, verbose=False)["input_ids"])
    if len(prompt) >= loaded.context_tokens:
        raise too_long(len(prompt), loaded)
    return prompt


def too_long(prompt_tokens: int, loaded: Loaded) -> UserError:
    return UserError(
        f"the message is too long: {prompt_tokens:,} tokens",
        why=f"this model reads at most {loaded.context_tokens:,} tokens, its answer included",
        fix="shorten it, or send it in parts",
    )


def stream_reply(
    loaded: Loaded, prompt: Sequence[int], options: Options, write: Callable[[str], None], turn: int = 0
) -> Reply:
    """Generate and hand every piece of text to `write` as soon as it is certain. ctrl-C ends the answer early."""
    text = TextStream(loaded.tokenizer, prompt)
    pieces: list[str] = []
    tokens: list[int] = []

    def put(piece: str) -> None:
        if piece:
            pieces.append(piece)
            write(piece)

    def take(_row: int, token: int) -> None:
        tokens.append(token)
        if token not in loaded.stop_tokens:
            put(text.push(token))

    started, interrupted = time.perf_counter(), False
    try:
        generate(
            loaded.model,
            [prompt],
            max_new_tokens=options.max_new_tokens,
            stop_tokens=loaded.stop_tokens,
            temperature=options.temperature,
            top_p=options.top_p,
            seed=options.turn_seed(turn),
            on_token=take,
        )
    except KeyboardInterrupt:
        interrupted = True
    put(text.finish())
    return Reply("".join(pieces), tokens, time.perf_counter() - started, interrupted)


def repeats(tokens: Sequence[int]) -> bool:
    """Whether more than half of the text's four-token pieces were there before: it goes in circles."""
    pieces = [tuple(tokens[i : i + NGRAM_TOKENS]) for i in range(len(tokens) - NGRAM_TOKENS + 1)]
    return len(pieces) >= NGRAMS_AT_LEAST and 2 * len(set(pieces)) < len(pieces)
