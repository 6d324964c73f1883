"""The shape of a dense decoder, in the words of a Hugging Face `config.json`, for the families that we support."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from groundup.errors import UserError
from groundup.store import files


@dataclass(frozen=True)
class Family:
    """What a `model_type` means beyond its config: biases, norms, and what a missing key stands for."""

    architecture: str
    max_position_embeddings: int
    bias: str
    """Which attention projections have a bias: "config" asks `attention_bias` for all four, "qkv", or "none"."""
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    qk_norm: bool = False
    mlp_bias: bool = False
    window_default: int | None = None
    window_layers: str = "none"
    """Which layers slide: "none", "all" (Mistral), or "listed" (Qwen: `layer_types` or `max_window_layers`)."""


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "llama": Family("LlamaForCausalLM", 2048, bias="config", mlp_bias=True),
        "mistral": Family(
            "MistralForCausalLM",
            131072,
            "none",
            num_key_value_heads=8,
            window_default=4096,
            window_layers="all",
        ),
        "qwen2": Family(
            "Qwen2ForCausalLM",
            32768,
            "qkv",
            num_key_value_heads=32,
            window_default=4096,
            window_layers="listed",
        ),
        "qwen3": Family(
            "Qwen3ForCausalLM",
            32768,
            bias="config",
            num_key_value_heads=32,
            head_dim=128,
            qk_norm=True,
            window_default=4096,
            window_layers="listed",
        ),
    }
)
ROPE_TYPES = ("default", "linear", "llama3", "yarn", "dynamic")
_NEEDED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


@dataclass(frozen=True)
class ModelConfig:
    """A decoder's shape; field names and meanings are those of Hugging Face's configs."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rope_parameters: Mapping[str, Any]
    """Always with `rope_type` and `rope_theta`; the other keys belong to the kind of scaling."""
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    window_L: tuple[int | None, ...] = ()
    """How many keys, itself included, a query of each layer may see; None: all."""
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None

    @property
    def family(self) -> Family:
        return FAMILIES[self.model_type]

    @property
    def qkv_bias(self) -> bool:
        return self.family.bias == "qkv" or (self.family.bias == "config" and self.attention_bias)

    @property
    def output_bias(self) -> bool:
        return self.family.bias == "config" and self.attention_bias

    @property
    def position_limit(self) -> int | None:
        """First position for which this model's rotary embedding would depend on the text's neighbours.

        Dynamic scaling leaves texts up to `max_position_embeddings` alone; beyond it, the longest text of a
        batch would change the others, so such positions are refused.
        """
        return self.max_position_embeddings if self.rope_parameters["rope_type"] == "dynamic" else None

    @classmethod
    def covers(cls, raw: Mapping[str, Any]) -> bool:
        """Whether our decoder computes what this `config.json` says; transformers' own layers serve the others."""
        rope = raw.get("rope_scaling") or raw.get("rope_parameters") or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        partial = rope.get("partial_rotary_factor", raw.get("partial_rotary_factor")) or 1.0
        activation = raw.get("hidden_act", "silu")
        return (
            raw.get("model_type") in FAMILIES
            and kind in ROPE_TYPES
            and partial == 1.0
            and activation in ("silu", "swish")
        )

    @classmethod
    def from_folder(cls, folder: Path | str) -> ModelConfig:
        """From a Hugging Face folder's config.json. Raises UserError."""
        path = Path(folder) / "config.json"
        if not path.exists():
            raise UserError(
                "not a model folder",
                where=str(folder),
                why="it has no config.json",
                fix="give a folder in Hugging Face's layout, or check the path",
            )
        return cls.from_hf(files.read_json(path), where=str(path))

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
        """Read a `config.json`, of this or an older transformers. Raises UserError for what we cannot do exactly."""
        family = _check_supported(raw, where)
        heads, hidden = raw["num_attention_heads"], raw["hidden_size"]
        kv_heads = raw.get("num_key_value_heads", family.num_key_value_heads) or heads
        if heads % kv_heads:
            raise UserError(
                f"num_attention_heads ({heads}) is not a multiple of num_key_value_heads ({kv_heads})",
                where=where,
                why="each key-value head serves an equal number of query heads",
                fix="check that config.json belongs to these weights",
            )
        eos = raw.get("eos_token_id")
        positions = raw.get("max_position_embeddings") or family.max_position_embeddings
        return cls(
            model_type=raw["model_type"],
            **{name: raw[name] for name in _NEEDED},
            num_key_value_heads=kv_heads,
            head_dim=raw.get("head_dim") or family.head_dim or hidden // heads,
            max_position_embeddings=positions,
            rope_parameters=_rope_parameters(raw, positions, where),
            rms_norm_eps=raw.get("rms_norm_eps", 1e-6),
            tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
            attention_bias=family.bias == "config" and bool(raw.get("attention_bias", False)),
            mlp_bias=family.mlp_bias and bool(raw.get("mlp_bias", False)),
            window_L=_windows(raw, family, where),
            initializer_range=raw.get("initializer_range", 0.02),
            bos_token_id=raw.get("bos_token_id"),
            eos_token_id=tuple(eos) if isinstance(eos, list) else eos,
            pad_token_id=raw.get("pad_token_id"),
        )

    def to_hf(self) -> dict[str, Any]:
        """A `config.json` that plain transformers reads."""
        raw: dict[str, Any] = {
            "architectures": [self.family.architecture],
            "model_type": self.model_type,
            **{name: getattr(self, name) for name in _NEEDED},
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.max_position_embeddings,
            "rope_parameters": dict(self.rope_parameters),
            # Read by transformers before 5, which does not know `rope_parameters`.
            "rope_theta": self.rope_parameters["rope_theta"],
            "rms_norm_eps": self.rms_norm_eps,
            "tie_word_embeddings": self.tie_word_embeddings,
            "initializer_range": self.initializer_range,
            "attention_dropout": 0.0,
            "use_cache": True,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": list(self.eos_token_id)
            if isinstance(self.eos_token_id, tuple)
            else self.eos_token_id,
            "pad_token_id": self.pad_token_id,
        }
        if self.rope_parameters["rope_type"] != "default":
            raw["rope_scaling"] = dict(self.rope_parameters)
        if self.family.bias == "config":
            raw["attention_bias"] = self.attention_bias
        if self.family.mlp_bias:
            raw["mlp_bias"] = self.mlp_bias
        return raw | self._windows_to_hf()

    def _windows_to_hf(self) -> dict[str, Any]:
        window = next((window for window in self.window_L if window is not None), None)
        if self.family.window_layers == "none":
            return {}
        if self.family.window_layers == "all":
            return {"sliding_window": window}
        kinds = ["full_attention" if window is None else "sliding_attention" for window in self.window_L]
        full = next((i for i, kind in enumerate(kinds) if kind == "sliding_attention"), len(kinds))
        return {
            "use_sliding_window": window is not None,
            "sliding_window": window,
            "max_window_layers": full,
            "layer_types": kinds,
        }


def _check_supported(raw: Mapping[str, Any], where: str) -> Family:
    model_type = str(raw.get("model_type"))
    if model_type not in FAMILIES:
        raise UserError(
            f"model_type {model_type!r} is not supported",
            where=where,
            why=f"the supported families are {', '.join(FAMILIES)}",
            fix="choose a dense text model of one of these families",
        )
    missing = [name for name in _NEEDED if not isinstance(raw.get(name), int)]
    if missing:
        raise UserError(
            f"the model's config lacks {', '.join(missing)}",
            where=where,
            why="without them the shape of the model is unknown",
            fix="copy the config.json that came with the weights",
        )
    if raw.get("quantization_config"):
        raise UserError(
            "the model is stored quantized",
            where=where,
            why="config.json has a quantization_config; training starts from plain weights here",
            fix="use the model's unquantized version",
        )
    if raw.get("hidden_act", "silu") not in ("silu", "swish"):
        raise UserError(
            f"hidden_act {raw['hidden_act']!r} is not supported",
            where=where,
            why="the supported families use silu",
            fix="choose a model with silu",
        )
    return FAMILIES[model_type]


def _rope_parameters(raw: Mapping[str, Any], max_positions: int, where: str) -> Mapping[str, Any]:
    """transformers 5 writes `rope_parameters`; older ones `rope_theta` and `rope_scaling` (with `type`)."""
    given = dict(raw.get("rope_scaling") or raw.get("rope_parameters") or {})
    kind = given.pop("type", "default")
    given.setdefault("rope_type", kind)
    if given.get("rope_theta") is None:
        given["rope_theta"] = raw.get("rope_theta") or 10000.0
    kind = given["rope_type"]
    partial = given.get("partial_rotary_factor", raw.get("partial_rotary_factor")) or 1.0
    if kind not in ROPE_TYPES or partial != 1.0:
        what = f"rope_type {kind!r}" if partial == 1.0 else f"partial_rotary_factor {partial}"
        raise UserError(
            f"{what} is not supported",
            where=where,
            why=f"the kinds that stay exact when texts share a batch are {', '.join(ROPE_TYPES)}",
            fix="choose a model with one of these",
        )
    if kind in ("llama3", "yarn"):
        outer = raw.get("original_max_position_embeddings")
        given["original_max_position_embeddings"] = (
            outer or given.get("original_max_position_embeddings") or max_positions
        )
    needed = {
        "linear": ["factor"],
        "dynamic": ["factor"],
        "llama3": ["factor", "low_freq_factor", "high_freq_factor"],
    }
    missing = [key for key in needed.get(kind, []) if given.get(key) is None]
    if missing:
        raise UserError(
            f"rope_parameters of type {kind!r} lack {', '.join(missing)}",
            where=where,
            why="the rotary embedding cannot be computed without",
            fix="copy the config.json that came with the weights",
        )
    return MappingProxyType(given)


def _windows(raw: Mapping[str, Any], family: Family, where: str) -> tuple[int | None, ...]:
    layers = raw["num_hidden_layers"]
    window = raw.get("sliding_window", family.window_default)
    if family.window_layers == "all":
        return (window,) * layers
    if family.window_layers == "none" or not raw.get("use_sliding_window", False) or window is None:
        return (None,) * layers
    kinds = raw.get("layer_types")
    if kinds is None:
        first = raw.get("max_window_layers", 28)
        kinds = ["sliding_attention" if i >= first else "full_attention" for i in range(layers)]
    if len(kinds) != layers or not set(kinds) <= {"sliding_attention", "full_attention"}:
        raise UserError(
            "layer_types does not fit the model",
            where=where,
            why=f"it must name sliding_attention or full_attention for each of the {layers} layers",
            fix="copy the config.json that came with the weights",
        )
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)
