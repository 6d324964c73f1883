"""The floor of a rollout: what reading the weights, and the products of a step alone, take on this machine.

Every token of the answers reads every weight once for all answers. Each weight lies at its own place in memory, as in
generation. Not counted: the prompts' pass, attention, norms, and choosing tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from measure import Job, progress
from torch import Tensor

from groundup.model import ModelConfig
from groundup.model.few_rows import FewRows

STREAM_BYTES = 512 << 20
REPEATS = 7


@torch.inference_mode()
def run(job: Job) -> dict[str, Any]:
    """Bytes of the weights, GB/s of reading, and the seconds of a token of every answer: by reading, by products."""
    torch.set_num_threads(job.threads)
    config = ModelConfig.from_folder(job.model)
    dtype = getattr(torch, job.settings["dtype"])
    rows = job.settings["prompts_a_step"] * job.settings["samples"]
    bandwidth = bytes_per_second()
    products = [
        (prepared, torch.ones(rows, inputs, dtype=dtype)) for prepared, inputs in weights_of(config, dtype)
    ]
    weight_bytes = sum(outputs * inputs for outputs, inputs in shapes_of(config)) * dtype.itemsize

    def one_token() -> None:
        for prepared, x in products:
            prepared(x)

    seconds = best_seconds(one_token)
    progress(f"floor: {bandwidth / 1e9:.1f} GB/s, products of one token {seconds * 1e3:.1f} ms")
    return {
        "weight_bytes": weight_bytes,
        "bytes_per_second": bandwidth,
        "reading_seconds": weight_bytes / bandwidth,
        "products_seconds": seconds,
        "rows": rows,
        "settings": f"{job.settings['dtype']}, {rows} answers at once",
    }


def bytes_per_second() -> float:
    """Of reading memory that no cache holds."""
    stream = torch.ones(STREAM_BYTES // 4)
    return STREAM_BYTES / best_seconds(lambda: stream.sum())


def shapes_of(config: ModelConfig) -> list[tuple[int, int]]:
    """(outputs, inputs) of every product of a token, as generation joins them."""
    hidden, middle = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    layer = [(queries + 2 * keys, hidden), (hidden, queries), (2 * middle, hidden), (hidden, middle)]
    return layer * config.num_hidden_layers + [(config.vocab_size, hidden)]


def weights_of(config: ModelConfig, dtype: torch.dtype) -> list[tuple[FewRows, int]]:
    """Random ones, prepared, with the width of their inputs."""

    def made(outputs: int, inputs: int) -> Tensor:
        return torch.randn(outputs, inputs).mul_(0.02).to(dtype)

    return [(FewRows([made(*shape)], [None]), shape[1]) for shape in shapes_of(config)]


def best_seconds(work: Callable[[], object]) -> float:
    """Of a few times, the quickest."""
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
