"""GRPO and PPO: prompts, a policy with or without an adapter, rewards, the loop, and the reward before and after."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from groundup import console
from groundup.config.policy import GrpoSettings, PpoSettings
from groundup.errors import UserError
from groundup.eval.answers import answer_prompts
from groundup.model import LanguageModel, ModelConfig, PolicyValue, StockConfig, StockLLM
from groundup.objective import Grpo, Ppo
from groundup.rollout.answers import Decoding, Question, draw_answers, score_answers, seed_of
from groundup.rollout.measure import known_mean
from groundup.rollout.reference import Reference, make_reference
from groundup.rollout.rewards import Rewards, load_rewards
from groundup.rollout.source import Rollouts, Shape
from groundup.stages.context import REHEARSAL_TOKENS, Context
from groundup.stages.models import ModelFolders
from groundup.stages.opening import find_start, open_model
from groundup.stages.questions import Questions, read_questions
from groundup.stages.rollouts import CompletionLog, RolloutWork
from groundup.stages.rows import asked
from groundup.stages.samples import answer_tokens
from groundup.stages.training import Compute, make_plan, say_plan, train_on
from groundup.stages.weights import base_model, save_result, starting_model
from groundup.store.files import read_jsonl, write_text
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.chat import stop_tokens
from groundup.tokenizer.template import Template


def run(context: Context) -> dict[str, Any]:
    """Train `final/` from rewards: an adapter in PEFT's layout, or a whole model with `lora: false`."""
    settings = context.settings
    found = find_start(context)
    tokenizer = found.tokenizer
    check_context(context, found.config)
    if settings.sample_prompts:
        Template.of(tokenizer, context.recipe.chat)  # these are asked in it, also where prompts go without
    with load_rewards(settings.rewards, context.run, context.machine.device) as rewards:
        questions = read_questions(context, tokenizer)
        opened = open_model(context, found, settings.longest_prompt_tokens + settings.max_completion_length)
        policy, compute = opened.model, opened.compute
        policy.temperature = settings.temperature
        reference = reference_of(context, policy, found.folders, compute)
        shape = shape_of(context, opened.exact.layout, compute.device)
        rollouts = rollouts_of(context, policy, tokenizer, questions, rewards, reference, shape)
        result = train(context, compute, rollouts, opened.exact.reason, questions)
        say_reward(result["before"], result["after"])
        save_result(context, policy, found.folders, tokenizer)
    return {"kind": settings.kind, "rows": questions.ledger, **result}


def say_reward(before: Mapping[str, float], after: Mapping[str, float]) -> None:
    """On held-out prompts; nothing where no reward applied to any answer."""
    if "eval_reward" in before and "eval_reward" in after:
        console.say(
            f"  held-out reward: {before['eval_reward']:.3f} before, {after['eval_reward']:.3f} after"
        )


def rollouts_of(
    context: Context,
    policy: LanguageModel,
    tokenizer: Tokenizer,
    questions: Questions,
    rewards: Rewards,
    reference: Reference | None,
    shape: Shape,
) -> Rollouts:
    """Where the stage's phases come from; how long their rows are, the plan will say."""
    settings = context.settings
    model = PolicyValue(policy) if isinstance(settings, PpoSettings) else policy
    return Rollouts(
        policy=policy,
        model=model,
        objective=objective_of(settings, model),
        tokenizer=tokenizer,
        questions=questions.train,
        rewards=rewards,
        decoding=decoding_of(context, tokenizer),
        shape=shape,
        columns=columns_of(settings, model),
        reference=reference,
        on_phase=CompletionLog(context).write,
    )


def train(
    context: Context, compute: Compute, rollouts: Rollouts, layout_reason: str, questions: Questions
) -> dict[str, Any]:
    """Plan, train and measure; what the result says of it."""
    reference, work = rollouts.reference, RolloutWork(rollouts)
    copies = int(reference is not None and reference.model is not rollouts.policy)
    said = reference.how if reference else "none, since its coefficient is 0"
    plan = make_plan(context, rollouts.model, compute, work, layout_reason, said, copies)
    say_plan(plan, rollouts.model, work)
    exam = Exam(context, rollouts, questions.heldout)
    result = train_on(
        context,
        rollouts.model,
        plan,
        rollouts.objective,
        work.planned(plan),
        work.epoch_at,
        exam.take,
        f"Training {context.name}",
    )
    return {"samples": exam.samples(), "completions": CompletionLog(context).shown(), **result}


def check_context(context: Context, config: ModelConfig | StockConfig) -> None:
    """Raise UserError where the longest prompt and answer do not fit the model's context."""
    settings = context.settings
    prompt = settings.longest_prompt_tokens
    wanted = prompt + settings.max_completion_length
    if wanted > config.max_position_embeddings:
        raise UserError(
            f"a prompt of {prompt} tokens and an answer of {settings.max_completion_length} do "
            f"not fit the model's context of {config.max_position_embeddings}",
            where=f"stages.{context.name}.max_completion_length",
            fix=f"lower {'prompt_tokens' if settings.prompt_tokens else 'max_prompt_length'} and max_completion_length "
            f"to {config.max_position_embeddings} together",
        )


def reference_of(
    context: Context, policy: LanguageModel, source: ModelFolders, compute: Compute
) -> Reference | None:
    """The model to stay close to; None where its coefficient is zero."""
    settings = context.settings
    coefficient = settings.beta if isinstance(settings, GrpoSettings) else settings.kl_coef
    if not coefficient:
        return None

    def load() -> LanguageModel:
        frozen = starting_model(context, base_model(context, source, compute), source, compute)
        for parameter in frozen.parameters():
            parameter.data = parameter.data.to(frozen.compute_dtype)
        if isinstance(frozen, StockLLM) and isinstance(policy, StockLLM):
            frozen.layout = policy.layout
        return frozen

    return make_reference(policy, load)


def objective_of(settings: GrpoSettings | PpoSettings, model: torch.nn.Module) -> Grpo | Ppo:
    """The objective with what the settings say."""
    if isinstance(settings, GrpoSettings):
        return Grpo(
            loss_type=settings.loss_type,
            baseline=settings.baseline,
            scale_rewards=settings.scale_rewards,
            epsilon=settings.epsilon,
            epsilon_high=settings.epsilon if settings.epsilon_high is None else settings.epsilon_high,
            beta=settings.beta,
            kl_in=settings.kl_in,
            max_completion_length=settings.max_completion_length,
            mask_truncated_completions=settings.mask_truncated_completions,
        )
    assert isinstance(model, PolicyValue)
    names = (
        *("kl_coef", "kl_estimator", "kl_target", "kl_horizon", "cliprange", "cliprange_value", "vf_coef"),
        *("gamma", "lam", "whiten_rewards", "missing_eos_penalty"),
    )
    return Ppo(separate=model.separate, **{name: getattr(settings, name) for name in names})


def columns_of(settings: GrpoSettings | PpoSettings, model: torch.nn.Module) -> tuple[dict[str, str], ...]:
    """What rows need beforehand; nothing where one step is taken, whose own log-probabilities are the old ones."""
    old, value = {"old_logp": "logp"}, {"value": "value"}
    if isinstance(model, PolicyValue):
        return (old, value) if model.separate else (old | value,)
    assert isinstance(settings, GrpoSettings)
    wanted = settings.steps_per_phase > 1 or settings.kl_in == "reward"
    return (old,) if wanted else ()


def shape_of(context: Context, layout: str, device: str) -> Shape:
    """How a phase is cut."""
    settings = context.settings
    common: dict[str, Any] = {
        **{"row_tokens": 0, "layout": layout, "device": device, "seed": context.recipe.seed}
    }
    if isinstance(settings, GrpoSettings):
        return Shape(
            prompts=settings.batch_size,
            parts=settings.steps_per_generation,
            epochs=settings.num_iterations,
            samples=settings.num_generations,
            resamples=settings.max_resamples,
            **common,
        )
    return Shape(
        prompts=settings.batch_size // settings.num_mini_batches,
        parts=settings.num_mini_batches,
        epochs=settings.num_ppo_epochs,
        samples=1,
        **common,
    )


def decoding_of(context: Context, tokenizer: Tokenizer) -> Decoding:
    settings = context.settings
    limit = settings.max_completion_length
    return Decoding(
        max_completion_length=min(limit, REHEARSAL_TOKENS) if context.rehearse else limit,
        stop_tokens=stop_tokens(tokenizer, context.recipe.chat),
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        min_p=settings.min_p,
    )


@dataclass(frozen=True)
class Exam:
    """Held-out prompts, one answer each, greedy or drawn: the reward before and after."""

    context: Context
    rollouts: Rollouts
    heldout: list[Question]

    @property
    def asked(self) -> list[Question]:
        return self.context.few(self.heldout[: self.context.settings.num_eval_prompts])

    def take(self) -> dict[str, float]:
        """Rewards and lengths, named `eval_…` as TRL names them; answers go to `samples.jsonl`."""
        rollouts = self.rollouts
        decoding = replace(rollouts.decoding, temperature=self.context.settings.eval_temperature)
        # The same draws each time: what differs is the policy's doing.
        seed = seed_of(self.context.recipe.seed, "eval")
        policy, tokenizer = rollouts.policy, rollouts.tokenizer
        answers = draw_answers(policy, tokenizer, self.asked, 1, decoding, seed, title="Evaluating")
        judged = score_answers(rollouts.rewards, self.asked, answers)
        self._keep([answer.text.strip() for answer in answers[: self.context.settings.sample_count]])
        found = {"reward": judged.total_PG}
        found |= {f"rewards/{name}/mean": reward_P1 for name, reward_P1 in judged.each.items()}
        metrics = {name: known_mean(reward) for name, reward in found.items()}
        metrics |= {
            "completions/mean_length": (float(sum(len(a.token) for a in answers)), float(len(answers))),
            "completions/clipped_ratio": (float(sum(not a.finished for a in answers)), float(len(answers))),
        }
        return {f"eval_{name}": above / below for name, (above, below) in metrics.items() if below}

    def _keep(self, heldout: Sequence[str]) -> None:
        """The first answers stay as `before`, the last ones as `after`: a run that goes on has both."""
        context, rollouts = self.context, self.rollouts
        own, tokens = context.few(asked(context.settings.sample_prompts)), answer_tokens(context)
        answers = answer_prompts(rollouts.policy, rollouts.tokenizer, context.recipe.chat, own, tokens)
        prompts = [*(prompt.text for prompt in own), *(question.task.text for question in self.asked)]
        before = [line["before"] for line in read_jsonl(context.stage.samples)]
        now = [*answers, *heldout]
        lines = [
            {"prompt": prompt, "before": old, "after": new}
            for prompt, old, new in zip(prompts, before or now, now)
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_text(self.context.stage.samples, text)

    def samples(self) -> list[dict[str, Any]]:
        return [{"reference": None, **line} for line in read_jsonl(self.context.stage.samples)]
