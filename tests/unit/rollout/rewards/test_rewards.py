"""Rewards in their processes: sums, TRL's signature, and every way in which a function fails."""

from __future__ import annotations

import math
import multiprocessing
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.config.rewards import RewardSettings
from groundup.errors import UserError
from groundup.rollout.rewards import check_rewards, load_rewards


def test_a_weighted_sum_and_each_by_itself(load, own_file: Path):
    rewards = load(
        {"function": "exact_match", "weight": 2.0},
        {"function": f"{own_file}:brevity", "weight": 0.5},
        {"function": "regex", "pattern": "a", "weight": 0.0, "name": "has_a"},
    )
    scores = rewards.score(["p"] * 3, ["a", "bb", "ccc"], {"solution": ["a", "x", None]})
    assert {name: values.tolist()[:2] for name, values in scores.each.items()} == {
        "exact_match": [1.0, 0.0],
        "brevity": [-1.0, -2.0],
        "has_a": [1.0, 0.0],
    }
    assert math.isnan(scores.each["exact_match"][2])  # not applicable: the sum goes without it
    assert scores.total_N.tolist() == [1.5, -1.0, -1.5]
    assert scores.total_N.dtype == np.float64 and scores.failures == []


def test_a_function_gets_what_trl_gives(load, own_file: Path, capfd: pytest.CaptureFixture[str]):
    rewards = load(
        {"function": f"{own_file}:asked", "arguments": {"level": 10}},
        f"{own_file}:later",
        f"{own_file}:only_completions",
        f"{own_file}:always",
    )
    columns = {"number": [1, 2], "completion_ids": [[5], [6, 7]], "trainer_state": {"global_step": 3}}
    scores = rewards.score(["a", "b"], ["c", "d"], columns)
    assert scores.each["asked"].tolist() == [13.0, 23.0]
    assert scores.each["later"].tolist() == [1.0, 1.0]
    assert scores.each["only_completions"].tolist() == [1.0, 1.0]
    assert scores.metrics == {"ids": 1.5} and scores.extra == {"seen": ["ac", "bd"]}
    assert "prints" not in capfd.readouterr().out


def test_conversations_come_as_messages(load, own_file: Path):
    rewards = load(f"{own_file}:messages", {"function": "regex", "pattern": "^yes$"})
    said = [[{"role": "assistant", "content": text}] for text in ("yes", "no")]
    scores = rewards.score([[{"role": "user", "content": "?"}]] * 2, said, {})
    assert scores.each["messages"].tolist() == scores.each["regex"].tolist() == [1.0, 0.0]


TROUBLE = {
    "raise": "KeyError: 'no such word' \\(mine.py:",
    "hang": "no answer within 1 s",
    "sleep": "no answer within 1 s",
    "die": "ended with code 3",
    "nan": "it returned nan",
    "inf": "it returned inf",
    "word": "'five', which is no number",
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_trouble_is_told_with_its_row_and_handled_as_asked(load, own_file: Path, trouble: str):
    settings = {"function": f"{own_file}:troubled", "timeout_seconds": 1.0}
    rewards = load({**settings, "on_error": "zero"}, {"function": "regex", "pattern": "i"})
    completions = ["fine", trouble, "fine"]
    scores = rewards.score(["p"] * 3, completions, {})
    (failure,) = scores.failures
    assert (failure.row, failure.reward) == (1, "troubled")
    assert re.search(TROUBLE[trouble], failure.reason)
    assert scores.each["troubled"].tolist() == [1.0, 0.0, 1.0]
    assert scores.total_N[[0, 2]].tolist() == [2.0, 2.0]
    assert rewards.score(["p"], ["fine"], {}).total_N.tolist() == [2.0]  # and it goes on


def test_skip_leaves_the_answer_out_and_stop_ends_it(load, own_file: Path):
    function = f"{own_file}:troubled"
    skipping = load({"function": function, "on_error": "skip"}, {"function": "regex", "pattern": "."})
    scores = skipping.score(["p"] * 2, ["raise", "fine"], {})
    assert math.isnan(scores.total_N[0]) and scores.total_N[1] == 2.0
    assert math.isnan(scores.each["troubled"][0]) and scores.each["regex"].tolist() == [1.0, 1.0]
    with pytest.raises(UserError, match="no number for answer 2 \\(and for 1 more of 3\\)") as raised:
        load(function).score(["question"] * 3, ["fine", "raise", "nan"], {})
    assert (
        "KeyError" in raised.value.why and "'question'" in raised.value.why and "'raise'" in raised.value.why
    )


def test_none_everywhere_is_told_and_left_out(load, own_file: Path):
    scores = load(f"{own_file}:troubled").score(["p"] * 2, ["none", "fine"], {})
    assert math.isnan(scores.total_N[0]) and scores.total_N[1] == 1.0
    assert scores.failures == [(0, "", "no reward applies to it")]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("short", "it returned 1 rewards for 3 answers"),
        ("together", "one at a time, please.*each by itself works"),
    ],
)
def test_a_function_that_cannot_do_several_rows_has_no_number_for_any(load, own_file: Path, name, reason):
    scores = load({"function": f"{own_file}:{name}", "on_error": "zero"}).score(["p"] * 3, ["a"] * 3, {})
    assert [failure.row for failure in scores.failures] == [0, 1, 2]
    with pytest.raises(UserError, match=reason):
        load(f"{own_file}:{name}").score(["p"] * 3, ["a"] * 3, {})


def test_many_that_hang_take_a_few_time_limits(load, own_file: Path):
    settings = {"function": f"{own_file}:troubled", "timeout_seconds": 0.3, "on_error": "zero"}
    scores = load(settings).score(["p"] * 40, ["sleep"] * 40, {})
    assert len(scores.failures) == 40 and "not tried" in scores.failures[-1].reason


def test_a_pattern_that_takes_forever_is_ended_and_the_other_rows_judged(load):
    settings = {"function": "regex", "pattern": "^(a+)+$", "timeout_seconds": 1.0, "on_error": "zero"}
    began = time.monotonic()
    scores = load(settings).score(["p"] * 3, ["aaa", "a" * 60 + "!", "aa"], {})
    assert time.monotonic() - began < 60
    assert scores.each["regex"].tolist() == [1.0, 0.0, 1.0]
    assert scores.failures == [(1, "regex", "it gave no answer within 1 s")]


def test_a_missing_column_is_named(load):
    with pytest.raises(UserError, match="needs the column 'solution'") as raised:
        load("exact_match").score(["p"], ["a"], {"answer": ["a"]})
    assert "answer" in raised.value.why


def test_processes_end_with_the_rewards(own_file: Path):
    with load_rewards([RewardSettings(function=f"{own_file}:always")]) as rewards:
        (process,) = multiprocessing.active_children()
        assert rewards.score(["p"], ["a"], {}).total_N.tolist() == [1.0]
    assert not process.is_alive()


BROKEN: dict[str, tuple[str, str]] = {
    "import no_such_package_here\ndef f(**k): ...\n": ("cannot be run", "no_such_package_here"),
    "def f(:\n": ("is not Python", "syntax"),
    "def g(**k): ...\n": ("has no function f", "it has g"),
    "f = 3\n": ("has no function f", "no functions"),
    "import sys\ndef f(**k): ...\nsys.exit(2)\n": ("cannot be run", "SystemExit"),
    "import os\ndef f(**k): ...\nos._exit(2)\n": ("cannot be loaded", "code 2"),
}


@pytest.mark.parametrize("source", BROKEN)
def test_files_that_cannot_be_loaded(tmp_path: Path, source: str):
    file = tmp_path / "broken.py"
    file.write_text(source)
    what, why = BROKEN[source]
    with pytest.raises(UserError, match=what) as raised:
        load_rewards([RewardSettings(function=f"{file}:f")])
    assert why in raised.value.why
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ([], "no reward is named"),
        (["exact_match", "exact_match"], "two rewards are called exact_match"),
        (["absent.py:f"], "cannot be read"),
        ([{"function": "json_schema", "schema": "absent.json"}], "cannot be read"),
    ],
)
def test_what_is_told_in_a_moment(settings: list[Any], told: str):
    with pytest.raises(UserError, match=told):
        check_rewards([RewardSettings.model_validate(each) for each in settings])


@pytest.mark.slow
def test_a_script_that_each_process_would_run_anew_is_told_what_to_write(tmp_path: Path):
    script = tmp_path / "mine.py"
    script.write_text(
        "from groundup.config.rewards import RewardSettings\n"
        "from groundup.rollout.rewards import load_rewards\n"
        "load_rewards([RewardSettings(function='exact_match')])\n"
    )
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert ended.returncode != 0
    assert "the reward exact_match cannot be loaded" in ended.stderr
    assert '`if __name__ == "__main__":`' in ended.stderr
