"""What rows are taken for, and what is said where that is not clear."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from groundup.config import schema
from groundup.config.schema import DataSettings
from groundup.data import (
    Ledger,
    Message,
    RawRow,
    read_conversations,
    read_documents,
    read_pairs,
    recognise_first,
)
from groundup.data.layouts import BY_NAME
from groundup.data.oasst_flat import TreeMessage
from groundup.data.recognise import recognise
from groundup.data.types import Origin
from groundup.errors import UserError

PAGE = Path(__file__).parents[3] / "docs" / "data.md"
EXAMPLES = [
    (name, json.loads(row))
    for name, cell in re.findall(
        r"^\| `(\w+)` \| (`\{.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    for row in re.findall(r"`(\{.*?\})`", cell)
]
WHY = (Message("user", "Why?"), Message("assistant", "Because."))
ALPACA = {"instruction": "q", "output": "a"}
MESSAGES = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


def raw(*rows):
    return [RawRow(Origin("a.jsonl", n), row) for n, row in enumerate(rows, 1)]


def taken(*rows, wanted=None, **settings):
    return recognise(raw(*rows), DataSettings(path=["a.jsonl"], **settings), wanted)


def test_the_page_has_every_layout_and_so_has_the_schema():
    assert {name for name, _ in EXAMPLES} == set(BY_NAME) == set(get_args(schema.Layout))


@pytest.mark.parametrize(("name", "row"), EXAMPLES)
def test_the_pages_examples(name, row):
    layout = BY_NAME[name]
    for wanted in (None, layout.kind):
        found = taken(row, wanted=wanted)
        assert (found.layout, found.kind) == (name, layout.kind)
        assert set(layout.needs) <= set(found.columns) <= row.keys()
    record = layout.parse(row, Origin("a.jsonl", 1))
    if isinstance(record, TreeMessage):  # becomes a record only with others: test_oasst
        return
    if layout.kind == "conversations":
        assert record.messages == WHY
    if layout.kind == "pairs":
        assert record.prompt and record.prompt[0].role == "user" and record.prompt[0].content.strip()
        assert record.chosen[-1].content in ("Because.", "blue.")


@pytest.mark.parametrize(
    ("row", "wanted", "name"),
    [
        ({"prompt": "q", **MESSAGES, "chosen": [], "rejected": []}, "conversations", "messages"),
        ({"prompt": "q", "prompt_id": "1", **MESSAGES}, None, "messages"),
        ({"text": "### Human: q### Assistant: a"}, "documents", "text"),
        ({"text": "rendered", **MESSAGES}, None, "messages"),
        ({"text": "rendered", **MESSAGES}, "documents", "text"),
        ({**ALPACA, "chosen": "a", "rejected": "b"}, "pairs", "alpaca_preference"),
        ({**ALPACA, "question": None, "answer": None}, None, "alpaca"),
        ({"question": "q", "answer": None}, None, "question_answer"),
    ],
)
def test_what_is_wanted_and_what_is_there_decide(row, wanted, name):
    assert taken(row, wanted=wanted).layout == name


def test_ambiguity_shows_both_and_what_settles_it():
    row = {**ALPACA, **MESSAGES}
    with pytest.raises(UserError) as caught:
        taken(row, wanted="conversations")
    assert "alpaca (instruction, output)" in caught.value.why and "messages" in caught.value.why
    assert "layout: alpaca" in caught.value.fix and caught.value.where == "a.jsonl:1"
    found = taken(row, layout="alpaca")
    assert found.layout == "alpaca" and "the recipe says so" in found.evidence


def test_a_layout_that_cannot_be():
    with pytest.raises(UserError, match="output"):
        taken({"instruction": "q", "response": "a"}, layout="alpaca")
    with pytest.raises(UserError, match="makes conversations"):
        taken(ALPACA, layout="alpaca", wanted="pairs")


@pytest.mark.parametrize(
    ("row", "wanted", "fix"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "conversations", "dpo stage"),
        (ALPACA, "pairs", "chosen and rejected"),
        (ALPACA, "documents", "columns: {text: instruction}"),
        ({"text": "t", "label": 1}, "conversations", "columns: {prompt: text, completion: label}"),
        ({"text": "t"}, "conversations", "clean stage"),
        ({"prompt": "q"}, "conversations", "completion"),
        ({"prompt": "q", "response": "a"}, "conversations", "columns: {completion: response}"),
        (
            {"instruction": "q", "context": "", "response": "a"},
            "conversations",
            "columns: {output: response}",
        ),
        ({"query": "q", "chosen": "yes", "rejected": "no"}, "pairs", "columns: {prompt: its name}"),
    ],
)
def test_other_rows_are_told_where_they_belong(row, wanted, fix):
    with pytest.raises(UserError) as caught:
        taken(row, wanted=wanted)
    assert fix in caught.value.fix


def test_a_suggested_line_works(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine", "label": "good"}\n')
    spec = DataSettings(path=[str(path)], columns={"prompt": "text", "completion": "label"})
    (one,) = read_conversations(spec, Ledger())
    assert one.messages == (Message("user", "fine"), Message("assistant", "good"))


def test_files_of_two_layouts_are_read_as_what_each_row_is(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [ALPACA, MESSAGES, {"other": 1}, ALPACA]))
    ledger = Ledger()
    rows = read_conversations(DataSettings(path=[str(path)], max_bad_rows=0.5), ledger)
    assert [row.messages[0].content for row in rows] == ["q", "q", "q"]
    assert ledger.recognised[str(path)].startswith("alpaca + messages (conversations): ")
    assert ledger.quarantined == {"none of the file's layouts alpaca + messages": 1}
    assert ledger.decisions()[0].startswith(
        "a.jsonl: alpaca + messages (conversations): instruction, output in 2 of 4"
    )


def test_a_pair_keeps_its_tools(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": "q", "chosen": "a", "rejected": "b", "tools": [{"name": "f"}]}))
    (pair,) = read_pairs(DataSettings(path=[str(path)]), Ledger())
    assert pair.tools == ({"type": "function", "function": {"name": "f"}},)


def test_a_prompt_in_hh_marks_becomes_turns(tmp_path):
    path = tmp_path / "a.jsonl"
    prompt = "\n\nHuman: q\n\nAssistant: x\n\nHuman: q2\n\nAssistant:"
    path.write_text(json.dumps({"prompt": prompt, "chosen": " a", "rejected": " b"}))
    (pair,) = read_pairs(DataSettings(path=[str(path)]), Ledger())
    assert [m.role for m in pair.prompt] == ["user", "assistant", "user"]
    assert pair.chosen[0].content == " a"


@pytest.mark.parametrize(
    ("text", "roles"),
    [
        ("<s>[INST] <<SYS>>\ns\n<</SYS>>\n\nq [/INST] a </s><s>[INST] q2 [/INST] a2 </s>", "suaua"),
        ("[INST] q [/INST] a", "ua"),
        ("### Human: q\n### Assistant: a\n### Human: more", "ua"),
    ],
)
def test_turns_in_one_text(tmp_path, text, roles):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": text}))
    (one,) = read_conversations(DataSettings(path=[str(path)]), Ledger())
    assert "".join(m.role[0] for m in one.messages) == roles
    assert one.messages[-1].content in ("a", "a2")


@pytest.mark.parametrize(("label", "kept"), [("True", 1), ("0", 0), (False, 0), (None, 1)])
def test_labels_as_files_write_them(tmp_path, label, kept):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({**ALPACA, "kto_tag": label}))
    ledger = Ledger()
    assert len(read_conversations(DataSettings(path=[str(path)]), ledger)) == kept
    assert ledger.balanced


@pytest.mark.parametrize("wanted", ["conversations", None])
def test_a_column_that_no_row_has(tmp_path, wanted):
    """Also where the rest is enough to recognise the rows, and where only a late row has it."""
    path = tmp_path / "a.jsonl"
    rows = [{"question": "q", "answer": "a", "sytem_prompt": "s"}] * 300
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = DataSettings(path=[str(path)], columns={"system": "system_prompt"})
    read = read_conversations if wanted else lambda spec, ledger: recognise_first(spec)
    with pytest.raises(UserError, match="'system_prompt', which no row has") as caught:
        read(spec, Ledger())
    assert caught.value.fix == "did you mean sytem_prompt?" and caught.value.where == str(path)
    with path.open("a") as file:
        file.write(json.dumps({"question": "last", "answer": "a", "system_prompt": "s"}))
    last = read_conversations(spec, Ledger())[-1]
    assert last.messages[0] == Message("system", "s")


def test_columns_of_plain_text_would_do_nothing(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("A text.")
    with pytest.raises(UserError, match="`columns` would do nothing"):
        list(read_documents(DataSettings(path=[str(path)], columns={"text": "body"}), Ledger()))


def test_a_file_in_another_encoding_is_told_how_to_convert_it(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"question": "un café?", "answer": "oui"}\n'.encode("latin-1") * 3)
    with pytest.raises(UserError, match="No row can be read") as caught:
        recognise_first(DataSettings(path=[str(path)]))
    assert caught.value.where == f"{path}:1" and "iconv" in caught.value.fix
