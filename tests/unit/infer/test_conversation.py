"""Fitting a conversation into the context, streaming an answer, noticing circles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groundup.config.schema import ChatSettings
from groundup.data.types import Message
from groundup.errors import UserError
from groundup.infer import conversation
from groundup.infer.conversation import Options, fit, fit_text, repeats, stream_reply
from groundup.infer.load import Loaded, load_for_inference
from groundup.tokenizer.chat import render_prompt

OPTIONS = Options(max_new_tokens=40, temperature=0.0, top_p=1.0, seed=0)


@pytest.fixture(scope="module")
def loaded(model_folder: Path) -> Loaded:
    return load_for_inference(str(model_folder), dtype="float32")


def turns(count: int, width: int = 12) -> list[Message]:
    """Questions and answers, and a last question."""
    said = [Message("user" if i % 2 == 0 else "assistant", f"{i:02}".ljust(width, ".")) for i in range(count)]
    assert said[-1].role == "user"
    return said


def test_a_short_conversation_is_kept_whole(loaded: Loaded):
    kept, prompt = fit(loaded, turns(3), max_new_tokens=20)
    assert kept == turns(3)
    assert loaded.tokenizer.decode(prompt).count("<|im_start|>") == 4


def test_the_oldest_turns_go_first_and_leave_room_for_an_answer(loaded: Loaded):
    messages = turns(13)
    kept, prompt = fit(loaded, messages, max_new_tokens=20)
    assert kept == messages[-len(kept) :]
    assert kept[0].role == "user"
    assert 1 < len(kept) < 13
    assert len(prompt) <= loaded.context_tokens - 20
    one_turn_more = render_prompt(loaded.tokenizer, messages[-len(kept) - 2 :], loaded.chat)
    assert len(one_turn_more.token) > loaded.context_tokens - 20


def test_the_system_prompt_stays(loaded: Loaded):
    _, prompt = fit(loaded.with_system_prompt("Be brief."), turns(13), max_new_tokens=20)
    assert loaded.tokenizer.decode(prompt).startswith("<|im_start|>system\nBe brief.")


def test_a_long_last_message_takes_the_answers_room_but_not_more(loaded: Loaded):
    kept, prompt = fit(loaded, [Message("user", "x" * 120)], max_new_tokens=190)
    assert len(kept) == 1
    assert loaded.context_tokens // 2 < len(prompt) < loaded.context_tokens
    with pytest.raises(UserError, match="too long"):
        fit(loaded, [Message("user", "x" * 300)], max_new_tokens=10)
    with pytest.raises(UserError, match="too long"):
        fit_text(loaded, "x" * 300)


def scripted(monkeypatch: pytest.MonkeyPatch, tokens: list[int]) -> list[dict[str, Any]]:
    """In place of the model: these tokens, and what it was asked."""
    asked: list[dict[str, Any]] = []

    def generate(
        _model: object, prompts: list[list[int]], *, on_token: Callable[[int, int], None], **rest: Any
    ):
        asked.append({"prompt": prompts[0], **rest})
        for token in tokens:
            on_token(0, token)

    monkeypatch.setattr(conversation, "generate", generate)
    return asked


def test_a_reply_is_streamed_without_its_stop_token(loaded: Loaded, monkeypatch: pytest.MonkeyPatch):
    tokens = [*loaded.tokenizer("Hé 你!")["input_ids"], loaded.tokenizer.eos_token_id]
    scripted(monkeypatch, tokens)
    pieces: list[str] = []
    reply = stream_reply(loaded, [5], OPTIONS, pieces.append)
    assert pieces == ["H", "é", " ", "你", "!"]
    assert (reply.text, reply.token, reply.interrupted) == ("Hé 你!", tokens, False)


def test_ctrl_c_keeps_what_was_said(loaded: Loaded):
    pieces: list[str] = []

    def write(text: str) -> None:
        pieces.append(text)
        if len(pieces) == 3:
            raise KeyboardInterrupt

    reply = stream_reply(loaded, loaded.tokenizer("Hello")["input_ids"], OPTIONS, write)
    assert reply.interrupted
    assert reply.text.startswith("".join(pieces[:3]))
    assert len(reply.token) < OPTIONS.max_new_tokens


def test_a_seed_fixes_each_turn_and_none_varies(loaded: Loaded, monkeypatch: pytest.MonkeyPatch):
    asked = scripted(monkeypatch, [9])
    for seed in (7, 7, None, None):
        stream_reply(loaded, [5], Options(4, 1.0, 1.0, seed), lambda _: None, turn=2)
    assert asked[0]["seed"] == asked[1]["seed"] == 9
    assert asked[2]["seed"] != asked[3]["seed"]


def test_circles_are_noticed_and_plain_text_is_not():
    prose = "A model that was trained for a few steps repeats words; one that was trained longer makes sense."
    assert not repeats(list(prose.encode()))
    assert repeats([1, 2, 3] * 20)
    assert repeats([*range(10), *[7] * 40])
    assert not repeats([1, 1, 1, 1, 1])  # too short to tell


def test_chat_settings_of_the_recipe_reach_the_template(loaded: Loaded):
    template = "{% if enable_thinking %}THINK{% else %}DIRECT{% endif %}"
    for value, text in ((True, "THINK"), (False, "DIRECT")):
        chat = ChatSettings(chat_template_kwargs={"enable_thinking": value})
        tokenizer = loaded.tokenizer.__class__(tokenizer_object=loaded.tokenizer.backend_tokenizer)
        tokenizer.chat_template = template
        thinker = Loaded(loaded.model, tokenizer, "thinker", chat, (), loaded.folder)
        assert tokenizer.decode(fit(thinker, turns(1), 4)[1]) == text
