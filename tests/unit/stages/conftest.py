"""A recipe over files of the test's own, and a tokenizer that knows turns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groundup.config import build_recipe
from groundup.machine import Machine
from groundup.stages.context import Context
from groundup.store import Run
from groundup.tokenizer import train_bpe

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    made = train_bpe(["user assistant system question answer 0123456789 la la\n" * 4], 300)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.chat_template = CHATML
    return made


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Rows into a file of the test's folder; its path."""

    def into(name: str, rows: list[Any]) -> str:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    return into


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., Context]:
    """A stage of a recipe of these stages, in a run folder of the test."""

    def made(stages: dict[str, Any], name: str, settings: tuple[str, ...] = (), **more: Any) -> Context:
        machine = Machine("", "", "", 1, 1, 8 * 10**9, 4 * 10**9, (), "")
        recipe = build_recipe({"name": "test", "stages": stages, **more}, settings)
        return Context(recipe, name, Run.open(tmp_path / "run"), machine)

    return made
