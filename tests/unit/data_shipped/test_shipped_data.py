"""The data that ships with Groundup: well-formed, free of leaks, and true of the commands and settings there are."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML

import groundup
from groundup.cli import cli
from groundup.config import schema
from groundup.config.schema import DataSettings
from groundup.data import Ledger, read_conversations, read_pairs

FOLDER = Path(groundup.__file__).parent / "recipes" / "data"
CHAT = ("groundup-chat", "groundup-chat-heldout")
PAIRS = ("groundup-pairs", "groundup-pairs-heldout")
MOST_CHARS = 1200

COMMAND = re.compile(r"\bgroundup (-?[a-z][a-z-]*)")
OPTION = re.compile(r"`groundup ([a-z]+)([^`]*)`")
QUOTED = re.compile(r"`([^`]+)`")
SETTING = re.compile(r"([a-z][a-z_]*): (.+)")
OVERRIDE = re.compile(r"--set ([a-z_.]+)=")
DEFAULT = re.compile(r"\bdefault(?: for \w+)?(?: rank)? is `([a-z_]+): ([^`]+)`")

# Words in backticks that look like settings and are something else.
COLUMNS = {"prompt", "completion"}
METRICS = {"grad_norm", "bits_per_byte"}
LAYERS = {"q_proj"}
ALGORITHMS = set(get_args(schema.TokenizerSettings.model_fields["algorithm"].annotation))


@cache
def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def messages(row: dict[str, Any]) -> list[dict[str, str]]:
    return row["messages"] if "messages" in row else row["prompt"] + row["chosen"] + row["rejected"]


def plain(question: str) -> str:
    """A question without case, punctuation and extra space."""
    return " ".join(re.sub(r"[^\w\s]", "", question.casefold()).split())


def questions(name: str) -> list[str]:
    """Whatever a user says in any row."""
    return [plain(m["content"]) for row in rows(name) for m in messages(row) if m["role"] == "user"]


def texts() -> Iterator[str]:
    """All of them: rejected answers hold the same facts, only in more words."""
    for name in CHAT + PAIRS:
        for row in rows(name):
            yield from (m["content"] for m in messages(row))


def models() -> list[type[BaseModel]]:
    return [
        value for value in vars(schema).values() if isinstance(value, type) and issubclass(value, BaseModel)
    ]


def fields() -> dict[str, list[FieldInfo]]:
    """Every key that a recipe may hold, as each block that has it declares it."""
    found: dict[str, list[FieldInfo]] = {}
    for model in models():
        for name, field in model.model_fields.items():
            found.setdefault(field.alias or name, []).append(field)
    return found


@pytest.mark.parametrize("name", CHAT)
def test_conversations_take_turns_and_end_with_an_answer(name: str) -> None:
    for row in rows(name):
        assert set(row) == {"messages"}
        roles = [m["role"] for m in row["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2) and roles


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_are_a_question_and_two_answers(name: str) -> None:
    for row in rows(name):
        assert set(row) == {"prompt", "chosen", "rejected"}
        assert [[m["role"] for m in row[side]] for side in ("prompt", "chosen", "rejected")] == [
            ["user"],
            ["assistant"],
            ["assistant"],
        ]


@pytest.mark.parametrize("name", CHAT + PAIRS)
def test_texts_are_whole_and_rows_short(name: str) -> None:
    for row in rows(name):
        assert len(json.dumps(row, ensure_ascii=False)) < MOST_CHARS
        for message in messages(row):
            text = message["content"]
            assert set(message) == {"role", "content"}
            assert text and text == text.strip() and "  " not in text
            assert text.count("`") % 2 == 0, text


@pytest.mark.parametrize("name", CHAT + PAIRS)
def test_no_row_is_there_twice(name: str) -> None:
    counts = Counter(plain(messages(row)[0]["content"]) for row in rows(name))
    assert [question for question, count in counts.items() if count > 1] == []


def test_no_held_out_question_is_trained_on() -> None:
    trained = {*questions(CHAT[0]), *questions(PAIRS[0])}
    held_out = {*questions(CHAT[1]), *questions(PAIRS[1])}
    assert trained & held_out == set()


def test_no_held_out_answer_is_copied_from_training() -> None:
    def answers(name: str) -> set[str]:
        return {plain(m["content"]) for row in rows(name) for m in messages(row) if m["role"] == "assistant"}

    assert answers(CHAT[0]) & answers(CHAT[1]) == set()
    assert answers(PAIRS[0]) & answers(PAIRS[1]) == set()


def test_the_preference_is_unmistakable() -> None:
    for name in PAIRS:
        lengths = [
            (len(row["chosen"][0]["content"].split()), len(row["rejected"][0]["content"].split()))
            for row in rows(name)
        ]
        assert all(rejected <= 110 for _, rejected in lengths)
        longer = sum(rejected >= 1.5 * chosen for chosen, rejected in lengths)
        assert longer >= 0.97 * len(lengths)


def test_there_is_enough_of_everything() -> None:
    assert len(rows(CHAT[0])) >= 400 and len(rows(CHAT[1])) >= 40
    assert len(rows(PAIRS[0])) >= 190 and len(rows(PAIRS[1])) >= 40
    assert sum(len(row["messages"]) > 2 for row in rows(CHAT[0])) >= 10


def test_every_command_named_exists() -> None:
    named = {verb for text in texts() for verb in COMMAND.findall(text)}
    assert len(named) > 8
    assert named - {"--help"} <= set(cli.commands)


@pytest.mark.parametrize("name", CHAT)
def test_a_list_of_the_commands_has_them_all(name: str) -> None:
    lists = [
        words
        for row in rows(name)
        for m in messages(row)
        if {"sft", "doctor", "chat"} <= (words := set(re.findall(r"[a-z]+", m["content"])))
    ]
    assert lists
    for words in lists:
        assert set(cli.commands) <= words, set(cli.commands) - words


def test_every_option_named_exists() -> None:
    """`groundup run demo --rehearse`: the verb has that option."""
    seen = 0
    for text in texts():
        for verb, rest in OPTION.findall(text):
            options = {"--help", *(flag for param in cli.commands[verb].params for flag in param.opts)}
            for flag in re.findall(r"(?<!\S)--[a-z-]+", rest):
                seen += 1
                assert flag in options, f"groundup {verb} has no {flag}: {text}"
    assert seen > 20


def test_every_setting_named_exists_and_takes_the_value() -> None:
    known = fields()
    seen = 0
    for text in texts():
        for quoted in QUOTED.findall(text):
            setting = SETTING.fullmatch(quoted)
            if setting and setting[1] not in COLUMNS:
                seen += 1
                assert setting[1] in known, f"no such setting: {quoted}"
                assert any(_takes(field, setting[2]) for field in known[setting[1]]), f"not allowed: {quoted}"
            elif re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", quoted):
                seen += 1
                assert quoted in {*known, *METRICS, *LAYERS, *ALGORITHMS}, f"no such setting: {quoted}"
    assert seen > 50


def test_every_override_named_exists() -> None:
    named = {key for text in texts() for key in OVERRIDE.findall(text)} - {"a.b"}
    assert named
    for key in named:
        assert key.split(".")[-1] in fields(), key


def test_defaults_quoted_as_settings_are_the_true_ones() -> None:
    said = {claim for text in texts() for claim in DEFAULT.findall(text)}
    assert len(said) > 8
    for key, value_text in said:
        value = YAML(typ="safe", pure=True).load(value_text)
        assert value in [field.default for field in fields()[key]], f"{key} is not {value_text} by default"


def test_defaults_given_in_words_have_not_changed() -> None:
    """The rows say these numbers in sentences. Where one fails, change the rows that mention it, then this."""
    sft, dpo, pretrain = (schema.STAGE_KINDS[kind].model_fields for kind in ("sft", "dpo", "pretrain"))
    quoted = {
        "sft learning_rate": (sft["learning_rate"].default, 2e-4),
        "dpo learning_rate": (dpo["learning_rate"].default, 5e-5),
        "pretrain learning_rate": (pretrain["learning_rate"].default, 3e-3),
        "beta": (dpo["beta"].default, 0.1),
        "r": (schema.LoraSettings().r, 16),
        "lora_alpha": (schema.LoraSettings().lora_alpha, 32),
        "batch_size": (sft["batch_size"].default, 16),
        "max_length": (sft["max_length"].default, 1024),
        "pretrain max_length": (pretrain["max_length"].default, 512),
        "batch_tokens": (pretrain["batch_tokens"].default, 8192),
        "holdout": (sft["holdout"].default, 0.05),
        "max_bad_rows": (DataSettings.model_fields["max_bad_rows"].default, 0.01),
        "num_train_epochs": (sft["num_train_epochs"].default, 1),
        "warmup_ratio": (sft["warmup_ratio"].default, 0.03),
        "max_grad_norm": (sft["max_grad_norm"].default, 1),
        "weight_decay": (sft["weight_decay"].default, 0),
        "pretrain weight_decay": (pretrain["weight_decay"].default, 0.1),
        "logging_steps": (sft["logging_steps"].default, 5),
        "eval_steps": (sft["eval_steps"].default, 0),
        "save_steps": (sft["save_steps"].default, 100),
        "save_total_limit": (sft["save_total_limit"].default, 2),
        "sample_count": (sft["sample_count"].default, 4),
        "sample_tokens": (sft["sample_tokens"].default, 96),
        "vocab_size": (schema.TokenizerSettings.model_fields["vocab_size"].default, 8192),
        "min_chars": (schema.CleanSettings.model_fields["min_chars"].default, 50),
        "seed": (schema.Recipe.model_fields["seed"].default, 0),
    }
    assert {name: real for name, (real, said) in quoted.items() if real != said} == {}


@pytest.mark.parametrize("name", CHAT + PAIRS)
def test_groundup_reads_every_row(name: str) -> None:
    ledger = Ledger()
    read = read_conversations if name in CHAT else read_pairs
    records = read(DataSettings(path=[str(FOLDER / f"{name}.jsonl")]), ledger)
    assert len(records) == len(rows(name))


def _takes(field: FieldInfo, value_text: str) -> bool:
    """Whether the setting accepts the value as a recipe would give it."""
    value = YAML(typ="safe", pure=True).load(value_text)
    try:
        TypeAdapter(field.rebuild_annotation()).validate_python(value)
    except ValidationError:
        return False
    return True
