"""A disk that fills up, or files that go bad, in the middle of a run: said plainly, and the next run goes on."""

import errno
import json
import random

import pytest

from groundup.cli import main
from groundup.store import Run, atomic

TINY = [
    "--out=run",
    "--set=vocab_size=300",
    "--set=architecture.hidden_size=16",
    "--set=architecture.intermediate_size=16",
    "--set=architecture.num_hidden_layers=1",
    "--set=pretrain.max_length=32",
    "--set=batch_tokens=64",
    "--set=max_steps=6",
    "--set=save_steps=2",
    "--set=dtype=float32",
    "--set=clean.holdout=0.3",
    "--set=sample_prompts=[The]",
]
STAGES = ["clean", "tokenizer", "shards", "pretrain"]


@pytest.fixture
def again(tmp_path, monkeypatch, capsys):
    """Run the same command; exit code, what was said, what went wrong."""
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    rows = [{"text": " ".join(draw.choices(["river", "stone", "cloud", "seven"], k=30))} for _ in range(12)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run():
        capsys.readouterr()
        code = main(["pretrain", "--data", "texts.jsonl", *TINY])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("clean/.tmp-data", []),
        ("shards/.tmp-final", ["clean", "tokenizer"]),
        ("pretrain/.tmp-checkpoint-000004", ["clean", "tokenizer", "shards"]),
        ("pretrain/.tmp-final", ["clean", "tokenizer", "shards"]),
    ],
)
def test_the_disk_fills_up(again, run, monkeypatch, name, kept):
    whole = atomic.sync_tree

    def full(folder):
        if f"{folder.parent.name}/{folder.name}".startswith(name):
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(folder)

    with monkeypatch.context() as patched:
        patched.setattr(atomic, "sync_tree", full)
        code, out, err = again()
    assert code == 2 and "disk is full" in err and "Free some space" in err, err
    assert "Traceback" not in err + out
    assert "Traceback" in run.log.read_text()
    assert [stage for stage in STAGES if run.stage(stage).manifest.exists()] == kept
    assert not list(run.root.rglob(".tmp-*")), "half of something is left"

    code, out, err = again()
    assert code == 0, err
    assert out.count("already done") == len(kept)
    assert ("going on from checkpoint-000002" in out) == ("checkpoint" in name)
    assert ("going on from checkpoint-000006" in out) == (name == "pretrain/.tmp-final")


def test_the_log_cannot_be_written(again, run, monkeypatch):
    run.root.mkdir()
    run.log.mkdir()
    code, _, err = again()
    assert code == 2 and "run.log" in err and "--out" in err
    assert not run.recipe.exists()


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_result_that_went_bad(again, run, damage):
    """Found by its hash, and made again; what reads it too, if it comes out otherwise."""
    assert again()[0] == 0
    path = run.stage("shards").data / "train" / "shard-00000.bin"
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flip" else data[:-4])
    code, out, err = again()
    assert code == 0, err
    assert out.count("already done") == 3, "only the shards are made again, and they come out as they were"


def test_a_file_of_an_unfinished_stage_that_went_bad(again, run, monkeypatch):
    """Said with its path, and nothing is lost by removing it."""
    with monkeypatch.context() as patched:
        patched.setattr("groundup.stages.pretrain.save_model", broken)
        assert again()[0] == 1
    path = run.stage("pretrain").plan
    path.write_text('{"half')
    code, _, err = again()
    assert code == 2 and str(path.relative_to(path.parents[2])) in err and "Traceback" not in err
    path.unlink()
    assert again()[0] == 0


def broken(*_):
    raise RuntimeError("a bug")


def test_a_bug_is_said_to_be_one(again, run, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("groundup.stages.pretrain.save_model", broken)
        code, out, err = again()
    assert code == 1 and "a bug" in err and "run.log" in err
    assert "Traceback" not in err + out
    assert "RuntimeError: a bug" in run.log.read_text()
    code, out, _ = again()
    assert code == 0 and "going on from checkpoint-000006" in out
