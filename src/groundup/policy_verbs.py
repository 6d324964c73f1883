"""`groundup grpo` and `groundup ppo`: a policy that learns from rewards, without a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from groundup.stage_verbs import Verb, data_option, eval_data_option, model_option, recipe_options, run_verb


def policy_options(verb: Verb) -> Verb:
    """What both take."""
    for option in (
        recipe_options,
        eval_data_option,
        click.option(
            "--reward",
            "rewards",
            required=True,
            multiple=True,
            metavar="R",
            help="A shipped reward, FILE.py:NAME, or {function: NAME, ...}; repeatable.",
        ),
        data_option("Rows with prompts; their other columns go to the rewards. Repeatable."),
        model_option("The model to start from, and the reference."),
    ):
        verb = option(verb)
    return verb


@click.command()
@policy_options
def grpo(**options: Any) -> None:
    """Let a model learn from rewards on groups of its answers (GRPO, LoRA by default).

    Rows have `prompt` or `question`. RLOO, Dr. GRPO and DAPO are settings: see `groundup recipes --settings grpo`.

    \b
    Examples:
      groundup grpo --model runs/sft-mine --data gsm8k.jsonl --reward '{function: math_verify, column: answer}'
      groundup grpo --model runs/sft-mine --data prompts.jsonl --reward rewards.py:polite --set num_generations=4
    """
    _run("grpo", **options)


@click.command()
@policy_options
def ppo(**options: Any) -> None:
    """Let a model learn from rewards with a value function (PPO, LoRA by default).

    Rows have `prompt` or `question`.

    \b
    Examples:
      groundup ppo --model runs/sft-mine --data prompts.jsonl --reward '{function: sentiment, model: DISTILBERT}'
      groundup ppo --model runs/sft-mine --data prompts.jsonl --reward rewards.py:polite --set kl_coef=0.1
    """
    _run("ppo", **options)


def _run(
    kind: str,
    model: str,
    data: Sequence[str],
    rewards: Sequence[str],
    eval_data: Sequence[str],
    settings: Sequence[str],
    out: Path | None,
    rehearse: bool,
) -> None:
    from groundup.config.overrides import value_of

    stage = {
        "from": model,
        "data": list(data),
        "eval_data": list(eval_data) or None,
        "rewards": [value_of(text, f"--reward {text}") for text in rewards],
    }
    run_verb(kind, data[0], {kind: stage}, settings, out, rehearse)
