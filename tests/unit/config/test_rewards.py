"""A reward's words in a recipe, and the mistakes that are told."""

import pytest
from pydantic import TypeAdapter, ValidationError

from groundup.config.rewards import PARAMETERS, RewardSettings

GIVEN = {
    "exact_match": {"pattern": "#### (.*)", "column": "answer"},
    "math_verify": {"column": "answer"},
    "regex": {"pattern": "^<think>"},
    "json_schema": {"schema": {"type": "object"}},
    "length": {"max_length": 20, "unit": "tokens"},
    "sentiment": {"model": "folder", "label": "POSITIVE", "score": "logit", "include_prompt": True},
    "model": {"model": "folder"},
}


@pytest.mark.parametrize("function", PARAMETERS)
def test_each_shipped_function_takes_its_parameters(function):
    settings = RewardSettings(function=function, weight=2, on_error="skip", name="mine", **GIVEN[function])
    assert settings.metric_name == "mine" and settings.file is None


def test_a_name_alone_and_a_users_function():
    read = TypeAdapter(list[RewardSettings]).validate_python(
        ["exact_match", "my/rewards.py:brevity", {"function": "r.py:f", "arguments": {"most": 3}}]
    )
    assert read[0].metric_name == "exact_match" and read[0].on_error == "stop"
    assert str(read[1].file) == "my/rewards.py" and read[1].metric_name == "brevity"
    assert read[2].arguments == {"most": 3}


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"function": "exact_mach"}, "did you mean exact_match"),
        ({"function": "rewards.py"}, "FILE.py:NAME"),
        ({"function": "regex"}, "regex needs pattern"),
        ({"function": "regex", "pattern": "("}, "no regular expression"),
        ({"function": "exact_match", "pattern": "a(b)(c)"}, "2 groups"),
        ({"function": "exact_match", "max_length": 3}, "max_length does nothing for exact_match"),
        ({"function": "length", "schema": {}, "max_length": 3}, "schema does nothing for length"),
        ({"function": "r.py:f", "pattern": "x"}, "pattern does nothing for r.py:f"),
        (
            {"function": "model", "model": "m", "timeout_seconds": 3.0},
            "timeout_seconds does nothing for model",
        ),
        ({"function": "length"}, "min_length, max_length"),
        ({"function": "length", "min_length": 9, "max_length": 3}, "more than max_length"),
        ({"function": "sentiment"}, "sentiment needs model"),
        ({"function": "exact_match", "weight": float("nan")}, "finite"),
        ({"function": "exact_match", "on_error": "ignore"}, "stop"),
        ({"function": "exact_match", "tpyo": 1}, "tpyo"),
    ],
)
def test_mistakes_are_told(bad, told):
    with pytest.raises(ValidationError, match=told):
        RewardSettings.model_validate(bad)
