"""BaseLLM: a dense decoder in one readable file, with Hugging Face's parameter names.

Llama, Qwen2, Qwen3 and Mistral differ only in what `ModelConfig` says: biases, norms on queries and keys, windows.
The layers see a flat run of T tokens and call `attend(layer, query, key, value)`: segment attention when training
(`attention.py`), the cache when generating (`cache.py`, where `step.py` does the layers' work).

Trained parameters are float32 and cast where they are used; frozen ones are stored in the compute dtype. A weight is
read only inside the forward of the module that owns it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.batch import Batch, text_row
from groundup.errors import UserError
from groundup.model.attention import ForestAttention
from groundup.model.config import ModelConfig
from groundup.model.decoding import CachedDecoding
from groundup.model.functions import rms_norm
from groundup.model.head import Head
from groundup.model.interface import Attend
from groundup.model.llm import LanguageModel, recomputed
from groundup.model.rope import frequencies, rotate
from groundup.model.step import Step


class BaseLLM(LanguageModel):
    """A decoder with its head; parameters are uninitialised until `initialize` or `hf.load_model` fills them."""

    config: ModelConfig

    def __init__(self, config: ModelConfig, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__(compute_dtype)
        self.config = config
        self.model = Decoder(config)
        self.lm_head = Head(config.vocab_size, config.hidden_size)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    @property
    def head(self) -> Head:
        return self.lm_head

    @property
    def embedding_VD(self) -> nn.Parameter:
        return self.model.embed_tokens.weight

    def hidden(self, batch: Batch, plain: bool = False) -> Tensor:
        """Hidden states [T, D] behind the last norm; `plain` takes the reference attention."""
        attend = ForestAttention(batch, self.config.window_L, plain)
        recompute = self.recompute and torch.is_grad_enabled()
        return self.model(batch.token_T, batch.position_T, attend, self.compute_dtype, recompute)

    def read(self, batch: Batch, attend: Attend | None = None) -> Tensor:
        """Hidden states [N, D] of the row's reads; where nothing is read, the last layer ends with its attention."""
        place_M, which_N = torch.unique(batch.source_N, return_inverse=True)
        attend = attend or ForestAttention(batch, self.config.window_L)
        recompute = self.recompute and torch.is_grad_enabled()
        read_MD = self.model(batch.token_T, batch.position_T, attend, self.compute_dtype, recompute, place_M)
        return read_MD.index_select(0, which_N)

    @torch.no_grad()
    def decoding(self, prompts: Sequence[Sequence[int]], samples: Sequence[int]) -> CachedDecoding:
        """Begin to continue each prompt by so many texts; a prompt's texts are adjacent."""
        return CachedDecoding(
            prompts,
            samples,
            self.config.window_L,
            self.device,
            read=self.read,
            step=Step(self),
            logits=self.lm_head.logits,
        )

    @torch.no_grad()
    def logits(self, token_T: Tensor) -> Tensor:
        """Logits float32 [T, V] of one text: for short comparisons, since it holds them all."""
        return self.lm_head.logits(self.hidden(text_row([token_T.tolist()]).to(self.device), plain=True))


class Decoder(nn.Module):
    angle: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.position_limit = config.position_limit
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        angle, self.rope_scale = frequencies(config)
        self.register_buffer("angle", angle, persistent=False)

    def forward(
        self,
        token_T: Tensor,
        position_T: Tensor,
        attend: Attend,
        dtype: torch.dtype,
        recompute: bool = False,
        place_M: Tensor | None = None,
    ) -> Tensor:
        """Hidden states behind the last norm, in `dtype`: [T, D], or [M, D] of the places that are wanted.

        recompute: keep no layer's activations.
        """
        rope = self.rope(position_T, dtype)
        hidden_TD = self.embed_tokens(token_T, dtype)
        for layer in self.layers:
            wanted = place_M if layer is self.layers[-1] else None
            if recompute:
                hidden_TD = recomputed(layer, hidden_TD, rope, attend, wanted)
            else:
                hidden_TD = layer(hidden_TD, rope, attend, wanted)
        return self.norm(hidden_TD)

    def rope(self, position_T: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if self.position_limit is not None and int(position_T.max()) >= self.position_limit:
            raise UserError(
                f"a text is longer than {self.position_limit} tokens",
                why="this model's dynamic rope scaling would then change every other text of the batch",
                fix=f"set max_length to at most {self.position_limit}",
            )
        angle_Td = position_T[:, None].float() * self.angle
        return (angle_Td.cos() * self.rope_scale).to(dtype), (angle_Td.sin() * self.rope_scale).to(dtype)


class Layer(nn.Module):
    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, index)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        hidden_TD: Tensor,
        rope: tuple[Tensor, Tensor],
        attend: Attend,
        place_M: Tensor | None = None,
    ) -> Tensor:
        """[T, D], or [M, D] of the places that are wanted: what stands behind attention sees no other token."""
        attended = self.self_attn(self.input_layernorm(hidden_TD), rope, attend, place_M)
        if place_M is not None:
            hidden_TD = hidden_TD.index_select(0, place_M)
        hidden_TD = hidden_TD + attended
        return hidden_TD + self.mlp(self.post_attention_layernorm(hidden_TD))


class Attention(nn.Module):
    """Grouped-query attention with rotary positions; the sum itself is `attend`'s."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.head_dim = config.head_dim
        queries, keys = (
            n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads)
        )
        self.q_proj = Linear(config.hidden_size, queries, config.qkv_bias)
        self.k_proj = Linear(config.hidden_size, keys, config.qkv_bias)
        self.v_proj = Linear(config.hidden_size, keys, config.qkv_bias)
        self.o_proj = Linear(queries, config.hidden_size, config.output_bias)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.family.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.family.qk_norm else None

    def forward(
        self,
        hidden_TD: Tensor,
        rope: tuple[Tensor, Tensor],
        attend: Attend,
        place_M: Tensor | None = None,
    ) -> Tensor:
        query_THd, key_TKd, value_TKd = (
            project(hidden_TD).unflatten(-1, (-1, self.head_dim))
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.q_norm is not None and self.k_norm is not None:
            query_THd, key_TKd = self.q_norm(query_THd), self.k_norm(key_TKd)
        query_THd, key_TKd = rotate(query_THd, *rope), rotate(key_TKd, *rope)
        output_TD = attend(self.index, query_THd, key_TKd, value_TKd).flatten(1)
        return self.o_proj(output_TD if place_M is None else output_TD.index_select(0, place_M))


class MLP(nn.Module):
    """SwiGLU (arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, config.mlp_bias)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, config.mlp_bias)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, config.mlp_bias)

    def forward(self, hidden_TD: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(hidden_TD)) * self.up_proj(hidden_TD))


class Linear(nn.Module):
    def __init__(self, in_features: int, out_features: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))

    def folded(self, dtype: torch.dtype) -> Tensor:
        """The weight that `forward` amounts to, in `dtype`; the parameter itself where it is that already."""
        return self.weight.detach().to(dtype)


class Embedding(nn.Module):
    def __init__(self, vocab_size: int, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, hidden_size))

    def forward(self, token_T: Tensor, dtype: torch.dtype) -> Tensor:
        return F.embedding(token_T, self.weight).to(dtype)


class RMSNorm(nn.Module):
    """Root mean square norm (arXiv 1910.07467)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(size))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight.to(x.dtype), self.eps)


@torch.no_grad()
def initialize(model: BaseLLM, seed: int) -> BaseLLM:
    """Fresh weights as Hugging Face draws them: normal with `initializer_range`, norms one, biases zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif parameter.ndim == 1:
            parameter.fill_(1.0)
        else:
            parameter.copy_(
                torch.randn(parameter.shape, generator=generator) * model.config.initializer_range
            )
    return model
