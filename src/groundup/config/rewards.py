"""A reward's words in a recipe: which function judges an answer, and what happens when it cannot."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, FiniteFloat, PositiveFloat, PositiveInt, model_validator

from groundup.config.training import Settings

OWN_FUNCTION = re.compile(r"(?P<file>.+\.py):(?P<name>[^\W\d]\w*)")
"""FILE.py:NAME"""
ANY_FUNCTION = ("name", "weight", "on_error")
OWN_PARAMETERS = ("arguments", "timeout_seconds")
PARAMETERS: dict[str, tuple[str, ...]] = {
    "exact_match": ("column", "pattern", "timeout_seconds"),
    "math_verify": ("column", "pattern", "timeout_seconds"),
    "regex": ("pattern", "timeout_seconds"),
    "json_schema": ("schema", "timeout_seconds"),
    "length": ("min_length", "max_length", "unit", "timeout_seconds"),
    "sentiment": ("model", "label", "score", "include_prompt"),
    "model": ("model",),
}
"""What each shipped function takes."""
NEEDED = {"regex": "pattern", "sentiment": "model", "model": "model"}


class RewardSettings(Settings):
    """One reward. In a recipe the function's name alone may stand for it."""

    function: str = Field(description="a shipped one, or FILE.py:NAME")
    name: str | None = Field(None, description="in metrics and messages; default: the function's")
    weight: FiniteFloat = Field(1.0, description="factor in the sum; 0: only told, as a metric")
    timeout_seconds: PositiveFloat = Field(10.0, description="for one answer, or one call of your function")
    on_error: Literal["stop", "zero", "skip"] = Field(
        "stop", description="end the stage, take 0 for this reward, or leave the answer out of the step"
    )
    column: str = Field("solution", description="the data's column that holds the right answer")
    pattern: str | None = Field(
        None, description="regular expression; its group 1 is what exact_match and math_verify compare"
    )
    schema_: dict[str, Any] | str | None = Field(
        None, alias="schema", description="a JSON schema, or a file that holds it; default: any JSON"
    )
    min_length: PositiveInt | None = None
    max_length: PositiveInt | None = None
    unit: Literal["words", "characters", "tokens"] = "words"
    model: str | None = Field(None, description="a stage, a folder, or a hub name")
    label: str | None = Field(None, description="the good class; default: the one named positive")
    score: Literal["probability", "logit"] = "probability"
    include_prompt: bool = Field(False, description="judge the prompt and the answer as one text")
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="further keywords for your function, above the data's columns"
    )

    @property
    def file(self) -> Path | None:
        """The user's file, as written."""
        own = OWN_FUNCTION.fullmatch(self.function)
        return Path(own["file"]) if own else None

    @property
    def function_name(self) -> str:
        """The shipped function's name, or NAME of FILE.py:NAME."""
        own = OWN_FUNCTION.fullmatch(self.function)
        return own["name"] if own else self.function

    @property
    def metric_name(self) -> str:
        return self.name or self.function_name

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"function": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _parameters_are_the_functions(self) -> RewardSettings:
        taken = OWN_PARAMETERS if self.file is not None else PARAMETERS.get(self.function)
        if taken is None:
            near = difflib.get_close_matches(self.function, PARAMETERS, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            known = ", ".join(PARAMETERS)
            raise ValueError(f"there is no reward {self.function!r}: {hint}use {known}, or FILE.py:NAME")
        for given in sorted(self.model_fields_set - {"function", *ANY_FUNCTION}):
            word = given.rstrip("_")
            if word not in taken:
                raise ValueError(f"{word} does nothing for {self.function}: it takes {', '.join(taken)}")
        needed = NEEDED.get(self.function)
        if needed and getattr(self, needed) is None:
            raise ValueError(f"{self.function} needs {needed}")
        return self

    @model_validator(mode="after")
    def _values_can_be_used(self) -> RewardSettings:
        if self.pattern is not None:
            try:
                groups = re.compile(self.pattern).groups
            except re.error as error:
                raise ValueError(f"pattern is no regular expression: {error}") from error
            if self.function != "regex" and groups != 1:
                raise ValueError(
                    f"pattern has {groups} groups: put what is to be compared into one pair of parentheses"
                )
        if self.function == "length":
            if self.min_length is None and self.max_length is None:
                raise ValueError("length needs min_length, max_length, or both")
            if self.min_length and self.max_length and self.min_length > self.max_length:
                raise ValueError(
                    f"min_length ({self.min_length}) is more than max_length ({self.max_length})"
                )
        return self
