"""Numbers and metric names as people read them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """`better`: -1 where lower is better, 1 where higher is, 0 where neither is."""

    label: str
    better: int = 0
    form: Literal["number", "percent"] = "number"

    @property
    def heading(self) -> str:
        """The label with an arrow that says which way is better."""
        return self.label + {-1: " ↓", 0: "", 1: " ↑"}[self.better]


METRICS = {
    "loss": Metric("Loss", -1),
    "bits_per_byte": Metric("Bits per byte", -1),
    "mean_token_accuracy": Metric("Tokens predicted right", 1, "percent"),
    "preference_accuracy": Metric("Preference accuracy", 1, "percent"),
    "preference_margin": Metric("Preference margin, nats a token", 1),
    "rewards/accuracies": Metric("Preference accuracy", 1, "percent"),
    "rewards/margins": Metric("Preference margin", 1),
    "rewards/chosen": Metric("Reward of the chosen answer"),
    "rewards/rejected": Metric("Reward of the rejected answer"),
    "logps/chosen": Metric("Log-probability of the chosen answer"),
    "logps/rejected": Metric("Log-probability of the rejected answer"),
    "nll_loss": Metric("Loss on chosen answers", -1),
    "log_odds_ratio": Metric("Log sigmoid of the log odds", 1),
    "log_odds_chosen": Metric("Log odds of the chosen answer", 1),
    "accuracy": Metric("Pairs scored right", 1, "percent"),
    "margin": Metric("Reward margin", 1),
    "mean_reward": Metric("Mean reward"),
    "reward": Metric("Reward", 1),
    "reward_std": Metric("Spread of rewards"),
    "frac_reward_zero_std": Metric("Groups whose answers all got the same", form="percent"),
    "kl": Metric("KL from the reference"),
    "entropy": Metric("Entropy, nats a token"),
    "objective/kl": Metric("KL from the reference, nats an answer"),
    "objective/rlhf_reward": Metric("Reward less the KL penalty", 1),
    "objective/scores": Metric("Score", 1),
    "objective/non_score_reward": Metric("KL penalty"),
    "objective/entropy": Metric("Surprise at its own answers, nats an answer"),
    "objective/kl_coef": Metric("Factor on the KL divergence"),
    "policy/entropy_avg": Metric("Entropy, nats a token"),
    "policy/approxkl_avg": Metric("KL from the policy that answered, nats a token"),
    "policy/clipfrac_avg": Metric("Tokens whose ratio was clipped", form="percent"),
    "val/clipfrac_avg": Metric("Values that were clipped", form="percent"),
    "val/ratio": Metric("Ratio to the policy that answered"),
    "val/explained_variance": Metric("Share of the returns' variance that the values explain", 1),
    "loss/policy_avg": Metric("Policy loss"),
    "loss/value_avg": Metric("Value loss", -1),
    "clip_ratio/low_mean": Metric("Tokens whose ratio was clipped from below", form="percent"),
    "clip_ratio/high_mean": Metric("Tokens whose ratio was clipped from above", form="percent"),
    "clip_ratio/region_mean": Metric("Tokens whose ratio was clipped", form="percent"),
    "clip_ratio/low_min": Metric("Tokens clipped from below, in the answer with the fewest", form="percent"),
    "clip_ratio/high_max": Metric("Tokens clipped from above, in the answer with the most", form="percent"),
    "completions/mean_length": Metric("Tokens of an answer"),
    "completions/min_length": Metric("Tokens of the shortest answer"),
    "completions/max_length": Metric("Tokens of the longest answer"),
    "completions/mean_terminated_length": Metric("Tokens of an answer that ended by itself"),
    "completions/min_terminated_length": Metric("Tokens of the shortest that ended by itself"),
    "completions/max_terminated_length": Metric("Tokens of the longest that ended by itself"),
    "completions/clipped_ratio": Metric("Answers that the limit cut off", form="percent"),
    "sampling/sampling_logp_difference/mean": Metric(
        "Generator's and trainer's log-probabilities apart, mean"
    ),
    "sampling/sampling_logp_difference/max": Metric(
        "Generator's and trainer's log-probabilities apart, largest"
    ),
    "learning_rate": Metric("Learning rate"),
    "grad_norm": Metric("Gradient norm"),
    "tokens_per_second": Metric("Tokens a second"),
    "loading_share": Metric("Share of a step spent on making its rows", form="percent"),
}


OF_A_REWARD = re.compile("rewards/(.+)/(mean|std)")
"""TRL's names of what one of several reward functions gives."""


def metric(name: str) -> Metric:
    """What is known about a metric, with or without `eval_`; an unknown one is called by its name."""
    plain = name.removeprefix("eval_")
    if one := OF_A_REWARD.fullmatch(plain):
        return Metric(f"Reward {one[1]}", 1) if one[2] == "mean" else Metric(f"Spread of reward {one[1]}")
    return METRICS.get(plain, Metric(plain.replace("_", " ")))


def value(name: str, number: float | None) -> str:
    """A metric's value: percent where it is a share, else as many digits as say something."""
    if number is None:
        return "–"
    return f"{100 * number:.1f}%" if metric(name).form == "percent" else digits(number)


def change(name: str, before: float | None, after: float | None) -> tuple[str, str]:
    """(difference with its sign, "better" | "worse" | ""): empty where one of both is missing."""
    if before is None or after is None:
        return "", ""
    known = metric(name)
    difference = after - before
    number = f"{abs(100 * difference):.1f} points" if known.form == "percent" else digits(abs(difference))
    if not any(digit in number for digit in "123456789"):
        return "±0", ""
    verdict = "better" if difference * known.better > 0 else "worse" if known.better else ""
    return ("+" if difference > 0 else "−") + number, verdict


def digits(number: float) -> str:
    """1,234 · 123.4 · 12.34 · 1.234 · 2.5e-05, with a real minus sign; whole numbers stay whole."""
    size = abs(number)
    if number == int(number) or size >= 1000:
        text = f"{number:,.0f}"
    elif size >= 10:
        text = f"{number:.1f}" if size >= 100 else f"{number:.2f}"
    else:
        text = f"{number:.3f}" if size >= 0.0095 else f"{number:.2g}"
    return text.replace("-", "−", 1) if number < 0 else text.lstrip("-")


def count(number: float) -> str:
    return f"{number:,.0f}"


def size(count_bytes: float) -> str:
    """`812 bytes`, `3.4 MB`."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count_bytes >= scale:
            return f"{count_bytes / scale:.1f} {unit}"
    return f"{count_bytes:.0f} bytes"
