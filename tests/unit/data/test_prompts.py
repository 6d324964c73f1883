"""Prompts out of many layouts; the other columns stay for rewards."""

import json

import pytest

from groundup.config.schema import DataSettings
from groundup.data import Ledger
from groundup.data.prompts import read_prompts
from groundup.errors import UserError


@pytest.fixture
def read(tmp_path):
    def from_rows(*rows, continued=False, **settings):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        ledger = Ledger(tmp_path / "quarantine.jsonl")
        tasks = read_prompts(DataSettings(path=[str(path)], **settings), ledger, continued)
        assert ledger.balanced
        return tasks

    return from_rows


def turn(role, content):
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("row", "said", "columns", "conversational"),
    [
        ({"prompt": "Why?", "solution": 4}, ["user: Why?"], {"solution": 4}, False),
        ({"prompt": [turn("user", "Why?")], "id": 1}, ["user: Why?"], {"id": 1}, True),
        ({"prompt": "Why?", "completion": "So."}, ["user: Why?"], {}, False),
        (
            {"question": "2+2?", "answer": "#### 4"},
            ["user: 2+2?"],
            {"question": "2+2?", "answer": "#### 4"},
            False,
        ),
        ({"instruction": "Add", "input": "2, 2", "output": "4"}, ["user: Add\n2, 2"], {"output": "4"}, False),
        ({"messages": [turn("user", "Hi")]}, ["user: Hi"], {}, True),
        (
            {"messages": [turn("user", "Hi"), turn("assistant", "Ho"), turn("user", "He")]},
            ["user: Hi", "assistant: Ho", "user: He"],
            {},
            True,
        ),
        (
            {"messages": [turn("user", "Hi"), turn("assistant", "Ho")], "x": None},
            ["user: Hi"],
            {"x": None},
            True,
        ),
        (
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
            ["user: Hi"],
            {},
            True,
        ),
        (
            {"chosen": "\n\nHuman: Hi\n\nAssistant: Ho", "rejected": "\n\nHuman: Hi\n\nAssistant: No"},
            ["user: Hi"],
            {},
            False,
        ),
        ({"system": "Be kind.", "prompt": "Why?"}, ["system: Be kind.", "user: Why?"], {}, False),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_layouts(read, row, said, columns, conversational):
    (task,) = read(row)
    assert [f"{m.role}: {m.content}" for m in task.messages] == said
    assert columns.items() <= task.columns.items()
    assert not {"prompt", "completion"} & set(task.columns)
    assert task.conversational == conversational


def test_a_task_reads_back_from_its_own_row(read):
    rows = [
        {"prompt": "Why?", "solution": "4"},
        {"prompt": [turn("system", "Be kind."), turn("user", "Why?")], "n": [1, 2]},
    ]
    tasks = read(*rows)
    assert [task.as_row() for task in tasks] == rows
    again = read(*[task.as_row() for task in tasks])
    assert [(t.messages, dict(t.columns), t.conversational) for t in again] == [
        (t.messages, dict(t.columns), t.conversational) for t in tasks
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "  "}, "empty question"),
        ({"messages": []}, "no question"),
        ({"messages": [turn("assistant", "Ho")]}, "no question"),
        ({"text": "a text"}, "prompt_tokens takes the beginning of a text"),
        ({"prompt": None}, "no prompt"),
    ],
)
def test_rows_without_a_prompt_are_set_aside(read, row, reason, tmp_path):
    tasks = read({"prompt": "Why?"}, row, max_bad_rows=0.6)
    assert len(tasks) == 1
    (aside,) = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert aside["line"] == 2 and reason in aside["reason"]
    with pytest.raises(UserError, match="cannot be used"):
        read({"prompt": "Why?"}, row)


def test_columns_say_which_is_the_prompt(read):
    (task,) = read({"text": "A film that", "label": 1}, columns={"prompt": "text"})
    assert task.text == "A film that" and task.columns == {"label": 1}


def test_texts_to_be_continued(read):
    row = {"text": "A film that", "label": 1}
    tasks = read(row, {"text": " "}, {"label": 0}, continued=True, max_bad_rows=0.7)
    (task,) = tasks
    assert task.continued and not task.conversational
    assert task.text == "A film that" and task.columns == {"label": 1}
    assert task.as_row() == row
    (named,) = read({"review": "A film that"}, continued=True, columns={"text": "review"})
    assert named.text == "A film that"


def test_a_layout_chooses_among_columns(read):
    row = {"prompt": "one", "question": "two", "answer": "three"}
    assert read(row)[0].text == "one"
    assert read(row, layout="question_answer")[0].text == "two"
    with pytest.raises(UserError, match="has no prompts"):
        read({"text": "a"}, layout="text")


def test_a_subset_is_the_first_rows(read):
    assert [task.text for task in read(*({"prompt": str(i)} for i in range(9)), subset=3)] == ["0", "1", "2"]
