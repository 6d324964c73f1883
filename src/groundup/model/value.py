"""A policy and its value function on one backbone: how much reward is still expected behind each read."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groundup.batch.types import Batch, Stats
from groundup.model.config import ModelConfig
from groundup.model.llm import LanguageModel
from groundup.model.lora import copy_adapter, has_lora, using_adapter
from groundup.model.stock_config import StockConfig

VALUE = "value"
"""The name of the value function's adapter."""


class ValueHead(nn.Module):
    """v = w h + b, in float32; zero at first, so that the first advantages are the rewards' own."""

    def __init__(self, hidden_size: int, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(hidden_size, device=device))
        self.bias = nn.Parameter(torch.zeros(1, device=device))

    def forward(self, hidden_ND: Tensor) -> Tensor:
        """Float32 [N]."""
        return hidden_ND.float() @ self.weight + self.bias


class PolicyValue(nn.Module):
    """The model that is trained, and a value function.

    A policy with an adapter gives its value function a second one on the same base weights, which begins as a copy;
    each is trained by its own loss alone, and they are asked one after the other. Where all weights are trained,
    both share them, and one forward serves both.
    """

    def __init__(self, policy: LanguageModel) -> None:
        super().__init__()
        self.policy = policy
        self.separate = has_lora(policy)
        if self.separate:
            copy_adapter(policy, VALUE, trainable=True)
        self.value_head = ValueHead(policy.config.hidden_size, policy.device)

    @property
    def config(self) -> ModelConfig | StockConfig:
        return self.policy.config

    @property
    def compute_dtype(self) -> torch.dtype:
        return self.policy.compute_dtype

    @property
    def recompute(self) -> bool:
        return self.policy.recompute

    @recompute.setter
    def recompute(self, recompute: bool) -> None:
        self.policy.recompute = recompute

    def forward(self, batch: Batch, needs: frozenset[str], gradient_N: Tensor | None = None) -> Stats:
        """As a language model, and "value": of the state before each read's token, float32 [N]."""
        if VALUE not in needs:
            return self.policy(batch, needs, gradient_N)
        others = needs - {VALUE}
        if self.separate:
            assert not others, "policy and value stand on adapters of their own"
            with using_adapter(self.policy, VALUE):
                return Stats(value_N=self.value_head(self.policy.read(batch)))
        read_ND = self.policy.read(batch)
        said = self.policy.say(read_ND, batch.target_N, others) if others else Stats()
        return Stats(said.logp_N, said.lse_N, said.entropy_N, self.value_head(read_ND))
