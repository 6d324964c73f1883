"""A clean stage that is killed goes on to the same bits when it is run again, and leaves nothing behind."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groundup.store.files import read_json

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL"),
    pytest.mark.slow,  # the whole command six times
]

RUN = """
import os, signal, sys
from groundup.cli import main
from groundup.data import corpus
from groundup.data.dedup import embedded
from groundup.stages import clean
def die(*ignored): os.kill(os.getpid(), signal.SIGKILL)
clean.BATCH_CHARS = 5000
embedded.BYTES_WORTH_A_PROCESS = 1
"""
END = "sys.exit(main(['run', 'killed.yaml', '--out', sys.argv[1]]))"
MOMENTS = {
    "cleaning": "add = corpus.Corpus.add\n"
    "corpus.Corpus.add = lambda self, *a: die() if len(self) == 150 else add(self, *a)",
    "comparing": "embedded._compared = die",
    "dropping": "clean.shutil.move = die",
    "writing": "write = corpus.Corpus.write\ncorpus.Corpus.write = lambda *a: (write(*a), die())",
}
RECIPE = """\
stages:
  clean:
    data: {path: rows.jsonl, max_bad_rows: 0.5}
    workers: 2
    holdout: 0.2
    near_duplicates: {threshold: 0.8}
"""


def rows():
    """A quarter are copies, a quarter nearly, some are too short and some broken."""
    draw = random.Random(0)
    words = [f"w{number}" for number in range(500)]
    for number in range(300):
        said = draw.choices(words, k=80)
        yield {"text": " ".join(said)}
        if number % 4 == 0:
            yield {"text": " ".join(said).upper()}
            yield {"text": " ".join([*said[:-1], f"end{number}"])}
        if number % 10 == 0:
            yield {"text": "short"}
            yield {"text": number}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    (tmp_path / "killed.yaml").write_text(RECIPE)
    return tmp_path


def run(folder: Path, out: str, moment: str = "") -> int:
    """The exit code. All processes that were started are gone in the end, however that came."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", f"{RUN}{moment}\n{END}", out]
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=said, stderr=said, start_new_session=True
        )
        code = process.wait(timeout=200)
    for _ in range(200):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return code
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    raise AssertionError("processes were left behind")


def made(folder: Path) -> dict[str, bytes]:
    names = ["data/train.jsonl", "data/heldout.jsonl", "dropped.jsonl", "clusters.jsonl", "quarantine.jsonl"]
    return {name: (folder / "clean" / name).read_bytes() for name in names}


def test_killed_anywhere_it_ends_with_the_same_bits(folder):
    assert run(folder, "whole") == 0, (folder / "said.txt").read_text()
    for moment in MOMENTS.values():
        assert run(folder, "killed", moment) == -signal.SIGKILL, (folder / "said.txt").read_text()
        assert list((folder / "killed/clean").glob(".tmp-*")), "it was in the middle of its work"
        assert not (folder / "killed/clean/manifest.json").exists()
    assert run(folder, "killed") == 0, (folder / "said.txt").read_text()
    assert made(folder / "killed") == made(folder / "whole")
    whole, killed = (read_json(folder / name / "clean/result.json") for name in ("whole", "killed"))
    assert killed == whole
    counted = whole["rows"]
    assert counted["in"] == 510 and counted["deduplicated"] == 150
    assert sum(counted["quarantined"].values()) == 30
    assert not list((folder / "killed/clean").glob(".tmp-*"))
    left = {path.name for path in (folder / "killed/clean").iterdir()}
    assert left == {path.name for path in (folder / "whole/clean").iterdir()}
