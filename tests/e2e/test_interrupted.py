"""Killed, interrupted, or started twice: nothing is lost and nothing is done by two."""

import os
import signal
import time

import pytest

from groundup.store import Run
from groundup.store.files import read_json, read_jsonl

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
STEPS = 40
WAIT_SECONDS = 60


@pytest.fixture(scope="module")
def text(model, chat_file):
    """Training that takes a few seconds."""
    return f"""stages:
  sft:
    from: {model}
    data: {chat_file}
    holdout: 0.2
    batch_size: 4
    max_steps: {STEPS}
    save_steps: 4
    logging_steps: 2
    dtype: float32
    lora: {{r: 4}}
    sample_count: 1
    sample_tokens: 4
"""


def until_checkpoint(stage, process):
    """Wait until training is on its way."""
    for _ in range(WAIT_SECONDS * 50):
        if stage.checkpoints():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError("no checkpoint came")


@pytest.fixture(scope="module")
def whole(text, tmp_path_factory):
    """The same training in one go."""
    import contextlib

    from groundup.cli import main

    folder = tmp_path_factory.mktemp("whole")
    (folder / "long.yaml").write_text(text)
    with contextlib.chdir(folder):
        assert main(["run", "long.yaml"]) == 0
    return Run.open(folder / "runs" / "long", create=False).stage("sft")


def same(stage, whole):
    """As if nothing had happened: equal weights, equal curves, nothing twice."""
    weights = "adapter_model.safetensors"
    assert (stage.final / weights).read_bytes() == (whole.final / weights).read_bytes()
    ours, theirs = (
        [(line["step"], line.get("eval_loss", line.get("learning_rate"))) for line in read_jsonl(one.metrics)]
        for one in (stage, whole)
    )
    assert ours == theirs
    one, other = read_json(stage.result), read_json(whole.result)
    for name in ("before", "after", "steps", "tokens", "samples", "rows"):
        assert one[name] == other[name], name


def test_killed_while_training(text, whole, write, start, groundup, tmp_path):
    write("long.yaml", text)
    stage = Run(tmp_path / "runs" / "long").stage("sft")
    process = start("run", "long.yaml")
    until_checkpoint(stage, process)
    plan = stage.plan.read_bytes()
    process.kill()
    process.wait()
    assert not stage.manifest.exists() and not stage.final.exists()
    groundup("chat", stage.root).refused("is not finished", "groundup run")

    said = groundup("run", "long.yaml")
    assert said.code == 0, said.err
    assert "going on from checkpoint-0000" in said.out
    assert stage.plan.read_bytes() == plan
    same(stage, whole)


def test_interrupted_and_started_twice(text, whole, write, start, groundup, tmp_path):
    write("long.yaml", text)
    stage = Run(tmp_path / "runs" / "long").stage("sft")
    process = start("run", "long.yaml")
    until_checkpoint(stage, process)
    second = groundup("run", "long.yaml")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    second.refused("already running", str(process.pid), "--out")

    assert process.returncode == 130, err
    assert "Stopping after this step" in err and "Interrupted. Run the same command again" in err
    assert "Traceback" not in err
    step = int(stage.checkpoints()[-1].name[-6:])
    assert 4 <= step < STEPS and f"{step}/{STEPS} steps" in out

    said = groundup("run", "long.yaml")
    assert said.code == 0, said.err
    assert f"going on from checkpoint-{step:06d}" in said.out
    same(stage, whole)


def test_another_setting_begins_again(text, whole, write, start, groundup, tmp_path):
    """What is left of other settings is removed, and nothing of it is gone on with."""
    write("long.yaml", text)
    line = ["run", "long.yaml", "--set", "sft.max_steps=2", "--set", "sft.learning_rate=1e-3"]
    assert groundup(*line).code == 0
    stage = Run(tmp_path / "runs" / "long").stage("sft")
    assert [path.name for path in stage.checkpoints()] == ["checkpoint-000002"]
    said = groundup("run", "long.yaml")
    assert said.code == 0 and "going on" not in said.out
    same(stage, whole)


def test_two_branches_at_once(copy_of_chain, chain_text, pairs_file, start, groundup, tmp_path):
    head, tail = chain_text.split("  dpo:\n")
    branch = tail.split("  merge:\n")[0]
    recipe = copy_of_chain.folder / "chain.yaml"
    names = ["dpo-a", "dpo-b"]
    branches = [f"  {name}:\n    kind: dpo\n{branch}" for name in names]
    recipe.write_text(head + branches[0] + branches[1].replace("max_steps: 3", "max_steps: 2"))
    other = start("run", "chain.yaml", "--only", "dpo-b")
    said = groundup("run", "chain.yaml", "--only", "dpo-a")
    out, err = other.communicate(timeout=120)
    assert said.code == 0, said.err
    assert other.returncode == 0, out + err
    run = Run.open(copy_of_chain.root, create=False)
    assert [len(run.stage(name).checkpoints()) for name in names] == [1, 1]
    assert [read_json(run.stage(name).result)["steps"] for name in names] == [3, 2]

    assert groundup("report", copy_of_chain.root).code == 0
    assert all(name in run.report_md.read_text() for name in names)
