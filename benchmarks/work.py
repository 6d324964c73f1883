"""What is measured: each work's model, rows, step size and peers. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SHARE_TOKENS = 256  # prompt, chosen and rejected of a made pair

# (hidden, middle, layers, heads, key-value heads); with the main model's vocabulary unless `pretrain`
SHAPES = {
    "5m": (80, 240, 8, 4, 2),
    "20m": (256, 768, 10, 4, 2),
    "135m": (576, 1536, 30, 9, 3),
    "360m": (960, 2560, 32, 15, 5),
    "500m": (1088, 3072, 34, 17, 17),
    "pretrain-20m": (384, 1024, 10, 6, 6),
    "pretrain-150m": (768, 2048, 18, 12, 4),
}
SMALL_VOCABULARY_SHAPES = ("pretrain-20m",)


@dataclass(frozen=True)
class Work:
    """One entry of the list: a figure with its peers."""

    name: str
    about: str
    kind: str
    """dpo, sft or pretrain."""
    lora: bool
    rows: str
    """hh, lf, alpaca, gsm8k; share:PERCENT; blocks:TOKENS; made:PROMPT:ANSWER:SIBLINGS."""
    batch: int
    peers: tuple[str, ...]
    shape: str = ""
    """A shape with random weights; empty: the main model."""
    steps: int = 1
    """Steps that are measured, after those that warm up."""
    repeated: bool = True
    """Whether ours is measured again after its peers."""

    @property
    def tuning(self) -> str:
        """Works with the same one share what tuning a peer found."""
        return f"{self.kind}-{'lora' if self.lora else 'full'}"


BOTH = ("trl-defaults", "trl-tuned", "floor")
PRETRAIN = ("trainer-tuned", "plain-tuned", "floor")


def works() -> list[Work]:
    """All of them, the most telling first: when time runs out, the last ones are left out."""
    hh, lf = (
        "DPO, LoRA r=16 on all linear layers, 4 pairs a step, " + of
        for of in ("HH-RLHF", "LLaMA-Factory demo")
    )
    found = [
        Work("dpo-hh", hh, "dpo", True, "hh", 4, BOTH, steps=2),
        Work("sft-alpaca-lora", "SFT, LoRA r=16, 8 Alpaca rows a step", "sft", True, "alpaca", 8, BOTH),
        Work("sft-alpaca-full", "SFT, all weights, 8 Alpaca rows a step", "sft", False, "alpaca", 8, BOTH),
        pretraining("20m", blocks=16, steps=2),
        Work("dpo-lf", lf, "dpo", True, "lf", 4, BOTH),
        Work("sft-gsm8k-lora", "SFT, LoRA r=16, 8 GSM8K rows a step", "sft", True, "gsm8k", 8, BOTH),
        pretraining("150m", blocks=4, steps=1),
    ]
    once: dict[str, Any] = {"peers": ("trl-tuned", "floor"), "repeated": False}
    for size in ("20m", "135m", "360m"):
        about = f"DPO, LoRA r=16, 2 HH-RLHF pairs a step, {size.upper()} random weights"
        found.append(Work(f"dpo-sizes-{size}", about, "dpo", True, "hh", 2, shape=size, **once))
    for share in (20, 50, 80):
        about = f"DPO, LoRA r=16, 4 pairs a step, prompts {share}% of {SHARE_TOKENS} tokens a pair"
        found.append(Work(f"dpo-shares-{share}", about, "dpo", True, f"share:{share}", 4, **once))
    last = Work("sft-gsm8k-full", "SFT, all weights, 8 GSM8K rows a step", "sft", False, "gsm8k", 8, BOTH)
    return [*found, *scaling(), last]


def pretraining(size: str, blocks: int, steps: int) -> Work:
    return Work(
        f"pretrain-{size}",
        f"{size.upper()} from scratch, AdamW, {blocks} blocks of 512 tokens a step",
        *("pretrain", False, "blocks:512", blocks, PRETRAIN),
        shape=f"pretrain-{size}",
        steps=steps,
    )


def scaling() -> list[Work]:
    """How Groundup's own cost grows: one thing at a time."""
    records = [(f"records-{n}", f"{n} records of 256 tokens", "made:64:192:1", n, "") for n in (1, 4, 16)]
    lengths = [
        (f"length-{n}", f"4,096 tokens in records of {n:,}", f"made:64:{n - 64}:1", 4096 // n, "")
        for n in (256, 1024, 4096)
    ]
    siblings = [
        (f"siblings-{n}", f"2 prompts of 256 tokens, answers of 64 each: {n}", f"made:256:64:{n}", 2, "")
        for n in (1, 4, 16)
    ]
    models = [
        (f"model-{size}", f"2 records of 256 tokens, {size.upper()}", "made:64:192:1", 2, size)
        for size in ("5m", "20m", "135m", "360m", "500m")
    ]
    return [
        Work(f"scaling-{name}", about, "sft", True, rows, batch, (), shape=shape)
        for name, about, rows, batch, shape in [*records, *lengths, *siblings, *models]
    ]
