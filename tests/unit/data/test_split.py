"""Hold-outs depend on content alone."""

import random

from hypothesis import given
from hypothesis import strategies as st

from groundup.data import is_held_out, split_holdout

KEYS = st.lists(st.text(max_size=5), max_size=40)


def same(key):
    return key


@given(KEYS, st.floats(0.0, 0.99), st.randoms())
def test_nothing_is_lost_and_order_does_not_matter(keys, fraction, shuffler):
    train, held_out = split_holdout(keys, fraction, same)
    assert sorted(train + held_out) == sorted(keys)
    assert not set(train) & set(held_out)
    mixed = keys.copy()
    shuffler.shuffle(mixed)
    train_2, held_out_2 = split_holdout(mixed, fraction, same)
    assert (sorted(train), sorted(held_out)) == (sorted(train_2), sorted(held_out_2))


@given(st.sets(st.text(max_size=5), min_size=2, max_size=20), st.floats(1e-6, 0.99))
def test_both_sides_have_a_row(keys, fraction):
    train, held_out = split_holdout(sorted(keys), fraction, same)
    assert train and held_out


def test_share_and_agreement_with_is_held_out():
    keys = [f"row {i}" for i in range(4000)]
    train, held_out = split_holdout(keys, 0.05, same)
    assert 140 < len(held_out) < 260
    assert all(is_held_out(key, 0.05) for key in held_out)
    assert not any(is_held_out(key, 0.05) for key in train)


def test_no_fraction_holds_nothing_out_and_order_is_kept():
    keys = random.Random(0).sample(range(100), 100)
    assert split_holdout(keys, 0.0, str) == (keys, [])
    train, held_out = split_holdout(keys, 0.3, str)
    assert train == [key for key in keys if key in set(train)]
    assert held_out == [key for key in keys if key in set(held_out)]


def test_more_rows_move_no_row_between_the_sides():
    few, many = [f"{i}" for i in range(200)], [f"{i}" for i in range(400)]
    assert set(split_holdout(few, 0.2, same)[1]) == set(split_holdout(many, 0.2, same)[1]) & set(few)
