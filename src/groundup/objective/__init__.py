"""Pure losses over per-token statistics."""

from groundup.objective.base import Metrics, Objective, means
from groundup.objective.lm import LanguageModeling
from groundup.objective.pairwise import Dpo, sequence_logp

__all__ = ["Dpo", "LanguageModeling", "Metrics", "Objective", "means", "sequence_logp"]
