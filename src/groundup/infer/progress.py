"""How far answers are, for people who wait for them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from groundup import console


@contextmanager
def answer_progress(
    title: str, answers: int, most_tokens: int, stop_tokens: Collection[int], brief: bool = False
) -> Iterator[Callable[[int, int], None]]:
    """A bar of answers; what it gives is `generate`'s `on_token`.

    Rows are decoded side by side, so an answer counts bit by bit: a token is its share of the longest that may be,
    and the end of an answer is the rest of it. brief: as of `console.progress`.
    """
    left = [most_tokens] * answers
    with console.progress(title, total=answers, unit="answer", brief=brief) as bar:

        def on_token(row: int, token: int) -> None:
            done = left[row] if token in stop_tokens else 1
            left[row] -= done
            bar.advance(done / most_tokens)

        yield on_token
        bar.advance(sum(left) / most_tokens)  # of answers that the model's context ended
