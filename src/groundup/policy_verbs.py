"""`groundup grpo` and `groundup ppo`: a policy that learns from rewards, without a recipe."""

from __future__ import annotations

from typing import Any

import click

from groundup.stage_verbs import SOURCES, recipe_options, rows_options, train_verb

prompts_options = rows_options(
    f"Rows with prompts: {SOURCES}; their other columns go to the rewards. Repeatable.",
    "The model to start from, and the reference.",
)
reward_option = click.option(
    "--reward",
    "rewards",
    required=True,
    multiple=True,
    metavar="R",
    help="A shipped reward, FILE.py:NAME, or {function: NAME, ...}; repeatable.",
)


@click.command()
@prompts_options
@reward_option
@recipe_options
def grpo(**options: Any) -> None:
    """Let a model learn from rewards on groups of its answers (GRPO, LoRA by default).

    Rows have prompts, in any layout; see docs/rl.md. RLOO, Dr. GRPO and DAPO are settings: see
    `groundup recipes --settings grpo`.

    \b
    Examples:
      groundup grpo --model runs/sft-mine --data gsm8k.jsonl --reward '{function: math_verify, column: answer}'
      groundup grpo --model runs/sft-mine --data prompts.jsonl --reward rewards.py:polite --set num_generations=4
    """
    _run("grpo", **options)


@click.command()
@prompts_options
@reward_option
@recipe_options
def ppo(**options: Any) -> None:
    """Let a model learn from rewards with a value function (PPO, LoRA by default).

    Rows have prompts, in any layout; see docs/rl.md.

    \b
    Examples:
      groundup ppo --model runs/sft-mine --data prompts.jsonl --reward '{function: sentiment, model: DISTILBERT}'
      groundup ppo --model runs/sft-mine --data prompts.jsonl --reward rewards.py:polite --set kl_coef=0.1
    """
    _run("ppo", **options)


def _run(kind: str, rewards: tuple[str, ...], **options: Any) -> None:
    from groundup.config.overrides import value_of

    train_verb(kind, rewards=[value_of(text, f"--reward {text}") for text in rewards], **options)
