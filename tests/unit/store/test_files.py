"""Files are whole or absent, JSON is strict, hashes follow the content."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from groundup.errors import UserError
from groundup.store import atomic, files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_json_comes_back_and_parents_are_made(tmp_path):
    path = tmp_path / "a" / "b.json"
    files.write_json(path, {"text": "línea 你好 \udc80", "n": 1})
    assert files.read_json(path) == {"text": "línea 你好 \udc80", "n": 1}
    assert names(path.parent) == ["b.json"]


def test_json_knows_our_values_and_never_writes_nan(tmp_path):
    @dataclass(frozen=True)
    class Noun:
        path: Path
        rate: float

    value = {
        "noun": Noun(Path("x/y"), math.inf),
        "scalar": np.float32(0.5),
        "set": {2, 1},
        "loss": float("nan"),
    }
    files.write_json(tmp_path / "v.json", value)
    assert (
        "NaN" not in (tmp_path / "v.json").read_text() and "Infinity" not in (tmp_path / "v.json").read_text()
    )
    assert files.read_json(tmp_path / "v.json") == {
        "noun": {"path": "x/y", "rate": None},
        "scalar": 0.5,
        "set": [1, 2],
        "loss": None,
    }


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, 1)
    with pytest.raises(TypeError):
        files.write_json(path, object())
    assert files.read_json(path) == 1 and names(tmp_path) == ["a.json"]


def test_broken_json_names_file_and_line(tmp_path):
    (tmp_path / "a.json").write_text('{\n"x": oops}')
    with pytest.raises(UserError) as caught:
        files.read_json(tmp_path / "a.json")
    assert caught.value.where.endswith("a.json:2")


def test_jsonl_appends_and_heals_a_line_cut_short(tmp_path):
    path = tmp_path / "m.jsonl"
    files.append_jsonl(path, {"step": 1})
    with path.open("ab") as file:
        file.write(b'{"step": 2, "lo' + b"x" * 100_000)  # longer than one block of the search backwards
    assert files.read_jsonl(path) == [{"step": 1}]
    files.append_jsonl(path, {"step": 2})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"step": 1}, {"step": 2}]


def test_jsonl_whose_only_line_was_cut_short(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"st')
    files.append_jsonl(path, {"step": 1})
    assert files.read_jsonl(path) == [{"step": 1}]


def test_jsonl_names_a_bad_line_and_a_missing_file_has_none(tmp_path):
    assert files.read_jsonl(tmp_path / "none.jsonl") == []
    (tmp_path / "m.jsonl").write_text("{}\nbad\n{}\n")
    with pytest.raises(UserError) as caught:
        files.read_jsonl(tmp_path / "m.jsonl")
    assert caught.value.where.endswith("m.jsonl:2")


def test_a_folder_is_replaced_whole_and_an_error_leaves_it(tmp_path):
    target = tmp_path / "final"
    files.publish_folder(target, lambda folder: (folder / "old").write_text("1") and None)
    with pytest.raises(ZeroDivisionError):
        files.publish_folder(target, lambda folder: (folder / "new").write_text("1") / 0)
    assert names(target) == ["old"] and names(tmp_path) == ["final"]
    files.publish_folder(target, lambda folder: (folder / "new").write_text("1") and None)
    assert names(target) == ["new"] and names(tmp_path) == ["final"]


def test_remove_takes_the_link_and_not_its_target(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    atomic.remove(tmp_path / "link")
    assert names(tmp_path) == ["mine"] and names(tmp_path / "mine") == ["file"]


def test_hash_is_xxh3_of_the_bytes(tmp_path):
    (tmp_path / "f").write_bytes(b"")
    assert (
        files.hash_file(tmp_path / "f") == "99aa06d3014798d86001c324468d497f"
    )  # xxh3 128 of nothing, published


def test_hash_of_inputs_follows_content_names_and_order(tmp_path):
    first, second = tmp_path / "a", tmp_path / "moved" / "b"
    for folder in (first, second):
        (folder / "sub").mkdir(parents=True)
        (folder / "x").write_text("1")
        (folder / "sub" / "y").write_text("2")
    same = files.hash_inputs([first])
    assert files.hash_inputs([second]) == same
    (second / ".DS_Store").write_text("litter")
    assert files.hash_inputs([second]) == same
    (second / "sub" / "y").rename(second / "sub" / "z")
    assert files.hash_inputs([second]) != same
    assert files.hash_inputs([first, second]) != files.hash_inputs([second, first])
    (first / "sub" / "y").write_text("3")
    assert files.hash_inputs([first]) != same


def test_hash_of_inputs_sees_through_links_and_survives_a_loop(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").write_text("1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    before = files.hash_inputs([tmp_path / "data"])
    (tmp_path / "real" / "x").write_text("2")
    assert files.hash_inputs([tmp_path / "data"]) != before


def test_a_missing_input_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        files.hash_inputs([tmp_path / "nowhere"])


def test_fingerprint_ignores_the_order_of_keys_only():
    assert files.fingerprint({"a": 1, "b": [1, 2]}) == files.fingerprint({"b": [1, 2], "a": 1})
    assert files.fingerprint({"a": 1}) != files.fingerprint({"a": 1.5})
    assert files.fingerprint([1, 2]) != files.fingerprint([2, 1])
