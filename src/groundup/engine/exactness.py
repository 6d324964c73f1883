"""The exactness probe: which layout of a row says, for the model at hand, what transformers' own model says.

A small random forest goes through the model in each layout, from the fastest to the safest, and through transformers'
plain model one chain at a time: its own attention, its own mask, full logits. The first layout that agrees is taken.
Windows, chunks and rope limits that texts of the stage would pass are made small for it, over the same weights, so
that short texts pass them too (`model/reference.py`).

It computes in float32 whatever the run's dtype: what a layout means does not depend on it, and in bfloat16 rounding
hides it. Measured on SmolLM2-135M, mean difference of log-probabilities: bfloat16's rounding of a right layout 0.07,
positions that are one too high 0.10, of a neighbour's count 0.31; in float32 1e-6, 0.04 and 0.30.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from groundup.batch import LAYOUTS, Chain, Record, pack_step
from groundup.errors import UserError
from groundup.model import LanguageModel, StockLLM
from groundup.model.interface import NotOurAttention
from groundup.model.reference import SMALL_TOKENS, float32_copy, small_limits, stock_logits, stock_model

ROW_TOKENS = 1 << 14
RELATIVE_TOLERANCE = 1e-5
LEAST_TOLERANCE = 1e-4
"""Of a log-probability, in float32. Right layouts differ by 1e-6 to 3e-5, wrong ones by 0.1 to 10."""

# Prompt and answers of each record; some chains are shorter than SMALL_TOKENS, some longer, and siblings differ
FORESTS = ((2 * SMALL_TOKENS + 3, (7, SMALL_TOKENS + 5)), (1, (5,)), (SMALL_TOKENS - 4, (2, 9)))


@dataclass(frozen=True)
class Exactness:
    """The fastest layout that is exact, and how that is known."""

    layout: str
    reason: str
    """A sentence for people."""
    seconds: float = 0.0
    differences: Mapping[str, float] = field(default_factory=dict)
    """Largest difference of a log-probability, by layout that ran."""


@torch.no_grad()
def probe(model: LanguageModel, max_length: int) -> Exactness:
    """Find the fastest exact layout, for texts of up to `max_length` tokens; a StockLLM is set to it.

    To be called before an adapter is attached. Raises UserError where even whole chains by themselves differ from
    transformers' model, or the model looks ahead, or cannot compute in its dtype.
    """
    began = time.perf_counter()
    records = random_records(model, max_length)
    tried, limits = small_limits(model, max_length)
    differences: dict[str, float] = {}
    problems: list[str] = []
    with _in_float32(tried):
        try:
            stock, wanted = _stock_says(tried, records)
        except RuntimeError:  # some layers read each other's weights, so that widening one is not enough
            tried = float32_copy(tried)
            stock, wanted = _stock_says(tried, records)
        _check_finite(stock, wanted)
        _check_causal(stock, records[-1].chains[-1], wanted[records[-1].index][-1])
        for layout in LAYOUTS:
            try:
                differences[layout] = _run_layout(tried, layout, records, wanted)
                break
            except NotExact as problem:
                problems.append(f"{layout}: {problem}")
        else:
            raise UserError(
                f"this {model.config.model_type} model does not compute here what it computes in transformers",
                why="; ".join(problems),
                fix="choose another model, and please report this one",
            )
    if isinstance(model, StockLLM):
        model.layout = layout
    _check_dtype(model, layout, records)
    return Exactness(layout, _sentence(layout, limits, problems), time.perf_counter() - began, differences)


class NotExact(Exception):
    """A layout is not what transformers computes; the message says how, for people."""


def random_records(model: LanguageModel, max_length: int) -> list[Record]:
    """Records of two or more chains with a common prompt, of random tokens that mean nothing special."""
    config = model.config
    eos = config.eos_token_id if isinstance(config.eos_token_id, tuple) else (config.eos_token_id,)
    special = {config.bos_token_id, config.pad_token_id, *eos}
    plain = np.array([token for token in range(min(config.vocab_size, 4096)) if token not in special])
    draw = np.random.default_rng(0)
    longest = min(max_length, config.max_position_embeddings)
    records = []
    for index, (prompt_tokens, answer_tokens) in enumerate(FORESTS):
        prompt = draw.choice(plain, max(1, min(prompt_tokens, longest // 2)))
        chains = []
        for count in answer_tokens:
            answer = draw.choice(plain, max(1, min(count, longest - len(prompt))))
            token = np.concatenate((prompt, answer)).astype(np.int32)
            chains.append(Chain(token, np.arange(len(token)) >= len(prompt)))
        records.append(Record(index, tuple(chains)))
    return records


@contextlib.contextmanager
def _in_float32(model: LanguageModel) -> Iterator[None]:
    """Compute in float32 and in evaluation mode for a while; stored weights stay what they are."""
    dtype, was_training = model.compute_dtype, model.training
    model.compute_dtype = torch.float32
    model.eval()
    try:
        yield
    finally:
        model.compute_dtype = dtype
        model.train(was_training)


def _run_layout(
    model: LanguageModel, layout: str, records: list[Record], wanted: Mapping[int, list[Tensor]]
) -> float:
    """The largest difference of a log-probability. Raises NotExact where it is more than rounding."""
    if isinstance(model, StockLLM):
        model.layout = layout
    try:
        found = _layout_logp(model, layout, records)
        pairs = [
            (mine, _scored(theirs_TV, chain))
            for record in records
            for mine, theirs_TV, chain in zip(
                found[record.index], wanted[record.index], record.chains, strict=True
            )
        ]
        mine, theirs = (torch.cat(side) for side in zip(*pairs, strict=True))
        apart = _compare(mine, theirs, "log-probabilities differ")
        if layout != "single":
            chain, logp_TV = records[0].chains[0], wanted[records[0].index][0]
            _compare(_generated(model, chain), logp_TV[-1], "generation with it differs")
        return apart
    except NotOurAttention as problem:
        raise NotExact(str(problem)) from problem
    except (NotExact, UserError):
        raise
    except Exception as problem:  # transformers' code, called in a way that it may not be made for
        logging.getLogger(__name__).info("layout %s", layout, exc_info=True)
        raise NotExact(f"{type(problem).__name__} in transformers' code") from problem


def _layout_logp(model: LanguageModel, layout: str, records: list[Record]) -> dict[int, list[Tensor]]:
    """Log-probabilities of every chain's scored tokens, by record."""
    found: dict[int, list[Tensor]] = {}
    for row in pack_step(records, ROW_TOKENS, layout):
        row = row.to(model.device)
        logp_N = model(row, frozenset({"logp"})).logp_N
        for record, logp in zip(row.record_Q.tolist(), logp_N.split(row.reads_Q.tolist()), strict=True):
            found.setdefault(record, []).append(logp)
    return found


def _generated(model: LanguageModel, chain: Chain) -> Tensor:
    """Log-probabilities [V] behind the chain's last token but one, by the cache: a prompt, then token by token."""
    *prompt, last_but_one, last = chain.token[:-1].tolist()
    decoding = model.decoding([prompt], [1])
    for token in (last_but_one, last):
        decoding.step(torch.tensor([token], device=model.device))
    return decoding.logits_BV[0].log_softmax(-1)


def _stock_says(model: LanguageModel, records: list[Record]) -> tuple[Any, dict[int, list[Tensor]]]:
    """transformers' model, and its log-probabilities of every chain by record."""
    stock = stock_model(model)
    return stock, {record.index: [_stock_logp(stock, chain) for chain in record.chains] for record in records}


def _stock_logp(stock: Any, chain: Chain) -> Tensor:
    """Log-probabilities [T, V] of one chain by transformers' model; its last token is only predicted, never read."""
    token_T = torch.from_numpy(chain.token[:-1]).long().to(stock.device)
    return stock_logits(stock, token_T).log_softmax(-1)


def _scored(logp_TV: Tensor, chain: Chain) -> Tensor:
    target_T = torch.from_numpy(chain.token[1:]).long().to(logp_TV.device)
    return logp_TV.gather(1, target_T[:, None])[torch.from_numpy(chain.scored[1:]), 0]


def _compare(found: Tensor, wanted: Tensor, what: str) -> float:
    """The largest difference. Raises NotExact where it is more than rounding."""
    apart = float((found - wanted).abs().max())
    if not apart <= max(LEAST_TOLERANCE, RELATIVE_TOLERANCE * float(wanted.abs().max())):
        raise NotExact(f"{what} by {apart:.2g}")
    return apart


def _check_finite(stock: Any, wanted: Mapping[int, list[Tensor]]) -> None:
    """Raise UserError where transformers' own model has no log-probabilities to compare with."""
    if all(logp_TV.isfinite().all() for chains in wanted.values() for logp_TV in chains):
        return
    raise UserError(
        f"the log-probabilities of this {type(stock).__name__} are not finite",
        why="its weights are so large that float32 overflows, or damaged",
        fix="download or copy the model again, or choose another",
    )


def _check_causal(stock: Any, chain: Chain, logp_TV: Tensor) -> None:
    """Raise UserError where a token changes what is said before it."""
    token = chain.token.copy()
    token[-2] = token[0] if token[0] != token[-2] else token[-1]
    changed_TV = _stock_logp(stock, Chain(token, chain.scored))
    try:
        _compare(changed_TV[:-1], logp_TV[:-1], "")
    except NotExact as problem:
        raise UserError(
            f"{type(stock).__name__} looks at later tokens",
            why="changing one token of a text changed what the model says of the tokens before it",
            fix="choose a model that continues texts; this one was made to fill gaps or to judge whole texts",
        ) from problem


def _check_dtype(model: LanguageModel, layout: str, records: list[Record]) -> None:
    """Raise UserError where the model's code cannot compute in the run's dtype at all."""
    if model.compute_dtype == torch.float32:
        return
    try:
        found = _layout_logp(model, layout, records)
        problem = None if all(x.isfinite().all() for logps in found.values() for x in logps) else "not finite"
    except RuntimeError as error:
        problem = str(error).splitlines()[0]
    if problem:
        raise UserError(
            f"this {model.config.model_type} model does not compute in {str(model.compute_dtype)[6:]}",
            why=problem,
            fix="set dtype: float32",
        )


def _sentence(layout: str, limits: list[str], problems: list[str]) -> str:
    """What was decided, for people."""
    passed = f"; texts longer than {' and '.join(limits)} were tried too" if limits else ""
    if layout == "shared":
        return f"prompts are computed once; log-probabilities equal transformers' own, measured{passed}"
    what = {
        "packed": "each sequence whole, many in a row",
        "single": "each sequence by itself, as transformers runs it: right, but slower",
    }[layout]
    return f"{what}, because other layouts are not exact for this model ({'; '.join(problems)}{passed})"
