"""The recipe's words: every key that a YAML file may hold, its type, its default and what it does.

Names are Hugging Face's, TRL's and PEFT's where they have one. A description is what `groundup recipes` and the
documentation show, so it is written once, here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from groundup.config.data import ChatSettings, DataSettings, EvalDataSettings, Layout, StageSettings
from groundup.config.policy import GrpoSettings, PpoSettings
from groundup.config.posttrain import PostTrainSettings, SftSettings
from groundup.config.preference import DpoSettings, RewardSettings
from groundup.config.training import ArchitectureSettings, Fraction, LoraSettings, Settings, TrainSettings

__all__ = [
    "STAGE_KINDS",
    "ArchitectureSettings",
    "ChatSettings",
    "CleanSettings",
    "DataSettings",
    "DpoSettings",
    "EvalDataSettings",
    "EvalSettings",
    "GrpoSettings",
    "Layout",
    "LoraSettings",
    "MergeSettings",
    "NearDuplicateSettings",
    "PostTrainSettings",
    "PpoSettings",
    "PretrainSettings",
    "Recipe",
    "RewardSettings",
    "SftSettings",
    "ShardsSettings",
    "SourceSettings",
    "StageSettings",
    "TokenizerSettings",
    "TrainSettings",
]

Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class NearDuplicateSettings(Settings):
    """Texts that are almost the same, found by MinHash and locality-sensitive hashing; one of each cluster stays."""

    threshold: float = Field(
        0.8,
        ge=0.3,
        le=0.99,
        description="texts are near duplicates from this Jaccard similarity of shingles on",
    )
    shingle_words: int = Field(
        5, ge=1, le=32, description="words of a shingle; a Chinese character counts as a word"
    )
    engine: Literal["embedded", "daft", "ray"] = Field(
        "embedded",
        description="embedded: this machine, nothing to install; daft: Daft on this machine; ray: Daft on Ray",
    )
    ray_address: str | None = Field(
        None, description="an existing Ray cluster, ray://HOST:10001; default: a Ray of this machine"
    )

    @model_validator(mode="after")
    def _address_is_for_ray(self) -> NearDuplicateSettings:
        if self.ray_address and self.engine != "ray":
            raise ValueError("ray_address is only for engine: ray")
        return self


class SourceSettings(DataSettings):
    """One source of a mixture."""

    weight: PositiveFloat = Field(
        1.0, description="its share of the bytes, against the other sources' weights"
    )


class CleanSettings(StageSettings):
    """Raw text to clean, deduplicated documents with a held-out part."""

    kind: Literal["clean"] = "clean"
    data: DataSettings | None = Field(None, description="needed, unless there is a mix")
    mix: list[SourceSettings] = Field(
        default_factory=list,
        description="sources with weights in place of data: [{path: books, weight: 3}, {path: web, weight: 1}]",
    )
    mix_repeat: PositiveInt = Field(
        1, description="how often a source may be used to reach its share; what exceeds its share is left out"
    )
    holdout: Share = Field(0.05, description="share of documents held out, chosen by content")
    min_chars: int = Field(50, ge=0, description="shorter documents are dropped, and counted")
    html: Literal["auto"] | bool = Field(
        "auto",
        description="take the text out of HTML; auto: of documents that begin with <!doctype html> or <html>",
    )
    language: list[str] = Field(
        default_factory=list, description="keep only these, for example [en, zh]; empty: all"
    )
    filters: list[Literal["gopher", "gopher_repetition", "c4", "fineweb"]] = Field(
        default_factory=list,
        description="quality rules, applied in this order; made for web pages, so off by default",
    )
    decontaminate: list[str] = Field(
        default_factory=list,
        description="evaluation files or names: documents that share 13 words in a row with them are dropped",
    )
    near_duplicates: Literal[False] | NearDuplicateSettings = Field(
        False, description="of documents that are almost the same keep one: {threshold: 0.8}"
    )
    pii: bool = Field(
        False, description="mask e-mail addresses, public IP addresses, phone numbers that begin with +"
    )
    workers: int = Field(0, ge=0, description="processes that clean; 0: as many as fit the machine")

    @property
    def sources(self) -> list[DataSettings]:
        """What is read: the sources of the mixture, or `data` alone."""
        return [self.data] if self.data else list(self.mix)

    @model_validator(mode="after")
    def _something_to_read(self) -> CleanSettings:
        if (self.data is None) == (not self.mix):
            raise ValueError("name what to read: either `data`, or `mix` with several sources")
        if self.mix_repeat != 1 and not self.mix:
            raise ValueError("mix_repeat does nothing without `mix`")
        return self


class TokenizerSettings(StageSettings):
    """A tokenizer from a clean stage's documents."""

    kind: Literal["tokenizer"] = "tokenizer"
    from_: str = Field(alias="from", description="the clean stage")
    algorithm: Literal["bpe", "unigram", "sentencepiece_bpe"] = Field(
        "bpe",
        description="bpe: byte-level, as GPT-2's; the others are SentencePiece's, with bytes as fallback",
    )
    vocab_size: int = Field(8192, ge=300, le=262144, description="special tokens included")
    chat_template: str | None = Field(
        None, description="chatml, or a Jinja file; its <|tokens|> get a place in the vocabulary"
    )
    special_tokens: list[str] = Field(default_factory=list, description="further special tokens")
    sample_bytes: PositiveInt = Field(
        200_000_000, description="learn from about this much of the text, chosen by content"
    )
    compare_with: list[str] = Field(
        default_factory=list, description="folders or hub names of tokenizers to compare on held-out text"
    )


class ShardsSettings(StageSettings):
    """Memory-mapped token shards from a clean stage's documents."""

    kind: Literal["shards"] = "shards"
    from_: str = Field(alias="from", description="the clean stage")
    tokenizer: str = Field(description="a tokenizer stage, a folder, or a hub name")


class PretrainSettings(StageSettings, TrainSettings):
    """A base model on token shards: from scratch, or on from `model`."""

    kind: Literal["pretrain"] = "pretrain"
    from_: str = Field(alias="from", description="the shards stage")
    model: str | None = Field(None, description="go on from this model instead of from scratch")
    architecture: ArchitectureSettings = ArchitectureSettings()
    max_length: PositiveInt = Field(512, description="tokens of context")
    batch_tokens: PositiveInt = Field(
        8192, description="tokens of one optimizer step, on all devices together"
    )
    sample_prompts: list[str] = Field(default_factory=lambda: ["The ", "This function returns "])
    learning_rate: PositiveFloat = 3e-3
    optim: Literal["adamw_torch", "muon"] = "muon"
    weight_decay: float = Field(0.1, ge=0.0)
    adam_beta2: Fraction = 0.95


class MergeSettings(StageSettings):
    """An adapter folded into its base model: a plain Hugging Face folder."""

    kind: Literal["merge"] = "merge"
    from_: str = Field(alias="from", description="the adapter: a stage or a folder")


class EvalSettings(StageSettings):
    """Every model from the base to `from`, on the same held-out rows and prompts."""

    kind: Literal["eval"] = "eval"
    from_: str = Field(alias="from", description="the last model of the chain that is compared")
    data: EvalDataSettings | None = Field(
        None, description="rows to evaluate on; default: what the chain's stages held out"
    )
    max_length: PositiveInt = 1024
    sample_prompts: list[str] = Field(
        default_factory=list, description="questions of yours that every model answers"
    )
    sample_count: int = Field(8, ge=0, description="held-out prompts that every model answers")
    sample_tokens: PositiveInt = 96


AnyStage = Annotated[
    CleanSettings
    | TokenizerSettings
    | ShardsSettings
    | PretrainSettings
    | SftSettings
    | RewardSettings
    | DpoSettings
    | GrpoSettings
    | PpoSettings
    | MergeSettings
    | EvalSettings,
    Field(discriminator="kind"),
]
STAGE_KINDS: dict[str, type[StageSettings]] = {
    "clean": CleanSettings,
    "tokenizer": TokenizerSettings,
    "shards": ShardsSettings,
    "pretrain": PretrainSettings,
    "sft": SftSettings,
    "reward": RewardSettings,
    "dpo": DpoSettings,
    "grpo": GrpoSettings,
    "ppo": PpoSettings,
    "merge": MergeSettings,
    "eval": EvalSettings,
}


class Recipe(Settings):
    """What to train, from which data, in which order. The machine decides how."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="the run's folder in runs/; default: the file's name",
    )
    description: str = Field("", description="one line for people")
    seed: int = Field(0, ge=0)
    chat: ChatSettings = ChatSettings()
    stages: dict[str, AnyStage] = Field(min_length=1)
    forms: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        exclude=True,
        description="further forms, each with the settings that differ: {full: {sft.max_steps: 0}}; --form full",
    )
