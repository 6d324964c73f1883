"""The one generator: batched decoding with a key-value cache. Rollout, evaluation, chat and serving use it.

Shape letters as in `batch.types`; here B counts the rows still being decoded and S the tokens fed to them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from groundup.errors import UserError
from groundup.infer.sample import Sampling, pick, row_random
from groundup.machine import probe
from groundup.model.base import BaseLLM, KVCache

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
    model: BaseLLM,
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
    for prompt in prompts:
        _check_prompt(len(prompt), limit_tokens)
    found = [Generation([], [], False) for _ in prompts]
    was_training = model.training
    model.eval()
    try:
        for rows in _batches(model, [len(prompt) for prompt in prompts], max_new_tokens):
            sequences = [
                _Sequence(
                    row,
                    prompts[row],
                    most_tokens=min(max_new_tokens, limit_tokens - len(prompts[row])),
                    random=row_random(seed, row),
                )
                for row in rows
            ]
            _decode(model, sequences, sampling, frozenset(stop_tokens), on_token)
            for sequence in sequences:
                found[sequence.row] = Generation(sequence.token, sequence.logp, sequence.finished)
    finally:
        model.train(was_training)
    return found
