"""The ledger's balance, its words, and the limit on bad rows."""

import json

import pytest

from groundup.data import Ledger, Origin
from groundup.errors import UserError

HERE = Origin("a.jsonl", 3)


def filled(tmp_path, good: int, bad: int) -> Ledger:
    ledger = Ledger(tmp_path / "quarantine.jsonl")
    for _ in range(good):
        ledger.enter()
        ledger.keep()
    for _ in range(bad):
        ledger.enter()
        ledger.quarantine(HERE, "empty answer", {"answer": "", "half": "\ud800"})
    return ledger


def test_every_verdict_is_counted(tmp_path):
    ledger = filled(tmp_path, 2, 1)
    for verdict in (ledger.deduplicate, lambda: ledger.filter("too short")):
        ledger.enter()
        assert not ledger.balanced
        verdict()
        assert ledger.balanced
    assert ledger.as_dict() == {
        "in": 5,
        "kept": 2,
        "filtered": {"too short": 1},
        "deduplicated": 1,
        "quarantined": {"empty answer": 1},
        "notes": {},
        "recognised": {},
        "splits": {},
    }
    assert str(ledger) == "5 rows: 2 kept, 1 too short, 1 duplicates, 1 unusable (empty answer)"


def test_a_kept_row_can_move(tmp_path):
    ledger = filled(tmp_path, 3, 0)
    ledger.enter()
    ledger.keep()
    ledger.deduplicate_kept()
    ledger.filter_kept("too long")
    ledger.quarantine_kept(HERE, "special token", {})
    assert ledger.balanced
    assert ledger.deduplicated == 1
    assert (ledger.kept, ledger.filtered["too long"], ledger.quarantined["special token"]) == (1, 1, 1)


def test_quarantine_file_says_where_and_why(tmp_path):
    filled(tmp_path, 0, 2)
    lines = (tmp_path / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2
    row = json.loads(lines[0])
    assert (row["path"], row["line"], row["reason"]) == ("a.jsonl", 3, "empty answer")
    assert row["row"]["answer"] == ""
    Ledger(tmp_path / "quarantine.jsonl")
    assert not (tmp_path / "quarantine.jsonl").exists()


def test_limit_on_bad_rows(tmp_path):
    filled(tmp_path, 99, 1).check(0.01)
    with pytest.raises(UserError) as caught:
        filled(tmp_path, 98, 2).check(0.01)
    assert caught.value.what == "2 of 100 rows cannot be used."
    assert caught.value.where == "a.jsonl:3"
    assert "empty answer" in caught.value.why
    assert "quarantine.jsonl" in caught.value.fix and "max_bad_rows" in caught.value.fix


def test_nothing_but_bad_rows_is_always_an_error(tmp_path):
    with pytest.raises(UserError):
        filled(tmp_path, 0, 3).check(0.99)
