"""Every accepted layout of conversations, and every reason for which a row is set aside."""

import json

import pytest

from groundup.config.schema import DataSettings
from groundup.data import Ledger, Message, read_conversations
from groundup.errors import UserError

U, A, S = (lambda text, role=role: Message(role, text) for role in ("user", "assistant", "system"))
MESSAGES = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def read(tmp_path, *rows, ledger=None, **settings):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_conversations(DataSettings(path=[str(path)], **settings), ledger or Ledger())


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"messages": MESSAGES}, [U("q"), A("a")]),
        ({"messages": MESSAGES, "system": "s"}, [S("s"), U("q"), A("a")]),
        ({"messages": [{"role": "system", "content": ""}, *MESSAGES]}, [U("q"), A("a")]),
        ({"messages": MESSAGES, "prompt": "q", "chosen": MESSAGES, "rejected": MESSAGES}, [U("q"), A("a")]),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, MESSAGES[1]]},
            [U("q"), A("a")],
        ),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            [U("q"), A("a")],
        ),
        ({"prompt": "q", "completion": "a"}, [U("q"), A("a")]),
        ({"prompt": MESSAGES[:1], "completion": MESSAGES[1:]}, [U("q"), A("a")]),
        ({"instruction": "q", "input": "", "output": "a"}, [U("q"), A("a")]),
        ({"instruction": "q", "input": "more", "output": "a", "system": "s"}, [S("s"), U("q\nmore"), A("a")]),
        ({"instruction": "q", "output": "a", "history": [["x", "y"]]}, [U("x"), A("y"), U("q"), A("a")]),
        ({"instruction": "q", "input": None, "output": "a"}, [U("q"), A("a")]),
        ({"question": "q", "answer": "a"}, [U("q"), A("a")]),
    ],
)
def test_layouts(tmp_path, row, messages):
    (conversation,) = read(tmp_path, row)
    assert list(conversation.messages) == messages


def test_only_the_completion_is_learned(tmp_path):
    history = [*MESSAGES, {"role": "user", "content": "q2"}]
    (conversation,) = read(tmp_path, {"prompt": history, "completion": "a2"})
    assert conversation.scored_from == 3
    assert conversation.key == "user: q\nassistant: a\nuser: q2"


def test_tools_and_tool_calls(tmp_path):
    turns = [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
        {"from": "observation", "value": ""},
        {"from": "gpt", "value": "a"},
    ]
    (conversation,) = read(tmp_path, {"conversations": turns, "tools": '[{"name": "f"}]'})
    call, result = conversation.messages[1:3]
    assert call.tool_calls == ({"type": "function", "function": {"name": "f", "arguments": {"x": 1}}},)
    assert (call.role, call.content, result.role) == ("assistant", "", "tool")
    assert conversation.tools == ({"type": "function", "function": {"name": "f"}},)
    openai = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}],
    }
    (conversation,) = read(tmp_path, {"messages": [MESSAGES[0], openai]})
    assert conversation.messages[1].tool_calls[0]["function"] == {"name": "f", "arguments": {}}


def test_reasoning_is_kept_apart(tmp_path):
    parts = [{"type": "reasoning", "value": "hm"}, {"type": "text", "value": "a"}]
    (one,) = read(tmp_path, {"messages": [MESSAGES[0], {"role": "assistant", "content": parts}]})
    (two,) = read(tmp_path, {"messages": [MESSAGES[0], {**MESSAGES[1], "reasoning_content": "hm"}]})
    assert one.messages == two.messages == (U("q"), Message("assistant", "a", "hm"))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "q", "answer": " "}, "empty answer"),
        ({"question": "", "answer": "a"}, "empty question"),
        ({"question": "q", "answer": 3}, "'answer' is not text"),
        ({"question": "q", "answer": None}, "'answer' is null"),
        ({"question": "q", "answer": "\ud800"}, "'answer' holds half of a surrogate pair"),
        ({"messages": "q"}, "'messages' is not a list of messages"),
        ({"messages": []}, "no answer"),
        ({"messages": ["q"]}, "'messages' holds a message that is no object"),
        ({"messages": MESSAGES[:1]}, "no answer"),
        ({"messages": [*MESSAGES, MESSAGES[0]]}, "the last message is not an assistant's"),
        ({"messages": [{"role": "wizard", "content": "q"}]}, "unknown role 'wizard'"),
        ({"messages": [{"content": "q"}]}, "'role' is not text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "'messages' holds something that is not text",
        ),
        (
            {"messages": [MESSAGES[0], {**MESSAGES[1], "weight": 0}]},
            "an assistant's message has a weight other than 1",
        ),
        ({"messages": MESSAGES, "tools": "["}, "'tools' is not valid JSON"),
        ({"prompt": MESSAGES, "completion": MESSAGES[:1]}, "no answer"),
        (["q", "a"], "not a JSON object"),
        ({"something": "else"}, "no column 'question'"),
    ],
)
def test_bad_rows(tmp_path, row, reason):
    ledger = Ledger()
    assert len(read(tmp_path, {"question": "q", "answer": "a"}, row, ledger=ledger, max_bad_rows=0.5)) == 1
    assert ledger.quarantined == {reason: 1}
    assert ledger.balanced


def test_an_answer_not_to_imitate_is_filtered(tmp_path):
    ledger = Ledger()
    rows = [{"messages": MESSAGES, "label": label} for label in (True, False)]
    assert len(read(tmp_path, *rows, ledger=ledger)) == 1
    assert ledger.filtered == {"label is false": 1}


def test_columns_rename(tmp_path):
    row = {"frage": "q", "answer": "not this", "antwort": "a"}
    (conversation,) = read(tmp_path, row, columns={"question": "frage", "answer": "antwort"})
    assert conversation.messages == (U("q"), A("a"))
    with pytest.raises(UserError, match="did you mean answer"):
        read(tmp_path, row, columns={"anwser": "antwort"})


def test_unknown_columns_show_what_was_found_and_what_would_do(tmp_path):
    with pytest.raises(UserError) as caught:
        read(tmp_path, {"frage": "q"}, {"frage": "q"}, max_bad_rows=0.9)
    assert caught.value.where.endswith("rows.jsonl:1")
    assert "frage" in caught.value.why and "instruction" in caught.value.why
    with pytest.raises(UserError) as caught:
        read(tmp_path, {"prompt": "q", "chosen": "a", "rejected": "b"})
    assert "dpo" in caught.value.fix


def test_another_file_with_unknown_columns_is_not_just_quarantined(tmp_path):
    (tmp_path / "other.jsonl").write_text('{"frage": "q"}\n')
    (tmp_path / "rows.jsonl").write_text('{"question": "q", "answer": "a"}\n' * 200)
    with pytest.raises(UserError) as caught:
        read_conversations(DataSettings(path=[str(tmp_path)]), Ledger())
    assert caught.value.where.endswith("other.jsonl:1")


def test_an_odd_first_row_of_a_later_file_costs_only_itself(tmp_path):
    good = '{"question": "q", "answer": "a"}\n'
    (tmp_path / "a.jsonl").write_text(good * 200)
    (tmp_path / "b.jsonl").write_text('{"frage": "q"}\n' + good)
    ledger = Ledger()
    assert len(read_conversations(DataSettings(path=[str(tmp_path)]), ledger)) == 201
    assert ledger.quarantined.total() == 1


def test_a_long_file_of_another_kind_is_not_read_to_its_end(tmp_path):
    ledger = Ledger()
    with pytest.raises(UserError):
        read(tmp_path, *[{"frage": "q"}] * 500, ledger=ledger)
    assert ledger.rows_in == 0


def test_subset_and_plain_text(tmp_path):
    ledger = Ledger()
    rows = [{"question": str(i), "answer": "a"} for i in range(5)]
    assert [c.messages[0].content for c in read(tmp_path, *rows, ledger=ledger, subset=2)] == ["0", "1"]
    assert ledger.rows_in == 2
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UserError, match="plain text"):
        read_conversations(DataSettings(path=[str(tmp_path / "a.txt")]), Ledger())
    with pytest.raises(UserError, match="plain text"):
        read_conversations(DataSettings(path=["builtin:python-docs"]), Ledger())
