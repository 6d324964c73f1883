"""Every accepted layout of preference pairs, and every reason for which a row is set aside."""

import json

import pytest

from groundup.config.schema import DataSettings
from groundup.data import Ledger, Message, holds_pairs, read_pairs
from groundup.errors import UserError

U, A, S = (lambda text, role=role: Message(role, text) for role in ("user", "assistant", "system"))
Q, GOOD, BAD = (
    {"role": role, "content": text} for role, text in [("user", "q"), ("assistant", "a"), ("assistant", "b")]
)
TURN, HIS_GOOD, HIS_BAD = ({"from": w, "value": t} for w, t in [("human", "q"), ("gpt", "a"), ("gpt", "b")])
HH = "\n\nHuman: q\n\nAssistant: x\n\nHuman: q2\n\nAssistant:"


def read(tmp_path, *rows, ledger=None, **settings):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_pairs(DataSettings(path=[str(path)], **settings), ledger or Ledger())


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, [U("q")]),
        ({"prompt": "q", "chosen": "a", "rejected": "b", "system": "s"}, [S("s"), U("q")]),
        ({"prompt": [Q], "chosen": [GOOD], "rejected": [BAD]}, [U("q")]),
        ({"prompt": "q", "chosen": [Q, GOOD], "rejected": [Q, BAD], "messages": [Q, GOOD]}, [U("q")]),
        ({"prompt": "q", "system": "s", "chosen": [Q, GOOD], "rejected": [Q, BAD]}, [S("s"), U("q")]),
        ({"question": "q", "chosen": "a", "rejected": "b"}, [U("q")]),
        ({"chosen": [Q, GOOD], "rejected": [Q, BAD]}, [U("q")]),
        ({"chosen": [Q, GOOD], "rejected": [Q, BAD], "system": "s"}, [S("s"), U("q")]),
        ({"chosen": HH + " a", "rejected": HH + " b"}, [U("q"), A("x"), U("q2")]),
        ({"conversations": [TURN], "chosen": HIS_GOOD, "rejected": HIS_BAD}, [U("q")]),
        ({"conversations": [TURN], "chosen": HIS_GOOD, "rejected": HIS_BAD, "system": "s"}, [S("s"), U("q")]),
        ({"instruction": "q", "chosen": "a", "rejected": "b"}, [U("q")]),
        ({"instruction": "q", "input": "i", "chosen": "a", "rejected": "b"}, [U("q\ni")]),
    ],
)
def test_layouts(tmp_path, row, prompt):
    (pair,) = read(tmp_path, row)
    assert list(pair.prompt) == prompt
    assert (pair.chosen, pair.rejected) == ((A("a"),), (A("b"),))


def test_conversations_that_part_early_keep_their_own_turns(tmp_path):
    follow_up = {"role": "user", "content": "and?"}
    (pair,) = read(tmp_path, {"chosen": [Q, GOOD, follow_up, GOOD], "rejected": [Q, BAD]})
    assert pair.prompt == (U("q"),)
    assert pair.chosen == (A("a"), U("and?"), A("a"))
    assert pair.key == "user: q"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, "chosen equals rejected"),
        ({"prompt": "q", "chosen": "a", "rejected": " "}, "empty answer"),
        ({"prompt": "q", "chosen": "a", "rejected": []}, "empty answer"),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "empty question"),
        ({"prompt": [], "chosen": "a", "rejected": "b"}, "the prompts of chosen and rejected differ"),
        ({"instruction": None, "chosen": "a", "rejected": "b"}, "no column 'prompt'"),
        ({"prompt": None, "chosen": "a", "rejected": "b"}, "'prompt' is null"),
        (
            {"prompt": "q", "chosen": [{**Q, "content": "x"}, GOOD], "rejected": [Q, BAD]},
            "the prompts of chosen and rejected differ",
        ),
        (
            {"chosen": [{**Q, "content": "x"}, GOOD], "rejected": [Q, BAD]},
            "the prompts of chosen and rejected differ",
        ),
        ({"chosen": [Q, GOOD, Q], "rejected": [Q, BAD]}, "the last message is not an assistant's"),
        (
            {"chosen": HH + " a", "rejected": HH.replace("q", "z") + " b"},
            "the prompts of chosen and rejected differ",
        ),
        ({"chosen": HH + " a", "rejected": HH}, "empty answer"),
        ({"prompt": "q", "chosen": 1, "rejected": "b"}, "'chosen' is not a list of messages"),
    ],
)
def test_bad_rows(tmp_path, row, reason):
    ledger = Ledger()
    good = {"prompt": "q", "chosen": "a", "rejected": "b"}
    assert len(read(tmp_path, good, row, ledger=ledger, max_bad_rows=0.5)) == 1
    assert ledger.quarantined == {reason: 1}
    assert ledger.balanced


def test_a_pair_without_a_prompt_is_refused(tmp_path):
    with pytest.raises(UserError) as caught:
        read(tmp_path, {"chosen": "a", "rejected": "b"})
    assert "prompt" in caught.value.fix


def test_pairs_are_told_from_other_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    spec = DataSettings(path=[str(path)])
    path.write_text('broken\n{"chosen": "q a", "rejected": "q b"}\n')
    assert holds_pairs(spec)
    path.write_text('{"prompt": "q", "completion": "a", "chosen": "q a", "bad": "q b"}\n')
    assert not holds_pairs(spec)
    assert holds_pairs(spec.model_copy(update={"columns": {"rejected": "bad"}}))


def test_columns_rename(tmp_path):
    row = {"ask": "q", "yes": "a", "no": "b"}
    (pair,) = read(tmp_path, row, columns={"prompt": "ask", "chosen": "yes", "rejected": "no"})
    assert pair.prompt == (U("q"),)
