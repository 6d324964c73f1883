"""A mixture's shares are its weights, nothing is used too often, and the same seed gives the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.data.mix import mix


def draws(count, seed=0):
    return np.random.default_rng(seed).integers(0, 2**63, count).astype(np.uint64)


def test_the_scarcest_source_is_used_up_and_the_rest_left_out():
    source = np.array([0] * 100 + [1] * 100)
    made = mix(source, np.full(200, 10), draws(200), [3, 1], 1)
    assert made.times_D[:100].tolist() == [1] * 100
    assert made.times_D[100:].sum() in (33, 34)
    assert made.sources[0]["share"] == pytest.approx(0.75, abs=0.005)
    assert made.sources[1]["left_out"] == 100 - made.times_D[100:].sum()
    other = mix(source, np.full(200, 10), draws(200, 1), [3, 1], 1)
    assert other.times_D.tolist() != made.times_D.tolist()


def test_repeating():
    source = np.array([0] * 10 + [1] * 100)
    made = mix(source, np.full(110, 10), draws(110), [1, 2], 4)
    assert made.times_D[:10].tolist() == [4] * 10 and made.sources[0]["times"] == 4.0
    assert made.times_D[10:].sum() == 80
    part = mix(
        source, np.full(110, 10), draws(110), [1, 4], 4
    )  # the second would need 160, and has 400 at most
    assert part.times_D[:10].tolist() == [4] * 10 and set(part.times_D[10:].tolist()) == {1, 2}
    assert part.times_D[10:].sum() == 160


def test_what_is_gone_already_is_neither_used_nor_left_out():
    made = mix(np.array([0, 0, 1]), np.array([10, 0, 10]), draws(3), [1, 1], 1)
    assert made.times_D.tolist() == [1, 0, 1]
    assert [source["left_out"] for source in made.sources] == [0, 0]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 1000)), min_size=3, max_size=80),
    st.tuples(*[st.floats(0.01, 100)] * 3),
    st.integers(1, 3),
)
def test_shares_are_met_to_within_a_document(documents, weights, repeat):
    documents = [*documents, (0, 5), (1, 5), (2, 5)]
    source, size = (np.array(column) for column in zip(*documents))
    made = mix(source, size, draws(len(size)), weights, repeat)
    assert made.times_D.min() >= 0 and made.times_D.max() <= repeat
    used = np.bincount(source, size * made.times_D, 3)
    total = min(repeat * np.bincount(source, size, 3) * sum(weights) / np.array(weights))
    wanted = total * np.array(weights) / sum(weights)
    assert (np.abs(used - wanted) <= size.max() / 2 + 1).all()
