"""Two stages that start from the same one: in one run, and from two terminals at the same time."""

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
"""


@pytest.mark.slow
def test_branches_from_two_terminals(chain_text, pairs_file, write, groundup, start, tmp_path):
    """Locks are a stage's own, and what the two share (recipe, log, report) stays whole."""
    text = chain_text.partition("  merge:")[0] + SECOND.format(pairs=pairs_file)
    write("chain.yaml", text)
    assert groundup("run", "chain.yaml", "--only", "sft").code == 0
    both = [start("run", "chain.yaml", "--only", name) for name in ("dpo", "other")]
    said = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    run = Run.open(tmp_path / "runs" / "chain", create=False)
    for name in ("dpo", "other"):
        assert read_json(run.stage(name).result)["steps"] == 3
        adapter = json.loads((run.stage(name).final / "adapter_config.json").read_text())
        assert adapter["r"] == 4, "the adapter of sft, trained on"
    again = groundup("run", "chain.yaml")
    assert again.code == 0 and again.out.count("already done") == 3
    report = run.report_md.read_text()
    assert "## dpo" in report and "## other" in report
    assert not list(run.root.glob(".tmp-*"))


def test_a_stage_runs_once_at_a_time(copy_of_chain, groundup):
    """The lock names who holds it; the other branch does not mind."""
    chain = copy_of_chain
    run = Run.open(chain.root, create=False)
    with run.stage("dpo").lock():
        line = ["run", chain.recipe, "--out", chain.root]
        groundup(*line, "--only", "dpo").refused("dpo is already running", "--out")
        assert groundup(*line, "--only", "sft").code == 0
