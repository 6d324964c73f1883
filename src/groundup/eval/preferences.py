"""How a model prefers: margins of pairs, and whether the answers' lengths alone explain them. P pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PairLogps:
    """What one model says of P pairs: float64 log-probabilities of the whole answers, and their scored tokens."""

    chosen_P: np.ndarray
    rejected_P: np.ndarray
    chosen_tokens_P: np.ndarray
    rejected_tokens_P: np.ndarray


def margins(
    policy: PairLogps, reference: PairLogps | None = None, *, beta: float = 1.0, per_token: bool = False
) -> np.ndarray:
    """Margin of each pair, float64 [P]: positive where the chosen answer is preferred.

        margin = beta * ((logp(chosen) - ref(chosen)) - (logp(rejected) - ref(rejected)))

    With a reference this is DPO's reward margin (arXiv 2305.18290, equation 7), and its mean is TRL's
    `rewards/margins`. Without one, ref is 0. per_token: each side divided by its own number of tokens before the
    difference is taken, as SimPO does (arXiv 2405.14734, equation 4).
    """
    chosen_P, rejected_P = policy.chosen_P, policy.rejected_P
    if reference is not None:
        chosen_P, rejected_P = chosen_P - reference.chosen_P, rejected_P - reference.rejected_P
    if per_token:
        chosen_P, rejected_P = chosen_P / policy.chosen_tokens_P, rejected_P / policy.rejected_tokens_P
    return beta * (chosen_P - rejected_P)


@dataclass(frozen=True)
class Diagnosis:
    """What the margins of P pairs say; None where no pair could say it."""

    margin: float
    """The mean."""
    accuracy: float
    """Share of pairs with a positive margin."""
    accuracy_chosen_longer: float | None
    accuracy_chosen_shorter: float | None
    """The same where the chosen answer has more tokens, and fewer: far apart, length decides instead of content."""
    length_correlation: float | None
    """Pearson's, of the margin with tokens(chosen) - tokens(rejected)."""


def diagnose(margin_P: np.ndarray, pairs: PairLogps) -> Diagnosis:
    """Means, accuracies and the length bias of margins."""
    longer_P = pairs.chosen_tokens_P - pairs.rejected_tokens_P
    right_P = margin_P > 0
    spread = len(margin_P) > 1 and margin_P.std() > 0 and longer_P.std() > 0
    return Diagnosis(
        margin=float(margin_P.mean()),
        accuracy=float(right_P.mean()),
        accuracy_chosen_longer=float(right_P[longer_P > 0].mean()) if (longer_P > 0).any() else None,
        accuracy_chosen_shorter=float(right_P[longer_P < 0].mean()) if (longer_P < 0).any() else None,
        length_correlation=float(np.corrcoef(margin_P, longer_P)[0, 1]) if spread else None,
    )
