"""benchmarks/train.py: its list, a measurement of Groundup alone on made-up rows, and what it says without data."""

import gzip
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "train.py"


def script(*line, environment):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, line)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def own_environment():
    """This very package, one thread, and no folder of real data."""
    paths = os.pathsep.join(path for path in sys.path if path)
    own = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    own.pop("GROUNDUP_DATA", None)
    return own


@pytest.fixture
def data(tmp_path, pair):
    """A few pairs, lying where HH-RLHF lies in the folder of real data."""
    for name in ("harmless-base", "helpful-base"):
        folder = tmp_path / "preference" / "hh_rlhf_test" / name
        folder.mkdir(parents=True)
        with gzip.open(folder / "test.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(pair(i + 20 * len(name))) + "\n" for i in range(8))
    return tmp_path


def test_list(own_environment):
    said = script("--list", environment=own_environment).stdout
    names = [line.split()[0] for line in said.splitlines()]
    assert {"dpo-hh", "sft-alpaca-full", "pretrain-20m", "dpo-sizes-360m", "scaling-length-4096"} <= set(
        names
    )
    assert len(names) == len(set(names))


def test_without_data_it_says_so(own_environment):
    assert "Skipped: GROUNDUP_DATA" in script("--only", "dpo-hh", environment=own_environment).stdout


@pytest.mark.parametrize("name", ["rl.py", "preference.py", "sentiment.py"])
def test_others_without_data_say_so(name, own_environment):
    done = subprocess.run(
        [sys.executable, str(SCRIPT.with_name(name))],
        env=own_environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and "Skipped: GROUNDUP_DATA" in done.stdout


@pytest.mark.slow
def test_a_setting_of_no_work_at_hand_is_an_error(own_environment, data):
    line = [sys.executable, SCRIPT.with_name("preference.py"), "--only", "reward", "--data", data]
    line += ["--set", "dpo.beta=0.2"]
    done = subprocess.run(list(map(str, line)), env=own_environment, capture_output=True, text=True)
    assert done.returncode == 2 and "--set dpo.beta: unknown" in done.stderr


def test_a_wrong_model_is_told_at_once(own_environment, data):
    line = [sys.executable, SCRIPT, "--only", "dpo-hh", "--model", "/no/such/model", "--data", data]
    done = subprocess.run(list(map(str, line)), env=own_environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "There is no model at /no/such/model" in done.stderr and "Traceback" not in done.stderr


def test_a_peer_that_is_none_is_told(own_environment, data, model):
    line = [sys.executable, SCRIPT, "--only", "dpo-hh", "--without", "tlr", "--model", model, "--data", data]
    done = subprocess.run(list(map(str, line)), env=own_environment, capture_output=True, text=True)
    assert done.returncode == 2 and "There is no peer 'tlr'" in done.stderr and "trl-tuned" in done.stderr


def test_ctrl_c_keeps_what_was_measured(own_environment, data, model, tmp_path):
    line = ["--quick", "--ours-only", "--only", "dpo-hh", "--model", model, "--data", data]
    line += ["--cache", tmp_path / "cache"]
    running = subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, line)],
        env=own_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    seen = iter(running.stderr.readline, "")
    assert any("ours" in line for line in seen), "a child process was begun"
    running.send_signal(signal.SIGINT)
    said, errors = running.communicate(timeout=60)
    assert running.returncode == 130 and "Traceback" not in errors
    (row,) = json.loads(said.splitlines()[-1])["rows"]
    assert row["error"] == "left out: stopped by ctrl-C"


def test_a_quick_run_ends_with_one_line_of_json(own_environment, data, model, tmp_path):
    line = ["--quick", "--ours-only", "--only", "dpo-hh", "--model", model, "--data", data]
    done = script(*line, "--cache", tmp_path / "cache", environment=own_environment)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["name"] == "train"
    assert not [row for row in found["rows"] if "error" in row]
    floor = {row["work"]: row for row in found["rows"] if row["peer"] == "matrix products alone"}
    assert floor.keys() == {"dpo-hh, first epoch", "dpo-hh, second epoch"}
    for row in floor.values():
        assert row["unit"] == "tokens/s" and row["ours_value"] > 0 and 0 < row["ratio"] < 1
    first, second = floor.values()
    assert second["ours_value"] > first["ours_value"], "a cached reference costs nothing"
    (ours,) = found["works"]["dpo-hh"]["ours"]
    assert len(ours["seconds"]) == 3 and ours["peak_bytes"] > ours["base_bytes"] > 0
    assert ours["history"][0]["loss"] == pytest.approx(0.6931, abs=1e-3)


@pytest.mark.slow
def test_a_reward_model_and_dpo_end_with_one_line_of_json(own_environment, data, model):
    line = ["--model", model, "--data", data, "--steps", 2, "--holdout", 0.3, "--seeds", "0,1"]
    line += ["--set", "dpo.beta=0.2"]
    found = json.loads(other("preference.py", *line, environment=own_environment).splitlines()[-1])
    assert [(row["work"], row["seed"]) for row in found["rows"]] == [
        *(("reward", 0), ("reward", 1), ("sigmoid", 0), ("sigmoid", 1))
    ]
    for row in found["rows"]:
        assert row["pairs"] == 16 and 0 <= row["accuracy_after"] <= 1
        assert ("preference_accuracy_after" in row) is (row["work"] == "sigmoid")
    assert found["rows"][0]["margin_after"] != found["rows"][1]["margin_after"]


@pytest.mark.slow
def test_a_sentiment_run_ends_with_one_line_of_json(own_environment, model, tmp_path):
    reviews = tmp_path / "sentiment" / "movie_reviews" / "movie_reviews.zip"
    reviews.parent.mkdir(parents=True)
    with zipfile.ZipFile(reviews, "w") as file:
        for label, word in (("neg", "awful"), ("pos", "splendid")):
            for number in (*range(40), *range(800, 806)):
                sentences = [f"{number} {label} times {i} : the {word} film is {word} ." for i in range(20)]
                file.writestr(f"movie_reviews/{label}/cv{number:03}_1.txt", "\n".join(sentences))
    line = [
        "--model",
        model,
        "--data",
        tmp_path,
        "--samples",
        2,
        "--set",
        "max_steps=4",
        "--set",
        "grpo.beta=0.1",
    ]
    found = json.loads(other("sentiment.py", *line, environment=own_environment).splitlines()[-1])
    assert found["classifier"]["heldout_reviews"] == 12 and 0 <= found["classifier"]["accuracy"] <= 1
    assert [row["work"] for row in found["rows"]] == ["grpo", "ppo"]
    for row in found["rows"]:
        assert 0 <= row["reward_after"] <= 1 and row["kl_largest"] >= row["kl"] and row["distinct_after"] > 0
    assert len(found["samples"]["ppo, seed 0"]) == 2


def other(name, *line, environment):
    """Standard output of another of the scripts."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT.with_name(name)), *map(str, line)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_reinforcement_of_groundup_alone_is_measured_beside_its_floor(own_environment, model, tmp_path):
    file = tmp_path / "sft" / "gsm8k_train" / "train.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps({"question": f"What is {n} + 1?"}) + "\n" for n in range(8)))
    line = ["--quick", "--ours-only", "--new-tokens", 4, "--samples", 2, "--model", model]
    line += ["--data", tmp_path, "--out", tmp_path / "found.json"]
    found = json.loads(other("rl.py", *line, environment=own_environment).splitlines()[-1])
    assert found == json.loads((tmp_path / "found.json").read_text())
    assert [row["unit"] for row in found["rows"]] == ["tokens/s"] * 3
    assert all(row["ours_value"] > 0 for row in found["rows"])
    work = found["works"]["grpo-lora"]
    assert work["ours"][0]["answer_tokens"] == [2 * 2 * 4] * 3
    assert work["floor"]["weight_bytes"] > 0 and work["floor"]["products_seconds"] > 0


def test_the_search_keeps_what_is_faster(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    from rl_search import tuned

    asked, told = [], []

    def side(name, seconds, **chosen):
        asked.append((seconds, chosen))
        if chosen["attention"] == "eager":
            return {"error": "it failed"}
        slow = {"bfloat16": 10.0, "autocast": 20.0, "float32": 30.0}[chosen["dtype"]] + chosen["micro"]
        took = slow * (0.5 if chosen["keep_memory"] else 1.0)
        return {"seconds": [99.0, took], "rollout_seconds": [9.0, took / 2]}

    best = tuned(side, True, 16, True, told.append)
    assert best == {
        **{"dtype": "bfloat16", "attention": "sdpa", "cache": "dynamic"},
        **{"micro": 2, "keep_memory": True},
    }
    assert [one["error"] for one in told if one["attention"] == "eager"] == ["it failed"]
    assert asked[0][0] is None and asked[1][0] == 60 + 3 * 14.0, "a trial that cannot win is cut off"
    assert {one["dtype"] for one in told} == {"bfloat16", "autocast", "float32"}
    told.clear()
    tuned(side, False, 16, True, told.append)
    assert {one["dtype"] for one in told} == {"autocast", "float32"}, "trained weights stay float32"
