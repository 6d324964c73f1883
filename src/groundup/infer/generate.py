"""The one generator: batched decoding with a key-value cache. Rollout, evaluation, chat and serving use it.

A prompt is read once, however many samples continue it. B counts the rows that are being decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import torch

from groundup.infer.request import Generation, Generator, Request, Row, make_request
from groundup.infer.sample import Sampling, pick, row_random
from groundup.infer.stream import Decoder, StopStrings
from groundup.machine import probe
from groundup.model import LanguageModel
from groundup.model.decoding import ROW_TOKENS

MEMORY_SHARE = 0.25  # of what is free: the estimate is simple, and others live here too


def generate(
    model: LanguageModel | Generator,
    prompts: Sequence[Sequence[int]],
    *,
    samples: int = 1,
    max_new_tokens: int | Sequence[int],
    stop_tokens: Collection[int],
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    sampling: Sampling | Sequence[Sampling] | None = None,
    stop_strings: Sequence[str] | Sequence[Sequence[str]] = (),
    tokenizer: Decoder | None = None,
    seed: int | Sequence[int] = 0,
    on_token: Callable[[int, int], None] | None = None,
) -> list[Generation]:
    """Continue every prompt `samples` times by up to `max_new_tokens` tokens, as far as the model's context reaches.

    There are len(prompts) * samples rows, a prompt's side by side. They are decoded together, as many as memory allows,
    and leave the batch when they finish: at a stop token, or when the text holds one of `stop_strings`, which need a
    tokenizer (the tokens that spell the string stay). Greedy where `temperature` is 0.

    A sampled row depends on its prompt, its place and `seed`, not on its neighbours; with a seed for each prompt it
    depends on its place among that prompt's samples alone: the same prompt gives the same rows wherever it stands.
    max_new_tokens, sampling (in place of temperature, top_p, top_k and min_p) and stop_strings are for all rows, or a
    list with one for each prompt or each row.
    on_token(row, token): called for every token as it comes, the stop token included; rows take turns.
    Raises UserError for an empty prompt, or one that fills the context.
    """
    plain = Sampling(temperature, top_k, top_p, min_p)
    assert sampling is None or plain == Sampling(), "give sampling, or temperature and the others"
    generator = LocalGenerator(model) if isinstance(model, LanguageModel) else model
    request = make_request(
        prompts,
        generator.context_tokens,
        samples=samples,
        max_new_tokens=max_new_tokens,
        stop_tokens=frozenset(stop_tokens),
        sampling=plain if sampling is None else sampling,
        stop_strings=stop_strings,
        tokenizer=tokenizer,
        seed=seed,
        on_token=on_token,
    )
    return generator.run(request)


class LocalGenerator:
    """Our own generator, on the model's device."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model

    @property
    def context_tokens(self) -> int:
        return self.model.config.max_position_embeddings

    @torch.inference_mode()
    def run(self, request: Request) -> list[Generation]:
        """As many rows at a time as memory allows, at least one. Raises UserError for a model that says no numbers."""
        sequences = [_Sequence.begin(row, place, request) for place, row in enumerate(request.rows)]
        for together in _batches(self.model, sequences):
            _decode(self.model, together, request)
        return [Generation(sequence.token, sequence.logp, sequence.finished) for sequence in sequences]


@dataclass
class _Sequence:
    """A row while it is being decoded."""

    row: Row
    place: int
    prompt: Sequence[int]
    random: Random
    stops: StopStrings | None
    token: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    finished: bool = False

    @classmethod
    def begin(cls, row: Row, place: int, request: Request) -> _Sequence:
        stops = None
        if row.stop_strings and request.tokenizer is not None:
            stops = StopStrings(request.tokenizer, request.prompts[row.prompt], row.stop_strings)
        return cls(row, place, request.prompts[row.prompt], row_random(*row.seed), stops)

    @property
    def total_tokens(self) -> int:
        return len(self.prompt) + self.row.most_tokens

    def same_prompt(self, other: _Sequence) -> bool:
        """Also where a caller gives one prompt several times, side by side."""
        return self.row.prompt == other.row.prompt or self.prompt == other.prompt

    def append(self, token: int, logp: float, stop_tokens: frozenset[int]) -> bool:
        """Take the next token; whether the row goes on."""
        self.token.append(token)
        self.logp.append(logp)
        self.finished = token in stop_tokens or (self.stops is not None and self.stops.reached(token))
        return not self.finished and len(self.token) < self.row.most_tokens


def _decode(model: LanguageModel, active: list[_Sequence], request: Request) -> None:
    """Decode these rows to their ends: all prompts first, then a token of every row at a time."""
    prompts, samples = _prompts_of(active)
    decoding = model.decoding(prompts, samples)
    while True:
        how = [sequence.row.sampling for sequence in active]
        token_B, logp_B = pick(decoding.logits_BV, how, [sequence.random for sequence in active])
        going = []
        for index, (token, logp) in enumerate(zip(token_B.tolist(), logp_B.tolist(), strict=True)):
            if active[index].append(token, logp, request.stop_tokens):
                going.append(index)
            if request.on_token is not None:
                request.on_token(active[index].place, token)
        if not going:
            return
        if len(going) < len(active):
            active = [active[index] for index in going]
            decoding.keep(going)
            token_B = token_B[torch.tensor(going, device=token_B.device)]
        decoding.step(token_B)


def _prompts_of(active: Sequence[_Sequence]) -> tuple[list[Sequence[int]], list[int]]:
    """The rows' prompts, each once, and how many of the rows continue it."""
    prompts: list[Sequence[int]] = []
    samples: list[int] = []
    for before, sequence in zip([None, *active], active):
        if before is None or not sequence.same_prompt(before):
            prompts.append(sequence.prompt)
            samples.append(0)
        samples[-1] += 1
    return prompts, samples


def _batches(model: LanguageModel, sequences: Sequence[_Sequence]) -> Iterator[list[_Sequence]]:
    """Rows that are decoded together: of similar length, a prompt's side by side, and as many as fit into memory."""
    machine = probe()
    free = machine.gpus[0].available_bytes if model.device.type == "cuda" else machine.available_bytes
    longest: dict[int, int] = {}
    for each in sequences:
        longest[each.row.prompt] = max(longest.get(each.row.prompt, 0), each.total_tokens)
    batch: list[_Sequence] = []
    size = Size()
    for each in sorted(sequences, key=lambda each: (-longest[each.row.prompt], each.place)):
        same_prompt = bool(batch) and each.same_prompt(batch[-1])
        larger = size.with_row(len(each.prompt), each.row.most_tokens, same_prompt)
        if batch and larger.held_bytes(model) > MEMORY_SHARE * free:
            yield batch
            batch, larger = [], Size().with_row(len(each.prompt), each.row.most_tokens, same_prompt=False)
        batch.append(each)
        size = larger
    if batch:
        yield batch


@dataclass(frozen=True)
class Size:
    """How much is decoded together."""

    prompts: int = 0
    prompt_tokens: int = 0
    """Of the longest prompt."""
    rows: int = 0
    new_tokens: int = 0
    """Of the longest answer."""

    def with_row(self, prompt_tokens: int, new_tokens: int, same_prompt: bool) -> Size:
        return Size(
            self.prompts + (not same_prompt),
            max(self.prompt_tokens, prompt_tokens),
            self.rows + 1,
            max(self.new_tokens, new_tokens),
        )

    def held_bytes(self, model: LanguageModel) -> int:
        """About what it takes: keys and values, the prompts' pass, attention's scores, and logits."""
        config, item = model.config, model.compute_dtype.itemsize
        cache = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * item
        # Three MLP activations and a few hidden states live at once.
        one_pass = (3 * config.intermediate_size + 8 * config.hidden_size) * item
        read_tokens = min(self.prompts * self.prompt_tokens, 2 * max(ROW_TOKENS, self.prompt_tokens))
        scores = 3 * config.num_attention_heads * (self.prompt_tokens + self.new_tokens) * item
        logits = 24 * config.vocab_size  # float32, the same scaled, and what is drawn from
        held_tokens = self.prompts * self.prompt_tokens + self.rows * self.new_tokens
        return held_tokens * cache + read_tokens * one_pass + self.rows * (scores + logits)
