"""Documents out of text files, large and small, and out of rows."""

import pytest

from groundup.config.schema import DataSettings
from groundup.data import Ledger, clean_text, compression_baselines, read_documents
from groundup.data.documents import PIECE_BYTES
from groundup.data.read import LICENCE_NOTE
from groundup.errors import UserError


def documents(path, ledger=None, **settings):
    return list(read_documents(DataSettings(path=[str(path)], **settings), ledger or Ledger()))


def lines_of(path, found):
    text = path.read_text(encoding="utf-8").split("\n")
    return [text[document.origin.line - 1] for document in found]


def test_a_small_text_file_is_one_document(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n\n  one\n\ntwo\n")
    (document,) = documents(path)
    assert document.text == "one\n\ntwo\n"
    assert document.origin.line == 3


def test_a_large_text_file_is_cut_at_blank_lines(tmp_path):
    path = tmp_path / "a.txt"
    paragraphs = [f"Paragraph {i}. " + "word " * (i * 7 % 300) for i in range(300)]
    path.write_text("\n\n".join(paragraphs))
    found = documents(path)
    assert len(found) > 10
    assert "\n\n".join(document.text.strip("\n") for document in found) == "\n\n".join(paragraphs)
    assert all(line.startswith("Paragraph") for line in lines_of(path, found))
    assert all(PIECE_BYTES / 4 <= len(document.text) <= 2 * PIECE_BYTES for document in found)


@pytest.mark.parametrize("text", ["line of text\n" * 4000, "word " * 10_000, "字" * 20_000, "x" * 50_000])
def test_without_blank_lines_the_next_best_place_is_cut(tmp_path, text):
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8")
    found = documents(path)
    assert len(found) > 2
    assert "".join(document.text for document in found) == text
    if "\n" in text:
        assert all(document.text.endswith("text\n") for document in found)


def test_bad_bytes_cost_only_their_piece(tmp_path):
    path = tmp_path / "a.txt"
    paragraph = "A sentence that is long enough to fill a line.\n"
    blocks = [(paragraph * 100 + "\n").encode() for _ in range(8)]
    blocks[4] = blocks[4][:470] + b"\xff" + blocks[4][470:]
    path.write_bytes(b"".join(blocks))
    ledger = Ledger(tmp_path / "quarantine.jsonl")
    found = documents(path, ledger, max_bad_rows=0.5)
    assert len(found) == ledger.rows_in - 1 == 3
    assert ledger.quarantined == {"not valid UTF-8": 1}
    assert '"line":415' in (tmp_path / "quarantine.jsonl").read_text().replace(" ", "")


def test_gutenberg_licence_is_removed_and_counted(tmp_path):
    path = tmp_path / "book.txt"
    body = "It was a dark night.\n\n" * 1000
    path.write_text(
        "﻿The Project Gutenberg EBook of X\n\n*** START OF THIS PROJECT GUTENBERG EBOOK X ***\n\n"
        f"{body}\n\nEnd of the Project Gutenberg EBook of X\n\n*** END OF THIS PROJECT GUTENBERG EBOOK X ***\nlicence",
        encoding="utf-8",
    )
    ledger = Ledger()
    found = documents(path, ledger)
    assert ledger.notes == {LICENCE_NOTE: 1}
    assert clean_text("\n\n".join(clean_text(document.text) for document in found)) == clean_text(body)
    assert found[0].origin.line == 5


def test_rows_by_column(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "one", "text": "title"}\n{"body": ""}\n{"body": 3}\n{"title": "x"}\n')
    ledger = Ledger()
    found = documents(path, ledger, columns={"text": "body"}, max_bad_rows=0.9)
    assert [document.text for document in found] == ["one"]
    assert sorted(ledger.quarantined.values()) == [1, 1, 1]


def test_an_unknown_column_names_the_remedy(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"title": "x", "content": "a long text"}\n')
    with pytest.raises(UserError) as caught:
        documents(path)
    assert caught.value.where == f"{path}:1"
    assert "columns: {text: content}" in caught.value.fix


def test_columns_need_known_names(tmp_path):
    with pytest.raises(UserError, match="did you mean text") as caught:
        documents(tmp_path, columns={"txt": "body"})
    assert "txt" in caught.value.what


def test_a_mixed_folder_and_subset(tmp_path):
    (tmp_path / "a.txt").write_text("plain")
    (tmp_path / "b.jsonl").write_text('{"body": "one"}\n{"body": "two"}\n')
    (tmp_path / "empty.txt").write_text("")
    ledger = Ledger()
    texts = [d.text for d in documents(tmp_path, ledger, columns={"text": "body"}, subset=2)]
    assert texts == ["plain", "one"]
    assert ledger.rows_in == 2


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json"])
def test_empty_files(tmp_path, name):
    (tmp_path / name).write_text(" \n")
    with pytest.raises(UserError) as caught:
        documents(tmp_path / name)
    assert name in caught.value.where


def test_compressors_need_less_for_repetition():
    dull, varied = compression_baselines(b"abc" * 5000), compression_baselines(bytes(range(256)) * 4)
    assert dull.keys() == {"gzip", "xz"}
    assert 0 < dull["gzip"] < 0.1 < varied["gzip"] < 8


def test_a_layout_would_do_nothing_for_plain_text(tmp_path):
    (tmp_path / "a.txt").write_text("Some text.", encoding="utf-8")
    with pytest.raises(UserError, match="would do nothing"):
        list(read_documents(DataSettings(path=[str(tmp_path / "a.txt")], layout="text"), Ledger()))
    (tmp_path / "b.jsonl").write_text('{"text": "A row."}', encoding="utf-8")
    spec = DataSettings(path=[str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl")], layout="text")
    assert len(list(read_documents(spec, Ledger()))) == 2
