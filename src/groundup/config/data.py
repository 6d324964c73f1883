"""Words that several kinds of stages share: where rows come from, how conversations are rendered."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from groundup.config.training import Fraction, Settings

Layout = Literal[
    "ultrafeedback",
    "preference",
    "alpaca_preference",
    "question_preference",
    "sharegpt_preference",
    "messages_preference",
    "hh",
    "implicit_preference",
    "messages",
    "sharegpt",
    "unpaired_preference",
    "prompt_completion",
    "alpaca",
    "question_answer",
    "oasst_tree",
    "oasst_messages",
    "oasst_flat",
    "oasst_flat_preference",
    "guanaco",
    "llama2",
    "hh_text",
    "classification",
    "text",
    "prompt",
]
"""How rows can be laid out: `groundup.data.layouts` says what each is."""


class ChatSettings(Settings):
    """How conversations are rendered: one setting for training, evaluation and chat."""

    system_prompt: str | None = Field(
        None, description="put before conversations that have no system message"
    )
    chat_template: str | None = Field(None, description="path of a Jinja template; default: the model's own")
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="handed to the template, for example {enable_thinking: false}"
    )


class DataSettings(Settings):
    """Where rows come from. In a recipe a plain path or a list of paths may stand for it."""

    prefers: ClassVar[tuple[str, ...]] = ("train",)
    """Which split is read where `split` names none and there are several."""

    path: list[str] = Field(description="files, folders, globs, hub names, or builtin:NAME")
    config: str | None = Field(
        None,
        description="configuration of a hub's data set, for example wikitext-2-raw-v1; default: its default",
    )
    split: str | None = Field(None, description="which part of a folder or data set; default: train")
    subset: int = Field(0, ge=0, description="use only the first N rows; 0: all")
    layout: Layout | None = Field(None, description="how rows are laid out; default: recognised")
    columns: dict[str, str] = Field(
        default_factory=dict, description="our column name: the file's column name"
    )
    max_bad_rows: Fraction = Field(0.01, description="stop when more than this share of rows is quarantined")

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"path": [value]}
        if isinstance(value, list):
            return {"path": value}
        if isinstance(value, dict) and isinstance(value.get("path"), str):
            return {**value, "path": [value["path"]]}
        return value


class EvalDataSettings(DataSettings):
    """Where held-out rows come from; of several splits the default is validation, then test."""

    prefers: ClassVar[tuple[str, ...]] = ("validation", "test", "train")


class StageSettings(Settings):
    """What every stage has."""

    kind: str
