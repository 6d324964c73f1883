"""What the rest of the house knows of a model, whoever wrote its layers: we (BaseLLM) or transformers (StockLLM)."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from groundup.batch.types import Batch, Stats
from groundup.config.schema import LoraSettings
from groundup.model.config import ModelConfig
from groundup.model.decoding import Decoding
from groundup.model.head import Head
from groundup.model.score import Score
from groundup.model.stock_config import StockConfig


def recomputed(layer: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a layer and keep only what went in; the backward calls it again. It draws no random numbers.

    An adapter that is active now is active then too, whatever was switched in between.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _switched(active)

    module: Any = layer.args[0] if isinstance(layer, functools.partial) else layer
    active = [(each, each.active) for each in module.modules() if hasattr(each, "active")]
    return checkpoint(
        layer, *args, use_reentrant=False, preserve_rng_state=False, context_fn=contexts, **kwargs
    )


@contextmanager
def _switched(wanted: list[tuple[Any, str | None]]) -> Iterator[None]:
    now = [(each, each.active) for each, _ in wanted]
    for each, name in wanted:
        each.active = name
    try:
        yield
    finally:
        for each, name in now:
            each.active = name


class LanguageModel(nn.Module):
    """A causal decoder with its head; one entry, `model(batch, needs) -> Stats`. Names are Hugging Face's."""

    config: ModelConfig | StockConfig

    def __init__(self, compute_dtype: torch.dtype) -> None:
        super().__init__()
        self.compute_dtype = compute_dtype
        self.source_dtype = torch.float32
        """What the weights were stored in; `hf.save_model` stores them so again."""
        self.generation_config: Mapping[str, Any] = {}
        """What came with the weights as generation_config.json."""
        self.lora: LoraSettings | None = None
        """The adapter that is attached."""
        self.score: Score | None = None
        """A scalar head, where one is attached: what "value" asks for."""
        self.recompute = False
        """Whether the backward computes each layer's activations again, instead of keeping them."""
        self.temperature = 1.0
        """What `forward` divides logits by: a policy is trained at the temperature that it is sampled with."""

    @property
    @abstractmethod
    def head(self) -> Head: ...

    @property
    @abstractmethod
    def embedding_VD(self) -> nn.Parameter: ...

    @abstractmethod
    def hidden(self, batch: Batch) -> Tensor:
        """Hidden states [T, D] behind the last norm."""

    def read(self, batch: Batch) -> Tensor:
        """Hidden states [N, D] of the row's reads."""
        return self.hidden(batch).index_select(0, batch.source_N)

    @abstractmethod
    def decoding(self, prompts: Sequence[Sequence[int]], samples: Sequence[int]) -> Decoding:
        """Begin to continue each prompt by so many texts, a prompt's adjacent. Weights must stay as they are."""

    @abstractmethod
    def logits(self, token_T: Tensor) -> Tensor:
        """Logits float32 [T, V] of one text: for short comparisons, since it holds them all."""

    @property
    def device(self) -> torch.device:
        return self.embedding_VD.device

    @property
    def tied(self) -> bool:
        return self.head.weight is self.embedding_VD

    def forward(
        self, batch: Batch, needs: frozenset[str] = frozenset({"logp"}), gradient_N: Tensor | None = None
    ) -> Stats:
        """What the model says about each read of the row: "logp", "lse", "entropy" (nats), "value", float32 [N].

        gradient_N: the loss's derivative to each log-probability, where it is known beforehand.
        """
        read_ND, of_tokens = self.read(batch), needs - {"value"}
        said = self.say(read_ND, batch.target_N, of_tokens, gradient_N) if of_tokens else Stats()
        if "value" not in needs:
            return said
        assert self.score is not None, "the model has no scalar head"
        return replace(said, value_N=self.score(read_ND))

    def say(
        self, read_ND: Tensor, target_N: Tensor, needs: frozenset[str], gradient_N: Tensor | None = None
    ) -> Stats:
        """What `forward` says of tokens, out of hidden states that were read already."""
        found = self.head(read_ND, target_N, needs, gradient_N, self.temperature)
        entropy_N = found.get("entropy", found.get("entropy_seen"))
        return Stats(logp_N=found.get("logp"), lse_N=found.get("lse"), entropy_N=entropy_N)
