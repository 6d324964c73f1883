"""What is asked of a generator, and the door that another generator can take.

`generate` makes a `Request` out of settings and checks it; a `Generator` answers it. Ours is `LocalGenerator`; an
engine with weights and memory of its own, as vLLM is, would be another class with the same two members.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

from groundup.errors import UserError
from groundup.infer.sample import Sampling
from groundup.infer.stream import Decoder

Value = TypeVar("Value")


@dataclass(frozen=True)
class Generation:
    """What was generated for one row."""

    token: list[int]
    """Without the prompt; with the stop token that ended it, if one did."""
    logp: list[float]
    """Each token's log-probability under the model itself (temperature 1, whole vocabulary), in float32."""
    finished: bool
    """Whether a stop token or a stop string ended it, and not the limit of new tokens or of the context."""


@dataclass(frozen=True)
class Row:
    """One text that is asked for."""

    prompt: int
    """Which of the prompts it continues."""
    most_tokens: int
    """New tokens at most; at least one, and no more than the context holds."""
    sampling: Sampling
    seed: tuple[int, int]
    """The two numbers that its randomness is made of: two rows with the same ones, after one prompt, are the same."""
    stop_strings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """Rows that are wanted, a prompt's side by side."""

    prompts: Sequence[Sequence[int]]
    rows: Sequence[Row]
    stop_tokens: frozenset[int]
    tokenizer: Decoder | None = None
    """Turns tokens into text where there are stop strings."""
    on_token: Callable[[int, int], None] | None = None
    """Called with row and token for every token as it comes, the stop token included; rows take turns."""


class Generator(Protocol):
    """Continues texts."""

    @property
    def context_tokens(self) -> int:
        """Tokens of a prompt and its answer together, at most."""

    def run(self, request: Request) -> list[Generation]:
        """One generation a row, in order."""


def make_request(
    prompts: Sequence[Sequence[int]],
    context_tokens: int,
    *,
    samples: int,
    max_new_tokens: int | Sequence[int],
    stop_tokens: frozenset[int],
    sampling: Sampling | Sequence[Sampling],
    stop_strings: Sequence[str] | Sequence[Sequence[str]],
    tokenizer: Decoder | None,
    seed: int | Sequence[int],
    on_token: Callable[[int, int], None] | None,
) -> Request:
    """Settings, common or per prompt or row, spread over prompts x samples rows. Raises UserError."""
    if samples < 1:
        raise UserError(f"{samples} samples a prompt are asked for", fix="use at least 1")
    count = len(prompts)
    one_for_all = not stop_strings or isinstance(stop_strings[0], str)
    common = cast(Sequence[Sequence[str]], [stop_strings] if one_for_all else stop_strings)
    limits = _spread([max_new_tokens] if isinstance(max_new_tokens, int) else max_new_tokens, count, samples)
    _check([len(prompt) for prompt in prompts], min(limits, default=1), context_tokens)
    how = _spread([sampling] if isinstance(sampling, Sampling) else sampling, count, samples)
    stops = _spread(common, count, samples)
    rows = []
    for place, limit in enumerate(limits):
        prompt, sample = divmod(place, samples)
        most = min(limit, context_tokens - len(prompts[prompt]))
        two = (seed, place) if isinstance(seed, int) else (seed[prompt], sample)
        rows.append(Row(prompt, most, how[place], two, tuple(stops[place])))
    if any("" in row.stop_strings for row in rows):
        raise UserError("a stop string is empty", why="every text would end at once", fix="leave it out")
    assert tokenizer is not None or not any(row.stop_strings for row in rows), "stop strings need a tokenizer"
    return Request(prompts, rows, stop_tokens, tokenizer, on_token)


def _spread(values: Sequence[Value], prompts: int, samples: int) -> Sequence[Value]:
    """One value for all rows, one a prompt, or one a row: as one a row."""
    if len(values) == prompts * samples:
        return values
    if len(values) == 1:
        return [values[0]] * (prompts * samples)
    assert len(values) == prompts, f"{len(values)} settings for {prompts} prompts of {samples} samples each"
    return [value for value in values for _ in range(samples)]


def _check(prompt_tokens: Sequence[int], max_new_tokens: int, limit_tokens: int) -> None:
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {max_new_tokens}", fix="use at least 1")
    if min(prompt_tokens, default=1) == 0:
        raise UserError(
            "a prompt is empty", why="a model needs a token to begin with", fix="give it some text"
        )
    if max(prompt_tokens, default=0) >= limit_tokens:
        raise UserError(
            f"a prompt of {max(prompt_tokens):,} tokens leaves no room for an answer",
            why=f"this model's context is {limit_tokens:,} tokens (max_position_embeddings)",
            fix="shorten the prompt, or use a model with a longer context",
        )
