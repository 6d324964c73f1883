"""benchmarks/learning.py with one seed: GRPO and PPO each raise the share of held-out prompts answered right."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "learning.py"


def one_core():
    """As docs/rl.md has it: steps this small are slower on several cores where others work too."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_held_out_accuracy_rises_by_twenty_points():
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--seeds", "0"],
        env=own,
        preexec_fn=one_core if hasattr(os, "sched_setaffinity") else None,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert [row["work"] for row in rows] == ["grpo", "ppo"]
    for row in rows:
        assert 20 < row["before_percent"] < 60, "SFT reached a part of it"
        assert row["after_percent"] - row["before_percent"] >= 20, row
        assert row["drawn_last_percent"] - row["drawn_first_percent"] >= 20, row
