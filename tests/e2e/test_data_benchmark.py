"""benchmarks/data.py: what it says without data, and near-deduplication on a few made-up documents."""

import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "data.py"


def script(*line):
    paths = os.pathsep.join(path for path in sys.path if path)
    own = {**os.environ, "PYTHONPATH": paths}
    own.pop("GROUNDUP_DATA", None)
    command = [sys.executable, str(SCRIPT), *map(str, line)]
    return subprocess.run(command, env=own, capture_output=True, text=True, timeout=280, check=False)


def test_without_data_it_says_so():
    done = script()
    assert done.returncode == 0 and "Skipped: GROUNDUP_DATA" in done.stdout


def test_an_unknown_work_is_told():
    done = script("--only", "cooking")
    assert (
        done.returncode == 2
        and "there is no work 'cooking'" in done.stderr
        and "Traceback" not in done.stderr
    )


def test_a_file_that_cannot_be_written_is_told_at_once(tmp_path):
    done = script("--out", tmp_path / "absent" / "data.json")
    assert done.returncode == 2 and "there is no folder" in done.stderr


def test_each_row_is_in_the_file_before_the_next_is_measured(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import data
    from table import failed

    out, lengths = tmp_path / "data.json", []

    def rows(session):
        for number in range(3):
            lengths.append(len(json.loads(out.read_text())["rows"]) if out.exists() else 0)
            yield failed(f"work {number}", "peer", "", "no")
        raise KeyboardInterrupt

    monkeypatch.setattr(data.importlib, "import_module", lambda name: SimpleNamespace(rows=rows))
    (tmp_path / "pretrain").mkdir()
    line = ["--data", str(tmp_path), "--cache", str(tmp_path), "--out", str(out), "--only", "dedup,clean"]
    assert data.main(line) == 130
    assert lengths == [0, 1, 2]
    works = [row["work"] for row in json.loads(out.read_text())["rows"]]
    assert works == ["work 0", "work 1", "work 2", "dedup"]


@pytest.mark.slow
def test_near_duplicates_end_with_one_line_of_json(tmp_path):
    chance = random.Random(1)
    words = [f"{a}{b}" for a in ("ka", "lo", "mi", "ter", "vun") for b in ("sa", "ne", "pol", "dri", "x")]
    book = tmp_path / "data" / "pretrain" / "gutenberg" / "book.txt"
    book.parent.mkdir(parents=True)
    book.write_text(
        " ".join(" ".join(chance.choices(words, k=12)) + "." for _ in range(4000)), encoding="utf-8"
    )
    line = ["--only", "dedup", "--megabytes", 1, "--processes", 1, "--data", tmp_path / "data"]
    done = script(*line, "--cache", tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    works = [row["work"] for row in rows]
    assert "near-dedup" in works and "near-dedup, 4x: 1 MB" in works
    for name in ("datatrove", "datasketch"):
        if importlib.util.find_spec(name):
            speed, memory = (row for row in rows if row["peer"].startswith(name))
            assert speed["ours_value"] > 0 and speed["peer_value"] > 0 and memory["unit"] == "GB, peak"
            assert "ours: recall 1.0000" in speed["note"] or "ours: recall 0.99" in speed["note"]
