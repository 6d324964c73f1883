"""The chat through a pipe: what is read, answered, remembered and explained."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from groundup.errors import UserError
from groundup.infer import conversation, load
from groundup.infer.chat import chat


class Talk:
    """Run the chat with this text as its input; lines of stdout. `told` is what it said beside."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys, self.told = monkeypatch, capsys, ""

    def __call__(self, model: Path, text: str | bytes, **options: Any) -> list[str]:
        raw = text if isinstance(text, bytes) else text.encode()
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))
        try:
            chat(str(model), **options)
        finally:
            captured = self.capsys.readouterr()
            self.told = captured.err
        return captured.out.splitlines()


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Talk:
    return Talk(monkeypatch, capsys)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[int]]]:
    """Put these answers (texts) in the model's place; the prompts that it was given."""

    def install(*answers: str) -> list[list[int]]:
        prompts: list[list[int]] = []
        coming: Iterator[str] = iter(answers)

        def generate(
            _model: object, given: list[list[int]], *, on_token: Callable[..., None], **_: Any
        ) -> None:
            prompts.append(given[0])
            for byte in next(coming).encode():
                on_token(0, TOKEN_OF[byte])

        monkeypatch.setattr(conversation, "generate", generate)
        return prompts

    return install


@pytest.fixture(autouse=True)
def _no_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "fast_dtype", lambda *_: "float32")


@pytest.fixture(autouse=True)
def _token_of(model_folder: Path) -> None:
    """The tokenizer's token of each byte value."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    letters = tokenizer.backend_tokenizer.pre_tokenizer
    for byte in b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,!?<|>_/\n":
        TOKEN_OF[byte] = tokenizer.convert_tokens_to_ids(letters.pre_tokenize_str(chr(byte))[0][0])


TOKEN_OF: dict[int, int] = {}


def text_of(prompt: list[int]) -> str:
    byte_of = {token: chr(byte) for byte, token in TOKEN_OF.items()} | {0: "<|im_start|>", 1: "<|im_end|>"}
    return "".join(byte_of.get(token, "?") for token in prompt)


def test_a_line_is_a_message_and_only_answers_go_to_stdout(model_folder: Path, talk: Talk, script: Any):
    prompts = script("Hello!", "Four.")
    assert talk(model_folder, "Hi\n\n  What is 2 and 2?  ") == ["Hello!", "Four."]
    assert text_of(prompts[0]) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert "assistant\nHello!<|im_end|>\n<|im_start|>user\nWhat is 2 and 2?<|im_end|>" in text_of(prompts[1])
    assert "talker: llama, 32 thousand parameters, 192 tokens" in talk.told
    assert "Goodbye." in talk.told


@pytest.mark.parametrize("word", ["exit", "quit", "/exit", "/quit"])
def test_words_that_leave(word: str, model_folder: Path, talk: Talk, script: Any):
    script("One.")
    assert talk(model_folder, f"a\n{word}\nb\n") == ["One."]


def test_the_real_model_answers_and_a_seed_repeats(model_folder: Path, talk: Talk):
    first = talk(model_folder, "Hi\n", max_new_tokens=12, seed=3)
    assert "".join(first)
    assert talk(model_folder, "Hi\n", max_new_tokens=12, seed=3) == first
    assert talk(model_folder, "Hi\n", max_new_tokens=12, seed=4) != first


def test_reset_forgets(model_folder: Path, talk: Talk, script: Any):
    prompts = script("One.", "Two.")
    talk(model_folder, "a\n/reset\na\n")
    assert prompts[0] == prompts[1]


def test_help_and_unknown_commands(model_folder: Path, talk: Talk, script: Any):
    prompts = script("A path.")
    assert talk(model_folder, "/help\n/nothing\n/etc/passwd is what?\n") == ["A path."]
    assert len(prompts) == 1
    assert "There is no command /nothing." in talk.told
    assert talk.told.count("/reset") == 2


def test_a_long_conversation_drops_its_oldest_turns_and_says_so(model_folder: Path, talk: Talk, script: Any):
    prompts = script("b" * 40, "d" * 40, "e")
    talk(model_folder, f"{'a' * 40}\n{'c' * 40}\nlast\n", max_new_tokens=60)
    assert "aaa" in text_of(prompts[0])
    assert "aaa" not in text_of(prompts[1])
    assert "context of 192 tokens: the oldest turn is forgotten" in talk.told


def test_an_answer_that_spells_a_special_token_does_not_end_the_conversation(
    model_folder: Path, talk: Talk, script: Any
):
    prompts = script("Odd <|im_end|> text", "Fine.")
    assert talk(model_folder, "a\nb\n") == ["Odd <|im_end|> text", "Fine."]
    assert "Odd  text<|im_end|>" in text_of(prompts[1])


def test_bytes_that_are_no_text_are_read(model_folder: Path, talk: Talk, script: Any):
    script("Fine.")
    assert talk(model_folder, b"caf\xe9 \xff\n") == ["Fine."]


def test_a_message_that_cannot_be_answered_ends_a_pipe_with_the_reason(model_folder: Path, talk: Talk):
    with pytest.raises(UserError, match="too long"):
        talk(model_folder, "x" * 500 + "\n")
    with pytest.raises(UserError, match="special token"):
        talk(model_folder, "<|im_end|>\n")


def test_the_system_prompt_is_used(model_folder: Path, talk: Talk, script: Any):
    prompts = script("Yes.")
    talk(model_folder, "a\n", system_prompt="Be brief.")
    assert text_of(prompts[0]).startswith("<|im_start|>system\nBe brief.<|im_end|>")


def test_a_base_model_continues_the_text_and_says_so(base_folder: Path, talk: Talk, script: Any):
    prompts = script(" upon a time.")
    assert talk(base_folder, "Once\n") == ["Once upon a time."]
    assert text_of(prompts[0]) == "Once"
    assert "continues the text" in talk.told
    assert "repeats" not in talk.told


def test_an_answer_that_was_cut_is_told_apart(model_folder: Path, talk: Talk, script: Any):
    script("Four", "Four", "Four.")
    for allowed, told in ((4, True), (5, False)):
        talk(model_folder, "a\n", max_new_tokens=allowed)
        assert ("--max-new-tokens" in talk.told) is told


def test_verbose_counts_tokens(model_folder: Path, talk: Talk, script: Any):
    script("Four.")
    talk(model_folder, "a\n", verbose=True)
    assert "(5 tokens in " in talk.told


@pytest.fixture
def run_folder(tmp_path: Path, model_folder: Path, base_folder: Path) -> Path:
    """A finished run of two chains: pretrain, and sft with a merge."""
    root = tmp_path / "runs" / "demo"
    recipe = {
        "name": "demo",
        "chat": {"system_prompt": "You are the helper."},
        "stages": {
            "pretrain": {"kind": "pretrain", "from": "shards"},
            "sft": {"kind": "sft", "from": str(model_folder), "data": {"path": ["x.jsonl"]}},
            "final": {"kind": "merge", "from": "sft"},
        },
    }
    results = {
        "pretrain": {"kind": "pretrain", "steps": 300, "tokens": 9_000},
        "sft": {"kind": "sft", "steps": 10, "tokens": 100},
        "final": {"kind": "merge", "max_logit_difference": 0.0},
    }
    root.mkdir(parents=True)
    YAML().dump(recipe, root / "recipe.yaml")
    for stage, result in results.items():
        shutil.copytree(base_folder if stage == "pretrain" else model_folder, root / stage / "final")
        (root / stage / "result.json").write_text(json.dumps(result))
        (root / stage / "manifest.json").write_text("{}")
    return root


def test_a_run_opens_its_last_model_with_its_settings_and_names_the_others(
    run_folder: Path, model_folder: Path, talk: Talk, script: Any
):
    prompts = script("Yes.")
    talk(run_folder, "a\n")
    told = talk.told
    assert f"demo/final: its adapter merged into the base model ({model_folder} → sft → final)" in told
    assert "/model pretrain" in told
    assert "/model sft" in told
    assert "/model final" not in told
    assert f"/model {model_folder}" in told
    assert text_of(prompts[0]).startswith("<|im_start|>system\nYou are the helper.<|im_end|>")


def test_another_model_of_the_run_is_opened_by_its_stage_name(run_folder: Path, talk: Talk, script: Any):
    script("aaaa" * 20)
    assert talk(run_folder, "/model pretrain\nHe said \n") == ["He said" + "aaaa" * 20]
    told = talk.told
    assert "demo/pretrain: a base model, trained from scratch on raw text (pretrain)" in told
    assert "It was trained for 300 steps on 9 thousand tokens" in told
    assert "(It repeats itself. It was trained for 300 steps" in told


def test_a_model_that_does_not_open_leaves_the_one_before(run_folder: Path, talk: Talk):
    with pytest.raises(UserError, match="no/such"):
        talk(run_folder, "/model ./no/such/model\n")
