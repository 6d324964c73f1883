"""Which files a name means, and their rows with line numbers."""

import gzip
import json
import os

import pytest

from groundup.config.schema import DataSettings
from groundup.data import Ledger, data_paths, jsonrows, read_documents
from groundup.data.files import files_of, read_rows
from groundup.errors import UserError


def named(name):
    return files_of(str(name), DataSettings(path=[str(name)])).files


def rows(path):
    return [(row.origin.line, row.problem or row.value) for row in read_rows(path)]


def test_folders_globs_and_lists_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/z.jsonl", "a.txt", "c.md.gz", "x.zip", "q.JSON"):
        (tmp_path / name).write_text("x")
    names = [path.relative_to(tmp_path).as_posix() for path in named(tmp_path)]
    assert names == ["a.txt", "b/z.jsonl", "c.md.gz", "q.JSON"]
    assert [path.name for path in named(tmp_path / "*.txt")] == ["a.txt"]
    spec = DataSettings(path=[str(tmp_path / "b"), str(tmp_path / "a.txt")])
    assert [path.name for path in data_paths(spec)] == ["z.jsonl", "a.txt"]


@pytest.mark.parametrize("name", ["missing.jsonl", "table.xlsx", "nothing*.txt"])
def test_names_that_mean_nothing(tmp_path, name):
    (tmp_path / "table.xlsx").write_text("x")
    with pytest.raises(UserError) as caught:
        named(tmp_path / name)
    assert name in caught.value.render()


def test_an_unknown_builtin_lists_the_known_ones():
    with pytest.raises(UserError) as caught:
        named("builtin:nope")
    assert "builtin:python-docs" in caught.value.fix


def test_lines_keep_their_numbers(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n{broken\n{"a": "\xff"}\n' + b"[" * 100_000 + b"\n{}")
    assert rows(path) == [
        (1, {"a": 1}),
        (3, "not valid JSON"),
        (4, "not valid UTF-8"),
        (5, "not valid JSON"),
        (6, {}),
    ]


def test_a_list_keeps_the_lines_of_its_items(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('\n[\n {"a":\n 1}, 2,\n\n {"b": "x\\ny"}\n]\n')
    assert rows(path) == [(3, {"a": 1}), (4, 2), (6, {"b": "x\ny"})]
    path.write_text("[]")
    assert rows(path) == []


def test_json_lines_may_be_called_json(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}\n\nnope\n{"a": 2}\n')
    assert rows(path) == [(1, {"a": 1}), (3, "not valid JSON"), (4, {"a": 2})]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[{"a": 1},\n{"a": }]', 2),
        ('[{"a": 1}\n{"a": 2}]', 2),
        ('[{"a": 1},\n', 2),
        ('{\n"a": 1\n}', 1),
        ("[\n" + "[" * 100_000, 2),
    ],
)
def test_a_broken_json_file_names_its_line(tmp_path, text, line):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        rows(path)
    assert caught.value.where == f"{path}:{line}"


def test_gzip_and_damaged_gzip(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    packed = gzip.compress(json.dumps({"a": "b" * 1000}).encode())
    path.write_bytes(packed)
    assert rows(path) == [(1, {"a": "b" * 1000})]
    for damaged in (packed[:-9], b"no gzip at all"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged"):
            rows(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("{}")
    path.chmod(0)
    with pytest.raises(UserError, match="cannot be read"):
        rows(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt", "a.jsonl.gz"])
@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-32", "utf-16-be", "utf-16le", "utf-16be", "utf-32le", "utf-32be"]
)
def test_other_encodings_are_named(tmp_path, name, encoding):
    mark = (
        "\ufeff" if encoding == "utf-16-be" else ""
    )  # Python writes one with the first two, the last four have none
    data = f'{mark}{{"question": "q", "answer": "字"}}\n'.encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    with pytest.raises(UserError, match=f"The file is {encoding.removesuffix('-be').upper()},") as caught:
        for _ in read_documents(DataSettings(path=[str(tmp_path / name)]), Ledger()):
            pass
    assert caught.value.where == str(tmp_path / name) and "iconv" in caught.value.fix


def test_a_string_that_does_not_end_is_told_where_it_begins(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_bytes('[{"a": "字"},\n {"b": 1, "c": "broken}]'.encode())
    with pytest.raises(UserError) as caught:
        rows(path)
    assert caught.value.where == f"{path}:2"
    assert caught.value.why == "Unterminated string (at byte 30)"
    assert path.read_bytes()[30:].startswith(b'"broken')
    monkeypatch.setattr(jsonrows, "MOST_ITEM_CHARS", 3 * jsonrows.BLOCK_BYTES)
    path.write_bytes(b'[{"a": 1},\n {"b": "broken' + b" " * (20 * jsonrows.BLOCK_BYTES))
    read = []
    monkeypatch.setattr(jsonrows._ListReader, "_more", counted(jsonrows._ListReader._more, read))
    with pytest.raises(UserError, match="does not end") as caught:
        rows(path)
    assert caught.value.where == f"{path}:2" and "byte 12" in caught.value.why
    assert max(read) < 6 * jsonrows.BLOCK_BYTES, "nothing is read in vain"


def counted(more, read):
    def reading(self):
        more(self)
        read.append(self.file.tell())

    return reading
