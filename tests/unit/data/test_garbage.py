"""Whatever a file holds: every row is counted once, and nothing but UserError is raised."""

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundup.config.schema import DataSettings
from groundup.data import Ledger, clean_text, read_conversations, read_documents, read_pairs
from groundup.errors import UserError

TIMES = int(os.environ.get("GROUNDUP_GARBAGE_TIMES", "1"))
"""As many times the everyday number of examples, for a longer look."""
COLUMNS = [
    "text",
    "messages",
    "conversations",
    "prompt",
    "completion",
    "instruction",
    "input",
    "output",
    "history",
]
COLUMNS += ["question", "answer", "chosen", "rejected", "system", "tools", "label"]
KEYS = [
    "role",
    "from",
    "content",
    "value",
    "type",
    "text",
    "weight",
    "tool_calls",
    "function",
    "name",
    "arguments",
]
WORDS = st.sampled_from(
    ["", " ", "user", "assistant", "gpt", "function_call", "text", "tool_call", "{}", "hi", "\ud800"]
)
LEAVES = (
    WORDS | st.text(max_size=4) | st.none() | st.booleans() | st.integers(-2, 2) | st.floats(allow_nan=False)
)
MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system", "tool"]),
        "content": st.sampled_from(["hi", "ho", ""]),
    }
)
VALUES = st.recursive(
    LEAVES | st.lists(MESSAGE, max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)
ROWS = st.dictionaries(st.sampled_from(COLUMNS), VALUES, max_size=5) | VALUES
LINES = ROWS.map(lambda row: json.dumps(row).encode()) | st.binary(max_size=20)
READERS = {"documents": read_documents, "conversations": read_conversations, "pairs": read_pairs}


def rows_in(data: bytes) -> int:
    return sum(
        bool(line.removeprefix(b"\xef\xbb\xbf" if i == 0 else b"").strip())
        for i, line in enumerate(data.split(b"\n"))
    )


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=80 * TIMES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(LINES, max_size=6), max_bad_rows=st.sampled_from([0.0, 0.5, 0.99]))
def test_rows_of_garbage(tmp_path, name, lines, max_bad_rows):
    path = tmp_path / f"{name}.jsonl"
    path.write_bytes(b"\n".join(lines))
    ledger = Ledger(tmp_path / "quarantine.jsonl")
    spec = DataSettings(path=[str(path)], max_bad_rows=max_bad_rows)
    try:
        records = list(READERS[name](spec, ledger))
    except UserError as error:
        assert error.where.startswith(str(path))
    else:
        if name == "documents":
            for record in records:
                clean_text(record.text)
                ledger.keep()
        assert ledger.balanced
        assert ledger.kept == len(records)
        bad = ledger.quarantined.total()
        assert bad <= max_bad_rows * ledger.rows_in
        written = tmp_path / "quarantine.jsonl"
        assert bad == (len(written.read_text(encoding="utf-8").splitlines()) if written.exists() else 0)
        assert ledger.rows_in == rows_in(path.read_bytes())


@pytest.mark.parametrize("suffix", [".json", ".txt", ".jsonl.gz", ".json.gz"])
@settings(max_examples=60 * TIMES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60) | st.text(alphabet='[]{}":,1 \n\\u', max_size=40).map(str.encode))
def test_files_of_garbage(tmp_path, suffix, data):
    path = tmp_path / f"garbage{suffix}"
    path.write_bytes(data)
    ledger = Ledger()
    try:
        for _ in read_documents(DataSettings(path=[str(path)], max_bad_rows=0.99), ledger):
            ledger.keep()
    except UserError as error:
        assert str(path) in error.where
    else:
        assert ledger.balanced
