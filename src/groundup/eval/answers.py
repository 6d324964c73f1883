"""What models answer to held-out prompts, greedily, so that two models differ only by their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from groundup.config.schema import ChatSettings
from groundup.data import Message
from groundup.infer import answer_progress, generate
from groundup.model import LanguageModel
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.chat import render_prompt, stop_tokens


class Asked(Protocol):
    """Something that ends with a person's turn."""

    @property
    def messages(self) -> Sequence[Message]: ...


def answer_prompts(
    model: LanguageModel,
    tokenizer: Tokenizer,
    chat: ChatSettings,
    prompts: Sequence[Asked],
    max_new_tokens: int,
) -> list[str]:
    """One greedy answer a prompt, without special tokens."""
    if not prompts:
        return []
    stops = stop_tokens(tokenizer, chat)
    asked = [render_prompt(tokenizer, prompt.messages, chat).token.tolist() for prompt in prompts]
    with answer_progress("Answering", len(asked), max_new_tokens, stops) as on_token:
        found = generate(model, asked, max_new_tokens=max_new_tokens, stop_tokens=stops, on_token=on_token)
    return [tokenizer.decode(one.token, skip_special_tokens=True).strip() for one in found]


def continue_texts(
    model: LanguageModel, tokenizer: Tokenizer, texts: Sequence[str], max_new_tokens: int, seed: int
) -> list[str]:
    """Each text continued by a base model, sampled at temperature 0.8: greedy text of a small model repeats itself."""
    asked = [tokenizer.encode(text) for text in texts]
    stops = (tokenizer.eos_token_id,) if tokenizer.eos_token_id is not None else ()
    with answer_progress("Writing samples", len(asked), max_new_tokens, stops) as on_token:
        found = generate(
            model,
            asked,
            max_new_tokens=max_new_tokens,
            stop_tokens=stops,
            temperature=0.8,
            top_p=0.95,
            seed=seed,
            on_token=on_token,
        )
    return [tokenizer.decode(one.token, skip_special_tokens=True) for one in found]
