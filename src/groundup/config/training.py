"""What training stages share: the optimizer's settings, adapters, and the shape of a model from scratch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Settings(BaseModel):
    """Strict and frozen: an unknown key or a wrong type is an error, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class LoraSettings(Settings):
    """Low-rank adapters, in PEFT's words."""

    r: PositiveInt = 16
    lora_alpha: PositiveFloat = 32.0
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    use_rslora: bool = False

    @property
    def scaling(self) -> float:
        """Factor on B·A (LoRA, arXiv 2106.09685; rsLoRA, arXiv 2312.03732)."""
        return self.lora_alpha / (self.r**0.5 if self.use_rslora else self.r)


class ArchitectureSettings(Settings):
    """The shape of a model trained from scratch, in the words of a Hugging Face `config.json`."""

    model_type: Literal["llama", "qwen2", "qwen3", "mistral"] = "llama"
    hidden_size: PositiveInt = 256
    intermediate_size: PositiveInt = 704
    num_hidden_layers: PositiveInt = 6
    num_attention_heads: PositiveInt = 4
    num_key_value_heads: PositiveInt = 2
    head_dim: PositiveInt | None = Field(None, description="default: hidden_size / num_attention_heads")
    rope_theta: PositiveFloat = 10000.0
    rms_norm_eps: PositiveFloat = 1e-5
    tie_word_embeddings: bool = True
    initializer_range: PositiveFloat = 0.02

    @model_validator(mode="after")
    def _heads_fit(self) -> ArchitectureSettings:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of "
                f"num_attention_heads ({self.num_attention_heads}), or head_dim must be given"
            )
        return self


class TrainSettings(Settings):
    """What every training stage shares."""

    learning_rate: PositiveFloat = 2e-4
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: Fraction = 0.03
    num_train_epochs: PositiveFloat = Field(
        1.0, description="passes over the rows, unless max_steps or max_minutes end it"
    )
    max_steps: int = Field(0, ge=0, description="optimizer steps; 0: as many as the epochs need")
    max_minutes: float = Field(
        0.0, ge=0.0, description="frozen into a number of steps after measuring a few; 0: no limit"
    )
    optim: Literal["adamw_torch", "muon"] = Field(
        "adamw_torch", description="muon: for the decoder's whole matrices, and AdamW for the rest"
    )
    weight_decay: float = Field(0.0, ge=0.0)
    adam_beta1: Fraction = 0.9
    adam_beta2: Fraction = 0.999
    max_grad_norm: PositiveFloat = 1.0
    logging_steps: PositiveInt = 5
    eval_steps: int = Field(
        0, ge=0, description="evaluate on held-out rows every so many steps; 0: only before and after"
    )
    save_steps: PositiveInt = 100
    save_total_limit: PositiveInt = 2
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="compute dtype; auto: the faster one, measured"
    )
    gradient_checkpointing: Literal["auto"] | bool = Field(
        "auto",
        description="compute activations again in the backward instead of keeping them; auto: where memory is short",
    )
