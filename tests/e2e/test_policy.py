"""`groundup grpo` and `groundup ppo` as a person calls them: what they write, how they go on, what they refuse."""

from __future__ import annotations

import json
import math
import signal

import pytest
from safetensors.torch import load_file

from groundup.engine import loop
from groundup.store import Run
from groundup.store.files import read_json, read_jsonl

REWARDS = '''
def early(prompts, completions, answer, **kwargs):
    """Higher for letters from the front of the alphabet."""
    assert len(answer) == len(completions) == len(prompts)
    return [sum(c in "abcdefgh" for c in text) / (1 + len(text)) for text in completions]

def short(prompts, completions, **kwargs):
    return [1.0] * (len(completions) - 1)

def nothing(prompts, completions, **kwargs):
    return [float("nan")] * len(completions)

def single(prompts, completions, **kwargs):
    return 1.0

def fail(prompts, completions, **kwargs):
    raise ValueError("the judge is ill")
'''
FAST = [
    *(
        "--set=max_steps=6",
        "--set=batch_size=2",
        "--set=max_completion_length=6",
        "--set=max_prompt_length=100",
    ),
    *("--set=holdout=0.25", "--set=num_eval_prompts=3", "--set=sample_count=2", "--set=dtype=float32"),
    *("--set=logging_steps=1", "--set=learning_rate=1e-2", "--set=log_completions_steps=1"),
    *("--set=save_steps=4", "--set=num_completions_to_log=3"),
]
KINDS = {
    "grpo": [
        "--set=num_generations=3",
        "--set=steps_per_generation=2",
        "--set=num_iterations=2",
        "--set=beta=0.1",
    ],
    "ppo": ["--set=num_mini_batches=2", "--set=num_ppo_epochs=2", "--set=kl_target=0.5"],
}
TIMES = {"elapsed_seconds", "tokens_per_second", "loading_share", "seconds"}


@pytest.fixture(scope="module")
def prompts_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    rows = [{"prompt": f"Say number {i}.", "answer": str(i)} for i in range(16)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def line(model, prompts_file, write):
    """A command; the reward is a function of `rewards.py`."""
    file = write("rewards.py", REWARDS)

    def command(kind, *more, reward="early", data=prompts_file, fast=FAST):
        given = reward if reward.startswith("{") else f"{file}:{reward}"
        return [kind, "--model", model, "--data", data, "--reward", given, *fast, *KINDS[kind], *more]

    return command


def stage_of(tmp_path, kind, out="run"):
    return Run(tmp_path / out).stage(kind)


def timeless(value):
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMES}
    return [timeless(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("lora", [True, False], ids=["lora", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_stage_writes(kind, lora, line, groundup, tmp_path):
    said = groundup(*line(kind, "--out", "run", *([] if lora else ["--set=lora=false"])))
    assert said.code == 0, said.out + said.err
    stage = stage_of(tmp_path, kind)
    result = read_json(stage.result)
    assert result["rows"]["in"] == 16 and result["steps"] == 6
    assert {"eval_reward", "eval_rewards/early/mean"} <= result["before"].keys() & result["after"].keys()
    assert len(result["samples"]) == 2 and all(
        set(s) >= {"prompt", "before", "after"} for s in result["samples"]
    )
    logged = [entry for entry in read_jsonl(stage.metrics) if "loss" in entry]
    assert len(logged) == 6
    names = {
        "grpo": {"reward", "reward_std", "kl", "entropy", "clip_ratio/region_mean", "frac_reward_zero_std"},
        "ppo": {"reward", "objective/kl", "objective/rlhf_reward", "loss/value_avg", "policy/approxkl_avg"},
    }[kind]
    assert names <= set().union(*logged)
    ratio = {"grpo": ("clip_ratio/region_mean", 0.0), "ppo": ("val/ratio", 1.0)}[kind]
    assert logged[0][ratio[0]] == ratio[1], "before the first update the ratio is exactly one"
    assert logged[0].get("kl", 0.0) == logged[0].get("objective/kl", 0.0) == 0.0
    completions = read_jsonl(stage.completions)
    assert {entry["step"] for entry in completions} == {0, 4}
    assert all(math.isfinite(entry["reward"]) and "advantage" in entry for entry in completions)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Answers while it was trained" in page
    weights = "adapter_model.safetensors" if lora else "model.safetensors"
    assert (stage.final / weights).exists()
    reward = f"held-out reward: {result['before']['eval_reward']:.3f} before"
    assert reward in said.out
    how = "switched off" if lora else "frozen copy"
    assert how in read_json(stage.plan)["reference"] and how in said.out


@pytest.mark.parametrize("at", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_in_the_middle_of_a_phase(kind, at, line, groundup, tmp_path, monkeypatch):
    """Phases have four steps here; what is rolled out, filled and drawn comes back to the bit."""
    assert groundup(*line(kind, "--out", "whole")).code == 0
    with monkeypatch.context() as interrupted:
        interrupted.setattr(loop, "learning_rate_at", interrupting(loop.learning_rate_at, at))
        assert groundup(*line(kind, "--out", "cut")).code == 130
    cut = stage_of(tmp_path, kind, "cut")
    assert cut.checkpoints()[-1].name == f"checkpoint-{at + 1:06d}"
    assert (cut.checkpoints()[-1] / "phase.safetensors").exists()
    said = groundup(*line(kind, "--out", "cut"))
    assert said.code == 0 and "going on from" in said.out
    whole = stage_of(tmp_path, kind, "whole")
    for name in ("metrics", "completions", "samples"):
        assert timeless(read_jsonl(getattr(whole, name))) == timeless(read_jsonl(getattr(cut, name))), name
    assert timeless(read_json(whole.result)) == timeless(read_json(cut.result))
    weights = "adapter_model.safetensors"
    assert (whole.final / weights).read_bytes() == (cut.final / weights).read_bytes()


def interrupting(rate_at, step):
    def wrapped(at, total_steps, settings):
        if at == step:
            signal.raise_signal(signal.SIGINT)
        return rate_at(at, total_steps, settings)

    return wrapped


def test_a_second_stage_goes_on_with_the_adapter_and_compares_with_it(line, groundup, tmp_path):
    """The reference of a policy that was trained before is that policy, not its base."""
    assert groundup(*line("grpo", "--out", "first")).code == 0
    words = line("ppo", "--out", "second")
    words[words.index("--model") + 1] = tmp_path / "first"
    said = groundup(*words)
    assert said.code == 0, said.err
    stage = stage_of(tmp_path, "ppo", "second")
    assert "frozen copy of the adapter" in read_json(stage.plan)["reference"]
    first = next(entry for entry in read_jsonl(stage.metrics) if "objective/kl" in entry)
    assert first["objective/kl"] == 0.0
    folder = stage.final / "adapter_model.safetensors"
    assert not [name for name in load_file(folder) if "others" in name]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_time_limit_becomes_steps(kind, line, groundup, tmp_path):
    """A whole phase is measured, answers and all, at a learning rate of zero: what follows is as without it."""
    assert groundup(*line(kind, "--out", "limited", "--set=max_minutes=1e-9")).code == 0
    assert groundup(*line(kind, "--out", "counted", "--set=max_steps=1")).code == 0
    limited, counted = (stage_of(tmp_path, kind, out) for out in ("limited", "counted"))
    assert "max_minutes" in read_json(limited.plan)["total_steps_reason"]
    assert timeless(read_jsonl(limited.metrics)) == timeless(read_jsonl(counted.metrics))


@pytest.mark.parametrize("kind", KINDS)
def test_a_rehearsal(kind, line, groundup, tmp_path):
    said = groundup(*line(kind, "--rehearse"))
    assert said.code == 0 and "The rehearsal went through" in said.out, said.err


@pytest.mark.parametrize(
    ("kind", "more", "parts"),
    [
        ("grpo", ["--set=num_generations=1"], ["num_generations", "2 or more"]),
        (
            "grpo",
            ["--set=steps_per_generation=1", "--set=num_iterations=1", "--set=epsilon=0.3"],
            ["epsilon", "ratio"],
        ),
        ("grpo", ["--set=beta=0", "--set=kl_in=reward"], ["kl_in", "beta"]),
        ("ppo", ["--set=num_mini_batches=3"], ["multiple of num_mini_batches"]),
        ("ppo", ["--set=prompt_tokens=4"], ["max_prompt_length does nothing"]),
        ("grpo", ["--set=sample_tokens=4"], ["sample_tokens does nothing"]),
        ("ppo", ["--set=kl_coef=0"], ["kl_target", "kl_coef"]),
        ("ppo", ["--set=max_completion_length=200"], ["context of 160", "max_completion_length"]),
        ("grpo", ["--set=max_prompt_length=5"], ["longer than 5 tokens", "max_prompt_length"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_settings_that_cannot_be(kind, more, parts, line, groundup):
    said = groundup(*line(kind, *more))
    assert said.code == 2 and "Traceback" not in said.err
    assert all(part in said.err for part in parts), said.err


@pytest.mark.parametrize(
    ("reward", "parts"),
    [
        ("short", ["it returned 4 rewards for 5 answers"]),
        ("nothing", ["returned nan"]),
        ("single", ["it returned 1.0, not a list with a number for each answer"]),
        ("fail", ["the judge is ill"]),
        ("{function: exact_match, column: missing}", ["missing"]),
    ],
)
def test_rewards_that_cannot_be_used(reward, parts, line, groundup):
    fast = [word for word in FAST if "num_eval_prompts" not in word]
    groundup(*line("grpo", "--set=num_eval_prompts=6", reward=reward, fast=fast)).refused(*parts)


def test_a_reward_that_is_misspelt(line, groundup):
    said = groundup(*line("grpo", reward="{function: exact_mach}"))
    assert said.code == 2 and "did you mean exact_match?" in said.err


def test_a_prompt_that_is_too_long_is_set_aside_and_counted(line, write, groundup, tmp_path):
    rows = [
        *({"prompt": f"Say {i}.", "answer": ""} for i in range(20)),
        {"prompt": "long " * 90, "answer": ""},
    ]
    file = write("long.jsonl", rows)
    assert groundup(*line("grpo", "--out", "run", "--set=data.max_bad_rows=0.1", data=file)).code == 0
    rows = read_json(stage_of(tmp_path, "grpo").result)["rows"]
    assert rows["quarantined"] == {"a prompt longer than 100 tokens": 1} and rows["kept"] == 20


def test_empty_prompts_are_refused_with_their_line(line, write, groundup):
    file = write("empty.jsonl", [{"prompt": "Say one.", "answer": ""}, {"prompt": " ", "answer": ""}])
    groundup(*line("grpo", data=file)).refused(f"{file}:2", "empty question")


def test_texts_are_continued_and_questions_of_ones_own_answered(line, write, groundup, tmp_path):
    rows = [{"text": f"{i} red and green stones in a river of clouds", "answer": ""} for i in range(16)]
    fast = [word for word in FAST if "max_prompt_length" not in word]
    more = ["--set=prompt_tokens=3", "--set=sample_prompts=[Say one., Say two.]", "--set=sample_tokens=4"]
    words = line("ppo", "--out", "run", *more, data=write("texts.jsonl", rows), fast=fast)
    said = groundup(*words)
    assert said.code == 0, said.err
    stage = stage_of(tmp_path, "ppo")
    shown = [sample["prompt"] for sample in read_json(stage.result)["samples"]]
    assert shown[:2] == ["Say one.", "Say two."] and len(shown) == 4
    prompts = {entry["prompt"] for entry in read_jsonl(stage.completions)} | set(shown[2:])
    assert all(any(row["text"].startswith(prompt) for row in rows) for prompt in prompts)
    assert groundup(*words).out.count("already done") == 1


def test_questions_of_ones_own_without_a_template_are_refused_before_anything_is_loaded(
    line, base_model, write, groundup
):
    rows = [{"text": f"{i} red and green stones in a river of clouds"} for i in range(16)]
    fast = [word for word in FAST if "max_prompt_length" not in word]
    more = [f"--set=from={base_model}", "--set=prompt_tokens=3", "--set=sample_prompts=[Say one.]"]
    said = groundup(*line("ppo", *more, data=write("texts.jsonl", rows), fast=fast))
    assert said.code == 2 and "no chat template" in said.err, said.err
    assert "weights to train" not in said.out


def test_no_reward_is_named(model, prompts_file, groundup):
    said = groundup("grpo", "--model", model, "--data", prompts_file)
    assert said.code == 2 and "--reward" in said.err
