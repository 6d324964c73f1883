"""The one generator: batched decoding with a key-value cache. Rollout, evaluation, chat and serving use it.

Shape letters as in `batch.types`; here B counts the rows still being decoded and S the tokens fed to them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import torch
from torch import Tensor

from groundup.errors import UserError
from groundup.infer.sample import Sampling, pick, row_random
from groundup.machine import probe
from groundup.model import LanguageModel

MEMORY_SHARE = 0.25  # of what is free: the estimate is simple, and others live here too


@dataclass(frozen=True)
class Generation:
    """What was generated for one prompt."""

    token: list[int]
    """Without the prompt; with the stop token that ended it, if one did."""
    logp: list[float]
    """Each token's log-probability under the model itself (temperature 1, whole vocabulary), in float32."""
    finished: bool
    """Whether a stop token ended it, and not the limit of new tokens or of the context."""


@torch.inference_mode()
def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_tokens: Collection[int],
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    seed: int = 0,
    on_token: Callable[[int, int], None] | None = None,
) -> list[Generation]:
    """Continue every prompt by up to `max_new_tokens` tokens, as far as the model's context reaches.

    Rows are decoded together, as many as memory allows, and leave the batch when they finish. Greedy where
    `temperature` is 0. A sampled row depends on its prompt, `seed` and its place in `prompts`, not on its neighbours.
    on_token(row, token): called for every token as it comes, the stop token included; rows take turns.
    Raises UserError for an empty prompt, or one that fills the context.
    """
    sampling = Sampling(temperature, top_k, top_p)
    limit_tokens = model.config.max_position_embeddings
    _check([len(prompt) for prompt in prompts], max_new_tokens, limit_tokens)
    sequences = [
        _Sequence(row, prompt, min(max_new_tokens, limit_tokens - len(prompt)), row_random(seed, row))
        for row, prompt in enumerate(prompts)
    ]
    for together in _batches(model, sequences):
        _decode(model, together, sampling, frozenset(stop_tokens), on_token)
    return [Generation(sequence.token, sequence.logp, sequence.finished) for sequence in sequences]


@dataclass
class _Sequence:
    """A row while it is being decoded."""

    row: int
    prompt: Sequence[int]
    most_tokens: int
    random: Random
    token: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    finished: bool = False

    @property
    def total_tokens(self) -> int:
        return len(self.prompt) + self.most_tokens

    def append(self, token: int, logp: float, stop_tokens: frozenset[int]) -> bool:
        """Take the next token; whether the row goes on."""
        self.token.append(token)
        self.logp.append(logp)
        self.finished = token in stop_tokens
        return not self.finished and len(self.token) < self.most_tokens


def _decode(
    model: LanguageModel,
    active: list[_Sequence],
    sampling: Sampling,
    stop_tokens: frozenset[int],
    on_token: Callable[[int, int], None] | None,
) -> None:
    """Decode these rows to their ends: all prompts at once, then a token of every row at a time."""
    cache = model.new_cache(max(sequence.total_tokens for sequence in active))
    token_BS, length_B = _padded([sequence.prompt for sequence in active], model.device)
    position_BS = torch.arange(token_BS.shape[1], device=model.device).expand_as(token_BS)
    next_B = length_B  # position of the token that comes next
    while True:
        logits_BV = model.decode(token_BS, position_BS, cache, length_B)
        token_B, logp_B = pick(logits_BV, sampling, [sequence.random for sequence in active])
        going = []
        for index, (token, logp) in enumerate(zip(token_B.tolist(), logp_B.tolist(), strict=True)):
            if active[index].append(token, logp, stop_tokens):
                going.append(index)
            if on_token is not None:
                on_token(active[index].row, token)
        if not going:
            return
        if len(going) < len(active):
            active = [active[index] for index in going]
            index_B = torch.tensor(going, device=model.device)
            cache.select(index_B)
            token_B, next_B = token_B[index_B], next_B[index_B]
        token_BS, position_BS, length_B = token_B[:, None], next_B[:, None], torch.ones_like(next_B)
        next_B = next_B + 1


def _padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts as int64 [B, S], zeros behind the shorter ones, and their lengths [B]."""
    length_B = torch.tensor([len(prompt) for prompt in prompts])
    token_BS = torch.zeros(len(prompts), int(length_B.max()), dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        token_BS[row, : len(prompt)] = torch.as_tensor(prompt)
    return token_BS.to(device), length_B.to(device)


def _check(prompt_tokens: Sequence[int], max_new_tokens: int, limit_tokens: int) -> None:
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {max_new_tokens}", fix="use at least 1")
    if min(prompt_tokens, default=1) == 0:
        raise UserError(
            "a prompt is empty", why="a model needs a token to begin with", fix="give it some text"
        )
    if max(prompt_tokens, default=0) >= limit_tokens:
        raise UserError(
            f"a prompt of {max(prompt_tokens):,} tokens leaves no room for an answer",
            why=f"this model's context is {limit_tokens:,} tokens (max_position_embeddings)",
            fix="shorten the prompt, or use a model with a longer context",
        )


def _batches(model: LanguageModel, sequences: Sequence[_Sequence]) -> Iterator[list[_Sequence]]:
    """Rows that are decoded together: of similar length, and as many as fit into memory, but at least one."""
    machine = probe()
    free = machine.gpus[0].available_bytes if model.device.type == "cuda" else machine.available_bytes
    batch: list[_Sequence] = []
    for sequence in sorted(sequences, key=lambda sequence: -sequence.total_tokens):
        if batch and (len(batch) + 1) * row_bytes(model, batch[0].total_tokens) > MEMORY_SHARE * free:
            yield batch
            batch = []
        batch.append(sequence)
    if batch:
        yield batch


def row_bytes(model: LanguageModel, total_tokens: int) -> int:
    """About what one row of `total_tokens`, answer included, takes: its cache, its prompt's pass, its logits."""
    config, item = model.config, model.compute_dtype.itemsize
    cache = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * item
    # Three MLP activations and a few hidden states live at once; the mask has a byte for each query and key.
    one_pass = (3 * config.intermediate_size + 8 * config.hidden_size) * item
    mask = total_tokens * config.num_attention_heads // config.num_key_value_heads
    logits = 32 * config.vocab_size  # float32, sorted, with indices and float64 sums
    return total_tokens * (cache + one_pass + mask) + logits
