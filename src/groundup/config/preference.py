"""Preferences: the DPO family, and reward models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveFloat, model_validator

from groundup.config.posttrain import PostTrainSettings, TunedSettings

Loss = Literal["sigmoid", "hinge", "ipo", "robust", "sigmoid_norm", "simpo", "orpo", "kto"]
"""TRL's names. `groundup.objective` has the formula and the paper of each."""

WITHOUT_REFERENCE = ("simpo", "orpo")
_ONLY_WITH: dict[str, tuple[str, ...]] = {
    "label_smoothing": ("sigmoid", "robust", "simpo"),
    "simpo_gamma": ("simpo",),
    "desirable_weight": ("kto",),
    "undesirable_weight": ("kto",),
    "reference": ("sigmoid", "hinge", "ipo", "robust", "sigmoid_norm", "kto"),
}
"""Settings that some losses do not have; there they would do nothing."""


class DpoSettings(PostTrainSettings):
    """Preference optimisation: DPO on pairs and its relatives; KTO on single answers with a label."""

    kind: Literal["dpo"] = "dpo"
    loss: Loss = Field("sigmoid", description="sigmoid: DPO itself; kto reads prompt, completion and label")
    beta: PositiveFloat = Field(
        0.1,
        description="how closely the reference is kept to; ipo: the paper's tau; orpo: its lambda; "
        "simpo: the factor on log-probability a token, 2 in the paper",
    )
    label_smoothing: float = Field(
        0.0,
        ge=0.0,
        lt=0.5,
        description="share of pairs that are taken to be the wrong way round; sigmoid, robust and simpo",
    )
    simpo_gamma: float | None = Field(None, ge=0.0, description="simpo's target margin; default: 0.5")
    desirable_weight: PositiveFloat | None = Field(
        None, description="kto: weight of answers whose label is true; default: 1"
    )
    undesirable_weight: PositiveFloat | None = Field(
        None, description="kto: weight of answers whose label is false; default: 1"
    )
    reference: str | None = Field(
        None,
        description="the model to stay close to: a stage, a folder, or a hub name; default: the model that this "
        "stage begins with",
    )
    learning_rate: PositiveFloat = 5e-5

    @property
    def needs_reference(self) -> bool:
        return self.loss not in WITHOUT_REFERENCE

    @property
    def options(self) -> dict[str, Any]:
        """What the loss's objective is made with: beta, and what else of these settings it has."""
        chosen = {"beta": self.beta}
        for name, losses in _ONLY_WITH.items():
            if self.loss in losses and name != "reference" and getattr(self, name) is not None:
                chosen[name] = getattr(self, name)
        return chosen

    @model_validator(mode="after")
    def _every_setting_counts(self) -> DpoSettings:
        for name, losses in _ONLY_WITH.items():
            if getattr(self, name) and self.loss not in losses:
                others = ", ".join(losses)
                raise ValueError(
                    f"{name} does nothing with loss: {self.loss}; it should be left out, or loss be one of {others}"
                )
        if self.loss == "kto" and self.batch_size < 2:
            raise ValueError(
                "loss: kto needs a batch_size of at least 2: it compares prompts with others' answers"
            )
        if self.loss == "robust" and not self.label_smoothing:
            raise ValueError("loss: robust needs label_smoothing; with 0 it is loss: sigmoid")
        return self


class RewardSettings(TunedSettings):
    """A reward model from pairs: one number for a text, higher for the answer that was preferred."""

    kind: Literal["reward"] = "reward"
    center_rewards_coefficient: PositiveFloat | None = Field(
        None, description="keeps rewards around zero; 0.01 is usual; default: not at all"
    )
    learning_rate: PositiveFloat = 1e-4
