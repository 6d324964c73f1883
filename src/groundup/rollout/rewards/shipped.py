"""The shipped rewards that read text: each judges one answer, a number or None where it does not apply.

They run in a process of their own (`child.py`), so that a pattern or a formula that takes forever can be ended.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.errors import UserError

if TYPE_CHECKING:
    from groundup.config.rewards import RewardSettings

Judge = Callable[[str, dict[str, Any]], float | None]
"""From an answer's text and its row's columns."""


def make_judge(settings: RewardSettings) -> Judge:
    """Raises UserError where a package or a file is missing, or a schema is none."""
    return {
        "exact_match": _exact_match,
        "math_verify": _math_verify,
        "regex": _regex,
        "json_schema": _json_schema,
        "length": _length,
    }[settings.function](settings)


def text_of(said: Any) -> str:
    """The text of a completion or a prompt: itself, or what the messages of a conversation say."""
    if isinstance(said, str):
        return said
    return "\n".join(message.get("content") or "" for message in said)


def _exact_match(settings: RewardSettings) -> Judge:
    """1 where the answer is the column's text, white space at the ends aside; 0 where it is not."""

    def judge(text: str, row: dict[str, Any]) -> float | None:
        wanted = _wanted(settings, row)
        if wanted is None:
            return None
        said = _found(settings.pattern, text)
        return float(said is not None and said.strip() == wanted.strip())

    return judge


def _math_verify(settings: RewardSettings) -> Judge:
    """1 where the answer equals the column's as mathematics, by math-verify; None where the column holds none."""
    try:
        import math_verify
    except ImportError as error:
        raise UserError(
            "the reward math_verify needs the package math-verify",
            why=str(error),
            fix='pip install "groundup[rewards]"',
        ) from error
    import logging

    for module in ("parser", "grader", "utils"):  # they warn that their own time limit is off: ours is on
        logging.getLogger(f"math_verify.{module}").setLevel(logging.ERROR)

    def parsed(text: str) -> list[Any]:
        found: list[Any] = math_verify.parse(text, parsing_timeout=None)
        return found

    def judge(text: str, row: dict[str, Any]) -> float | None:
        wanted = _wanted(settings, row)
        right = [] if wanted is None else parsed(_formula(wanted))
        if not right:
            return None
        said = _found(settings.pattern, text)
        answer = [] if said is None else parsed(_formula(said) if settings.pattern else said)
        return float(bool(answer) and math_verify.verify(right, answer, timeout_seconds=None))

    return judge


WORD = re.compile(r"(?<!\\)\b[^\W\d_]{2,}")


def _formula(text: str) -> str:
    """math-verify takes a formula for one between dollars; what has no words is one."""
    return text if "$" in text or WORD.search(text) else f"${text}$"


def _regex(settings: RewardSettings) -> Judge:
    """1 where the pattern is found in the answer; `.` takes line ends too."""
    pattern = re.compile(settings.pattern or "", re.DOTALL)
    return lambda text, row: float(pattern.search(text) is not None)


FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL)


def _json_schema(settings: RewardSettings) -> Judge:
    """1 where the answer is JSON, by itself or as one block of code, and fits the schema."""
    import jsonschema

    schema = read_schema(settings)
    kind = jsonschema.validators.validator_for(schema)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise UserError("the reward's schema is no JSON schema", why=error.message) from error
    validator = kind(schema)

    def judge(text: str, row: dict[str, Any]) -> float | None:
        block = FENCED.fullmatch(text)
        try:
            value = json.loads(block[1] if block else text, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return 0.0
        return float(validator.is_valid(value))

    return judge


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def read_schema(settings: RewardSettings) -> Any:
    """The schema itself. Raises UserError where its file cannot be read."""
    if not isinstance(settings.schema_, str):
        return True if settings.schema_ is None else settings.schema_
    try:
        return json.loads(Path(settings.schema_).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            "the reward's schema cannot be read",
            where=settings.schema_,
            why=str(error),
            fix="name a file that holds a JSON schema, or write the schema into the recipe",
        ) from error


def _length(settings: RewardSettings) -> Judge:
    """min(1, length / min_length, max_length / length): 1 within the limits, less the further outside."""
    least, most = settings.min_length or 0, settings.max_length

    def judge(text: str, row: dict[str, Any]) -> float | None:
        if settings.unit == "tokens":
            count = len(row["completion_ids"])
        else:
            count = len(text.split()) if settings.unit == "words" else len(text)
        value = min(1.0, count / least) if least else 1.0
        return min(value, most / count) if most and count > most else value

    return judge


def needed_column(settings: RewardSettings) -> str | None:
    """The column that a shipped function reads."""
    if settings.function in ("exact_match", "math_verify"):
        return settings.column
    return "completion_ids" if settings.function == "length" and settings.unit == "tokens" else None


def _wanted(settings: RewardSettings, row: dict[str, Any]) -> str | None:
    """The right answer: what the pattern finds in the column, else the column."""
    value = row[settings.column]
    if value is None:
        return None
    text = text_of(value) if isinstance(value, (str, list)) else str(value)
    found = _found(settings.pattern, text)
    return text if found is None else found


def _found(pattern: str | None, text: str) -> str | None:
    """The text itself, or group 1 of the pattern's last match, or None."""
    if pattern is None:
        return text
    matches = list(re.finditer(pattern, text))
    return matches[-1][1] if matches else None
