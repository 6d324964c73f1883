"""Stages that start from the same one: in one run, and each from a terminal of its own at the same time."""

import json

import pytest

from groundup.store import Run
from groundup.store.files import read_json

SECOND = """\
  other:
    kind: dpo
    from: sft
    data: {pairs}
    holdout: 0.25
    batch_size: 4
    max_steps: 3
    beta: 0.5
    learning_rate: 1e-2
    dtype: float32
    sample_count: 1
    sample_tokens: 5
  reward:
    from: sft
    data: {pairs}
    holdout: 0.25
    batch_size: 4
    max_steps: 3
    dtype: float32
  grpo:
    from: sft
    data: {chat}
    rewards: [{{function: model, model: reward}}]
    num_generations: 2
    {policy}
  ppo:
    from: sft
    data: {chat}
    rewards: [{{function: length, max_length: 3}}]
    {policy}
"""
POLICY = """max_prompt_length: 100
    max_completion_length: 6
    batch_size: 2
    max_steps: 3
    num_eval_prompts: 2
    dtype: float32"""
BRANCHES = ("dpo", "other", "grpo", "ppo")


@pytest.mark.slow
def test_branches_from_a_terminal_each(chain_text, chat_file, pairs_file, write, groundup, start, tmp_path):
    """Locks are a stage's own, and what they share (recipe, log, report) stays whole."""
    more = SECOND.format(pairs=pairs_file, chat=chat_file, policy=POLICY)
    write("chain.yaml", chain_text.partition("  merge:")[0] + more)
    assert groundup("run", "chain.yaml", "--only", "sft", "--only", "reward").code == 0
    all_at_once = [start("run", "chain.yaml", "--only", name) for name in BRANCHES]
    said = [process.communicate(timeout=240) for process in all_at_once]
    assert [process.returncode for process in all_at_once] == [0] * len(BRANCHES), said
    run = Run.open(tmp_path / "runs" / "chain", create=False)
    for name in BRANCHES:
        assert read_json(run.stage(name).result)["steps"] == 3
        adapter = json.loads((run.stage(name).final / "adapter_config.json").read_text())
        assert adapter["r"] == 4, "the adapter of sft, trained on"
    again = groundup("run", "chain.yaml")
    assert again.code == 0 and again.out.count("already done") == 2 + len(BRANCHES)
    report = run.report_md.read_text()
    assert all(f"## {name}" in report for name in ("sft", "reward", *BRANCHES))
    assert not list(run.root.glob(".tmp-*"))


def test_a_stage_runs_once_at_a_time(copy_of_chain, groundup):
    """The lock names who holds it; the other branch does not mind."""
    chain = copy_of_chain
    run = Run.open(chain.root, create=False)
    with run.stage("dpo").lock():
        line = ["run", chain.recipe, "--out", chain.root]
        groundup(*line, "--only", "dpo").refused("dpo is already running", "--out")
        assert groundup(*line, "--only", "sft").code == 0
