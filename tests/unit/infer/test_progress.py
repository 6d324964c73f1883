"""The bar of answers moves with their tokens, and ends where all are done."""

import contextlib

import pytest

from groundup import console
from groundup.infer import answer_progress


@pytest.fixture
def told(monkeypatch):
    """(title, settings) of the bar, and what it was advanced by."""
    calls = []

    class Bar:
        def advance(self, count):
            calls.append(count)

    @contextlib.contextmanager
    def progress(title, **settings):
        calls.append((title, settings))
        yield Bar()

    monkeypatch.setattr(console, "progress", progress)
    return calls


def test_a_token_is_a_share_and_an_answers_end_the_rest_of_it(told):
    with answer_progress("Answering", 2, 4, {9}, brief=True) as on_token:
        on_token(0, 5)
        on_token(1, 9)
        for token in (5, 6, 7):
            on_token(0, token)
    assert told[0] == ("Answering", {"total": 2, "unit": "answer", "brief": True})
    assert told[1:3] == [0.25, 1.0] and sum(told[1:]) == pytest.approx(2)


def test_answers_that_the_context_ended_are_done_too_and_failed_ones_are_not(told):
    with answer_progress("Answering", 3, 4, ()) as on_token:
        on_token(2, 5)
    assert sum(told[1:]) == pytest.approx(3)
    with pytest.raises(RuntimeError), answer_progress("Answering", 3, 4, ()) as on_token:
        raise RuntimeError
    assert sum(part for part in told if isinstance(part, float)) == pytest.approx(3)
