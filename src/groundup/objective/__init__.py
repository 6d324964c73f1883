"""Pure losses over per-token statistics."""

from collections.abc import Callable

from groundup.objective.answered import Answered, PolicyObjective, Prepared
from groundup.objective.base import Metrics, Objective, means, step_total, total
from groundup.objective.lm import LanguageModeling
from groundup.objective.pairwise import Dpo, Hinge, Ipo, Preference, Robust, SigmoidNorm, sequence_logp
from groundup.objective.policy import Grpo
from groundup.objective.ppo import Ppo
from groundup.objective.reward import BradleyTerry
from groundup.objective.unpaired import Kto
from groundup.objective.without_reference import Orpo, SimPo

PREFERENCE_LOSSES: dict[str, Callable[..., Objective]] = {
    "sigmoid": Dpo,
    "hinge": Hinge,
    "ipo": Ipo,
    "robust": Robust,
    "sigmoid_norm": SigmoidNorm,
    "simpo": SimPo,
    "orpo": Orpo,
    "kto": Kto,
}
"""By the recipe's names, which are TRL's."""

__all__ = [
    "PREFERENCE_LOSSES",
    "Answered",
    "BradleyTerry",
    "Dpo",
    "Grpo",
    "Hinge",
    "Ipo",
    "Kto",
    "LanguageModeling",
    "Metrics",
    "Objective",
    "Orpo",
    "PolicyObjective",
    "Ppo",
    "Preference",
    "Prepared",
    "Robust",
    "SigmoidNorm",
    "SimPo",
    "means",
    "sequence_logp",
    "step_total",
    "total",
]
