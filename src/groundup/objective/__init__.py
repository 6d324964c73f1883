"""Pure losses over per-token statistics."""

from groundup.objective.base import Metrics, Objective, means, passes_of, total
from groundup.objective.lm import LanguageModeling
from groundup.objective.pairwise import Dpo, Preference, sequence_logp
from groundup.objective.policy import Grpo
from groundup.objective.ppo import Ppo

__all__ = [
    "Dpo",
    "Grpo",
    "LanguageModeling",
    "Metrics",
    "Objective",
    "Ppo",
    "Preference",
    "means",
    "passes_of",
    "sequence_logp",
    "total",
]
