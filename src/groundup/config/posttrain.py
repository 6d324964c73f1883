"""What the stages share that train a model further, and supervised fine-tuning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from groundup.config.data import DataSettings, EvalDataSettings, StageSettings
from groundup.config.training import Fraction, LoraSettings, TrainSettings


class RowsSettings(StageSettings, TrainSettings):
    """What every stage has that trains a model further, on rows or on answers to them."""

    from_: str = Field(alias="from", description="the model: a stage, a folder, an adapter, or a hub name")
    data: DataSettings
    eval_data: EvalDataSettings | None = Field(None, description="held-out rows; default: `holdout` of data")
    holdout: Fraction = Field(0.05, description="share of data's rows held out, chosen by content")
    lora: LoraSettings | Literal[False] = Field(LoraSettings(), description="false: train all weights")

    @model_validator(mode="after")
    def _muon_has_matrices(self) -> RowsSettings:
        if self.optim == "muon" and self.lora:
            raise ValueError(
                "optim: muon is for whole matrices: use adamw_torch for an adapter, or set lora: false"
            )
        return self

    @model_validator(mode="after")
    def _something_held_out(self) -> RowsSettings:
        if self.eval_data is None and not self.holdout:
            raise ValueError("holdout is 0 and there is no eval_data: raise one or name the other")
        return self


class TunedSettings(RowsSettings):
    """What every stage has that trains a model on rows as they are."""

    max_length: PositiveInt = Field(
        1024, description="longer rows go to the quarantine file, and count as bad rows"
    )
    batch_size: PositiveInt = Field(16, description="rows of one optimizer step, on all devices together")


class PostTrainSettings(TunedSettings):
    """What SFT and the stages share that make a model which answers."""

    sample_prompts: list[str] = Field(
        default_factory=list, description="questions of yours that are answered before and after"
    )
    sample_count: int = Field(4, ge=0, description="held-out prompts answered before and after")
    sample_tokens: PositiveInt = 96


class SftSettings(PostTrainSettings):
    """Supervised fine-tuning on conversations."""

    kind: Literal["sft"] = "sft"
    loss_on: Literal["all", "last"] = Field("all", description="which assistant turns the loss sees")
