"""The shape of a model that transformers runs: its own config, and what the rest of the house asks of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.errors import UserError
from groundup.store import files

NO_LIMIT = 1 << 20
"""Tokens of context of a model that has no position to run out of, such as one with ALiBi."""

# Config keys under which families keep the same number, beside transformers' own aliases
CONTEXT = ("max_position_embeddings", "max_seq_len", "seq_length", "n_positions")
INTERMEDIATE = ("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner", "d_ff")
SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")


@dataclass(frozen=True)
class StockConfig:
    """Field names and meanings as in `ModelConfig`; what a family does not have is estimated for memory's sake."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    initializer_range: float
    bos_token_id: int | None
    eos_token_id: int | tuple[int, ...] | None
    pad_token_id: int | None
    hf: Any = field(repr=False, compare=False)
    """transformers' own config object."""

    @classmethod
    def from_hf(cls, hf: Any) -> StockConfig:
        """Read transformers' config."""
        hidden = _number(hf, ("hidden_size",), 0)
        heads = _number(hf, ("num_attention_heads",), 1)
        experts = _number(hf, ("num_experts_per_tok",), 1)
        eos = getattr(hf, "eos_token_id", None)
        return cls(
            model_type=hf.model_type,
            vocab_size=hf.vocab_size,
            hidden_size=hidden,
            intermediate_size=max(
                _number(hf, INTERMEDIATE, 4 * hidden), experts * _number(hf, ("moe_intermediate_size",), 0)
            ),
            num_hidden_layers=_number(hf, ("num_hidden_layers",), 1),
            num_attention_heads=heads,
            num_key_value_heads=_number(hf, ("num_key_value_heads",), heads),
            head_dim=_number(hf, ("head_dim",), hidden // heads),
            max_position_embeddings=_number(hf, CONTEXT, NO_LIMIT),
            initializer_range=getattr(hf, "initializer_range", 0.02),
            bos_token_id=getattr(hf, "bos_token_id", None),
            eos_token_id=tuple(eos) if isinstance(eos, list) else eos,
            pad_token_id=getattr(hf, "pad_token_id", None),
            hf=hf,
        )

    @classmethod
    def from_folder(cls, folder: Path | str) -> StockConfig:
        """From a folder's config.json.

        Raises:
            UserError: transformers knows no causal text model of this kind.
        """
        return cls.from_hf(causal_text_config(Path(folder)))

    @property
    def head(self) -> dict[str, Any]:
        """What lies between the last hidden state and the logits, besides a matrix: `Head`'s scale and softcap."""
        scale = getattr(self.hf, "logit_scale", None) or getattr(self.hf, "lm_head_multiplier", None) or 1.0
        scale /= getattr(self.hf, "logits_scaling", None) or 1.0  # Granite divides
        softcap = next((cap for name in SOFTCAPS if (cap := getattr(self.hf, name, None))), None)
        return {
            **({"scale": float(scale)} if scale != 1.0 else {}),
            **({"softcap": float(softcap)} if softcap is not None else {}),
        }


def causal_text_config(folder: Path) -> Any:
    """transformers' config of a folder that holds a causal text model. Raises UserError for any other."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    path = folder / "config.json"
    raw: Mapping[str, Any] = files.read_json(path)
    kind, named = str(raw.get("model_type")), [str(name) for name in raw.get("architectures") or []]
    if kind not in transformers.CONFIG_MAPPING:
        why = "the installed transformers has no such model"
        if "auto_map" in raw:
            why += "; the folder brings its own code for it, which is never run"
        raise _unfit(path, f"model_type {kind!r} is not known", why)
    if raw.get("is_encoder_decoder") or kind not in CAUSAL:
        raise _unfit(path, f"{kind} is no causal language model", "it does not continue a text")
    if any(raw.get(f"{kind_of}_config") for kind_of in ("vision", "audio")):
        raise _unfit(path, f"{kind} is not a text model", "it has a part for images or sound")
    causal = CAUSAL[kind]
    if named and not set(named) & {causal, *CAUSAL.values()}:
        raise _unfit(
            path, f"the folder holds {named[0]}, not {causal}", "it was not trained to continue a text"
        )
    return transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _number(hf: Any, names: tuple[str, ...], default: int) -> int:
    """The first of these keys that holds a whole number; the largest where it holds one a layer."""
    for name in names:
        value = getattr(hf, name, None)
        if isinstance(value, list | tuple) and value and all(isinstance(one, int) for one in value):
            return max(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return default


def _unfit(path: Path, what: str, why: str) -> UserError:
    return UserError(
        what,
        where=str(path),
        why=why,
        fix="choose a text model that continues texts, in transformers' own format",
    )
