"""Hold-outs depend on content alone."""

import json
import random

from hypothesis import given
from hypothesis import strategies as st

from groundup.config.schema import DataSettings
from groundup.data import (
    Conversation,
    Ledger,
    Message,
    Origin,
    Pair,
    is_held_out,
    read_pairs,
    split_holdout,
    split_rows,
)

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


def asked(*said):
    roles = ("user", "assistant")
    return tuple(Message(roles[i % 2], text) for i, text in enumerate(said))


def pair(*said):
    return Pair(asked(*said), (Message("assistant", "yes"),), (Message("assistant", "no"),), Origin("f", 1))


def test_cuts_of_one_conversation_stay_on_one_side():
    rows = [
        pair(f"q{i}", *said) for i in range(60) for said in ((), ("a", "more"), ("a", "more", "b", "most"))
    ]
    train, held_out = split_rows(rows, 0.2)
    assert train and held_out and len(train) + len(held_out) == len(rows)
    assert not {row.opening for row in train} & {row.opening for row in held_out}
    by_prompt = split_holdout(rows, 0.2, lambda row: row.key)
    assert {row.opening for row in by_prompt[0]} & {row.opening for row in by_prompt[1]}


def test_what_most_rows_begin_with_is_no_question():
    rows = [pair("Play a game.", "Which?", f"{i}") for i in range(40)] + [pair(f"q{i}") for i in range(10)]
    train, held_out = split_rows(rows + rows, 0.3)
    assert {row.opening for row in train} & {row.opening for row in held_out} == {"user: Play a game."}
    assert not {row.key for row in train} & {row.key for row in held_out}
    assert split_rows([], 0.3) == ([], [])


def test_what_many_rows_begin_with_does_not_make_the_hold_out_large():
    forms = [pair(form, "a", f"{form} {i}") for form in ("hello", "hi there") for i in range(300)]
    rows = [*forms, *(pair(f"q{i}") for i in range(400))]
    train, held_out = split_rows(rows, 0.1)
    assert len(train) + len(held_out) == 1000
    assert 60 < len(held_out) < 140


def test_rows_of_one_prompt_stay_together_where_it_begins_with_an_answer():
    greeting = (Message("assistant", "hello"), Message("user", "q"))
    rows = [
        Conversation((*greeting, Message("assistant", f"{i}")), Origin("f", i), scored_from=2)
        for i in range(9)
    ]
    others = [Conversation(asked(f"q{i}", "a"), Origin("f", i)) for i in range(9)]
    for part in split_rows([*rows, *others], 0.4):
        assert sum(row.scored_from for row in part) in (0, 18)


def test_pairs_of_one_tree_stay_on_one_side(tmp_path):
    def message(name, parent, role, rank=None):
        return {"message_id": name, "parent_id": parent, "role": role, "text": name, "rank": rank}

    lines = []
    for tree in range(40):
        above = None
        for depth in range(3):
            question = f"{tree} question {depth}"
            lines.append(message(question, above, "prompter"))
            lines += [message(f"{question} answer {rank}", question, "assistant", rank) for rank in (0, 1)]
            above = f"{question} answer 0"
    path = tmp_path / "messages.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    pairs = read_pairs(DataSettings(path=[str(path)]), Ledger())
    assert len(pairs) == 120
    train, held_out = split_rows(pairs, 0.25)
    trees = [{row.chosen[0].content.split()[0] for row in part} for part in (train, held_out)]
    assert trees[0] and trees[1] and not trees[0] & trees[1]
