"""The shipped functions, by texts whose worth is plain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from groundup.config.rewards import RewardSettings
from groundup.errors import UserError
from groundup.rollout.rewards.shipped import make_judge, text_of


def judged(settings: dict[str, Any], text: str, **row: Any) -> float | None:
    return make_judge(RewardSettings.model_validate(settings))(text, row)


GSM8K = {"function": "exact_match", "column": "answer", "pattern": r"####\s*(-?[\d.,]+)"}


@pytest.mark.parametrize(
    ("settings", "text", "row", "worth"),
    [
        ("exact_match", " 42\n", {"solution": "42"}, 1.0),
        ("exact_match", "43", {"solution": "42"}, 0.0),
        ("exact_match", "42", {"solution": 42}, 1.0),
        ("exact_match", "42", {"solution": None}, None),
        ("exact_match", "yes", {"solution": [{"role": "assistant", "content": "yes"}]}, 1.0),
        (GSM8K, "So it is 7.\n#### 7", {"answer": "3 and 4 make 7. #### 7"}, 1.0),
        (GSM8K, "#### 6, no, #### 7", {"answer": "#### 7"}, 1.0),
        (GSM8K, "It is 7", {"answer": "#### 7"}, 0.0),
        (GSM8K, "#### 7", {"answer": "7"}, 1.0),
        ({"function": "regex", "pattern": "^<think>.*</think>"}, "<think>\na\n</think> b", {}, 1.0),
        ({"function": "regex", "pattern": "^<think>.*</think>"}, "well <think></think>", {}, 0.0),
        ({"function": "length", "max_length": 4}, "a b c d", {}, 1.0),
        ({"function": "length", "max_length": 4}, "a b c d e f g h", {}, 0.5),
        ({"function": "length", "max_length": 4}, "", {}, 1.0),
        ({"function": "length", "min_length": 4, "max_length": 8}, "a", {}, 0.25),
        ({"function": "length", "min_length": 4, "unit": "characters"}, "ab", {}, 0.5),
        ({"function": "length", "max_length": 2, "unit": "tokens"}, "ab", {"completion_ids": [1] * 8}, 0.25),
    ],
)
def test_worth(settings, text, row, worth):
    assert judged({"function": settings} if isinstance(settings, str) else settings, text, **row) == worth


SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


@pytest.mark.parametrize(
    ("text", "worth"),
    [
        ('{"age": 3}', 1.0),
        ('```json\n{"age": 3}\n```', 1.0),
        ('Here: {"age": 3}', 0.0),
        ('{"age": "three"}', 0.0),
        ("{}", 0.0),
        ('{"age": NaN}', 0.0),
        ("[" * 100_000, 0.0),
        ("", 0.0),
    ],
)
def test_json_by_a_schema(text, worth, tmp_path: Path):
    pytest.importorskip("jsonschema")
    assert judged({"function": "json_schema", "schema": SCHEMA}, text) == worth
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SCHEMA))
    assert judged({"function": "json_schema", "schema": str(file)}, text) == worth


def test_any_json_and_schemas_that_are_none(tmp_path: Path):
    pytest.importorskip("jsonschema")
    assert judged({"function": "json_schema"}, "[1, 2]") == 1.0
    with pytest.raises(UserError, match="no JSON schema"):
        judged({"function": "json_schema", "schema": {"type": "wrong"}}, "")
    with pytest.raises(UserError, match="cannot be read"):
        judged({"function": "json_schema", "schema": str(tmp_path / "absent.json")}, "")


@pytest.mark.parametrize(
    ("wanted", "said", "worth"),
    [
        ("1/2", "The answer is $\\frac{1}{2}$.", 1.0),
        ("\\frac{1}{3}", "My answer is \\boxed{\\frac{1}{3}}", 1.0),
        ("\\frac{1}{3}", "My answer is \\boxed{\\frac{1}{2}}", 0.0),
        ("0.5", "so we get 1/2", 1.0),
        ("$x^2 - 1$", "$(x-1)(x+1)$", 1.0),
        ("72", "She sold 24 and 48, which is 72", 1.0),
        (72, "71", 0.0),
        ("72", "I do not know", 0.0),
        ("no mathematics here", "72", None),
        (None, "72", None),
    ],
)
def test_mathematics(wanted, said, worth):
    pytest.importorskip("math_verify")
    assert judged({"function": "math_verify"}, said, solution=wanted) == worth


def test_mathematics_where_a_pattern_says():
    pytest.importorskip("math_verify")
    settings = {"function": "math_verify", "pattern": "<answer>(.*?)</answer>"}
    assert judged(settings, "7, or 8? <answer>\\frac{1}{2}</answer> 9", solution="0.5") == 1.0
    assert judged(settings, "0.5", solution="0.5") == 0.0


def test_text_of_messages():
    assert text_of("a") == "a"
    assert text_of([{"role": "user", "content": "a"}, {"role": "assistant", "content": None}]) == "a\n"
