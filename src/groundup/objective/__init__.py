"""Pure losses over per-token statistics."""

from groundup.objective.base import Metrics, Objective, means, total
from groundup.objective.lm import LanguageModeling
from groundup.objective.pairwise import Dpo, Preference, sequence_logp

__all__ = ["Dpo", "LanguageModeling", "Metrics", "Objective", "Preference", "means", "sequence_logp", "total"]
