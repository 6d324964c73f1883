"""Reinforcement: policies that learn from rewards on their own answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from groundup.config.posttrain import RowsSettings
from groundup.config.rewards import RewardSettings
from groundup.config.training import Fraction

MAX_PROMPT_LENGTH, SAMPLE_TOKENS = 512, 96


class PolicySettings(RowsSettings):
    """What the stages share that train a policy on its own answers."""

    rewards: list[RewardSettings] = Field(min_length=1, description="reward functions, weighted and summed")
    batch_size: PositiveInt = Field(8, description="prompts of one optimizer step, on all devices together")
    max_prompt_length: PositiveInt = Field(
        MAX_PROMPT_LENGTH,
        description="tokens; longer prompts go to the quarantine file, and count as bad rows",
    )
    prompt_tokens: int = Field(
        0,
        ge=0,
        description="of rows with `text`: the first so many tokens are the prompt, which answers continue without a "
        "chat template; 0: rows are questions",
    )
    max_completion_length: PositiveInt = Field(512, description="tokens of an answer at most")
    temperature: PositiveFloat = Field(
        1.0, description="answers are drawn at it, and the policy is trained at it"
    )
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    top_k: int = Field(0, ge=0, description="draw from so many of the likeliest tokens; 0: from all")
    min_p: Fraction = Field(0.0, description="leave out tokens less likely than this share of the likeliest")
    num_eval_prompts: PositiveInt = Field(
        64, description="held-out prompts that are answered to tell the reward before and after"
    )
    eval_temperature: NonNegativeFloat = Field(
        0.0, description="these are answered at it, drawn as in training; 0: greedily"
    )
    sample_count: int = Field(4, ge=0, description="of these, how many are shown with their answers")
    sample_prompts: list[str] = Field(
        default_factory=list, description="questions of yours that are answered before and after"
    )
    sample_tokens: PositiveInt = Field(SAMPLE_TOKENS, description="tokens of an answer to them")
    log_completions_steps: int = Field(
        10, ge=0, description="write some answers to completions.jsonl about every so many steps; 0: never"
    )
    num_completions_to_log: PositiveInt = Field(8, description="how many answers that is")
    learning_rate: PositiveFloat = 1e-5

    @property
    def longest_prompt_tokens(self) -> int:
        """With what a tokenizer puts before a text."""
        return self.prompt_tokens + 1 if self.prompt_tokens else self.max_prompt_length

    @model_validator(mode="after")
    def _every_length_counts(self) -> PolicySettings:
        if self.prompt_tokens and self.max_prompt_length != MAX_PROMPT_LENGTH:
            raise ValueError("max_prompt_length does nothing beside prompt_tokens, which cuts every prompt")
        if self.sample_tokens != SAMPLE_TOKENS and not self.sample_prompts:
            raise ValueError("sample_tokens does nothing without sample_prompts")
        return self


class GrpoSettings(PolicySettings):
    """Group relative policy optimisation, and RLOO, Dr. GRPO and DAPO by the choices below."""

    kind: Literal["grpo"] = "grpo"
    num_generations: PositiveInt = Field(8, description="answers to each prompt")
    steps_per_generation: PositiveInt = Field(
        1, description="optimizer steps that one batch of answers is cut into, `batch_size` prompts each"
    )
    num_iterations: PositiveInt = Field(1, description="times that a batch of answers is trained on")
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo", "rloo"] = Field(
        "dapo", description="what a token's loss is divided by; rloo: the whole answer is one action"
    )
    baseline: Literal["group", "leave_one_out"] = Field(
        "group", description="what a reward is compared with: the group's mean, or that of the other answers"
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        "group", description="whose standard deviation the advantage is divided by"
    )
    epsilon: PositiveFloat = Field(0.2, description="how far down the ratio counts")
    epsilon_high: PositiveFloat | None = Field(None, description="how far up; default: as epsilon")
    beta: NonNegativeFloat = Field(
        0.0, description="factor on the KL divergence from the reference; 0: no reference"
    )
    kl_in: Literal["loss", "reward"] = Field("loss", description="where beta times the KL divergence counts")
    mask_truncated_completions: bool = Field(
        False, description="answers that the limit cut off do not count in the loss"
    )
    max_resamples: int = Field(
        0,
        ge=0,
        description="times that groups of equal rewards are replaced by other prompts' (dynamic sampling)",
    )

    @property
    def steps_per_phase(self) -> int:
        return self.steps_per_generation * self.num_iterations

    @model_validator(mode="after")
    def _a_group_has_members(self) -> GrpoSettings:
        if self.num_generations < 2:
            raise ValueError(
                "num_generations is 1, and an answer is compared with the others to its prompt: use 2 or more, or a "
                "stage of kind ppo, which has a value function instead"
            )
        return self

    @model_validator(mode="after")
    def _every_setting_counts(self) -> GrpoSettings:
        if self.kl_in == "reward" and not self.beta:
            raise ValueError("kl_in: reward does nothing while beta is 0")
        if self.steps_per_phase == 1 and (self.epsilon != 0.2 or self.epsilon_high is not None):
            raise ValueError(
                "epsilon does nothing: with one step on a batch of answers the ratio is always 1; raise "
                "steps_per_generation or num_iterations"
            )
        return self


class PpoSettings(PolicySettings):
    """Proximal policy optimisation with a value function."""

    kind: Literal["ppo"] = "ppo"
    batch_size: PositiveInt = Field(32, description="prompts that are answered before each round of training")
    num_mini_batches: PositiveInt = Field(1, description="optimizer steps that the answers are cut into")
    num_ppo_epochs: PositiveInt = Field(4, description="times that the answers are trained on")
    temperature: PositiveFloat = Field(
        0.7, description="answers are drawn at it, and the policy is trained at it"
    )
    kl_coef: NonNegativeFloat = Field(
        0.05, description="factor on the KL divergence from the reference; 0: none"
    )
    kl_estimator: Literal["k1", "k3"] = Field("k1", description="k3 is never negative and varies less")
    kl_target: PositiveFloat | None = Field(
        None, description="nats an answer: kl_coef adapts itself to it; default: kl_coef stays"
    )
    kl_horizon: PositiveInt = Field(10_000, description="answers over which kl_coef adapts")
    cliprange: PositiveFloat = Field(0.2, description="how far the ratio counts")
    cliprange_value: PositiveFloat = Field(0.2, description="how far a value may move in one round")
    vf_coef: PositiveFloat = Field(0.1, description="factor on the value loss")
    gamma: float = Field(1.0, gt=0.0, le=1.0, description="discount of a token's distance")
    lam: float = Field(0.95, ge=0.0, le=1.0, description="lambda of generalized advantage estimation")
    whiten_rewards: bool = Field(False, description="bring rewards to variance 1")
    missing_eos_penalty: PositiveFloat | None = Field(
        None, description="taken off the reward of an answer that the limit cut off"
    )

    @property
    def steps_per_phase(self) -> int:
        return self.num_mini_batches * self.num_ppo_epochs

    @model_validator(mode="after")
    def _minibatches_are_equal(self) -> PpoSettings:
        if self.batch_size % self.num_mini_batches:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of num_mini_batches ({self.num_mini_batches})"
            )
        return self

    @model_validator(mode="after")
    def _every_setting_counts(self) -> PpoSettings:
        if not self.kl_coef and (self.kl_target is not None or self.kl_estimator != "k1"):
            raise ValueError("kl_target and kl_estimator do nothing while kl_coef is 0")
        if self.kl_target is None and self.kl_horizon != 10_000:
            raise ValueError("kl_horizon does nothing without kl_target")
        return self
