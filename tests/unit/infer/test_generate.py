"""Decoding with a cache, in batches, equals the stock model's full forward pass, one row at a time."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from groundup.errors import UserError
from groundup.infer import Generation, Request, Sampling
from groundup.infer.generate import generate
from groundup.model.base import BaseLLM
from groundup.model.hf import load_model
from groundup.tokenizer import load_tokenizer

PROMPTS = [[10, 20, 30], [7], list(range(40, 65)), [10, 20, 31, 99, 100]]


@pytest.fixture(scope="module")
def model(model_folder: Path) -> BaseLLM:
    return load_model(model_folder, torch.float32, "cpu", trainable=False)


@pytest.fixture(scope="module")
def stock(model_folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()


def stock_logp(stock: torch.nn.Module, tokens: Sequence[int]) -> torch.Tensor:
    """Log-probabilities [T, V] from one pass over the whole text."""
    with torch.no_grad():
        return stock(torch.tensor([list(tokens)]), use_cache=False).logits[0].float().log_softmax(-1)


def test_greedy_tokens_and_log_probabilities_are_the_stock_models(model: BaseLLM, stock: torch.nn.Module):
    found = generate(model, PROMPTS, max_new_tokens=12, stop_tokens=())
    for prompt, generation in zip(PROMPTS, found, strict=True):
        assert len(generation.token) == len(generation.logp) == 12
        assert not generation.finished
        logp_TV = stock_logp(stock, [*prompt, *generation.token])[len(prompt) - 1 : -1]
        assert generation.token == logp_TV.argmax(-1).tolist()
        chosen = logp_TV.gather(-1, torch.tensor(generation.token)[:, None])[:, 0]
        assert torch.allclose(torch.tensor(generation.logp), chosen, atol=1e-4)


def test_sampled_log_probabilities_are_the_untempered_ones(model: BaseLLM, stock: torch.nn.Module):
    found = generate(model, PROMPTS, max_new_tokens=12, stop_tokens=(), temperature=0.6, top_p=0.9, top_k=40)
    for prompt, generation in zip(PROMPTS, found, strict=True):
        logp_TV = stock_logp(stock, [*prompt, *generation.token])[len(prompt) - 1 : -1]
        chosen = logp_TV.gather(-1, torch.tensor(generation.token)[:, None])[:, 0]
        assert torch.allclose(torch.tensor(generation.logp), chosen, atol=1e-4)


def test_a_row_does_not_depend_on_its_neighbours(model: BaseLLM):
    options = {"max_new_tokens": 10, "stop_tokens": (), "temperature": 1.0, "seed": 5}
    together = generate(model, PROMPTS, **options)
    assert [row.token for row in generate(model, PROMPTS[:2], **options)] == [
        row.token for row in together[:2]
    ]
    swapped = generate(model, [PROMPTS[0], PROMPTS[2], PROMPTS[2], PROMPTS[2]], **options)
    assert swapped[0].token == together[0].token
    assert swapped[2].token == together[2].token
    assert swapped[1].token != swapped[2].token  # the same prompt twice is answered twice


def test_rows_that_finish_leave_and_the_others_go_on_unchanged(model: BaseLLM):
    free = generate(model, PROMPTS, max_new_tokens=12, stop_tokens=())
    stop_tokens = {free[0].token[3], free[2].token[7]}
    stopped = generate(model, PROMPTS, max_new_tokens=12, stop_tokens=stop_tokens)
    for before, after in zip(free, stopped, strict=True):
        ends = [place for place, token in enumerate(before.token) if token in stop_tokens]
        assert after.token == (before.token[: ends[0] + 1] if ends else before.token)
        assert after.finished == bool(ends)
    assert len({len(row.token) for row in stopped}) > 1


def test_seeds_repeat_and_differ(model: BaseLLM):
    def draw(seed: int) -> list[int]:
        return generate(model, [[5]], max_new_tokens=16, stop_tokens=(), temperature=1.5, seed=seed)[0].token

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_tokens_are_handed_over_as_they_come(model: BaseLLM):
    seen: list[tuple[int, int]] = []
    found = generate(
        model,
        PROMPTS,
        max_new_tokens=4,
        stop_tokens=(),
        on_token=lambda row, token: seen.append((row, token)),
    )
    assert sorted(row for row, _ in seen[:4]) == [0, 1, 2, 3]  # a token of every row, then the next
    for row, generation in enumerate(found):
        assert [token for r, token in seen if r == row] == generation.token


def test_the_context_ends_a_row_and_the_others_go_on(model: BaseLLM):
    limit_tokens = model.config.max_position_embeddings
    found = generate(model, [[9] * (limit_tokens - 3), [9, 8]], max_new_tokens=6, stop_tokens=())
    assert [len(row.token) for row in found] == [3, 6]
    assert not found[0].finished


def test_many_batches_give_what_one_batch_gives(model: BaseLLM, monkeypatch: pytest.MonkeyPatch):
    options = {"max_new_tokens": 6, "stop_tokens": (), "temperature": 0.8}
    one = generate(model, PROMPTS, **options)
    module = sys.modules[generate.__module__]  # the package's attribute of that name is the function
    monkeypatch.setattr(module, "MEMORY_SHARE", 0.0)
    calls: list[int] = []
    decode = module._decode
    monkeypatch.setattr(module, "_decode", lambda *args: (calls.append(len(args[1])), decode(*args)))
    many = generate(model, PROMPTS, **options)
    assert calls == [1, 1, 1, 1]
    assert [row.token for row in many] == [row.token for row in one]
    assert torch.allclose(
        torch.tensor([r.logp for r in many]), torch.tensor([r.logp for r in one]), atol=1e-5
    )


def test_no_prompts_no_work(model: BaseLLM):
    assert generate(model, [], max_new_tokens=4, stop_tokens=()) == []


def test_prompts_that_cannot_be_continued_are_refused(model: BaseLLM):
    with pytest.raises(UserError, match="empty"):
        generate(model, [[1], []], max_new_tokens=4, stop_tokens=())
    with pytest.raises(UserError, match="no room"):
        generate(model, [[1] * model.config.max_position_embeddings], max_new_tokens=4, stop_tokens=())
    with pytest.raises(UserError, match="max_new_tokens"):
        generate(model, [[1]], max_new_tokens=0, stop_tokens=())


def test_samples_of_a_prompt_are_rows_side_by_side(model: BaseLLM, stock: torch.nn.Module):
    options = {"max_new_tokens": 8, "stop_tokens": (), "temperature": 1.0, "seed": 3}
    found = generate(model, PROMPTS, samples=3, **options)
    spelled_out = generate(model, [prompt for prompt in PROMPTS for _ in range(3)], **options)
    assert [row.token for row in found] == [row.token for row in spelled_out]
    assert len({tuple(row.token) for row in found}) == 12
    for place, row in enumerate(found):
        prompt = PROMPTS[place // 3]
        logp_TV = stock_logp(stock, [*prompt, *row.token])[len(prompt) - 1 : -1]
        chosen = logp_TV.gather(-1, torch.tensor(row.token)[:, None])[:, 0]
        assert torch.allclose(torch.tensor(row.logp), chosen, atol=1e-4)


def test_a_seed_for_each_prompt_makes_rows_that_do_not_depend_on_their_place(model: BaseLLM):
    options = {"samples": 2, "max_new_tokens": 8, "stop_tokens": (), "temperature": 1.0}
    there = generate(model, PROMPTS, seed=[5, 6, 7, 8], **options)
    elsewhere = generate(model, [PROMPTS[2], PROMPTS[0]], seed=[7, 5], **options)
    assert [row.token for row in elsewhere] == [row.token for row in [*there[4:6], *there[0:2]]]


def test_settings_for_each_prompt_or_each_row(model: BaseLLM):
    greedy, drawn = Sampling(), Sampling(1.0, top_k=40)
    options = {"stop_tokens": (), "seed": 3}
    all_greedy = generate(model, PROMPTS, max_new_tokens=8, **options)
    all_drawn = generate(model, PROMPTS, max_new_tokens=8, sampling=drawn, **options)
    assert all_greedy[1].token != all_drawn[1].token
    mixed = generate(
        model, PROMPTS, max_new_tokens=[8, 2, 5, 8], sampling=[greedy, drawn, drawn, greedy], **options
    )
    assert mixed[0].token == all_greedy[0].token and mixed[3].token == all_greedy[3].token
    assert mixed[1].token == all_drawn[1].token[:2] and mixed[2].token == all_drawn[2].token[:5]
    rows = generate(model, PROMPTS[:1], samples=2, max_new_tokens=8, sampling=[greedy, drawn], **options)
    assert rows[0].token == all_greedy[0].token and rows[1].token != rows[0].token


def test_stop_strings_end_a_row_wherever_tokens_cut_them(model: BaseLLM, model_folder: Path):
    tokenizer = load_tokenizer(model_folder)
    free = generate(model, PROMPTS, max_new_tokens=40, stop_tokens=())
    texts = [tokenizer.decode(row.token, skip_special_tokens=True) for row in free]
    place, stop = next(
        (i, found[0]) for i, text in enumerate(texts) if (found := re.search("[!-~]{2}", text))
    )
    options = {"max_new_tokens": 40, "stop_tokens": (), "tokenizer": tokenizer}
    ended = generate(model, PROMPTS, stop_strings=[stop, "not there"], **options)[place]
    assert ended.finished and len(ended.token) < 40  # each token is a byte, so the string lay across two
    assert ended.token == free[place].token[: len(ended.token)]
    assert (
        tokenizer.decode(ended.token, skip_special_tokens=True)
        == texts[place][: texts[place].index(stop) + 2]
    )
    own = generate(model, PROMPTS, stop_strings=[[stop] if i == place else [] for i in range(4)], **options)
    assert own[place].token == ended.token
    assert all(len(row.token) == 40 for i, row in enumerate(own) if i != place)
    with pytest.raises(UserError, match="stop string is empty"):
        generate(model, PROMPTS, max_new_tokens=4, stop_tokens=(), tokenizer=tokenizer, stop_strings=[""])


def test_another_generator_takes_the_same_door():
    asked: list[Request] = []

    class Parrot:
        context_tokens = 100

        def run(self, request: Request) -> list[Generation]:
            asked.append(request)
            return [Generation([request.prompts[row.prompt][-1]], [0.0], False) for row in request.rows]

    found = generate(Parrot(), [[1, 2], [3]], samples=2, max_new_tokens=5, stop_tokens={9}, top_p=0.9, seed=4)
    assert [one.token for one in found] == [[2], [2], [3], [3]]
    assert asked[0].stop_tokens == {9} and asked[0].rows[3].seed == (4, 3)
    assert asked[0].rows[0].sampling == Sampling(0.0, top_p=0.9) and asked[0].rows[0].most_tokens == 5
    with pytest.raises(UserError, match="no room"):
        generate(Parrot(), [[1] * 100], max_new_tokens=5, stop_tokens=())


def test_each_prompt_is_read_once(model: BaseLLM, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[int, list[int]]] = []
    decoding = model.decoding
    monkeypatch.setattr(
        model,
        "decoding",
        lambda prompts, samples: asked.append((len(prompts), samples)) or decoding(prompts, samples),
    )
    options = {"max_new_tokens": 2, "stop_tokens": ()}
    generate(model, PROMPTS[:2], samples=3, **options)
    generate(model, [PROMPTS[0], PROMPTS[0], PROMPTS[1]], **options)  # the longest first
    assert asked == [(2, [3, 3]), (2, [2, 1])]
