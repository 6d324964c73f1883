"""The second peer of pretraining: a loop as nanoGPT has it, around a modern decoder, in plain PyTorch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from measure import Clock, Job, peak_bytes, resident_bytes
from torch import Tensor, nn

from groundup.model import ModelConfig

LEARNING_RATE = 5e-5


class Block(nn.Module):
    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        self.norm1, self.norm2 = nn.RMSNorm(c.hidden_size), nn.RMSNorm(c.hidden_size)
        self.qkv = nn.Linear(c.hidden_size, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=False)
        self.out = nn.Linear(self.heads * self.head_dim, c.hidden_size, bias=False)
        self.gate_up = nn.Linear(c.hidden_size, 2 * c.intermediate_size, bias=False)
        self.down = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        parts = self.qkv(self.norm1(x_BTD)).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        q, k, v = parts.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        q, k = (turned(each, *rope).to(v.dtype) for each in (q, k))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x_BTD = x_BTD + self.out(mixed.transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.norm2(x_BTD)).chunk(2, dim=-1)
        return x_BTD + self.down(F.silu(gate) * up)


class Plain(nn.Module):
    def __init__(self, c: ModelConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(c.vocab_size, c.hidden_size)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.num_hidden_layers))
        self.norm = nn.RMSNorm(c.hidden_size)
        self.theta, self.head_dim = c.rope_parameters["rope_theta"], c.head_dim
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=c.initializer_range)

    def forward(self, token_BT: Tensor) -> Tensor:
        x_BTD = self.embed(token_BT)
        frequency = self.theta ** (-torch.arange(0, self.head_dim, 2).float() / self.head_dim)
        angle = torch.arange(token_BT.shape[1])[:, None] * frequency
        rope = (angle.cos(), angle.sin())
        for block in self.blocks:
            x_BTD = block(x_BTD, rope)
        return F.linear(self.norm(x_BTD), self.embed.weight)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    one, two = x.chunk(2, dim=-1)
    return torch.cat([one * cos - two * sin, two * cos + one * sin], dim=-1)


def run(job: Job) -> dict[str, Any]:
    """Seconds of each step, losses and memory of forward, full logits, cross-entropy, fused AdamW."""
    torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    base = resident_bytes()
    model = Plain(ModelConfig.from_folder(job.model))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    clock = Clock("plain loop")
    history = []
    for step in job.steps:
        clock.start()
        blocks = torch.from_numpy(np.stack([record.chains[0].token for record in step])).long()
        loss = sum(
            one_micro(model, micro, len(micro) / len(blocks), job.settings["autocast"])
            for micro in blocks.split(job.settings["micro"])
        )
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        history.append({"loss": loss})
        clock.step(loss)
    records = list(itertools.chain.from_iterable(job.steps))
    return {
        "seconds": clock.seconds,
        "history": history,
        "tokens_seen": sum(len(record.chains[0].token) for record in records),
        "scored_seen": sum(len(record.chains[0].token) - 1 for record in records),
        "base_bytes": base,
        "peak_bytes": peak_bytes(),
        "settings": in_words(job),
    }


def one_micro(model: Plain, blocks_BT: Tensor, share: float, autocast: bool) -> float:
    """Backward of a micro-batch; its part of the step's loss."""
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model(blocks_BT[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1).float(), blocks_BT[:, 1:].flatten()) * share
    loss.backward()
    return float(loss.detach())


def in_words(job: Job) -> str:
    dtype = "bf16 autocast" if job.settings["autocast"] else "float32"
    blocks = f"at most {job.settings['micro']} of {len(job.steps[0])} blocks at once"
    return f"{dtype}, SDPA, full logits, fused AdamW, not compiled, {blocks}"
