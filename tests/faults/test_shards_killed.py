"""A build of token shards that is killed goes on behind its last whole shard and ends with the same bits."""

import os
import signal
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundup.tokenizer import TokenShards, encode, train_bpe, write_shards

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")

BUILD = """
import os, signal, sys
from pathlib import Path
from types import SimpleNamespace
from tokenizers import Tokenizer
from groundup.tokenizer import encode, shards
core = Tokenizer.from_file(sys.argv[1] + "/t/tokenizer.json")
tokenizer = SimpleNamespace(eos_token_id=1, backend_tokenizer=core, get_vocab=core.get_vocab)
encode.BATCH_DOCUMENTS = 8
texts = [f"Document number {i}. " * (i % 7 + 1) for i in range(300)]
def die(*ignored): os.kill(os.getpid(), signal.SIGKILL)
def build(name, kill_at=0):
    def given(first):
        for number in range(first, len(texts)):
            if kill_at and number == kill_at: die()
            yield texts[number]
    return shards.write_shards(Path(sys.argv[1]) / name, given, tokenizer, source="s", tokens_per_shard=500)
"""


def run(folder, code):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", BUILD + code, str(folder)]
    return subprocess.run(command, check=False, env=environment, capture_output=True, text=True)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    "moment",
    [
        "build('x', kill_at=250)",  # between two writes
        "add = shards._Writer.add\n"
        "shards._Writer.add = lambda *a: die() if a[1].sum() % 41 == 0 else add(*a)\nbuild('x')",
        "calls = []\nhash = shards.hash_file\n"
        "shards.hash_file = lambda p: die() if len(calls) == 2 else (calls.append(p), hash(p))[1]\nbuild('x')",
        "calls = []\nwrite = shards.write_json\n"
        "shards.write_json = lambda *a: die() if len(calls) == 3 else (calls.append(a), write(*a))\nbuild('x')",
    ],
    ids=["reading", "inside of a shard", "shard not listed yet", "listing a shard"],
)
def test_killed_it_goes_on_with_the_same_bits(tmp_path, moment):
    train_bpe(["Document number 0123456789. "], 300).save_pretrained(tmp_path / "t")
    done = run(tmp_path, moment)
    assert done.returncode == -signal.SIGKILL, done.stderr
    done = run(tmp_path, "build('whole'); build('x')")
    assert done.returncode == 0, done.stderr
    assert "going on after" in done.stdout
    assert contents(tmp_path / "x") == contents(tmp_path / "whole")
    assert len(TokenShards(tmp_path / "x")) == 300


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["abc abd"], 300)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stops=st.lists(st.integers(0, 60), max_size=4), size=st.integers(20, 200))
def test_stopped_anywhere_any_number_of_times(tokenizer, tmp_path_factory, monkeypatch, stops, size):
    monkeypatch.setattr(encode, "BATCH_DOCUMENTS", 4)
    texts = [f"abc {i} " * (i % 5) for i in range(60)]
    folder = tmp_path_factory.mktemp("stopped")

    def build(name, stop=60):
        def given(first):
            yield from texts[first : max(stop, first)]
            if stop < 60:
                raise KeyboardInterrupt

        write_shards(folder / name, given, tokenizer, source="s", tokens_per_shard=size)

    for stop in stops:
        try:
            build("x", stop)
        except KeyboardInterrupt:
            pass
    build("x")
    build("whole")
    assert contents(folder / "x") == contents(folder / "whole")
