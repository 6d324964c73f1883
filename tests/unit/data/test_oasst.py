"""OpenAssistant's messages one a row: joined to the same conversations as trees, and to pairs; every row counted."""

import json
import random
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundup.config.schema import DataSettings
from groundup.data import Ledger, read_conversations, read_pairs, recognise_first
from groundup.data import oasst_flat as flat
from groundup.data.read import read_records
from groundup.errors import UserError


def message(name, parent, role="assistant", **more):
    return {"message_id": name, "parent_id": parent, "role": role, "text": f"text {name}", **more}


TREE = [
    message("q", None, "prompter"),
    message("a1", "q", rank=1),
    message("a0", "q", rank=0),
    message("a2", "q", rank=2),
    message("q0", "a0", "prompter", rank=0),
    message("b1", "q0", rank=1),
    message("b0", "q0", rank=0),
    message("q1", "a0", "prompter", rank=1),
    message("c", "q1"),
]


def write(folder, rows, name="rows.jsonl"):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataSettings(path=[str(folder / name)], max_bad_rows=0.9)


def texts(messages):
    return [message.content.removeprefix("text ") for message in messages]


def told(folder, rows):
    ledger = Ledger(folder / "quarantine.jsonl")
    found = read_conversations(write(folder, rows), ledger)
    assert ledger.balanced and ledger.rows_in == len(rows)
    return [texts(one.messages) for one in found], ledger


def compared(folder, rows):
    ledger = Ledger()
    found = read_pairs(write(folder, rows), ledger)
    assert ledger.balanced and ledger.rows_in == len(rows)
    return [(texts(one.prompt), texts(one.chosen), texts(one.rejected)) for one in found], ledger


def test_the_path_of_the_best_answers(tmp_path):
    for rows in (TREE, TREE[::-1]):
        found, ledger = told(tmp_path, rows)
        assert found == [["q", "a0", "q0", "b0"]]
        assert (ledger.kept, ledger.filtered) == (1, {flat.JOINED: 3, flat.NOT_BEST: 5})


def test_the_best_against_the_worst(tmp_path):
    found, ledger = compared(tmp_path, TREE)
    assert found == [(["q"], ["a0"], ["a2"]), (["q", "a0", "q0"], ["b0"], ["b1"])]
    assert ledger.kept == 2
    assert ledger.filtered == {flat.JOINED: 2, flat.REJECTED: 2, flat.BETWEEN: 1, flat.NOT_RANKED: 2}


def test_equal_ranks_and_equal_answers_make_no_pair(tmp_path):
    rows = [message("q", None, "prompter"), message("a", "q", rank=1), message("b", "q", rank=1)]
    assert compared(tmp_path, rows)[0] == []
    rows = [rows[0], rows[1] | {"rank": 0}, rows[2] | {"text": "text a"}]
    found, ledger = compared(tmp_path, rows)
    assert found == [] and ledger.quarantined == {"chosen equals rejected": 1}


def test_rows_whose_parent_is_missing_are_counted(tmp_path):
    lost = [message("x", "gone"), message("y", "x", "prompter"), message("l", "m"), message("m", "l")]
    found, ledger = told(tmp_path, [*TREE, *lost])
    assert len(found) == 1 and ledger.quarantined == {flat.ORPHAN: 4}
    first = json.loads((tmp_path / "quarantine.jsonl").read_text().splitlines()[0])
    assert (first["line"], first["reason"], first["row"]) == (10, flat.ORPHAN, lost[0])
    spec = write(tmp_path, [*TREE, *lost]).model_copy(update={"max_bad_rows": 0.01})
    with pytest.raises(UserError, match="4 of 13 rows cannot be used"):
        read_conversations(spec, Ledger())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"deleted": True}, "deleted, or an answer to what was deleted"),
        ({"review_result": False}, "refused by its reviewers, or an answer to what was refused"),
        ({"tree_state": "aborted_low_grade"}, "the tree's state is aborted_low_grade"),
    ],
)
def test_what_was_left_out_takes_its_answers_along(tmp_path, change, reason):
    rows = [row | change if row["message_id"] == "a0" else row for row in TREE]
    found, ledger = told(tmp_path, rows)
    assert found == [["q", "a1"]]
    assert ledger.filtered[reason] == 6


def test_trees_that_are_not_ready_and_questions_without_an_answer(tmp_path):
    rows = [message("q", None, "prompter"), message("a", "q"), message("more", "a", "prompter")]
    found, ledger = told(tmp_path, [*rows, message("alone", None, "prompter")])
    assert found == [["q", "a"]] and ledger.filtered == {flat.JOINED: 1, flat.UNANSWERED: 2}
    nested = {"message_tree_id": "t", "tree_state": "growing", "prompt": {"text": "q", "role": "prompter"}}
    found, ledger = told(tmp_path, [nested])
    assert ledger.filtered == {"the tree's state is growing": 1}


def test_broken_rows_and_copies(tmp_path):
    rows = [*TREE, TREE[0], message("z", "q", "wizard"), message(5, "q"), message("e", "q") | {"text": " "}]
    found, ledger = told(tmp_path, rows)
    assert found == [["q", "a0", "q0", "b0"]]
    assert ledger.deduplicated == 1
    assert ledger.quarantined == {
        "unknown role 'wizard'": 1,
        "'message_id' is not text": 1,
        "empty answer": 1,
    }


def test_a_table_and_several_files(tmp_path):
    rows = [{"rank": "", "deleted": "False", **row} | {"parent_id": row["parent_id"] or ""} for row in TREE]
    for number, part in enumerate((rows[5:], rows[:5])):  # answers before what they answer, in another file
        cells = [[str(row[name]) for name in rows[0]] for row in part]
        lines = [",".join(line) for line in [list(rows[0]), *cells]]
        (tmp_path / f"{number}.csv").write_text("\n".join(lines) + "\n")
    spec = DataSettings(path=[str(tmp_path)])
    assert [texts(one.messages) for one in read_conversations(spec, Ledger())] == [["q", "a0", "q0", "b0"]]
    assert len(read_pairs(spec, Ledger())) == 2


def test_what_the_rows_are_taken_for(tmp_path):
    spec = write(tmp_path, TREE)
    assert recognise_first(spec).layout == "oasst_flat", "more rows are messages than have a rank"
    assert recognise_first(spec, "pairs").layout == "oasst_flat_preference"
    with pytest.raises(UserError, match="conversations, and pairs are needed"):
        recognise_first(write(tmp_path, [{**row, "rank": None} for row in TREE]), "pairs")


def flattened(node, parent=None):
    row = {name: value for name, value in node.items() if name != "replies"} | {"parent_id": parent}
    return [row, *(row for reply in node["replies"] for row in flattened(reply, node["message_id"]))]


def test_as_the_published_trees(groundup_data, tmp_path):
    """The same hundred conversations, whether a tree is a row or each of its messages is, in whatever order."""
    folder = groundup_data / "sft/oasst_sample"
    trees = [json.loads(line) for line in (folder / "en_100_tree.jsonl").read_text().splitlines()]
    nested = read_conversations(DataSettings(path=[str(folder / "en_100_tree.jsonl")]), Ledger())
    rows = [row for tree in trees for row in flattened(tree["prompt"])]
    assert len(rows) > 5 * len(nested)
    found, _ = told(tmp_path, rows)
    assert found == [texts(one.messages) for one in nested]
    random.Random(0).shuffle(rows)
    again, _ = told(tmp_path, rows)
    assert sorted(one[0] for one in again) == sorted(one[0] for one in found), (
        "unranked replies may change places"
    )
    pairs, ledger = compared(tmp_path, rows)
    assert len(pairs) > len(nested) and ledger.kept == len(pairs)


FORESTS = st.lists(
    st.fixed_dictionaries(
        {
            "message_id": st.integers(0, 9).map(str),
            "parent_id": st.none() | st.integers(0, 11).map(str),
            "role": st.sampled_from(["prompter", "assistant", "assistant", "nobody"]),
            "text": st.sampled_from(["a", "b", "c", "", "d"]),
        },
        optional={
            "rank": st.none() | st.integers(0, 3) | st.sampled_from(["1", "x", float("inf"), True]),
            "deleted": st.sampled_from([True, False, None, "maybe"]),
            "tree_state": st.sampled_from(["ready_for_export", "growing"]),
        },
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=FORESTS)
def test_every_row_of_any_forest_is_in_one_place(tmp_path, rows):
    spec = write(tmp_path, rows)
    for read in (read_conversations, read_pairs):
        ledger = Ledger()
        try:
            found = read(spec, ledger)
        except UserError as error:
            assert error.where.startswith(str(tmp_path))
        else:
            assert ledger.balanced and ledger.kept == len(found) and ledger.rows_in == len(rows)


def test_texts_wait_on_the_disk(tmp_path):
    long = "a long text " * 2000
    rows = [message("q", None, "prompter")]
    for number in range(400):
        rows.append(message(f"a{number}", rows[-1 if number % 2 else 0]["message_id"]) | {"text": long})
    spec = write(tmp_path, rows)
    del rows
    tracemalloc.start()
    for _ in read_records(spec, Ledger(), "conversations"):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000 < 400 * len(long), "100 rows that decide on the layout are in memory at once"
