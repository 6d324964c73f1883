"""Records to rows: what is shared, what is read from where, and that no token is lost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.batch import Chain, Record, pack_step, segment_tokens
from groundup.errors import UserError


def chain(tokens, prompt):
    token = np.array(tokens, dtype=np.int32)
    return Chain(token, np.arange(len(token)) >= prompt)


def pair(index=0):
    return Record(index, (chain([5, 6, 7, 8, 9], 3), chain([5, 6, 7, 8, 3, 4], 3)))


def reads(row):
    """(tokens from the root to the source, target) of every read: what the model is asked."""
    found = []
    for source, target in zip(row.source_N.tolist(), row.target_N.tolist()):
        segment = max(s for s in range(len(row.start_S)) if row.start_S[s] <= source)
        start, parent = int(row.start_S[segment]), int(row.parent_S[segment])
        text = row.token_T[start : source + 1].tolist()
        if parent >= 0:
            begin = int(row.start_S[parent])
            text = row.token_T[begin : begin + int(row.length_S[parent])].tolist() + text
        found.append((text, target))
    return found


def test_a_pair_shares_its_prompt_and_ends_the_prefix_at_the_first_scored_token():
    (row,) = pack_step([pair()], 64)
    assert row.length_S.tolist() == [3, 1, 2]
    assert row.parent_S.tolist() == [-1, 0, 0]
    assert row.token_T.tolist() == [5, 6, 7, 8, 8, 3]
    assert row.position_T.tolist() == [0, 1, 2, 3, 3, 4]
    assert row.target_N.tolist() == [8, 9, 8, 3, 4]
    assert row.source_N.tolist() == [2, 3, 2, 4, 5]
    assert row.reads_Q.tolist() == [2, 3]
    assert row.sequences_G.tolist() == [2]
    assert row.sequence_tokens == 11


def test_an_answer_of_one_token_needs_no_segment():
    record = Record(0, (chain([1, 2, 3], 2), chain([1, 2, 9, 4], 2)))
    (row,) = pack_step([record], 64)
    assert row.length_S.tolist() == [2, 1]
    assert row.source_N.tolist() == [1, 1, 2]
    assert row.target_N.tolist() == [3, 9, 4]


def test_weights_belong_to_the_step_not_to_the_row():
    rows = pack_step([pair(0), pair(1), pair(2)], 6)
    assert len(rows) == 3
    assert sum(float(row.weight_N.sum()) for row in rows) == pytest.approx(1.0)
    assert sum(float(row.weight_G.sum()) for row in rows) == pytest.approx(1.0)


def test_a_record_that_no_row_can_hold_is_an_error():
    with pytest.raises(UserError, match="does not fit"):
        pack_step([pair()], 5)


def test_rows_are_as_few_as_can_be_and_of_like_length():
    """Not four full rows and a short one: each is a call of every layer."""
    steps = [Record(i, (chain([1] * 5 + [2] * 6, 5),)) for i in range(9)]  # 10 tokens each
    assert sorted(len(row.token_T) for row in pack_step(steps, 45)) == [30, 30, 30]
    assert [len(row.token_T) for row in pack_step(steps, 90)] == [90]


@st.composite
def records(draw):
    count = draw(st.integers(1, 6))
    made = []
    for index in range(count):
        prompt = draw(st.lists(st.integers(0, 3), min_size=1, max_size=6))
        answers = draw(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=4))
        made.append(Record(index, tuple(chain(prompt + answer, len(prompt)) for answer in answers)))
    return made


@given(records(), st.sampled_from(["shared", "packed", "single"]), st.integers(44, 80))
def test_every_layout_asks_the_model_the_same_questions(made, layout, row_tokens):
    rows = pack_step(made, row_tokens, layout)
    asked = sorted(
        (int(r), *q) for row in rows for r, q in zip(row.record_Q.repeat_interleave(row.reads_Q), reads(row))
    )
    expected = sorted(
        (record.index, one.token[:t].tolist(), int(one.token[t]))
        for record in made
        for one in record.chains
        for t in np.flatnonzero(one.scored)
    )
    assert asked == expected
    assert all(len(row.token_T) <= row_tokens for row in rows)
    assert sum(len(row.token_T) for row in rows) == sum(segment_tokens(record, layout) for record in made)
