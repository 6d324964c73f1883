"""Which of TRL's settings are fastest for GRPO on this machine: one changed at a time, kept where it helps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

TRIAL_STEPS = 2
"""One that warms up, one that counts."""
SETUP_SECONDS = 60.0
"""Of a process: packages, model, trainer."""
SLOWEST = 3
"""A trial is stopped after its setup and so many of the best one's steps; it was going to lose."""

Side = Callable[..., dict[str, Any]]


def first_of(lora: bool, group: int, bfloat16: bool) -> dict[str, Any]:
    """Where the search begins: what is known to be good on such processors."""
    dtype = ("bfloat16" if lora else "autocast") if bfloat16 else "float32"
    return {
        "dtype": dtype,
        "attention": "sdpa",
        "cache": "dynamic",
        "keep_memory": False,
        "micro": min(4, group),
    }


def changes(lora: bool, group: int, bfloat16: bool) -> list[dict[str, Any]]:
    """In the order of what they may bring.

    dtype: float32, float32 weights under bfloat16 autocast, or bfloat16 weights (LoRA's stay float32). Trained weights
    stay float32, as ours do: in bfloat16 small updates would vanish.
    """
    start = first_of(lora, group, bfloat16)
    dtypes = (["float32", "autocast"] + ["bfloat16"] * lora) if bfloat16 else ["float32"]
    found: list[dict[str, Any]] = [{"dtype": dtype} for dtype in dtypes if dtype != start["dtype"]]
    found += [{"micro": micro} for micro in (2, 8) if micro <= group]
    return [*found, {"keep_memory": True}, {"attention": "eager"}, {"cache": "static"}]


def tuned(
    side: Side, lora: bool, group: int, bfloat16: bool, tried: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """The best settings; `tried` is told of each trial as it ends."""
    best, best_seconds = first_of(lora, group, bfloat16), float("inf")
    for change in [{}, *changes(lora, group, bfloat16)]:
        chosen = best | change
        limit = None if best_seconds == float("inf") else SETUP_SECONDS + SLOWEST * best_seconds
        result = side("rl-trl", seconds=limit, **chosen, steps=TRIAL_STEPS)
        tried(chosen | trial(result))
        if "error" not in result and result["seconds"][-1] < best_seconds:
            best, best_seconds = chosen, result["seconds"][-1]
    return best


def trial(result: dict[str, Any]) -> dict[str, Any]:
    """What is kept of one."""
    if "error" in result:
        return {"error": result["error"]}
    return {
        "seconds": round(result["seconds"][-1], 2),
        "rollout_seconds": round(result["rollout_seconds"][-1], 2),
    }
