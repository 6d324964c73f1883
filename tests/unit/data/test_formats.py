"""The same rows out of every format and packing; places of broken ones; garbage in each."""

import bz2
import csv
import gzip
import io
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import ipc

from groundup.config.schema import DataSettings
from groundup.data import Ledger, read_conversations, read_documents, read_pairs
from groundup.data.files import files_of, read_rows
from groundup.data.jsonrows import BLOCK_BYTES
from groundup.data.raw import zstd
from groundup.errors import UserError

ROWS = [{"question": "q\n1", "answer": 'a "x", y'}, {"question": "字", "answer": "b"}]
PACK = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
PACK[".zst"] = lambda data: zstd.compress(data[:9]) + zstd.compress(data[9:])  # two frames
FAST = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


def as_jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_csv(rows, delimiter=","):
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def as_arrow(rows, kind):
    table, sink = pa.Table.from_pylist(rows), io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, sink)
    else:
        with (ipc.new_stream if kind == "stream" else ipc.new_file)(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue()


FORMS = {
    "a.jsonl": as_jsonl,
    "a.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "a.csv": as_csv,
    "semicolon.csv": lambda rows: as_csv(rows, ";"),
    "a.tsv": lambda rows: as_csv(rows, "\t"),
}
ARROWS = {"a.parquet": "parquet", "stream.arrow": "stream", "file.arrow": "file"}


def places(path):
    return [(row.origin.line, row.origin.byte, row.problem or row.value) for row in read_rows(path)]


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("name", FORMS)
def test_text_formats(tmp_path, name, packing):
    path = tmp_path / (name + packing)
    data = b"\xef\xbb\xbf" + FORMS[name](ROWS)
    path.write_bytes(PACK[packing](data))
    assert [row.value for row in read_rows(path)] == ROWS
    lines = data.split(b"\n")
    for row in read_rows(path):  # the byte and the line are the same place
        assert data[: row.origin.byte].count(b"\n") == row.origin.line - 1
        assert lines[row.origin.line - 1].strip()
    if packing:
        path.write_bytes(path.read_bytes()[:-5])
        with pytest.raises(UserError, match="damaged"):
            list(read_rows(path))


@pytest.mark.parametrize("name", ARROWS)
def test_arrow_formats(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(as_arrow(ROWS * 1000, ARROWS[name]))
    rows = list(read_rows(path))
    assert [row.value for row in rows] == ROWS * 1000
    assert (rows[1999].origin.line, rows[1999].origin.byte) == (2000, None)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError) as caught:
        list(read_rows(path))
    assert str(path) in caught.value.where


def test_arrow_formats_are_not_packed(tmp_path):
    (tmp_path / "a.parquet.gz").write_bytes(b"")
    with pytest.raises(UserError, match="known kind"):
        files_of(str(tmp_path / "a.parquet.gz"), DataSettings(path=["x"]))


def test_a_table_keeps_lines_and_sets_bad_rows_aside(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'question,answer\r\n"two\r\nlines",a\r\n\r\nq\r\nq,\xff\r\n"q"x,a\r\nq,a,b\r\nlast,a\r\n'
    )
    assert places(path) == [
        (2, 17, {"question": "two\r\nlines", "answer": "a"}),
        (5, 35, "fewer fields than columns"),
        (6, 38, "not valid UTF-8"),
        (7, 43, "not valid CSV: ',' expected after '\"'"),
        (8, 51, "more fields than columns"),
        (9, 58, {"question": "last", "answer": "a"}),
    ]


@pytest.mark.parametrize(
    ("text", "line"), [('a,b\n1,2\n3,"4\n5,6\n', 3), ("a,a\n1,2\n", 1), ("\udcff,a\n1,2\n", 1)]
)
def test_a_table_that_cannot_be_cut_into_rows(tmp_path, text, line):
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError) as caught:
        list(read_rows(path))
    assert caught.value.where == f"{path}:{line}"


def test_long_lists_are_read_in_blocks(tmp_path):
    path = tmp_path / "a.json"
    rows = [{"text": "字é" * n, "n": n} for n in (1, BLOCK_BYTES // 3, 7, BLOCK_BYTES, 9)]
    data = ("\n[" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n").encode()
    path.write_bytes(data)
    found = list(read_rows(path))
    assert [row.value for row in found] == rows
    assert [row.origin.line for row in found] == [2, 3, 4, 5, 6]
    assert all(data[row.origin.byte : row.origin.byte + 7] == b'{"text"' for row in found)


def test_bytes_that_are_no_utf8_cost_one_item_of_a_list(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'[{"a": "\xff"}, {"a": 1}]')
    assert places(path) == [(1, 1, "not valid UTF-8"), (1, 13, {"a": 1})]


def test_what_json_cannot_say_is_quarantined_too(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(as_arrow([{"text": "x", "b": b"\xff"}] * 3 + [{"text": None, "b": b"\x00"}], "parquet"))
    ledger = Ledger(tmp_path / "quarantine.jsonl")
    for _ in read_documents(DataSettings(path=[str(path)], max_bad_rows=0.5), ledger):
        ledger.keep()
    assert ledger.balanced and ledger.kept == 3
    written = json.loads((tmp_path / "quarantine.jsonl").read_text())
    assert (written["line"], written["byte"], written["reason"]) == (4, None, "'text' is null")


WORDS = st.sampled_from(
    ["", " ", "a", "字", '"', ",", ";", "\t", "\n", "\r\n", "{}", "[]", "null", "\x00", "text,x\n"]
)
GARBAGE = st.binary(max_size=60) | st.lists(WORDS, max_size=20).map(lambda parts: "".join(parts).encode())
CELLS = st.none() | st.text('a\n "字', max_size=5)
TABLES = st.lists(
    st.fixed_dictionaries(dict.fromkeys(("text", "question", "answer", "prompt"), CELLS)),
    min_size=1,
    max_size=6,
)
NAMES = ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt", *(f"a.jsonl{p}" for p in PACK if p), *ARROWS]


def balanced_or_told(path, rows_there=None):
    for read in (read_documents, read_conversations, read_pairs):
        ledger = Ledger()
        try:
            for _ in read(DataSettings(path=[str(path)], max_bad_rows=0.99), ledger):
                if read is read_documents:
                    ledger.keep()
        except UserError as error:
            assert error.where
        else:
            assert ledger.balanced
            assert rows_there is None or ledger.rows_in == rows_there


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, **FAST)
@given(data=GARBAGE)
def test_garbage_is_counted_or_told(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    balanced_or_told(path)
    if packing := next((p for p in PACK if p and name.endswith(p)), ""):
        path.write_bytes(PACK[packing](data))
        balanced_or_told(path)


@pytest.mark.parametrize("name", [*FORMS, *ARROWS])
@settings(max_examples=25, **FAST)
@given(rows=TABLES)
def test_odd_rows_are_all_counted(tmp_path, name, rows):
    path = tmp_path / name
    if name in ARROWS:
        path.write_bytes(as_arrow(rows, ARROWS[name]))
    else:
        path.write_bytes(FORMS[name](rows))
    balanced_or_told(path, len(rows))
