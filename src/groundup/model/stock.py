"""StockLLM: transformers' own decoder with our batch, head and LoRA, for every family that `BaseLLM` does not have.

The layers are transformers' code. Three things are put in their place: linear layers (`adopt.py`), the head, and the
attention function (`interface.py`). How a row runs is the model's `layout`: in "shared" and "packed" the whole row
goes through at once with our attention; in "single" each chain goes through by itself with everything the model's
own. `engine/exactness.py` finds out which of them is exact for the model at hand.

The layers stay in evaluation mode also in training: no dropout, no noise on routers.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from groundup.batch.types import Batch
from groundup.errors import UserError
from groundup.model import interface
from groundup.model.adopt import Precision, adopt_linears, cast_at_use, recompute_layers
from groundup.model.attention import ForestAttention
from groundup.model.decoding import CachedDecoding, TextDecoding
from groundup.model.few_rows import FewRows, may_copy
from groundup.model.head import Head
from groundup.model.interface import Attend, NotOurAttention
from groundup.model.llm import LanguageModel
from groundup.model.stock_config import StockConfig


class StockLLM(LanguageModel):
    """A decoder of transformers; parameters have the names that they have there.

    Args:
        full: transformers' model with its head, whose modules become this model's.
        compute_dtype: what it computes in; trained parameters are float32 and cast where they are used.

    Raises:
        UserError: the model is built in a way that has no decoder and head to tell apart.
    """

    config: StockConfig

    def __init__(self, full: Any, compute_dtype: torch.dtype = torch.float32) -> None:
        self._precision = Precision(compute_dtype)
        super().__init__(compute_dtype)
        self.config = StockConfig.from_hf(full.config)
        self.full_class = type(full)
        self.body_name, self.head_name = _parts(full)
        body, output = getattr(full, self.body_name), getattr(full, self.head_name)
        vocab, hidden = output.weight.shape
        head = Head(vocab, hidden, bias=output.bias is not None, **self.config.head)
        head.weight = output.weight
        if output.bias is not None:
            head.bias = output.bias
        setattr(self, self.body_name, body)
        setattr(self, self.head_name, head)
        self.transposed = adopt_linears(body, self.body_name)
        """Weights that transformers keeps as [in, out]; ours are [out, in]."""
        cast_at_use(body, self._precision)
        self._takes = _parameters_of(body)
        self._own_attention = body.config._attn_implementation
        self._layout = "single"
        interface.register()

    @property
    def body(self) -> Any:
        """transformers' decoder without the head."""
        return getattr(self, self.body_name)

    @property
    def head(self) -> Head:
        return getattr(self, self.head_name)

    @property
    def embedding_VD(self) -> nn.Parameter:
        return self.body.get_input_embeddings().weight

    @property
    def compute_dtype(self) -> torch.dtype:
        return self._precision.dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype) -> None:
        self._precision.dtype = dtype

    @property
    def layout(self) -> str:
        """How a row runs: "shared" and "packed" need our attention, "single" is transformers' own, chain by chain.

        "single" at first: it is right for every model, and the exactness probe finds the faster ones.
        """
        return self._layout

    @layout.setter
    def layout(self, layout: str) -> None:
        self._layout = layout
        name = self._own_attention if layout == "single" else interface.NAME
        for module in self.body.modules():
            if hasattr(getattr(module, "config", None), "_attn_implementation"):
                module.config._attn_implementation = name

    @property
    def recompute(self) -> bool:
        return self._recompute

    @recompute.setter
    def recompute(self, recompute: bool) -> None:
        self._recompute = recompute
        if "body_name" in self.__dict__:
            recompute_layers(self.body, recompute)

    def train(self, mode: bool = True) -> StockLLM:
        """`training` is told, but the layers stay as they are: in evaluation mode."""
        self.training = mode
        return self

    def hidden(self, batch: Batch) -> Tensor:
        """Hidden states [T, D] behind the last norm.

        Raises:
            NotOurAttention: a layout other than "single", and the model does not call our attention.
        """
        if self.layout == "single":
            assert int(batch.parent_S.max()) < 0, "a row with shared segments in layout single"
            texts = batch.token_T.split(batch.length_S.tolist())
            return torch.cat([self._own_way(token) for token in texts])
        return self._with(ForestAttention(batch, ()), batch.token_T, batch.position_T)

    def read(self, batch: Batch, attend: Attend | None = None) -> Tensor:
        """Hidden states [N, D] of the row's reads, by another attention than the batch's own where one is given."""
        if attend is None:
            return super().read(batch)
        return self._with(attend, batch.token_T, batch.position_T).index_select(0, batch.source_N)

    @torch.no_grad()
    def decoding(
        self, prompts: Sequence[Sequence[int]], samples: Sequence[int]
    ) -> CachedDecoding | TextDecoding:
        """Begin to continue each prompt by so many texts; a prompt's texts are adjacent.

        With keys and values where our attention serves; else each token is computed from the whole text.
        """
        copy = may_copy(self, self.compute_dtype)
        product = FewRows([self.head.weight.detach().to(self.compute_dtype)], [None], copy)

        def logits(hidden_ND: Tensor) -> Tensor:
            return self.head.logits(hidden_ND, product)

        if self.layout == "single":
            return TextDecoding(
                prompts, samples, self.device, lambda token_T: logits(self._own_way(token_T)[-1:])[0]
            )
        return CachedDecoding(
            prompts,
            samples,
            (),
            self.device,
            read=self.read,
            step=lambda token_B, position_B, attend: logits(self._with(attend, token_B, position_B)),
            logits=logits,
        )

    @torch.no_grad()
    def logits(self, token_T: Tensor) -> Tensor:
        """Logits float32 [T, V] of one text: for short comparisons, since it holds them all."""
        layout, self.layout = self.layout, "single"
        try:
            return self.head.logits(self._own_way(token_T))
        finally:
            self.layout = layout

    def _own_way(self, token_T: Tensor) -> Tensor:
        """Hidden states [T, D] of one text by itself, everything the model's own."""
        forget_longer_texts(self.body)
        return self._run(token_T)

    def _with(self, attend: Attend, token_T: Tensor, position_T: Tensor) -> Tensor:
        """Hidden states [T, D] of a run of tokens whose layers attend as told."""
        missing = {"attend", "position_ids"} - self._takes
        if "**" in self._takes:
            missing.discard("attend")
        if missing:
            raise NotOurAttention(f"{type(self.body).__name__} takes no {' and no '.join(sorted(missing))}")
        hidden_TD = self._run(token_T, position_ids=position_T[None], attend=attend)
        if attend.calls == 0:
            raise NotOurAttention("its layers never call a registered attention")
        return hidden_TD

    def _run(self, token_T: Tensor, **keywords: Any) -> Tensor:
        if "use_cache" in self._takes or "**" in self._takes:
            keywords["use_cache"] = False
        output = self.body(input_ids=token_T[None], return_dict=True, **keywords)
        return output.last_hidden_state[0].to(self.compute_dtype)


def forget_longer_texts(body: nn.Module) -> None:
    """Let dynamic rope scaling follow the next text alone: transformers keeps the scale of a longer one before it."""
    for module in body.modules():
        if "dynamic" in str(getattr(module, "rope_type", "")):
            module.__dict__["max_seq_len_cached"] = 0


def _parts(full: Any) -> tuple[str, str]:
    """Names of the decoder and of the head within transformers' model. Raises UserError."""
    output, children = full.get_output_embeddings(), dict(full.named_children())
    heads = [name for name, child in children.items() if child is output]
    bodies = [name for name, child in children.items() if hasattr(child, "get_input_embeddings")]
    if len(children) != 2 or len(heads) != 1 or len(bodies) != 1 or not isinstance(output, nn.Linear):
        raise UserError(
            f"{type(full).__name__} is not supported",
            why=f"it is made of {', '.join(children)}, not of a decoder and one linear head",
            fix="choose another model",
        )
    return bodies[0], heads[0]


def _parameters_of(body: nn.Module) -> frozenset[str]:
    """What the decoder's forward takes by name; "**" where it takes any."""
    parameters = inspect.signature(type(body).forward).parameters.values()
    return frozenset("**" if p.kind is inspect.Parameter.VAR_KEYWORD else p.name for p in parameters)
