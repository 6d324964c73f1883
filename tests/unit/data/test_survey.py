"""What is counted while records stream by."""

import pytest

from groundup.data.findings import Finding, fix_for, verdict
from groundup.data.survey import LookingLedger, Survey
from groundup.data.types import Conversation, Document, Message, Origin, Pair


def conversation(line, asked, *said, system=""):
    messages = [Message("system", system)] if system else []
    roles = ("assistant", "user")
    messages += [Message("user", asked), *(Message(roles[i % 2], text) for i, text in enumerate(said))]
    return Conversation(tuple(messages), Origin("rows.jsonl", line))


def pair(line, chosen, rejected, asked="Why?"):
    sides = [(Message("assistant", text),) for text in (chosen, rejected)]
    return Pair((Message("user", asked),), *sides, Origin("pairs.jsonl", line))


def survey_of(*records):
    survey = Survey()
    for record in records:
        survey.add(record)
    return survey


def test_copies_but_for_case_and_white_space():
    survey = survey_of(
        conversation(1, "Why, or how?", "So."),
        conversation(4, "why,  OR how?", "SO."),
        conversation(9, "Why, or how?", "No."),
    )
    assert survey.examples(survey.copies()) == ("rows.jsonl:4",)
    assert survey.examples(survey.asked_again()) == ("rows.jsonl:9",)


def test_no_copies():
    survey = survey_of(conversation(1, "Why?", "So."), conversation(2, "How?", "So."))
    assert len(survey.copies()) == len(survey.asked_again()) == 0
    assert survey.commonest_answer() == (2, ("rows.jsonl:1", "rows.jsonl:2"))


def test_the_same_answer_after_other_tools_is_no_copy():
    one = conversation(1, "Why?", "So.")
    other = Conversation(one.messages, Origin("rows.jsonl", 2), ({"name": "look"},))
    assert len(survey_of(one, other).copies()) == 0


def test_copies_of_one_row_do_not_make_its_answer_common():
    same = [conversation(line, "Why?", "So.") for line in range(1, 8)]
    assert survey_of(*same).commonest_answer()[0] == 1


def test_a_call_of_a_tool_is_an_answer():
    def call(line, city):
        said = Message("assistant", "", tool_calls=({"function": {"name": "go", "arguments": {"to": city}}},))
        return Conversation((Message("user", f"Go {line}"), said), Origin("rows.jsonl", line))

    survey = survey_of(*(call(line, f"city {line}") for line in range(1, 8)))
    assert survey.commonest_answer()[0] == 1 and min(survey.answer_chars) > 20


def test_one_suspicious_place_is_no_mojibake():
    text = "\u201cEtel\u00e4\u201d\u662f\u82ac\u5170\u8bed"
    assert not survey_of(Document(text, Origin("t.txt", 1))).places.count


def test_roles_and_turns():
    survey = survey_of(
        conversation(1, "a", "b", "c", "d", system="s"),
        conversation(2, "a", "b"),
    )
    assert survey.roles == {"system": 1, "user": 3, "assistant": 3}
    assert survey.turns == {1: 1, 2: 1}


@pytest.mark.parametrize(
    ("name", "messages"),
    [
        ("begins_with_answer", [Message("assistant", "a")]),
        ("same_role_twice", [Message("user", "a"), Message("user", "b"), Message("assistant", "c")]),
        ("replacement_character", [Message("user", "caf\ufffd"), Message("assistant", "c")]),
        ("mojibake", [Message("user", "une cafÃ©tiÃ¨re"), Message("assistant", "c")]),
    ],
)
def test_defects_of_a_conversation_are_placed(name, messages):
    bad = Conversation(tuple(messages), Origin("rows.jsonl", 7))
    good = conversation(8, "Une cafetière, 你好?", "Oui — 好")
    survey = survey_of(bad, good)
    assert survey.places.count == {name: 1}
    assert survey.places.examples(name) == ("rows.jsonl:7",)


def test_sides_that_differ_in_white_space_only():
    survey = survey_of(pair(1, "Yes.", "yes. "), pair(2, "Yes.", "No."))
    assert survey.places.examples("sides_nearly_equal") == ("pairs.jsonl:1",)


def test_scripts_by_the_commonest_letters():
    texts = ["Hello 你", "你好 ok 世界", "Привет", "12 34", "これはペンです", "한국어"]
    survey = survey_of(*(Document(text, Origin("t.txt", n)) for n, text in enumerate(texts, 1)))
    assert survey.scripts == {"Latin": 1, "Han": 1, "Cyrillic": 1, "none": 1, "Kana": 1, "Hangul": 1}


def test_a_looking_ledger_goes_on_and_keeps_places():
    ledger = LookingLedger()
    for line in range(1, 6):
        ledger.enter()
        ledger.quarantine(Origin("rows.jsonl", line), "empty answer", {})
    ledger.check(0.01)
    assert ledger.bad.examples("empty answer") == ("rows.jsonl:1", "rows.jsonl:2", "rows.jsonl:3")
    assert ledger.balanced


def test_the_verdict_is_that_of_the_worst_finding():
    note, warning, error = (Finding(level, "n", "w", "f") for level in ("note", "warning", "error"))
    assert verdict([]) == verdict([note]) == "usable"
    assert verdict([note, warning]) == "usable with warnings"
    assert verdict([warning, error, note]) == "not usable"


def test_every_reason_has_a_fix():
    assert fix_for("unknown role 'narrator'") == "write system, user, assistant or tool"
    assert "quarantine" in fix_for("something new")
